//! `/metrics`, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pullre::condition::Policy;
use pullre::facts::Pulse;
use pullre::ops::OpsError;
use pullre::ports::RateLeft;
use pullre::stage::{Stage, Standings};
use pullre::store::Store;

use crate::RateLimit;
use crate::pages::pool::quantiles;

const STAGES: [Stage; 10] = [
    Stage::Ineligible,
    Stage::Queued,
    Stage::Starting,
    Stage::Cloning,
    Stage::Deploying,
    Stage::Ready,
    Stage::Failed,
    Stage::Held,
    Stage::Stopping,
    Stage::Closed,
];

struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP pullre_{name} {help}\n# TYPE pullre_{name} {kind}");
    }

    /// Labels are ours or names that were checked; their values are escaped all the same.
    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "pullre_{name}");
        for (index, (key, label)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{key}=\"", if index == 0 { '{' } else { ',' });
            for c in label.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "{end} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.metric(name, help, "gauge");
        self.value(name, &[], value);
    }

    fn summary(&mut self, name: &str, help: &str, durations: Vec<Duration>) {
        self.metric(name, help, "summary");
        let (count, sum) = (durations.len(), durations.iter().sum::<Duration>());
        if let Some(q) = quantiles(durations) {
            self.value(name, &[("quantile", "0.5")], q.median.as_secs_f64());
            self.value(name, &[("quantile", "0.95")], q.slow.as_secs_f64());
        }
        self.value(&format!("{name}_sum"), &[], sum.as_secs_f64());
        self.value(&format!("{name}_count"), &[], count as f64);
    }
}

pub fn metrics(
    store: &mut Store,
    policy: &Policy,
    github: RateLimit,
    now: Timestamp,
) -> Result<String, OpsError> {
    let mut text = Text(String::new());
    let facts = store.facts_without_bodies()?;
    let standings = Standings::new(&facts, policy, now);
    let mut stages: BTreeMap<&str, u32> = BTreeMap::new();
    for pull in facts.pulls.values() {
        *stages.entry(standings.of(pull).stage.as_str()).or_default() += 1;
    }
    let in_stage = |stage: Stage| f64::from(stages.get(stage.as_str()).copied().unwrap_or(0));
    text.metric("environments", "Open pull requests by stage.", "gauge");
    for stage in STAGES {
        text.value("environments", &[("stage", stage.as_str())], in_stage(stage));
    }
    text.gauge("queue", "Pull requests that wait for a server.", in_stage(Stage::Queued));
    let pool: Vec<_> = facts.servers.values().filter(|server| server.is_staging).collect();
    text.gauge("pool_servers", "Servers in the pool.", pool.len() as f64);
    let busy = pool.iter().filter(|server| standings.roster().pull(server.id).is_some()).count();
    text.gauge("pool_servers_busy", "Servers in the pool that have an environment.", busy as f64);
    text.gauge(
        "paused",
        "Whether all effects are paused.",
        f64::from(u8::from(facts.paused.is_some())),
    );
    let seconds = |t: Timestamp| now.duration_since(t).as_secs_f64().max(0.0);
    text.metric("client_seen_seconds", "Since the last sign of life of a staging client.", "gauge");
    for server in facts.servers.values() {
        if let Some(agent) = &server.agent {
            let since = seconds(agent.seen_at);
            text.value("client_seen_seconds", &[("server", &server.name)], since);
        }
    }
    type Measure = fn(&Pulse) -> f64;
    let measures: [(&str, &str, Measure); 3] = [
        ("server_disk_free_bytes", "Free on the fuller disk of a server.", |p| p.free_bytes as f64),
        ("server_disk_bytes", "How large that disk is.", |p| p.total_bytes as f64),
        ("server_load", "Programs that wanted to run on a server in the last minute.", |p| {
            f64::from(p.load_percent) / 100.0
        }),
    ];
    for (name, help, measure) in measures {
        text.metric(name, help, "gauge");
        for server in facts.servers.values() {
            if let Some(pulse) = &server.pulse {
                text.value(name, &[("server", &server.name)], measure(pulse));
            }
        }
    }
    if let Some(tick) = store.last_tick()? {
        text.gauge(
            "tick_age_seconds",
            "Since the last tick that ended began.",
            seconds(tick.began_at),
        );
        text.gauge(
            "tick_duration_seconds",
            "How long the last tick took.",
            tick.took.as_secs_f64(),
        );
        text.gauge("tick_failures", "What failed in the last tick.", f64::from(tick.failed));
    }
    let day = now.saturating_sub(SignedDuration::from_hours(24)).unwrap_or(now);
    let deployments = store.deployments_since(day)?;
    text.metric(
        "deployment_failures",
        "Deployments that failed in the last 24 hours, by step.",
        "gauge",
    );
    let mut failures: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, step, _) in deployments.iter().filter(|(succeeded, ..)| !succeeded) {
        *failures.entry(step.as_deref().unwrap_or("unknown")).or_default() += 1;
    }
    for (step, count) in failures {
        text.value("deployment_failures", &[("step", step)], f64::from(count));
    }
    let took = deployments.iter().filter(|(succeeded, ..)| *succeeded).map(|(.., took)| *took);
    text.summary(
        "deployment_seconds",
        "Deployments that succeeded in the last 24 hours.",
        took.collect(),
    );
    let clones = facts.clones.values().filter_map(|clone| u64::try_from(clone.millis?).ok());
    text.summary(
        "clone_seconds",
        "The last clone of each schema.",
        clones.map(Duration::from_millis).collect(),
    );
    let of = |pairs: Vec<(Timestamp, Duration)>| pairs.into_iter().map(|(_, took)| took).collect();
    text.summary(
        "push_to_ready_seconds",
        "From a push to the server that serves it, in the last 24 hours.",
        of(store.push_to_ready_since(day)?),
    );
    text.summary(
        "server_wait_seconds",
        "Until an environment got a server, in the last 24 hours.",
        of(store.waits_since(day)?),
    );
    if let Some(read) = facts.whole_read_at {
        text.gauge(
            "github_whole_read_seconds",
            "Since GitHub's open list was read as a whole.",
            seconds(read),
        );
    }
    let limited = github.until.map_or(0.0, |until| until.duration_since(now).as_secs_f64());
    text.gauge(
        "github_limited_seconds",
        "For how long GitHub's rate limit still keeps requests back.",
        limited.max(0.0),
    );
    if let Some(RateLeft { limit, remaining, resets_at }) = github.left {
        text.gauge("github_rate_limit", "What GitHub's rate limit allows.", f64::from(limit));
        text.gauge(
            "github_rate_remaining",
            "What is left of it, within a fiftieth.",
            f64::from(remaining),
        );
        text.gauge(
            "github_rate_reset_seconds",
            "Until all of it is there again.",
            resets_at.duration_since(now).as_secs_f64().max(0.0),
        );
    }
    text.gauge("unreadable_rows", "Rows that make no sense.", facts.unreadable.len() as f64);
    Ok(text.0)
}
