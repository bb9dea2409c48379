//! What many pages are made of.

use jiff::Timestamp;
use maud::{Markup, Render, html};
use pullre::domain::PullNumber;
use pullre::stage::Stage;
use pullre::words;

use crate::guard::{TOKEN, Visit};

/// A moment; the script shows it in the visitor's zone.
pub fn moment(t: Timestamp) -> Markup {
    html! { time datetime=(t.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(words::moment(t)) { (words::moment(t)) } }
}

/// How long ago a moment is, with the moment itself on hover.
pub fn ago(t: Timestamp, now: Timestamp) -> Markup {
    let text = words::duration(words::between(t, now));
    html! {
        time class="ago" datetime=(t.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(words::moment(t)) { (text) " ago" }
    }
}

/// How long something has lasted that goes on; the script counts on.
pub fn since(t: Timestamp, now: Timestamp) -> Markup {
    let text = words::duration(words::between(t, now));
    html! {
        time class="since" datetime=(t.strftime("%Y-%m-%dT%H:%M:%SZ")) title={ "since " (words::moment(t)) } { (text) }
    }
}

/// A sentence in which commands stand in backticks, and moments as [`words::moment`] writes them.
pub fn prose(text: &str) -> Markup {
    prose_with(text, |_| None)
}

/// Likewise, with the name of a button instead of each command that has one.
pub fn prose_with<'b>(text: &str, button: impl Fn(&str) -> Option<&'b str>) -> Markup {
    let mut pieces = Vec::new();
    for (index, piece) in words::plain(text).split('`').enumerate() {
        match index % 2 {
            0 => pieces.push(with_moments(piece)),
            _ => pieces.push(match button(piece) {
                Some(name) => html! { strong { (name) } },
                None => html! { code { (piece) } },
            }),
        }
    }
    html! { @for piece in &pieces { (piece) } }
}

fn with_moments(text: &str) -> Markup {
    const LIKE: &[u8] = b"0000-00-00 00:00 UTC";
    let is_one = |bytes: &[u8]| {
        bytes
            .iter()
            .zip(LIKE)
            .all(|(b, like)| if *like == b'0' { b.is_ascii_digit() } else { b == like })
    };
    let found = text.as_bytes().windows(LIKE.len()).position(is_one);
    let Some(at) = found else { return text.render() };
    let (before, rest) = text.split_at(at);
    let (shown, after) = rest.split_at(LIKE.len());
    let parsed = format!("{}T{}:00Z", &shown[..10], &shown[11..16]).parse::<Timestamp>();
    html! {
        (before)
        @match parsed { Ok(t) => (moment(t)), Err(_) => (shown) }
        (with_moments(after))
    }
}

pub fn stage(stage: Stage) -> Markup {
    html! { span class={ "stage " (stage.as_str()) } { (stage.as_str()) } }
}

pub fn state(state: &str) -> Markup {
    let known = matches!(state, "running" | "stopped" | "pending" | "stopping" | "terminated");
    html! { span class={ "stage " (if known { state } else { "unknown" }) } { (state) } }
}

pub fn pull_link(number: PullNumber) -> Markup {
    html! { a href={ "/pull/" (number.0) } { (number) } }
}

/// A link where the address is one of the web; else its text.
pub fn web_link(url: &str) -> Markup {
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    html! {
        @if is_web { a href=(url) rel="noreferrer" { (url) } } @else { (url) }
    }
}

pub fn or_dash(text: Option<impl Render>) -> Markup {
    match text {
        Some(text) => text.render(),
        None => html! { span class="none" title="nothing" { "–" } },
    }
}

/// A table that becomes cards on a narrow screen; its roles are said, since that takes them away.
pub struct Table<'t> {
    pub caption: &'t str,
    /// The caption is for screen readers: a heading says the same.
    pub caption_hidden: bool,
    pub head: &'t [&'t str],
    pub rows: Vec<Vec<Markup>>,
}

impl Render for Table<'_> {
    fn render(&self) -> Markup {
        html! {
            table role="table" {
                caption class=[self.caption_hidden.then_some("visually-hidden")] { (self.caption) }
                thead role="rowgroup" {
                    tr role="row" {
                        @for name in self.head { th role="columnheader" scope="col" { (name) } }
                    }
                }
                tbody role="rowgroup" {
                    @for row in &self.rows {
                        tr role="row" {
                            @for (index, cell) in row.iter().enumerate() {
                                @let name = self.head.get(index).copied().unwrap_or_default();
                                @if index == 0 {
                                    th role="rowheader" scope="row" data-label=(name) { (cell) }
                                } @else {
                                    td role="cell" data-label=(name) { (cell) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A form that changes something: it carries the session's token.
pub fn form(visit: &Visit, action: &str, class: &str, content: Markup) -> Markup {
    html! {
        form method="post" action=(action) class=(class) {
            input type="hidden" name=(TOKEN) value=(visit.token);
            (content)
        }
    }
}

/// One button that does one thing; nothing for who may only look.
pub fn button(
    visit: &Visit,
    action: &str,
    fields: &[(&str, &str)],
    text: &str,
    class: &str,
) -> Markup {
    html! {
        @if visit.may_change() {
            (form(visit, action, "act", html! {
                @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
                button type="submit" class=[Some(class).filter(|class| !class.is_empty())] { (text) }
            }))
        }
    }
}

/// The form to which every [`row_button`] of a page belongs: a token in each of a thousand forms
/// would be a third of a long page.
pub fn form_of_buttons(visit: &Visit) -> Markup {
    html! {
        @if visit.may_change() {
            form id="row-buttons" method="post" { input type="hidden" name=(TOKEN) value=(visit.token); }
        }
    }
}

/// One button that does one thing to what its row is about; only where the visitor may change
/// something.
pub fn row_button(action: &str, (name, value): (&str, &str), text: &str, of: &str) -> Markup {
    html! {
        button form="row-buttons" formaction=(action) name=(name) value=(value)
            aria-label={ (text) " " (of) } { (text) }
    }
}

/// A button behind a word that opens it, with what is to be known first.
pub fn asked(visit: &Visit, summary: &str, content: Markup) -> Markup {
    html! {
        @if visit.may_change() {
            details class="asked" { summary { (summary) } div class="panel" { (content) } }
        }
    }
}

/// The form that takes something out of automatic hands.
pub fn hold(visit: &Visit, action: &str, fields: &[(&str, &str)]) -> Markup {
    form(
        visit,
        action,
        "stacked",
        html! {
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            p { "Keeps all automatic hands off until it is released." }
            label for="reason" { "Why, for everybody who asks" }
            input id="reason" name="reason" maxlength="300" autocomplete="off";
            label for="span" { "For how long, such as 90m, 12h or 2d; empty: until released" }
            input id="span" name="span" maxlength="20" autocomplete="off" class="short";
            button type="submit" { "Hold" }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::prose;

    #[test]
    fn commands_and_moments_in_a_sentence_are_told_apart_from_its_words() {
        let text = "held until 2026-11-23 01:37 UTC & <b>; `update-pull pull release 3`, 2026-99-99 01:37 UTC";
        assert_eq!(
            prose(text).into_string(),
            "held until <time datetime=\"2026-11-23T01:37:00Z\" title=\"2026-11-23 01:37 UTC\">2026-11-23 01:37 \
             UTC</time> &amp; &lt;b&gt;; <code>update-pull pull release 3</code>, 2026-99-99 01:37 UTC"
        );
        assert_eq!(prose("a `<b>").into_string(), "a <code>&lt;b&gt;</code>");
        assert_eq!(prose("日本 2026-11-23 01:37 UTC").into_string().matches("<time").count(), 1);
    }
}
