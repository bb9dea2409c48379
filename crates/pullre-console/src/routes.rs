//! Which page answers which path.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::{Extension, Router};
use jiff::Timestamp;
use maud::Markup;
use pullre::domain::{PullNumber, ServerId};
use pullre::ops::OpsError;
use pullre::store::master::Table;
use tokio::sync::watch;

use crate::guard::{Visit, guard};
use crate::live::{self, Shows, Subject};
use crate::pages::{self, environment, failure, problem, servers};
use crate::session::Said;
use crate::{Console, acts, answer, assets, master, metrics, webhook};

pub type App = State<Arc<Console>>;
pub type Who = Extension<Visit>;
type Answer = Response<Body>;

pub fn router(console: Arc<Console>, stopped: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics_page))
        .route("/webhook/push", post(hook))
        .route("/robots.txt", get(async || "User-agent: *\nDisallow: /\n"))
        .route("/favicon.ico", get(async || assets::asset("icon.svg")))
        .route("/assets/{name}", get(async |Path(name): Path<String>| assets::asset(&name)))
        .route("/pull/list", get(environments))
        .route("/pull/{number}", get(one_environment))
        .route("/pull/{number}/{verb}", post(acts::pull))
        .route("/server/list", get(server_list))
        .route("/server/{verb}", post(acts::server))
        .route("/server/{id}/hold", get(hold_server))
        .route("/pause", post(acts::pause))
        .route("/resume", post(acts::resume))
        .route("/pool", get(pool))
        .route("/release/next/list", get(release))
        .route("/master", get(master::tables))
        .route("/master/{table}", get(master::rows))
        .route("/master/{table}/create", get(master::new).post(master::create))
        .route("/master/{table}/{id}", get(master::row))
        .route("/master/{table}/{id}/update", get(master::edit).post(master::update))
        .route("/master/{table}/{id}/delete", get(master::ask).post(master::delete))
        .route("/live/environments", get(live_environments))
        .route("/live/servers", get(live_servers))
        .route("/live/environment/{number}", get(live_environment))
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(console.clone(), guard))
        .layer(Extension(stopped))
        .with_state(console)
}

pub async fn nothing() -> Answer {
    problem(StatusCode::NOT_FOUND, "There is no such page.")
}

async fn wrong_method() -> Answer {
    problem(StatusCode::METHOD_NOT_ALLOWED, "This address takes another method.")
}

/// A value of the query, decoded; empty where there is none.
pub fn asked(query: &Option<String>, name: &str) -> String {
    let pairs = form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let mut values = pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    values.next().unwrap_or_default().chars().take(200).collect()
}

impl Console {
    /// The sentence that waits for this visitor.
    pub fn said(&self, visit: &Visit) -> Option<Said> {
        self.sessions.said(&visit.session)
    }

    /// A page of what was read, or why it could not be.
    pub fn page<T>(read: Result<T, OpsError>, draw: impl FnOnce(T) -> Markup) -> Answer {
        match read {
            Ok(read) => answer::html(StatusCode::OK, draw(read)),
            Err(e) => failure(&e),
        }
    }
}

async fn front() -> Answer {
    answer::html(StatusCode::OK, pages::front::front())
}

/// For load balancers: that the database answers. How old the last tick is tells `/metrics`.
async fn health(State(console): App) -> Answer {
    match console.store(|store| Ok(store.last_tick()?)).await {
        Ok(_) => answer::text(StatusCode::OK, "ok\n"),
        Err(_) => {
            answer::text(StatusCode::SERVICE_UNAVAILABLE, "the control database does not answer\n")
        }
    }
}

async fn metrics_page(State(console): App) -> Answer {
    let policy = console.site.policy.clone();
    let limit = console.site.github_limit.clone();
    let measured = console.store(move |store| {
        let now = Timestamp::now();
        metrics::metrics(store, &policy, (limit.0)(now), now)
    });
    match measured.await {
        Ok(text) => answer::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        Err(e) => answer::text(answer::status_of(&e), format!("{e}\n")),
    }
}

async fn hook(State(console): App, headers: HeaderMap, request: Request) -> Answer {
    let secret = console.site.config.webhook_secret.as_ref();
    let heard = webhook::hear(secret, &headers, request.into_body(), &console.deliveries).await;
    if heard.tick {
        console.site.wake.notify_one();
    }
    answer::text(heard.status, heard.says)
}

async fn environments(
    State(console): App,
    Extension(visit): Who,
    RawQuery(query): RawQuery,
) -> Answer {
    let (said, search) = (console.said(&visit), asked(&query, "q"));
    let facts = console.store(|store| Ok(store.facts_without_bodies()?)).await;
    Console::page(facts, |facts| {
        pages::environments::environments(&visit, said, &facts, &console.site.policy, &search)
    })
}

async fn one_environment(
    State(console): App,
    Extension(visit): Who,
    Path(number): Path<String>,
) -> Answer {
    let Ok(number) = number.parse::<PullNumber>() else { return nothing().await };
    let policy = console.site.policy.clone();
    let read = console
        .operate(&visit.person.name, move |operator| {
            let Some(pull) = operator.store.pull(number)? else { return Ok(None) };
            // Before what is shown: at worst the page fetches itself once more.
            let pulse = operator.store.pulse_of(number)?;
            let facts = operator.store.facts_without_bodies()?;
            let explanation = operator.explain_by(number, &facts, &policy)?;
            Ok(Some(environment::Shown { explanation, pull, facts, pulse }))
        })
        .await;
    let site = &console.site;
    match read {
        Ok(None) => problem(
            StatusCode::NOT_FOUND,
            &format!("There is no pull request {number} here. The next tick may bring it."),
        ),
        Ok(Some(shown)) => Console::page(Ok(shown), |shown| {
            let said = console.said(&visit);
            environment::environment(&visit, said, &shown, &site.policy, &site.repository_url)
        }),
        Err(e) => failure(&e),
    }
}

async fn server_list(
    State(console): App,
    Extension(visit): Who,
    RawQuery(query): RawQuery,
) -> Answer {
    let (said, known) = (console.said(&visit), console.machines.look());
    let (listed, all) = (console.machines.are_listed(), asked(&query, "hidden") == "1");
    let read = console
        .store(move |store| {
            let hidden = store.hidden_servers()?;
            Ok(servers::Shown { facts: store.facts_without_bodies()?, hidden, known, listed })
        })
        .await;
    Console::page(read, |shown| servers::servers(&visit, said, &shown, &console.site.policy, all))
}

async fn hold_server(State(console): App, Extension(visit): Who, Path(id): Path<String>) -> Answer {
    let facts = console.store(|store| Ok(store.facts_without_bodies()?)).await;
    let server = id.parse().map(ServerId);
    match facts {
        Err(e) => failure(&e),
        Ok(facts) => match server.ok().and_then(|id| facts.servers.get(&id)) {
            None => nothing().await,
            Some(_) if !visit.may_change() => pages::read_only(),
            Some(server) => answer::html(StatusCode::OK, servers::hold_one(&visit, &server.name)),
        },
    }
}

async fn pool(State(console): App, Extension(visit): Who, RawQuery(query): RawQuery) -> Answer {
    let (said, name, now) = (console.said(&visit), asked(&query, "span"), Timestamp::now());
    let spans = pages::pool::SPANS;
    let span = spans.into_iter().find(|span| span.name == name).unwrap_or(spans[0]);
    let measured = console.store(move |store| pages::pool::measure(store, span, now)).await;
    Console::page(measured, |measured| pages::pool::pool(&visit, said, &measured, now))
}

async fn release(State(console): App, Extension(visit): Who, RawQuery(query): RawQuery) -> Answer {
    let Some(table) = Table::named("next_release_messages") else { return nothing().await };
    let (said, at) = (console.said(&visit), asked(&query, "page").parse().unwrap_or(0));
    let read = console.store(move |store| master::page_of(store, table, "", at)).await;
    Console::page(read, |(rows, count, at)| {
        pages::release::release(&visit, said, table, &rows, count, at)
    })
}

type Stopped = Extension<watch::Receiver<bool>>;

fn shows(query: &Option<String>) -> Shows {
    Shows { digest: asked(query, "seen"), log: asked(query, "log") }
}

async fn live_environments(
    State(console): App,
    Extension(stopped): Stopped,
    RawQuery(query): RawQuery,
) -> Answer {
    live::stream(console, Subject::Environments, shows(&query), stopped)
}

async fn live_servers(
    State(console): App,
    Extension(stopped): Stopped,
    RawQuery(query): RawQuery,
) -> Answer {
    live::stream(console, Subject::Servers, shows(&query), stopped)
}

async fn live_environment(
    State(console): App,
    Extension(stopped): Stopped,
    Path(number): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    match number.parse() {
        Ok(number) => live::stream(console, Subject::Environment(number), shows(&query), stopped),
        Err(_) => nothing().await,
    }
}
