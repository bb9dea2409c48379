//! docs/OPERATIONS.md beside what is there: the units of `packaging/systemd` on the installation that
//! it describes, and what the two doctors print.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("packaging/systemd");
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

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The subjects of all lines that a doctor's source can print.
fn subjects_in(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let quoted = |text: &str| text.strip_prefix('"')?.split('"').next().map(str::to_owned);
    let mut subjects = BTreeSet::new();
    for rest in source.split("const WHAT: &str =").skip(1) {
        subjects.extend(quoted(rest.trim_start()));
    }
    // In front of the subject: the mark, or nothing.
    for (call, before) in
        [("Line::new(", 1), ("report.add(", 1), ("report.ok(", 0), ("report.missing(", 0)]
    {
        for rest in source.split(call).skip(1) {
            let mut args = rest;
            for _ in 0..before {
                args = args.split_once(',').unwrap_or_default().1;
            }
            let arg = args.trim_start();
            let known = ["WHAT", "name", "&server.name", "mark: Mark", "what"];
            match quoted(arg) {
                Some(subject) => drop(subjects.insert(subject)),
                None => assert!(
                    known.iter().any(|known| arg.starts_with(known)),
                    "whose subject is this? {call}{}",
                    rest.lines().take(4).collect::<String>()
                ),
            }
        }
    }
    subjects
}

/// The first column of the table below a heading.
fn subjects_under(heading: &str, page: &str) -> BTreeSet<String> {
    let below = page.split_once(heading).unwrap_or_else(|| panic!("no {heading}")).1;
    let rows = below.lines().skip_while(|line| !line.starts_with('|'));
    let cells = rows.take_while(|line| line.starts_with('|')).skip(2);
    let first = cells.filter_map(|row| row.split('|').nth(1));
    first.flat_map(|cell| cell.split(',')).map(|subject| subject.trim().to_owned()).collect()
}

#[test]
fn the_page_for_operators_explains_each_line_of_both_doctors() {
    let page = file("docs/OPERATIONS.md");
    let client = subjects_in(&file("crates/staging-client/src/doctor.rs"));
    let mut controller = subjects_in(&file("crates/update-pull/src/doctor.rs"));
    controller.append(&mut subjects_in(&file("crates/pullre/src/doctor.rs")));
    // What is found of one server stands under its name.
    controller.insert("a server's name".into());
    assert_eq!(client, subjects_under("### What `staging-client doctor` names", &page));
    assert_eq!(controller, subjects_under("### What `update-pull doctor` names", &page));
}

#[test]
fn how_processes_are_found_without_groups_is_told_in_the_words_of_the_program() {
    let source = file("crates/staging-client/src/groups.rs");
    let text = source.split_once("pub const WITHOUT: &str = \"").unwrap().1;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = words(&text.split_once('"').unwrap().0.replace('\\', ""));
    assert_eq!(words(&file("docs/OPERATIONS.md")).matches(&said).count(), 2, "{said}");
}
