//! Master data: reads the rows for the pages, and hands the forms to [`pullre::ops::master`].

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{Response, StatusCode};
use pullre::ops::OpsError;
use pullre::store::Store;
use pullre::store::master::{MasterRow, PAGE, TABLES, Table};

use crate::guard::{Form, Visit};
use crate::pages::master::{self as draw, Fields, VERSION};
use crate::pages::{failure, problem, read_only};
use crate::routes::{App, Who, asked, nothing};
use crate::{Console, answer};

type Answer = Response<Body>;

pub async fn tables(State(console): App, Extension(visit): Who) -> Answer {
    let said = console.said(&visit);
    let counts = console
        .store(|store| {
            let count = |table| store.master_rows(table, "", 0).map(|(_, count)| count);
            Ok(TABLES.iter().map(count).collect::<Result<Vec<_>, _>>()?)
        })
        .await;
    Console::page(counts, |counts| draw::tables(&visit, said, &counts))
}

/// A page of rows, how many there are, and which page it is: the last one where there are fewer.
pub fn page_of(
    store: &mut Store,
    table: &Table,
    search: &str,
    at: u32,
) -> Result<(Vec<MasterRow>, u32, u32), OpsError> {
    let (rows, count) = store.master_rows(table, search, at)?;
    let last = count.div_ceil(PAGE).saturating_sub(1);
    if at <= last {
        return Ok((rows, count, at));
    }
    let (rows, count) = store.master_rows(table, search, last)?;
    Ok((rows, count, last))
}

pub async fn rows(
    State(console): App,
    Extension(visit): Who,
    Path(table): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let Some(table) = Table::named(&table) else { return nothing().await };
    let (search, at) = (asked(&query, "q"), asked(&query, "page").parse().unwrap_or(0));
    let (said, sought) = (console.said(&visit), search.trim().to_owned());
    let read = console.store(move |store| page_of(store, table, &sought, at)).await;
    Console::page(read, |(rows, count, at)| {
        draw::rows(&visit, said, table, &rows, count, &search, at)
    })
}

/// The table and the key that a path names.
fn named(table: &str, id: &str) -> Option<(&'static Table, i64)> {
    Some((Table::named(table)?, id.parse().ok().filter(|id| *id > 0)?))
}

/// The row that a path names, or the answer that there is none.
async fn found(
    console: &Console,
    table: &str,
    id: &str,
) -> Result<(&'static Table, MasterRow), Answer> {
    let Some((table, id)) = named(table, id) else { return Err(nothing().await) };
    match console.store(move |store| Ok(store.master_row(table, id)?)).await {
        Ok(Some(row)) => Ok((table, row)),
        Ok(None) => {
            Err(problem(StatusCode::NOT_FOUND, &format!("There is no {} {id}.", table.one)))
        }
        Err(e) => Err(failure(&e)),
    }
}

pub async fn row(
    State(console): App,
    Extension(visit): Who,
    Path((table, id)): Path<(String, String)>,
) -> Answer {
    match found(&console, &table, &id).await {
        Ok((table, row)) => {
            let said = console.said(&visit);
            answer::html(StatusCode::OK, draw::row(&visit, said, table, &row))
        }
        Err(none) => none,
    }
}

const NO_ROW: Fields<'_> = Fields { row: None, typed: &[], version: "" };

pub async fn new(Extension(visit): Who, Path(table): Path<String>) -> Answer {
    match Table::named(&table) {
        Some(_) if !visit.may_change() => read_only(),
        Some(table) if table.name == "servers" => answer::see_other("/server/list"),
        Some(table) => answer::html(StatusCode::OK, draw::edit(&visit, table, &NO_ROW, None)),
        None => nothing().await,
    }
}

pub async fn create(
    State(console): App,
    Extension(visit): Who,
    Path(table): Path<String>,
    Extension(Form(mut form)): Extension<Form>,
) -> Answer {
    let Some(table) = Table::named(&table) else { return nothing().await };
    form.retain(|(name, _)| name != VERSION);
    let typed = form.clone();
    let done = console
        .operate(&visit.person.name, move |operator| operator.row_create(table, &typed))
        .await;
    match done {
        Ok(id) => {
            let to = format!("/master/{}/{id}", table.name);
            console.back(&visit, &to, Ok(format!("{} {id} is added", table.one)))
        }
        // What was typed is not lost.
        Err(e) => again(&visit, table, &Fields { typed: &form, ..NO_ROW }, &e),
    }
}

fn again(visit: &Visit, table: &Table, fields: &Fields<'_>, e: &OpsError) -> Answer {
    if matches!(e, OpsError::Store(_)) {
        return failure(e);
    }
    let page = draw::edit(visit, table, fields, Some(&e.to_string()));
    answer::html(answer::status_of(e), page)
}

pub async fn edit(
    State(console): App,
    Extension(visit): Who,
    Path((table, id)): Path<(String, String)>,
) -> Answer {
    if !visit.may_change() {
        return read_only();
    }
    match found(&console, &table, &id).await {
        Ok((table, row)) => {
            let version = row.version(table);
            let fields = Fields { row: Some(&row), typed: &[], version: &version };
            answer::html(StatusCode::OK, draw::edit(&visit, table, &fields, None))
        }
        Err(none) => none,
    }
}

pub async fn update(
    State(console): App,
    Extension(visit): Who,
    Path((table, id)): Path<(String, String)>,
    Extension(form): Extension<Form>,
) -> Answer {
    let (table, row) = match found(&console, &table, &id).await {
        Ok(found) => found,
        Err(none) => return none,
    };
    let (id, version) = (row.id, form.get(VERSION).to_owned());
    let mut typed = form.0;
    typed.retain(|(name, _)| name != VERSION);
    let (sent, of) = (typed.clone(), version.clone());
    let done = console
        .operate(&visit.person.name, move |operator| operator.row_change(table, id, &of, &sent))
        .await;
    match done {
        Ok(()) => {
            console.site.wake.notify_one();
            let to = format!("/master/{}/{id}", table.name);
            console.back(&visit, &to, Ok(format!("{} {id} is saved", table.one)))
        }
        Err(e) => {
            // The form stays one of the old version: what somebody else did is looked at first.
            again(&visit, table, &Fields { row: Some(&row), typed: &typed, version: &version }, &e)
        }
    }
}

pub async fn ask(
    State(console): App,
    Extension(visit): Who,
    Path((table, id)): Path<(String, String)>,
) -> Answer {
    if !visit.may_change() {
        return read_only();
    }
    let (table, row) = match found(&console, &table, &id).await {
        Ok(found) => found,
        Err(none) => return none,
    };
    let needs = console
        .operate(&visit.person.name, move |operator| Ok((operator.row_needed(table, &row)?, row)))
        .await;
    Console::page(needs, |(needs, row)| draw::delete(&visit, table, &row, &needs))
}

pub async fn delete(
    State(console): App,
    Extension(visit): Who,
    Path((table, id)): Path<(String, String)>,
    Extension(form): Extension<Form>,
) -> Answer {
    let Some((table, id)) = named(&table, &id) else { return nothing().await };
    let (version, locks) = (form.get(VERSION).to_owned(), console.site.locks.clone());
    let done = console
        .operate(&visit.person.name, move |operator| {
            operator.row_remove(table, id, &version, &locks)
        })
        .await;
    let to = match &done {
        Ok(()) => format!("/master/{}", table.name),
        Err(_) => format!("/master/{}/{id}", table.name),
    };
    console.back(&visit, &to, done.map(|()| format!("{} {id} is removed", table.one)))
}
