//! One environment: where it stands, its deployments with their output, what happened, and what a
//! person can do.

use jiff::Timestamp;
use maud::{Markup, html};
use pullre::condition::{self, Policy};
use pullre::domain::PullState;
use pullre::facts::{CloneState, Facts, Outcome, Pull};
use pullre::stage::Stage;
use pullre::status::{Environment, Explanation, Told};
use pullre::store::{EnvironmentPulse, Event, Step};
use pullre::words;

use super::parts::{
    self, Table, ago, asked, button, form, hold, moment, prose, since, stage, web_link,
};
use super::{Frame, Section, page};
use crate::guard::Visit;
use crate::session::Said;
use crate::{live, log};

pub struct Shown {
    pub explanation: Explanation,
    pub pull: Pull,
    pub facts: Facts,
    pub pulse: EnvironmentPulse,
}

pub fn environment(
    visit: &Visit,
    said: Option<Said>,
    shown: &Shown,
    policy: &Policy,
    repository_url: &str,
) -> Markup {
    let (explanation, pull) = (&shown.explanation, &shown.pull);
    let e = &explanation.environment;
    let now = Timestamp::now();
    let (number, head) = (e.number.0, &e.head);
    let seen = live::environment_digest(e, pull, &shown.facts, &shown.pulse);
    let actions = actions(visit, shown, policy);
    // Who has a button beside the sentence need not be told a command.
    let said_here = |text: &str| {
        parts::prose_with(&super::sentence(text), |command| {
            let (verb, of) = command.strip_prefix("update-pull pull ")?.split_once(' ')?;
            let of_this = of.split(' ').next() == Some(number.to_string().as_str());
            let is_here = actions.0.contains(&format!("action=\"/pull/{number}/{verb}\""));
            BUTTONS
                .iter()
                .find(|(known, _)| of_this && is_here && *known == verb)
                .map(|(_, name)| *name)
        })
    };
    let content = html! {
        p class="crumbs" { a href="/pull/list" { "Environments" } }
        div class="title" {
            h1 { (e.number) " " (e.title) }
            (stage(e.stage))
        }
        @if let Some(url) = &e.url { p class="lead" { (web_link(url)) } }
        p data-part="why" { (said_here(&e.why)) }
        @if let Some(next) = &e.next { p data-part="next" { strong { "Next: " } (said_here(next)) } }
        @if let Some(who) = &explanation.paused {
            p class="notice" { strong { "Paused" } " " (who) ": nothing is done before it goes on." }
        }
        @if let Some(what) = &explanation.refused {
            p class="notice" { strong { "The last tick refused: " } (prose(what)) }
        }
        (actions)
        section aria-labelledby="facts" {
            h2 id="facts" { "What it is" }
            dl class="facts" {
                dt { "Pull request" }
                dd { (web_link(&format!("{repository_url}/pull/{number}"))) }
                dt { "Author" }
                dd { (e.author.as_deref().unwrap_or("an account that is gone")) }
                dt { "Commit" }
                dd { a href={ (repository_url) "/commit/" (head) } rel="noreferrer" { code { (head) } } }
                dt { "Branch" }
                dd { (words::plain(&pull.request.head_ref))
                    @if pull.request.is_fork { " (of a fork)" } }
                dt { "Server" }
                dd { (e.server.as_deref().unwrap_or("none")) }
                dt { "Data" }
                dd {
                    @match (&e.schema, &e.source, e.cloned_at) {
                        (Some(schema), Some(source), Some(at)) => {
                            (schema) ", a copy of " (source) ", made " (ago(at, now))
                        }
                        (Some(schema), ..) => { (schema) ", not copied yet" }
                        _ => "none",
                    }
                }
            }
        }
        section aria-labelledby="deployments" {
            h2 id="deployments" { "Deployments" }
            @if explanation.deployments.is_empty() {
                p class="empty" { "It was never deployed. What comes next stands above." }
            }
            @for (index, told) in explanation.deployments.iter().enumerate() {
                (deployment(told, index == 0, &shown.facts, now))
            }
        }
        section aria-labelledby="events" {
            h2 id="events" { "What happened" }
            (events(&explanation.events, &shown.facts))
        }
    };
    let title = format!("{} {}", e.number, e.title);
    let frame = Frame {
        title: &title,
        section: Some(Section::Environments),
        visit: Some(visit),
        said,
        live: Some(format!("/live/environment/{number}?seen={seen}&log={}", growing(explanation))),
    };
    page(frame, content)
}

/// The version of the log that may grow, of what is shown of it here.
fn growing(explanation: &Explanation) -> String {
    let newest = explanation.deployments.first();
    let last = newest.and_then(|told| Some((told, told.steps.last()?)));
    last.filter(|(_, step)| step.finished_at.is_none()).map_or_else(String::new, |(told, step)| {
        let name = log::name(told.deployment.id, told.steps.len() - 1);
        log::version(&name, &log::shown(&step.output))
    })
}

const REDEPLOY: &str = "Deploy again";
const APPROVE: &str = "Approve this commit…";
const RELEASE: &str = "Release";
/// Buttons that sentences speak of, by their verb.
const BUTTONS: [(&str, &str); 3] =
    [("redeploy", REDEPLOY), ("approve", APPROVE), ("release", RELEASE)];

fn actions(visit: &Visit, shown: &Shown, policy: &Policy) -> Markup {
    let e = &shown.explanation.environment;
    let number = e.number.0;
    let path = |verb: &str| format!("/pull/{number}/{verb}");
    let open = shown.explanation.state == PullState::Open;
    let has_server = e.server.is_some();
    let (held, stopped) = (shown.pull.hold.is_some(), shown.pull.stopped.is_some());
    let kept = keeps_previous(e, &shown.facts);
    let fork = matches!(
        condition::eligibility(&shown.pull, &shown.facts, policy),
        Err(condition::Ineligible::ForkNotApproved { .. }
            | condition::Ineligible::ForkMovedOn { .. })
    );
    let grace = words::duration(policy.grace);
    html! {
        @if visit.may_change() {
            div class="actions" data-part="actions" {
                @if open && (has_server || stopped) && e.stage != Stage::Held {
                    (button(visit, &path("redeploy"), &[], REDEPLOY, "primary"))
                }
                @if open && has_server && e.stage != Stage::Held {
                    (asked(visit, "Fresh data…", form(visit, &path("reset-db"), "stacked", html! {
                        p { "Stops the app, copies the author's database anew, and deploys again. What was changed in the copy is lost." }
                        button type="submit" class="danger" { "Copy the data anew" }
                    })))
                    @if kept {
                        (asked(visit, "Previous data…", form(visit, &path("reset-db"), "stacked", html! {
                            p { "Stops the app, brings back the data that the last copy replaced, and deploys again. The data of now are kept in their place: the same button brings them back." }
                            input type="hidden" name="undo" value="yes";
                            button type="submit" { "Bring the previous data back" }
                        })))
                    }
                }
                @if open && fork {
                    (asked(visit, APPROVE, form(visit, &path("approve"), "stacked", html! {
                        p {
                            "It comes from a fork: its code runs on your servers once you approve it. Look at "
                            code { (e.head) } " first. Only exactly this commit may run; when its head moves on, \
                             it keeps serving for " (grace) "."
                        }
                        input type="hidden" name="sha" value=(e.head);
                        button type="submit" class="danger" { "I have looked at it; let it run" }
                    })))
                }
                @if held || stopped {
                    (button(visit, &path("release"), &[], RELEASE, "primary"))
                } @else {
                    (asked(visit, "Hold…", hold(visit, &path("hold"), &[])))
                    @if open {
                        (asked(visit, "Stop…", form(visit, &path("stop"), "stacked", html! {
                            p { "Its server goes back to the pool, and it gets none before somebody releases it. What was changed in its data may be lost." }
                            button type="submit" class="danger" { "Stop it" }
                        })))
                    }
                }
            }
        }
    }
}

/// The data that its last reset replaced can come back.
pub fn keeps_previous(e: &Environment, facts: &Facts) -> bool {
    e.schema.as_ref().is_some_and(|schema| {
        facts.clones.values().any(|clone| {
            clone.schema.as_str() == schema
                && clone.pull == Some(e.number)
                && clone.state == CloneState::Ready
                && clone.contents.kept
        })
    })
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Offered => "waits for its staging client",
        Outcome::Running => "is being deployed",
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Superseded => "another one took its place",
    }
}

fn deployment(told: &Told, open: bool, facts: &Facts, now: Timestamp) -> Markup {
    let d = &told.deployment;
    html! {
        details class="deployment" open[open] id={ "deployment-" (d.id) } {
            summary {
                code { (d.sha.short()) } " "
                span class={ "outcome " (d.outcome.as_str()) } { (outcome_words(d.outcome)) }
                span class="quiet" data-part={ "when-" (d.id) } {
                    " · try " (d.attempt) " on " (facts.server_name(d.server)) ", "
                    (moment(d.offered_at))
                    @match (d.started_at, d.finished_at) {
                        (Some(from), Some(to)) => { ", " (words::duration(words::between(from, to))) }
                        (Some(from), None) => { ", " (since(from, now)) }
                        _ => {}
                    }
                    @if d.interruptions > 0 { ", begun again " (d.interruptions) "×" }
                }
            }
            div class="steps" {
                @if let Some(reason) = &d.reason {
                    p class="reason" {
                        @if let Some(step) = &d.failed_step { strong { (step) } ": " }
                        (prose(reason))
                    }
                }
                @if told.steps.is_empty() { p class="quiet" { "No step has begun." } }
                @for (index, step) in told.steps.iter().enumerate() {
                    (one_step(step, d.id, index, now))
                }
            }
        }
    }
}

fn one_step(step: &Step, deployment: i64, index: usize, now: Timestamp) -> Markup {
    let failed = step.exit_status.is_some_and(|status| status != 0);
    let id = log::name(deployment, index);
    html! {
        h3 data-part={ "step-" (id) } {
            (step.name) " "
            span class="quiet" {
                @match step.finished_at {
                    Some(end) => (words::duration(words::between(step.started_at, end))),
                    None => { "for " (since(step.started_at, now)) " so far" }
                }
                @if failed { ", exit status " (step.exit_status.unwrap_or_default()) }
            }
        }
        @if !step.output.trim().is_empty() {
            pre class="log" role="log" aria-label={ "Output of " (step.name) } tabindex="0" data-log=(id) { (log::shown(&step.output)) }
        }
    }
}

pub fn events(events: &[Event], facts: &Facts) -> Markup {
    if events.is_empty() {
        return html! { p class="empty" { "Nothing yet." } };
    }
    let row = |event: &Event| {
        vec![
            moment(event.at),
            html! { (words::plain(&event.actor)) },
            html! {
                (prose(&event.message))
                @if let Some(server) = event.server {
                    span class="quiet" { " · " (facts.server_name(server)) }
                }
            },
        ]
    };
    html! {
        div data-part="events" {
            (Table {
                caption: "The newest first",
                caption_hidden: false,
                head: &["When", "Who", "What"],
                rows: events.iter().map(row).collect(),
            })
        }
    }
}
