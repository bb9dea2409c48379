//! Master data: the rows of seven tables, found, shown, added, changed, removed.

use maud::{Markup, html};
use pullre::ops::master::{Need, shown, told};
use pullre::store::master::{Column, Kind, MasterRow, PAGE, TABLES, Table};
use pullre::words;

use super::parts::{self, form, or_dash, prose};
use super::{Frame, Section, page};
use crate::guard::Visit;
use crate::session::Said;

/// The field that holds which version of a row a form was made from.
pub const VERSION: &str = "version";

fn framed(visit: &Visit, said: Option<Said>, title: &str, content: Markup) -> Markup {
    let frame =
        Frame { title, section: Some(Section::Master), visit: Some(visit), said, live: None };
    page(frame, content)
}

fn crumbs(table: Option<&Table>) -> Markup {
    html! {
        p class="crumbs" {
            a href="/master" { "Master data" }
            @if let Some(table) = table { " / " a href={ "/master/" (table.name) } { (table.name) } }
        }
    }
}

pub fn tables(visit: &Visit, said: Option<Said>, counts: &[u32]) -> Markup {
    let rows = TABLES.iter().zip(counts).map(|(table, count)| {
        vec![
            html! { a href={ "/master/" (table.name) } { (table.name) } },
            html! { (table.about) },
            html! { (count) },
        ]
    });
    let content = html! {
        h1 { "Master data" }
        (parts::Table {
            caption: "Tables",
            caption_hidden: true,
            head: &["Table", "What it holds", "Rows"],
            rows: rows.collect(),
        })
    };
    framed(visit, said, "Master data", content)
}

/// Links to the pages before and after.
pub fn pager(path: &str, search: &str, at: u32, pages: u32) -> Markup {
    let query: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("q", search).finish();
    html! {
        @if pages > 1 {
            nav class="pager" aria-label="Pages" {
                @if at > 0 { a rel="prev" href=(format!("{path}?{query}&page={}", at - 1)) { "Newer" } }
                span { "Page " (at + 1) " of " (pages) }
                @if at + 1 < pages { a rel="next" href=(format!("{path}?{query}&page={}", at + 1)) { "Older" } }
            }
        }
    }
}

pub fn rows(
    visit: &Visit,
    said: Option<Said>,
    table: &Table,
    rows: &[MasterRow],
    count: u32,
    search: &str,
    at: u32,
) -> Markup {
    // Long texts are for the page of one row.
    let columns: Vec<_> =
        table.columns.iter().filter(|c| c.kind != Kind::Long || table.columns.len() < 4).collect();
    let mut head = vec!["id"];
    head.extend(columns.iter().map(|column| column.name));
    let cells = |row: &MasterRow| {
        let id = html! { a href={ "/master/" (table.name) "/" (row.id) } aria-label={ (table.one) " " (row.id) } { (row.id) } };
        let values = columns.iter().map(|column| {
            let value = told(column, row.value(table, column.name));
            or_dash(value.map(|value| shortened(&value)))
        });
        std::iter::once(id).chain(values).collect()
    };
    let new = if table.name == "servers" {
        "/server/list".to_owned()
    } else {
        format!("/master/{}/create", table.name)
    };
    let content = html! {
        (crumbs(None))
        div class="title" { h1 { (table.name) } p class="quiet" { (table.about) } }
        @if visit.may_change() {
            p { a class="button" href=(new) {
                @if table.name == "servers" { "Register a server" } @else { "Add a " (table.one) }
            } }
        }
        form class="search" method="get" action={ "/master/" (table.name) } role="search" {
            label for="q" { "Search in all columns" }
            input id="q" type="search" name="q" value=(search) maxlength="200";
            button type="submit" { "Search" }
        }
        @if rows.is_empty() {
            p class="empty" {
                @if search.is_empty() { "There is no row yet." }
                @else { "No row holds “" (search) "”. " a href={ "/master/" (table.name) } { "Show all" } }
            }
        } @else {
            (parts::Table { caption: table.name, caption_hidden: true, head: &head, rows: rows.iter().map(cells).collect() })
            (pager(&format!("/master/{}", table.name), search, at, count.div_ceil(PAGE)))
        }
    };
    framed(visit, said, table.name, content)
}

fn shortened(text: &str) -> String {
    let plain = words::plain(text);
    match plain.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain,
    }
}

fn values(table: &Table, row: &MasterRow) -> Markup {
    html! {
        dl class="facts" {
            @for column in table.columns {
                dt { (column.name) }
                dd {
                    @match told(column, row.value(table, column.name)) {
                        Some(text) if column.kind == Kind::Long => pre class="log" tabindex="0" aria-label=(column.name) { (text) },
                        Some(text) => (words::plain(&text)),
                        None => (or_dash(None::<&str>)),
                    }
                }
            }
            dt { "created_at" } dd { (or_dash(row.created_at.as_ref())) }
            dt { "updated_at" } dd { (or_dash(row.updated_at.as_ref())) }
        }
    }
}

pub fn row(visit: &Visit, said: Option<Said>, table: &Table, row: &MasterRow) -> Markup {
    let title = format!("{} {}", table.one, row.id);
    let path = format!("/master/{}/{}", table.name, row.id);
    let content = html! {
        (crumbs(Some(table)))
        h1 { (title) }
        (values(table, row))
        @if visit.may_change() {
            p class="acts" {
                a class="button" href={ (path) "/update" } { "Edit" }
                a class="button danger" href={ (path) "/delete" } { "Delete…" }
            }
            @if table.name == "servers" && let Some(name) = row.value(table, "name") {
                (parts::asked(visit, "Let its schema be overwritten…", form(visit, "/server/take-over", "stacked", html! {
                    p { "For a schema that holds something that pullre did not make, or that another server made. What is in it is lost with the next clone." }
                    input type="hidden" name="server" value=(name);
                    button type="submit" class="danger" { "It may be overwritten" }
                })))
            }
        }
    };
    framed(visit, said, &title, content)
}

/// What a form shows: what a person typed, else what is stored.
pub struct Fields<'f> {
    pub row: Option<&'f MasterRow>,
    pub typed: &'f [(String, String)],
    /// The version that the form was made from.
    pub version: &'f str,
}

impl Fields<'_> {
    fn value(&self, table: &Table, column: &Column) -> String {
        if let Some((_, value)) = self.typed.iter().find(|(name, _)| name == column.name) {
            return value.clone();
        }
        let stored = self.row.and_then(|row| row.value(table, column.name));
        shown(column, stored).unwrap_or_default()
    }
}

/// The form of a new row, or of one that is there.
pub fn edit(visit: &Visit, table: &Table, fields: &Fields<'_>, problem: Option<&str>) -> Markup {
    let (title, action) = match fields.row {
        None => (format!("Add a {}", table.one), format!("/master/{}/create", table.name)),
        Some(row) => (
            format!("Edit {} {}", table.one, row.id),
            format!("/master/{}/{}/update", table.name, row.id),
        ),
    };
    let back = match fields.row {
        None => format!("/master/{}", table.name),
        Some(row) => format!("/master/{}/{}", table.name, row.id),
    };
    let content = html! {
        (crumbs(Some(table)))
        h1 { (title) }
        @if let Some(problem) = problem {
            div class="said failed" role="alert" { p { (prose(&super::sentence(problem))) } }
        }
        (form(visit, &action, "edit", html! {
            input type="hidden" name=(VERSION) value=(fields.version);
            @for column in table.columns.iter().filter(|column| column.kind != Kind::Kept) {
                (field(table, column, fields))
            }
            p class="acts" {
                button type="submit" class="primary" { "Save" }
                a class="button" href=(back) { "Cancel" }
            }
        }))
    };
    framed(visit, None, &title, content)
}

fn field(table: &Table, column: &Column, fields: &Fields<'_>) -> Markup {
    let (id, value) = (format!("f-{}", column.name), fields.value(table, column));
    let hint = (!column.hint.is_empty()).then(|| format!("{id}-hint"));
    let flag = matches!(value.as_str(), "1" | "on" | "yes");
    html! {
        div class="field" {
            label for=(id) { (column.name) @if column.required { span class="must" { " (required)" } } }
            @match column.kind {
                Kind::Long => textarea id=(id) name=(column.name) rows="8" aria-describedby=[hint.as_ref()] {
                    // A browser leaves out the first line break.
                    "\n" (value)
                },
                Kind::Flag => select id=(id) name=(column.name) aria-describedby=[hint.as_ref()] {
                    option value="1" selected[flag] { "yes" }
                    option value="0" selected[!flag] { "no" }
                },
                Kind::State => select id=(id) name=(column.name) aria-describedby=[hint.as_ref()] {
                    @if !column.required { option value="" selected[value.is_empty()] { "" } }
                    @for state in ["open", "closed"] { option value=(state) selected[value == state] { (state) } }
                },
                Kind::Number => input id=(id) name=(column.name) value=(value) inputmode="numeric" class="short" required[column.required] aria-describedby=[hint.as_ref()];,
                _ => input id=(id) name=(column.name) value=(value) required[column.required] autocomplete="off" spellcheck="false" aria-describedby=[hint.as_ref()];,
            }
            @if let Some(hint) = &hint { p id=(hint) class="quiet" { (column.hint) } }
        }
    }
}

/// Asks whether a row may go, and says what depends on it.
pub fn delete(visit: &Visit, table: &Table, row: &MasterRow, needs: &[Need]) -> Markup {
    let title = format!("Delete {} {}?", table.one, row.id);
    let forbidden = needs.iter().any(|need| need.forbids);
    let path = format!("/master/{}/{}", table.name, row.id);
    let content = html! {
        (crumbs(Some(table)))
        h1 { (title) }
        @if needs.is_empty() {
            p { "Nothing depends on it." }
        } @else {
            p { "What depends on it:" }
            ul {
                @for need in needs {
                    li { @if need.forbids { strong { "In the way: " } } (prose(&need.what)) }
                }
            }
        }
        (values(table, row))
        div class="acts" {
            @if !forbidden {
                (form(visit, &format!("{path}/delete"), "act", html! {
                    input type="hidden" name=(VERSION) value=(row.version(table));
                    button type="submit" class="danger" { "Delete it" }
                }))
            }
            a class="button" href=(path) { "Keep it" }
        }
    };
    framed(visit, None, &title, content)
}
