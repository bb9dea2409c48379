//! The buttons: each calls one operation, and sends the browser back with what came of it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use pullre::domain::{PullNumber, Sha};
use pullre::ops::{OpsError, parse_span};

use crate::guard::{Form, Visit};
use crate::pages::sentence;
use crate::routes::{App, Who, nothing};
use crate::session::Said;
use crate::{Console, answer};

type Answer = Response<Body>;

impl Console {
    /// Back to a page, which shows what came of it.
    pub fn back(&self, visit: &Visit, to: &str, done: Result<String, OpsError>) -> Answer {
        let (failed, text) = match done {
            Ok(text) => (false, text),
            Err(e) => {
                if matches!(e, OpsError::Store(_)) {
                    tracing::warn!("{}: {e}", visit.person.name);
                }
                (true, e.to_string())
            }
        };
        self.sessions.say(&visit.session, Said { failed, text: sentence(&text) });
        answer::see_other(to)
    }
}

fn span(form: &Form) -> Result<Option<std::time::Duration>, OpsError> {
    match form.get("span").trim() {
        "" => Ok(None),
        text => parse_span(text).map(Some),
    }
}

pub async fn pull(
    State(console): App,
    Extension(visit): Who,
    Path((number, verb)): Path<(String, String)>,
    Extension(form): Extension<Form>,
) -> Answer {
    let Ok(number) = number.parse::<PullNumber>() else { return nothing().await };
    if !matches!(verb.as_str(), "redeploy" | "reset-db" | "hold" | "stop" | "release" | "approve") {
        return nothing().await;
    }
    let site = console.site.clone();
    let done = console
        .operate(&visit.person.name, move |operator| match verb.as_str() {
            "redeploy" => {
                let next = operator.redeploy(number, &site.policy, &site.locks)?;
                Ok(format!("{number}: {next}"))
            }
            "reset-db" if !form.get("undo").is_empty() => {
                operator.undo_reset(number, &site.policy, &site.locks)?;
                Ok(format!(
                    "{number}: the next ticks stop its app, bring the previous data back and start it again"
                ))
            }
            "reset-db" => {
                operator.reset_db(number, &site.locks)?;
                Ok(format!(
                    "{number}: the next ticks stop its app, clone its data and start it again"
                ))
            }
            "hold" => {
                let reason: String = form.get("reason").trim().chars().take(300).collect();
                operator.pull_hold(number, &reason, span(&form)?)?;
                Ok(format!("{number} is held"))
            }
            "stop" => {
                operator.pull_stop(number)?;
                Ok(format!("{number} gives its server back, and gets none before its release"))
            }
            "release" => {
                operator.pull_release(number)?;
                Ok(format!("{number} is in automatic hands again"))
            }
            _ => {
                let sha: Sha =
                    form.get("sha").parse().map_err(|e| OpsError::Usage(format!("{e}")))?;
                operator.approve(number, &sha)?;
                Ok(format!("{number}: {} may run", sha.short()))
            }
        })
        .await;
    console.wake_after(&done);
    console.back(&visit, &format!("/pull/{}", number.0), done)
}

pub async fn server(
    State(console): App,
    Extension(visit): Who,
    Path(verb): Path<String>,
    Extension(form): Extension<Form>,
) -> Answer {
    const VERBS: [&str; 8] =
        ["register", "start", "stop", "hold", "release", "hide", "show", "take-over"];
    if !VERBS.contains(&verb.as_str()) {
        return nothing().await;
    }
    let site = console.site.clone();
    let done = console
        .operate(&visit.person.name, move |operator| {
            let instance = form.get("InstanceId").trim();
            // The ancestor's forms name the instance, ours the server.
            let name = match form.get("server").trim() {
                "" => instance,
                name => name,
            };
            if name.is_empty() {
                return Err(OpsError::Usage("the form names no server".into()));
            }
            let (compute, locks) = (&*site.compute, &site.locks);
            match verb.as_str() {
                "register" if site.local => {
                    operator.server_register(name, true)?;
                    Ok(format!("registered {name}; give it a schema and a check URL by Edit"))
                }
                "register" => {
                    let name = operator.server_register_machine(name, compute)?;
                    Ok(format!("registered {name}; give it a schema and a check URL by Edit"))
                }
                "start" => {
                    operator.server_start(name, compute, locks)?;
                    Ok(format!("{name}: start asked for"))
                }
                "stop" => {
                    operator.server_stop(name, compute, locks)?;
                    Ok(format!("{name}: stop asked for"))
                }
                "hold" => {
                    let reason: String = form.get("reason").trim().chars().take(300).collect();
                    operator.server_hold(name, &reason, span(&form)?)?;
                    Ok(format!("{name} is held"))
                }
                "release" => {
                    operator.server_release(name)?;
                    Ok(format!("{name} is in automatic hands again"))
                }
                "take-over" => {
                    let schema = operator.server_take_over(name, locks)?;
                    Ok(format!("{name}: schema {schema} is overwritten from now on"))
                }
                verb => {
                    if name.chars().count() > 2000 || name.chars().any(char::is_control) {
                        return Err(OpsError::Usage("that cannot be a machine's name".into()));
                    }
                    operator.server_hide(name, verb == "show")?;
                    Ok(format!("{name} is {}", if verb == "show" { "shown" } else { "hidden" }))
                }
            }
        })
        .await;
    console.machines.changed();
    console.wake_after(&done);
    console.back(&visit, "/server/list", done)
}

pub async fn pause(State(console): App, Extension(visit): Who) -> Answer {
    let done = console.operate(&visit.person.name, |operator| operator.pause()).await;
    console.back(&visit, "/pull/list", done.map(|()| "everything is paused".into()))
}

pub async fn resume(State(console): App, Extension(visit): Who) -> Answer {
    let done = console.operate(&visit.person.name, |operator| operator.resume()).await;
    let done = done.map(|()| "the next tick goes on".to_owned());
    console.wake_after(&done);
    console.back(&visit, "/pull/list", done)
}

impl Console {
    /// What a person asked for should not wait a minute.
    fn wake_after(self: &Arc<Self>, done: &Result<String, OpsError>) {
        if done.is_ok() {
            self.site.wake.notify_one();
        }
    }
}
