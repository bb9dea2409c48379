//! Every machine of the account: registered or not, what it does, and what may be done with it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use maud::{Markup, html};
use pullre::condition::Policy;
use pullre::domain::{InstanceState, ServerId};
use pullre::facts::{Facts, Pulse, Server};
use pullre::stage::Standings;
use pullre::status::{self, ServerLine, unregistered};
use pullre::words;

use super::parts::{
    Table, ago, asked, form, form_of_buttons, hold, or_dash, prose, pull_link, row_button, state,
    web_link,
};
use super::{Frame, Section, page};
use crate::guard::Visit;
use crate::live;
use crate::machines::Known;
use crate::session::Said;

pub struct Shown {
    pub facts: Facts,
    pub hidden: Vec<String>,
    pub known: Known,
    /// The account has machines that are not registered.
    pub listed: bool,
}

pub fn servers(
    visit: &Visit,
    said: Option<Said>,
    shown: &Shown,
    policy: &Policy,
    all: bool,
) -> Markup {
    let (facts, now) = (&shown.facts, Timestamp::now());
    let hidden: BTreeSet<&str> = shown.hidden.iter().map(String::as_str).collect();
    let lines = &status::servers(&Standings::new(facts, policy, now));
    let others = unregistered(facts, &shown.known.machines);
    let is_hidden = |line: &ServerLine| {
        hidden.contains(line.name.as_str())
            || line.instance_id.as_deref().is_some_and(|id| hidden.contains(id))
    };
    let count_hidden = lines.iter().chain(&others).filter(|line| is_hidden(line)).count();
    let rows: Vec<_> = facts
        .servers
        .values()
        .zip(lines)
        .filter(|(_, line)| all || !is_hidden(line))
        .map(|(server, line)| row(visit, server, line, is_hidden(line), now))
        .collect();
    let other_rows: Vec<_> = others
        .iter()
        .filter(|line| all || !is_hidden(line))
        .map(|line| other_row(visit, line, is_hidden(line)))
        .collect();
    let seen = live::servers_digest(facts, lines, &shown.hidden, &shown.known);
    let content = html! {
        div class="title" {
            h1 { "Servers" }
            p class="quiet" {
                (lines.len()) " registered, "
                (lines.iter().filter(|l| l.in_pool).count()) " in the pool, "
                (lines.iter().filter(|l| l.pull.is_some()).count()) " in use"
            }
        }
        @if !all && count_hidden > 0 {
            p { (count_hidden) " hidden. " a href="/server/list?hidden=1" { "Show them too" } }
        }
        @if all { p { "Hidden ones are shown too. " a href="/server/list" { "Leave them out" } } }
        (register(visit, shown.listed))
        (form_of_buttons(visit))
        @if rows.is_empty() {
            div class="empty" {
                p { "No server is registered." }
                p { "A server is a machine on which pull requests run. Register one above, then give it a schema and a check URL." }
            }
        } @else {
            (Table {
                caption: "Registered servers",
                caption_hidden: false,
                head: &["Server", "State", "Use", "Schema and URL", "By the clock", "Staging client", "Do"],
                rows,
            })
        }
        @if shown.listed {
            h2 { "Other machines of the account" }
            p class="quiet" {
                @match (&shown.known.fetched_at, &shown.known.error) {
                    (_, Some(e)) => { "They could not be read: " (prose(e)) "." }
                    (Some(at), None) => { "As they were " (ago(*at, now)) "." }
                    (None, None) => "They are being read now, and appear here when they have come.",
                }
            }
            @if !other_rows.is_empty() {
                (Table {
                    caption: "Machines that are no servers of ours",
                    caption_hidden: true,
                    head: &["Machine", "State", "Instance", "Do"],
                    rows: other_rows,
                })
            } @else if shown.known.fetched_at.is_some() {
                p class="empty" { "There are none." }
            }
        }
    };
    let frame = Frame {
        title: "Servers",
        section: Some(Section::Servers),
        visit: Some(visit),
        said,
        live: Some(format!("/live/servers?seen={seen}")),
    };
    page(frame, content)
}

fn register(visit: &Visit, listed: bool) -> Markup {
    let label = if listed { "Instance id" } else { "Name of the slot" };
    asked(
        visit,
        "Register a server…",
        form(
            visit,
            "/server/register",
            "stacked",
            html! {
                label for="register" { (label) }
                input id="register" name="InstanceId" required maxlength="100" autocomplete="off";
                button type="submit" class="primary" { "Register" }
            },
        ),
    )
}

fn row(
    visit: &Visit,
    server: &Server,
    line: &ServerLine,
    hidden: bool,
    now: Timestamp,
) -> Vec<Markup> {
    let ServerId(id) = server.id;
    let name = line.name.as_str();
    let instance = line.instance_id.as_deref().unwrap_or_default();
    let on = matches!(line.state, Some(InstanceState::Running | InstanceState::Pending));
    vec![
        html! {
            a href={ "/master/servers/" (id) } { (line.name) }
            @if line.instance_id.as_deref() != Some(line.name.as_str()) {
                div class="quiet" { (or_dash(line.instance_id.as_ref())) }
            }
            @if hidden { div class="quiet" { "hidden" } }
        },
        html! { @match line.state { Some(s) => (state(s.as_str())), None => (state("unknown")) } },
        html! {
            @match (line.pull, line.in_pool) {
                (Some(pull), _) => (pull_link(pull)),
                (None, true) => "free",
                (None, false) => "not in the pool",
            }
            @if let Some(note) = &line.note { div class="quiet" { (prose(note)) } }
            @if let Some(trouble) = &server.trouble { div class="trouble" { (prose(trouble)) } }
        },
        html! {
            (or_dash(line.schema.as_ref()))
            @if let Some(url) = &line.url { div class="quiet" { (web_link(url)) } }
        },
        switching(server),
        html! {
            @match line.agent_seen_at {
                Some(at) => { (ago(at, now)) }
                None => span class="none" { "never seen" },
            }
            @if let Some(agent) = &server.agent { div class="quiet" { "version " (words::plain(&agent.version)) } }
            @if let Some(pulse) = &line.pulse {
                div class="quiet" {
                    "disk " (words::bytes(pulse.free_bytes)) " of " (words::bytes(pulse.total_bytes)) " free"
                }
                div class="quiet" { "load " (load(pulse)) }
            }
        },
        html! {
            @if visit.may_change() {
                div class="acts" {
                    @if on {
                        (row_button("/server/stop", ("InstanceId", instance), "Stop", name))
                    } @else if !instance.is_empty() {
                        (row_button("/server/start", ("InstanceId", instance), "Start", name))
                    }
                    @if server.hold.is_some() {
                        (row_button("/server/release", ("server", name), "Release", name))
                    } @else {
                        a class="button" href={ "/server/" (id) "/hold" } aria-label={ "Hold " (line.name) } { "Hold…" }
                    }
                    a class="button" href={ "/master/servers/" (id) "/update" } aria-label={ "Edit " (line.name) } { "Edit" }
                    @if hidden {
                        (row_button("/server/show", ("server", name), "Show", name))
                    } @else {
                        (row_button("/server/hide", ("server", name), "Hide", name))
                    }
                }
            }
        },
    ]
}

fn load(pulse: &Pulse) -> String {
    format!("{}.{:02}", pulse.load_percent / 100, pulse.load_percent % 100)
}

/// The form that takes a server out of automatic hands, on a page of its own: the list has many.
pub fn hold_one(visit: &Visit, name: &str) -> Markup {
    let title = format!("Hold {name}");
    let content = html! {
        p class="crumbs" { a href="/server/list" { "Servers" } }
        h1 { (title) }
        (hold(visit, "/server/hold", &[("server", name)]))
        p { a class="button" href="/server/list" { "Cancel" } }
    };
    let frame = Frame {
        title: &title,
        section: Some(Section::Servers),
        visit: Some(visit),
        said: None,
        live: None,
    };
    page(frame, content)
}

fn switching(server: &Server) -> Markup {
    let time = |time: jiff::civil::Time| time.strftime("%H:%M").to_string();
    html! {
        @match &server.switching {
            Err(e) => (prose(&e.to_string())),
            Ok(switching) if switching.is_set() => {
                @if let Some(start) = switching.start { div { "start " (time(start)) } }
                @if let Some(stop) = switching.stop { div { "stop " (time(stop)) } }
                div class="quiet" { (switching.weekdays) }
            }
            Ok(_) => (or_dash(None::<&str>)),
        }
    }
}

fn other_row(visit: &Visit, line: &ServerLine, hidden: bool) -> Vec<Markup> {
    let instance = line.instance_id.as_deref().unwrap_or_default();
    vec![
        html! { (line.name) @if hidden { div class="quiet" { "hidden" } } },
        html! { @match line.state { Some(s) => (state(s.as_str())), None => (state("unknown")) } },
        html! { code { (instance) } },
        html! {
            @if visit.may_change() {
                div class="acts" {
                    (row_button("/server/register", ("InstanceId", instance), "Register", &line.name))
                    @if hidden {
                        (row_button("/server/show", ("server", instance), "Show", &line.name))
                    } @else {
                        (row_button("/server/hide", ("server", instance), "Hide", &line.name))
                    }
                }
            }
        },
    ]
}
