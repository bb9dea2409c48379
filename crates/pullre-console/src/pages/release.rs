//! What pull requests say about the next release.

use maud::{Markup, html};
use pullre::store::master::{MasterRow, PAGE, Table};
use pullre::words;

use super::{Frame, Section, page};
use crate::guard::Visit;
use crate::session::Said;

pub fn release(
    visit: &Visit,
    said: Option<Said>,
    table: &Table,
    rows: &[MasterRow],
    count: u32,
    at: u32,
) -> Markup {
    let content = html! {
        div class="title" { h1 { "Next release" } p class="quiet" { (count) @if count == 1 { " message" } @else { " messages" } } }
        @if rows.is_empty() {
            div class="empty" {
                p { "Nothing is noted for the next release." }
                p { "Messages stand under " a href="/master/next_release_messages" { "Master data" } " and can be added there." }
            }
        } @else {
            ul class="messages" {
                @for row in rows {
                    li {
                        @let text = row.value(table, "content").unwrap_or_default();
                        @for line in text.lines() { p { (words::plain(line)) } }
                        p class="quiet" {
                            a href={ "/master/next_release_messages/" (row.id) } { "message " (row.id) }
                            @if let Some(at) = &row.created_at { ", " (at) " UTC" }
                        }
                    }
                }
            }
            (super::master::pager("/release/next/list", "", at, count.div_ceil(PAGE)))
        }
    };
    let frame = Frame {
        title: "Next release",
        section: Some(Section::Release),
        visit: Some(visit),
        said,
        live: None,
    };
    page(frame, content)
}
