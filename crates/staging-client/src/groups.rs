//! Control groups (cgroup v2): what belongs to a deployment, exactly, whatever it did to its
//! session, its parents and its environment. Where they cannot be made nothing is lost but that:
//! the marks in `/proc` go on telling.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::processes::Mark;

/// The groups of one server: for each deployment one of its app and one of its steps. Each place
/// is a group that a run of this program was in: cron's, a unit's, a person's session.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    places: Vec<PathBuf>,
    name: String,
}

/// What is said where there is none. docs/OPERATIONS.md says it in the same words.
pub const WITHOUT: &str = "what a deployment started is found by its session, its parents and a mark \
                           in its environment only, which an app can leave";

/// A group that a command can be put into.
#[derive(Debug, Clone)]
pub struct Group(PathBuf);

impl Group {
    /// Whoever writes 0 to it is in the group from then on.
    pub fn entrance(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// A step that left nothing in the background leaves no group behind.
    pub fn remove_if_empty(&self) {
        remove(&self.0);
        if let Some(above) = self.0.parent() {
            remove(above);
        }
    }

    pub fn holds(&self, pid: i32) -> bool {
        members_of(&self.0).contains(&pid)
    }
}

/// The group that this program runs in, below which others can be made by root, or where the
/// group was given to this user (`Delegate=yes` of systemd).
pub fn place() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let place = place_of(&mounts, &own)?;
    place.join("cgroup.procs").exists().then_some(place)
}

fn place_of(mounts: &str, own: &str) -> Option<PathBuf> {
    // `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS ... - TYPE SOURCE OPTIONS`
    let mount = mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        (back.split(' ').next()? == "cgroup2").then(|| front.split(' ').nth(4))?
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Outside of what we see: nothing of ours.
    let inside = !path.split('/').any(|part| part == "..");
    inside.then(|| Path::new(mount).join(path))
}

impl Groups {
    /// `owner` tells two installations on one machine apart.
    pub fn new(places: Vec<PathBuf>, owner: &str, server: i64) -> Groups {
        // FNV-1a: the same in every version, since an upgrade must find what it left running.
        let hash = owner.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Groups { places, name: format!("pullre-{hash:016x}-{server}") }
    }

    /// Makes a group for what is about to be started. None where that cannot be done.
    pub fn make(&self, place: &Path, mark: Mark) -> Option<Group> {
        let folder = place.join(&self.name).join(name_of(mark));
        let made = fs::create_dir_all(&folder);
        if let Err(e) = &made {
            tracing::debug!("no group of processes can be made at {}: {e}", folder.display());
        }
        made.ok().map(|()| Group(folder))
    }

    fn folders(&self) -> impl Iterator<Item = (PathBuf, Mark)> {
        let entries = self.places.iter().filter_map(|place| {
            // Gone, or nothing was made there.
            fs::read_dir(place.join(&self.name)).ok()
        });
        entries.flatten().flatten().filter_map(|entry| {
            let mark = mark_of(entry.file_name().to_str()?)?;
            Some((entry.path(), mark))
        })
    }

    /// All processes in the groups.
    pub fn members(&self) -> HashMap<i32, Mark> {
        self.folders()
            .flat_map(|(folder, mark)| members_of(&folder).into_iter().map(move |pid| (pid, mark)))
            .collect()
    }

    /// Kills all in these groups in one moment: nothing in them can fork away from it.
    pub fn kill(&self, fits: impl Fn(Mark) -> bool) {
        for (folder, _) in self.folders().filter(|(_, mark)| fits(*mark)) {
            // Kernels before 5.14 have no such file; each process is killed then.
            if let Err(e) = fs::write(folder.join("cgroup.kill"), "1")
                && e.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!("{}: {e}", folder.display());
            }
        }
    }

    /// Removes the groups that nothing is in any more.
    pub fn remove_empty(&self) {
        for (folder, _) in self.folders() {
            remove(&folder);
        }
        for place in &self.places {
            remove(&place.join(&self.name));
        }
    }
}

/// What an app made inside its group goes first. The kernel removes no group that holds something.
fn remove(group: &Path) {
    for child in children(group) {
        remove(&child);
    }
    if let Err(e) = fs::remove_dir(group)
        && !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy)
        && e.kind() != io::ErrorKind::DirectoryNotEmpty
    {
        tracing::debug!("{}: {e}", group.display());
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

fn members_of(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0);
    own.chain(children(group).iter().flat_map(|child| members_of(child))).collect()
}

fn name_of(mark: Mark) -> String {
    format!("{}-{}", if mark.step { "step" } else { "app" }, mark.deployment)
}

fn mark_of(name: &str) -> Option<Mark> {
    let (kind, deployment) = name.split_once('-')?;
    let step = match kind {
        "app" => false,
        "step" => true,
        _ => return None,
    };
    Some(Mark { deployment: deployment.parse().ok()?, step })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_place_is_where_cgroup2_is_mounted_and_the_program_is() {
        let mounts = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
                      30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let own = "9:name=systemd:/\n0::/system.slice/cron.service\n";
        let place = place_of(mounts, own).unwrap();
        assert_eq!(place, Path::new("/sys/fs/cgroup/system.slice/cron.service"));
        assert_eq!(place_of(mounts, "0::/\n").unwrap(), Path::new("/sys/fs/cgroup/"));
        assert_eq!(place_of(mounts, "0::/../other\n"), None);
        assert_eq!(place_of(mounts, "9:name=systemd:/\n"), None);
        assert_eq!(place_of("24 1 0:22 / /sys rw - sysfs sysfs rw\n", own), None);
    }

    #[test]
    fn only_our_groups_are_groups_of_a_server() {
        for mark in [Mark { deployment: 7, step: true }, Mark { deployment: 12, step: false }] {
            assert_eq!(mark_of(&name_of(mark)), Some(mark));
        }
        for other in ["app", "app-", "init.scope", "app-x", "other-7"] {
            assert_eq!(mark_of(other), None, "{other}");
        }
        let name = |owner| Groups::new(Vec::new(), owner, 1).name;
        assert_ne!(name("/srv/a"), name("/srv/b"));
    }
}
