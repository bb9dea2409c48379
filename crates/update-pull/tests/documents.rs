//! The units of `packaging/systemd` beside the installation that docs/OPERATIONS.md describes.

#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use pullre::config::{ClientConfig, ControllerConfig, DatabaseConfig, RawConfig};

const EVERYTHING: [(&str, &str); 5] = [
    ("owner", "acme"),
    ("repo", "shop"),
    ("token", "a-token"),
    ("target_dir", "/srv/acme/shop"),
    ("exec_command", "./app"),
];

/// What the programs write to below `folder`, where app.ini says nothing of it.
fn written_below(folder: &str) -> Vec<PathBuf> {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("app.ini");
    let text: String = EVERYTHING.map(|(key, value)| format!("{key} = {value}\n")).concat();
    fs::write(&file, text).unwrap();
    let raw = RawConfig::load(&file, [] as [(OsString, OsString); 0]).unwrap();
    let controller = ControllerConfig::from_raw(&raw).unwrap();
    let client = ClientConfig::from_raw(&raw).unwrap();
    let mut places = vec![controller.state_dir, client.state_dir];
    for database in [controller.database, client.database] {
        let DatabaseConfig::Sqlite { path, schema_dir } = database else { panic!("no SQLite") };
        places.extend([path, schema_dir]);
    }
    let below = |path: &PathBuf| Path::new(folder).join(path.strip_prefix(here.path()).unwrap());
    places.iter().map(below).collect()
}

/// The values of a key, which may stand several times.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let found = lines.filter(|(name, _)| *name == key);
    found.flat_map(|(_, value)| value.split_whitespace()).collect()
}

fn is_read_only(unit: &str, path: &Path) -> bool {
    // As systemd.exec(5) says it.
    let covered: &[&str] = match values(unit, "ProtectSystem").last().copied() {
        None | Some("no" | "false" | "off" | "0") => &[],
        Some("yes" | "true" | "on" | "1") => &["/usr", "/boot", "/efi"],
        Some("full") => &["/usr", "/boot", "/efi", "/etc"],
        Some("strict") => &["/"],
        Some(other) => panic!("ProtectSystem={other}"),
    };
    let covered = covered.iter().copied().chain(values(unit, "ReadOnlyPaths"));
    let free = values(unit, "ReadWritePaths");
    // The longest that it is below counts.
    let below = |folders: Vec<&str>| {
        let found = folders.into_iter().filter(|folder| path.starts_with(folder));
        found.map(str::len).max()
    };
    below(covered.collect()) > below(free)
}

#[test]
fn every_unit_may_write_where_its_program_writes_by_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let mut units = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|ending| ending != "service") {
            continue;
        }
        units += 1;
        let (name, unit) = (file.display(), fs::read_to_string(&file).unwrap());
        let [folder] = values(&unit, "WorkingDirectory")[..] else { panic!("{name}: no folder") };
        let app_ini = format!("{folder}/app.ini");
        assert!(values(&unit, "ExecStart").contains(&app_ini.as_str()), "{name}: {app_ini}");
        for path in written_below(folder) {
            assert!(!is_read_only(&unit, &path), "{name}: {} is read-only", path.display());
        }
    }
    assert_eq!(units, 4);
}
