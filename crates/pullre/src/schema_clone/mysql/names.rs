//! The names of the schemas beside a clone.

use crate::domain::SchemaName;
use crate::schema_clone::stable_hash;

/// Of the names of schemas beside a clone: of the one in which a clone is built, of the one that takes
/// the old tables, of the previous clone.
const ENDS: [&str; 3] = ["~new", "~old", "~prev"];

/// The schema in which a clone is built, and the one that takes the old tables.
pub(super) fn beside(destination: &str) -> (String, String) {
    (derived(destination, ENDS[0]), derived(destination, ENDS[1]))
}

/// The schema of the previous clone.
pub(super) fn previous(destination: &str) -> String {
    derived(destination, ENDS[2])
}

/// Whether clones into `destination` need this name for a schema beside it.
pub fn is_beside(destination: &SchemaName, name: &SchemaName) -> bool {
    if !looks_beside(name) {
        return false;
    }
    let [_, beside @ ..] = worked_in(destination);
    beside.iter().any(|other| other.to_lowercase() == name.as_str().to_lowercase())
}

/// Whether clones into any schema may need this name for one beside it.
pub fn looks_beside(name: &SchemaName) -> bool {
    let has_end = |end: &&str| {
        let at = name.as_str().len().checked_sub(end.len());
        at.and_then(|at| name.as_str().get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    };
    ENDS.iter().any(has_end)
}

/// The schemas that clones into this one work in: itself and those beside it.
pub fn worked_in(destination: &SchemaName) -> [String; 4] {
    let name = destination.as_str();
    let (building, outgoing) = beside(name);
    [name.to_owned(), building, outgoing, previous(name)]
}

/// What InnoDB calls a schema; None where that depends on more than ASCII.
pub(super) fn in_innodb(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let letter = |c: char| if plain(c) { c.to_string() } else { format!("@{:04x}", u32::from(c)) };
    name.is_ascii().then(|| name.chars().map(letter).collect())
}

/// A name that is made of another one, of at most 64 characters, and 255 bytes as the name of the
/// server's folder. Where it would be too long, a hash of the whole keeps two of them apart.
fn derived(name: &str, suffix: &str) -> String {
    if fits(name, suffix) {
        return format!("{name}{suffix}");
    }
    let end = format!("~{:016x}{suffix}", stable_hash(name));
    let mut start = name;
    while !fits(start, &end) {
        let last = start.char_indices().next_back().map_or(0, |(at, _)| at);
        start = &start[..last];
    }
    format!("{start}{end}")
}

fn fits(name: &str, end: &str) -> bool {
    let letters = || name.chars().chain(end.chars());
    // `@` and four digits at most for what is no plain letter.
    let bytes = |c: char| if c.is_ascii_alphanumeric() || c == '_' { 1 } else { 5 };
    letters().count() <= 64 && letters().map(bytes).sum::<usize>() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_fit_and_differ() {
        assert_eq!(derived("stg1", "~new"), "stg1~new");
        let (a, b) = ("機".repeat(64), format!("{}x", "機".repeat(63)));
        assert_eq!(derived(&"x".repeat(64), "~new").chars().count(), 64);
        // A folder's name has 255 bytes.
        assert_eq!(derived(&"機".repeat(49), "~new"), "機".repeat(49) + "~new");
        assert!(derived(&"機".repeat(50), "~new").starts_with(&("機".repeat(43) + "~")));
        assert_ne!(derived(&a, "~new"), derived(&b, "~new"));
    }
}
