//! Every open pull request, where it stands and what comes next.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};
use pullre::condition::Policy;
use pullre::facts::Facts;
use pullre::stage::{Stage, Standings};
use pullre::status::{self, Environment};
use pullre::words;

use super::parts::{
    Table, ago, asked, button, form, moment, or_dash, prose, pull_link, stage, web_link,
};
use super::{Frame, Section, page};
use crate::guard::Visit;
use crate::live;
use crate::session::Said;

pub fn environments(
    visit: &Visit,
    said: Option<Said>,
    facts: &Facts,
    policy: &Policy,
    search: &str,
) -> Markup {
    let now = Timestamp::now();
    let standings = Standings::new(facts, policy, now);
    let all = status::environments(&standings);
    let seen = live::environments_digest(&standings, &all);
    let shown: Vec<_> = all.iter().filter(|e| found(e, search)).collect();
    let content = html! {
        div class="title" {
            h1 { "Environments" }
            p class="quiet" { (summary(&standings, &all)) }
        }
        (notices(visit, facts))
        @if all.is_empty() {
            div class="empty" {
                p { "No pull request is open, or no tick has read GitHub yet." }
                p { (prose("Open one, and the next tick shows it here. If it does not, `update-pull doctor` says what is missing.")) }
            }
        } @else {
            form class="search" method="get" action="/pull/list" role="search" {
                label for="q" { "Search number, title, author, stage or server" }
                input id="q" type="search" name="q" value=(search) maxlength="200";
                button type="submit" { "Search" }
            }
            @if shown.is_empty() {
                p class="empty" { "Nothing here holds “" (search) "”. " a href="/pull/list" { "Show all" } }
            } @else {
                (Table {
                    caption: "Open pull requests and where they stand",
                    caption_hidden: true,
                    head: &["Pull request", "Stage", "Why, and what comes next", "Server", "Data", "Since"],
                    rows: shown.iter().map(|e| row(e, facts, now)).collect(),
                })
            }
        }
    };
    let content = html! {
        (content)
        @if facts.paused.is_none() {
            (asked(visit, "Pause everything…", form(visit, "/pause", "stacked", html! {
                p { "Nothing is started, stopped, cloned or deployed until it goes on; what runs goes on running." }
                button type="submit" class="danger" { "Pause" }
            })))
        }
    };
    let frame = Frame {
        title: "Environments",
        section: Some(Section::Environments),
        visit: Some(visit),
        said,
        live: Some(format!("/live/environments?seen={seen}")),
    };
    page(frame, content)
}

fn found(e: &Environment, search: &str) -> bool {
    let search = search.trim().to_lowercase();
    let texts = [
        Some(e.number.to_string()),
        Some(e.title.clone()),
        e.author.clone(),
        Some(e.stage.to_string()),
        e.server.clone(),
        Some(e.head.clone()),
    ];
    search.is_empty()
        || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&search))
}

fn summary(standings: &Standings<'_>, all: &[Environment]) -> String {
    let count = |wanted: &[Stage]| all.iter().filter(|e| wanted.contains(&e.stage)).count();
    let (used, pool) = pool(standings);
    format!(
        "{} ready, {} on their way, {} failed, {} queued; {used} of {pool} servers in use",
        count(&[Stage::Ready]),
        count(&[Stage::Starting, Stage::Cloning, Stage::Deploying]),
        count(&[Stage::Failed]),
        count(&[Stage::Queued]),
    )
}

/// How many servers of the pool are in use, and how many it has.
pub fn pool(standings: &Standings<'_>) -> (usize, usize) {
    let pool = standings.facts.servers.values().filter(|server| server.is_staging);
    let used = pool.clone().filter(|server| standings.roster().pull(server.id).is_some());
    (used.count(), pool.count())
}

/// Since when it has its server or waits for one, and how long its deployment took.
pub fn times(e: &Environment, facts: &Facts) -> (Option<Timestamp>, Option<Duration>) {
    let assignment = facts.assignments.get(&e.number);
    let deployment = assignment.and_then(|assignment| assignment.deployment.as_ref());
    let took = deployment.and_then(|d| Some(words::between(d.started_at?, d.finished_at?)));
    let since = match assignment {
        Some(assignment) => Some(assignment.assigned_at),
        None => facts.pulls.get(&e.number).and_then(|pull| pull.eligible_since),
    };
    (since, took)
}

/// What concerns all of them.
fn notices(visit: &Visit, facts: &Facts) -> Markup {
    html! {
        @if let Some(who) = &facts.paused {
            div class="notice" role="status" {
                p { strong { "Paused" } " " (who) ": nothing is done until it goes on." }
                (button(visit, "/resume", &[], "Go on", "primary"))
            }
        }
        @if let Some(what) = &facts.refused {
            div class="notice" role="status" { p { strong { "A tick refused: " } (prose(what)) } }
        }
        @if !facts.unreadable.is_empty() {
            div class="notice" {
                p { strong { "Rows that make no sense are left alone:" } }
                ul { @for why in &facts.unreadable { li { (prose(why)) } } }
            }
        }
    }
}

fn row(e: &Environment, facts: &Facts, now: Timestamp) -> Vec<Markup> {
    let (since, took) = times(e, facts);
    let took = took.map(|took| format!("deployed in {}", words::duration(took)));
    vec![
        html! {
            (pull_link(e.number)) " " span class="what" { (e.title) }
            div class="quiet" {
                (e.author.as_deref().unwrap_or("nobody"))
                " · " code { (&e.head[..7]) }
            }
        },
        stage(e.stage),
        html! {
            @if let Some(url) = &e.url { div { (web_link(url)) } } @else { div { (prose(&e.why)) } }
            @if let Some(next) = &e.next { div class="quiet" { (prose(next)) } }
        },
        or_dash(e.server.as_ref()),
        html! {
            @match (&e.source, e.cloned_at) {
                (Some(source), Some(at)) => {
                    (source) div class="quiet" { "copied " (ago(at, now)) }
                }
                _ => (or_dash(e.schema.as_ref())),
            }
        },
        html! {
            (or_dash(since.map(moment)))
            @if let Some(took) = took { div class="quiet" { (took) } }
        },
    ]
}
