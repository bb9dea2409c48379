//! The pages. Each is a function from facts to markup; nothing in here decides anything.

pub mod environment;
pub mod environments;
pub mod front;
pub mod master;
pub mod parts;
pub mod pool;
pub mod release;
pub mod servers;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, html};
use pullre::ops::OpsError;

use crate::guard::Visit;
use crate::session::Said;
use crate::{answer, assets};
use parts::prose;

/// The parts of the console, as the navigation names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Environments,
    Servers,
    Pool,
    Release,
    Master,
}

const SECTIONS: [(Section, &str, &str); 5] = [
    (Section::Environments, "/pull/list", "Environments"),
    (Section::Servers, "/server/list", "Servers"),
    (Section::Pool, "/pool", "Pool"),
    (Section::Release, "/release/next/list", "Next release"),
    (Section::Master, "/master", "Master data"),
];

/// What stands around a page's own content.
pub struct Frame<'v> {
    pub title: &'v str,
    pub section: Option<Section>,
    /// None for pages that everybody may see.
    pub visit: Option<&'v Visit>,
    pub said: Option<Said>,
    /// Where the browser hears that the page is old.
    pub live: Option<String>,
}

pub fn page(frame: Frame<'_>, content: Markup) -> Markup {
    let version = &*assets::VERSION;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (frame.title) " · pullre" }
                link rel="icon" type="image/svg+xml" href={ "/assets/icon.svg?v=" (version) };
                link rel="stylesheet" href={ "/assets/console.css?v=" (version) };
                script src={ "/assets/console.js?v=" (version) } defer {}
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                header class="top" {
                    a class="brand" href="/" { "pullre" }
                    @if let Some(visit) = frame.visit {
                        nav aria-label="Parts of the console" {
                            ul {
                                @for (section, path, name) in SECTIONS {
                                    li {
                                        a href=(path) aria-current=[(frame.section == Some(section)).then_some("page")] {
                                            (name)
                                        }
                                    }
                                }
                            }
                        }
                        p class="who" {
                            (visit.person.name)
                            @if !visit.may_change() { span class="role" { "read-only" } }
                        }
                    }
                }
                main id="content" tabindex="-1" data-live=[frame.live.as_ref()] {
                    @if let Some(said) = &frame.said {
                        p class=(if said.failed { "said failed" } else { "said" })
                            role=(if said.failed { "alert" } else { "status" }) { (prose(&said.text)) }
                    }
                    (content)
                }
                @if frame.live.is_some() {
                    p class="visually-hidden" id="live-news" role="status" aria-live="polite" {}
                }
            }
        }
    }
}

/// A page that says in a sentence why there is no other one.
pub fn problem(status: StatusCode, says: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let frame = Frame { title, section: None, visit: None, said: None, live: None };
    let content = html! {
        h1 { (title) }
        p { (prose(says)) }
        p { a href="/" { "To the front page" } }
    };
    answer::html(status, page(frame, content))
}

/// For a page that only an operator has a use for.
pub fn read_only() -> Response<Body> {
    problem(
        StatusCode::FORBIDDEN,
        "You may look, but not change anything: your user has the role read-only.",
    )
}

pub fn failure(error: &OpsError) -> Response<Body> {
    problem(answer::status_of(error), &sentence(&error.to_string()))
}

/// With a capital and a full stop. A name keeps its first letter as it is.
pub fn sentence(text: &str) -> String {
    const NO_NAMES: [&str; 17] = [
        "another",
        "it",
        "its",
        "there",
        "the",
        "a",
        "an",
        "this",
        "that",
        "all",
        "no",
        "instance",
        "server",
        "somebody",
        "registered",
        "everything",
        "what",
    ];
    let first = text.split([' ', ',', ';']).next().unwrap_or_default();
    let mut said = String::with_capacity(text.len() + 1);
    match NO_NAMES.contains(&first) {
        true => {
            said.push_str(&text[..1].to_uppercase());
            said.push_str(&text[1..]);
        }
        false => said.push_str(text),
    }
    if !text.ends_with(['.', '!', '?']) {
        said.push('.');
    }
    said
}
