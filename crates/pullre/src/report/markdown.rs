//! Text of strangers in Markdown: it is shown, and does nothing else. No mention, no reference,
//! no link, no markup.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::Settings;
use crate::config::{SHORTEST_MASKED, Secret};
use crate::facts::Facts;
use crate::words;

/// GitHub takes 65,535 characters for a field; this leaves room for what stands around it.
const LONGEST: usize = 40_000;
const LONGEST_LINE: usize = 500;

/// A sentence of ours, in which words of strangers may stand. What is between backticks stays code.
pub fn prose(text: &str) -> String {
    let text = words::plain(text);
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escaped(&text);
    }
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        match index % 2 {
            0 => out.push_str(&escaped(part)),
            _ if part.trim().is_empty() => out.push_str(&escaped(&format!("`{part}`"))),
            _ => out.push_str(&code(part)),
        }
    }
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '!' => {
                out.push('\\');
                out.push(c);
            }
            // GitHub looks for mentions, references and addresses after Markdown is done: only a
            // character in between keeps them apart.
            '@' | '#' => {
                out.push(c);
                out.push('\u{200b}');
            }
            '/' if before == ':' => out.push_str("\u{200b}/"),
            '.' if ends_with_www(&out) => out.push_str("\u{200b}."),
            c => out.push(c),
        }
        before = c;
    }
    out
}

fn ends_with_www(text: &str) -> bool {
    text.as_bytes().last_chunk::<3>().is_some_and(|end| end.eq_ignore_ascii_case(b"www"))
}

/// A code span, whatever backticks are inside.
pub fn code(text: &str) -> String {
    let text = words::plain(text);
    let fence = "`".repeat(longest_run(&text) + 1);
    if text.starts_with('`') || text.ends_with('`') {
        format!("{fence} {text} {fence}")
    } else {
        format!("{fence}{text}{fence}")
    }
}

/// A block of code with the end of `text`: this many lines at the most.
pub fn end_of_output(text: &str, lines: usize) -> Option<String> {
    let shown: Vec<String> = text.lines().rev().take(lines).map(line).collect();
    let mut length = 0;
    let mut kept: Vec<String> = shown
        .into_iter()
        .take_while(|line| {
            length += line.len() + 1;
            length <= LONGEST
        })
        .collect();
    kept.reverse();
    let block = kept.join("\n");
    if block.trim().is_empty() {
        return None;
    }
    let fence = "`".repeat(longest_run(&block).max(2) + 1);
    Some(format!("{fence}text\n{block}\n{fence}"))
}

fn line(text: &str) -> String {
    let mut chars = text.chars();
    let mut line: String = words::plain(&chars.by_ref().take(LONGEST_LINE).collect::<String>());
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// An address that people can follow, as far as it can be one.
pub fn link(url: &str) -> String {
    let fits = url.chars().all(|c| !c.is_whitespace() && !"<>\\`".contains(c));
    if fits { format!("<{url}>") } else { code(url) }
}

/// What is left out of every text that is shown, made ready once for all of them.
#[derive(Debug)]
pub struct Masking<'a>(Vec<(Finder<'a>, &'a str)>);

impl<'a> Masking<'a> {
    /// Of the secrets of app.ini, and of what a step may have printed of PULLRE_CHECK_URL.
    pub fn of(settings: &'a Settings, facts: &'a Facts) -> Masking<'a> {
        let urls = facts.servers.values().filter_map(|server| server.check_url.as_deref());
        let known = settings.secrets.iter().map(Secret::expose);
        Masking::new(known.chain(urls.flat_map(words::secrets_of)))
    }

    fn new(secrets: impl Iterator<Item = &'a str>) -> Masking<'a> {
        let mut known: Vec<_> =
            secrets.filter(|secret| secret.chars().count() >= SHORTEST_MASKED).collect();
        // The longest first, so that none leaves the rest of another.
        known.sort_by_key(|secret| (std::cmp::Reverse(secret.len()), *secret));
        known.dedup();
        Masking(known.into_iter().map(|secret| (Finder::new(secret), secret)).collect())
    }

    /// Without what nobody shall read: known secrets, logins in addresses, and the colours of a
    /// terminal.
    pub fn masked<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = changed(words::without_colours(text), words::without_logins);
        self.0.iter().fold(text, |text, (finder, secret)| match finder.find(text.as_bytes()) {
            Some(_) => text.replace(secret, "***").into(),
            None => text,
        })
    }
}

fn changed<'t>(text: Cow<'t, str>, change: impl Fn(&str) -> Cow<'_, str>) -> Cow<'t, str> {
    let new = match change(&text) {
        Cow::Borrowed(_) => None,
        Cow::Owned(new) => Some(new.into()),
    };
    new.unwrap_or(text)
}

/// At most so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_strangers_mention_nobody_and_link_to_nothing() {
        let text = "@team <b>#12</b> [x](http://evil) www.evil `code` *a* | ![i]";
        assert_eq!(
            prose(text),
            "@\u{200b}team \\<b\\>#\u{200b}12\\</b\\> \\[x\\](http:\u{200b}//evil) www\u{200b}.evil `code` \\*a\\* \\| \\!\\[i\\]"
        );
        assert_eq!(prose("one ` alone @x"), "one \\` alone @\u{200b}x");
    }

    #[test]
    fn code_ends_only_where_it_shall() {
        assert_eq!(code("a`b"), "``a`b``");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(
            end_of_output("x\n```\n@all\u{1b}[2J", 30).unwrap(),
            "````text\nx\n```\n@all\n````"
        );
        assert_eq!(end_of_output(" \n\n", 30), None);
        let long = end_of_output(&"y".repeat(100_000), 30).unwrap();
        assert!(long.len() < 600, "{}", long.len());
    }

    #[test]
    fn secrets_are_masked_and_short_ones_cannot_be() {
        let masking = Masking::new(["word", "äöü", "hunter2!", "password", "word"].into_iter());
        assert_eq!(masking.masked("pw hunter2! äöü word"), "pw *** äöü ***");
        assert_eq!(masking.masked("password"), "***", "nothing is left of the longer one");
        assert_eq!(masking.masked("\u{1b}[31mhttp://hunter2!@h/"), "http://h/");
    }
}
