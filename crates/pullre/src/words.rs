//! How moments, durations and sizes are written for people.

use std::borrow::Cow;
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

/// A text without the sequences that colour it in a terminal.
pub fn without_colours(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = "\u{1b}[";
    if !text.contains(BEGIN) {
        return text.into();
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(BEGIN) {
        let (before, after) = (&rest[..at], &rest[at + BEGIN.len()..]);
        out.push_str(before);
        let values = after.find(|c: char| !matches!(c, '0'..='9' | ';' | ':' | '?'));
        rest = match values.map(|end| after.split_at(end).1) {
            Some(end) if end.starts_with(|c: char| c.is_ascii_alphabetic()) => &end[1..],
            // Nothing that is known: it is left to whoever reads the rest.
            _ => {
                out.push_str(BEGIN);
                after
            }
        };
    }
    out.push_str(rest);
    out.into()
}

/// What a URL lets in with: all that stands in front of its `@`, and the password. Where there is
/// none, the name is what nobody shall know.
pub fn secrets_of(url: &str) -> impl Iterator<Item = &str> {
    let login = login_of(url);
    let alone = login.and_then(|login| match login.split_once(':') {
        Some((name, "")) => Some(name),
        Some((_, password)) => Some(password),
        None => None,
    });
    login.into_iter().chain(alone)
}

/// What stands in front of the `@` in a URL: a name, or name and password.
pub fn login_of(url: &str) -> Option<&str> {
    let (_, after) = url.split_once("://")?;
    let authority = after.split(['/', '?', '#']).next()?;
    authority.rsplit_once('@').map(|(login, _)| login)
}

/// Text of strangers on one line: control characters, among them terminal escapes and those that
/// turn the direction of writing, become `?`.
pub fn plain(text: &str) -> String {
    // Nearly all of them.
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return text.to_owned();
    }
    without_colours(text)
        .chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => '?',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            c => c,
        })
        .collect()
}

/// A text whose URLs have lost name and password.
pub fn without_logins(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return text.into();
    }
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        let ends = |c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace();
        let (authority, behind) = after.split_at(after.find(ends).unwrap_or(after.len()));
        out.push_str(before);
        out.push_str(authority.rsplit_once('@').map_or(authority, |(_, host)| host));
        rest = behind;
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_without_name_and_password() {
        assert_eq!(
            without_logins("set check_url=https://u:p%40@h:8/a@b?c=ftp://x@y name=a@b http://u@@h"),
            "set check_url=https://h:8/a@b?c=ftp://y name=a@b http://h"
        );
        assert_eq!(without_logins("no URL: me@here, ://"), "no URL: me@here, ://");
    }

    #[test]
    fn durations_are_written_in_two_units_at_the_most() {
        let words = [0, 5, 59, 60, 185, 7800, 90_000, 86_400 * 4]
            .map(|s| duration(Duration::from_secs(s)))
            .join(", ");
        assert_eq!(words, "0.0 s, 5.0 s, 59 s, 1 min, 3 min 5 s, 2 h 10 min, 1 d 1 h, 4 d");
    }

    #[test]
    fn a_stranger_cannot_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "ab c?d");
        assert_eq!(plain("\u{1b}]0;title\u{7} \u{1b}[é \u{1b}[31"), "?]0;title? ?[é ?[31");
    }

    #[test]
    fn colours_are_left_out() {
        let text = "\u{1b}[1;31mError\u{1b}[0m: \u{1b}[38;5;9mx\u{1b}[K\u{1b}[?25h";
        assert_eq!(without_colours(text), "Error: x");
        assert_eq!(without_colours("[31m is no colour"), "[31m is no colour");
    }

    #[test]
    fn what_a_url_lets_in_with_is_found_in_it() {
        let of = |url| secrets_of(url).collect::<Vec<_>>().join(" ");
        assert_eq!(of("https://u:p%40:x@h:8/a"), "u:p%40:x p%40:x");
        assert_eq!(of("https://u:p@y@h"), "u:p@y p@y");
        assert_eq!([of("https://token@h"), of("https://token:@h")], ["token", "token: token"]);
        assert_eq!([of("https://h:8/a@b:c"), of("u:p@h"), of("")], ["", "", ""]);
    }
}
