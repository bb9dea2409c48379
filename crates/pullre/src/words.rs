//! How moments, durations and sizes are written for people.

use std::time::Duration;

use jiff::Timestamp;

/// `2026-11-22 21:23 UTC`
pub fn moment(t: Timestamp) -> String {
    t.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The time from `from` to `to`; zero where it would be negative (clocks differ).
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Two units at the most: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    let two = |a: u64, unit_a: &str, b: u64, unit_b: &str| match b {
        0 => format!("{a} {unit_a}"),
        _ => format!("{a} {unit_a} {b} {unit_b}"),
    };
    match s {
        0..10 => format!("{:.1} s", d.as_secs_f64()),
        10..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86400, "d", s % 86400 / 3600, "h"),
    }
}

/// `812 B`, `16 kB`, `3.2 MB`, in powers of 1000.
pub fn bytes(n: u64) -> String {
    match n {
        0..1000 => format!("{n} B"),
        1000..1_000_000 => format!("{} kB", n / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// Text of strangers on one line: control characters, among them terminal escapes and those that
/// turn the direction of writing, become `?`.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => '?',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_two_units_at_the_most() {
        let words = [0, 5, 59, 60, 185, 7800, 90_000, 86_400 * 4]
            .map(|s| duration(Duration::from_secs(s)))
            .join(", ");
        assert_eq!(words, "0.0 s, 5.0 s, 59 s, 1 min, 3 min 5 s, 2 h 10 min, 1 d 1 h, 4 d");
    }

    #[test]
    fn a_stranger_cannot_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a?[2Jb c?d");
    }
}
