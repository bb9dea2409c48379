//! The front page: what this is. It shows no data, since everybody may see it.

use maud::{Markup, html};

use super::{Frame, page};

pub fn front() -> Markup {
    let frame = Frame {
        title: "Staging for every pull request",
        section: None,
        visit: None,
        said: None,
        live: None,
    };
    page(
        frame,
        html! {
            div class="hero" {
                h1 { "A staging server for every pull request" }
                p class="lead" {
                    "Push a branch, open a pull request, and a few minutes later it runs on a server of its \
                     own, with its own copy of its author's development database. A push deploys again, a \
                     close frees everything."
                }
                p { a class="big" href="/pull/list" { "To the environments" } }
                p class="quiet" { "A name and a password are asked for." }
            }
        },
    )
}
