//! What a reviewer sees on GitHub: story by story, after crashes, with two controllers, and when
//! GitHub does not want to listen.

#![allow(clippy::unwrap_used)]

mod commands;
mod crashes;
mod limits;
mod rules;
mod serving;
mod stories;
mod ways;
mod wording;

use pullre::domain::PullNumber;
use testkit::fuse::Fuse;
use testkit::world::World;

pub const ONE: PullNumber = PullNumber(1);

/// Everything that GitHub shows, as people read it.
pub fn seen(world: &World) -> String {
    let told = world.hub.told();
    let mut text = String::new();
    for (_, run) in told.checks.values() {
        let (status, conclusion) = run.state.words();
        let state = conclusion.unwrap_or(status);
        text.push_str(&format!("[{} of {}] {state}: {}\n", run.name, run.external_id, run.title));
        text.push_str(&indented(&run.summary));
        text.push_str(&indented(run.text.as_deref().unwrap_or_default()));
        if let Some(url) = &run.details_url {
            text.push_str(&format!("    details: {url}\n"));
        }
    }
    for (head, status) in &told.statuses {
        let short = head.short();
        let url = status.target_url.as_deref().unwrap_or("-");
        text.push_str(&format!(
            "[status of {short}] {}: {} {url}\n",
            status.state, status.description
        ));
    }
    for (head, environment, statuses) in told.deployments.values() {
        let states: Vec<_> = statuses.iter().map(|status| status.state).collect();
        let last = statuses.last().and_then(|status| status.environment_url.clone());
        let (short, states) = (head.short(), states.join(", "));
        let url = last.unwrap_or_else(|| "-".into());
        text.push_str(&format!("[deployment {environment} of {short}] {states} {url}\n"));
    }
    for (who, comment) in told.comments.values() {
        text.push_str(&format!("[comment on {} by {who:?}]\n", comment.number));
        text.push_str(&indented(&comment.body));
    }
    visible(&text)
}

/// The character that keeps a mention from being one is to be seen in here.
pub fn visible(text: &str) -> String {
    text.replace('\u{200b}', "{zero width}")
}

fn indented(text: &str) -> String {
    // How long a copy takes is no part of any story.
    let timeless = |line: &str| match line.split_once(" kB in ") {
        Some((before, _)) => format!("{before} kB in TIME)"),
        None => line.to_owned(),
    };
    text.lines().map(|line| format!("    {}\n", timeless(line)).replace("    \n", "\n")).collect()
}

/// The titles of all check runs, with their states.
pub fn checks(world: &World) -> Vec<String> {
    let told = world.hub.told();
    let run = |(_, run): &(String, pullre::ports::CheckRun)| {
        let (status, conclusion) = run.state.words();
        format!("{} {}: {}", run.external_id.split_at(9).0, conclusion.unwrap_or(status), run.title)
    };
    told.checks.values().map(run).collect()
}

/// The one comment of ours.
pub fn comment(world: &World, number: PullNumber) -> String {
    let told = world.hub.told();
    let mark = format!("<!-- pullre:{} -->", number.0);
    let ours = told.comments.values().find(|(_, comment)| comment.body.contains(&mark));
    visible(&ours.unwrap().1.body)
}

/// The deployments, with every state that they had.
pub fn deployments(world: &World) -> String {
    let seen = seen(world);
    seen.lines().filter(|line| line.starts_with("[deployment")).collect::<Vec<_>>().join("\n")
}

/// A speaking installation with a pull request that no tick has seen yet.
pub fn opened(servers: usize) -> World {
    let world = World::new(servers).speaks();
    world.hub.open("dev1", false, world.now);
    world
}

/// A speaking installation whose credential may make no check runs.
pub fn without_checks(servers: usize) -> World {
    let world = World::new(servers).speaks();
    world.hub.forbid("check");
    world
}

/// Its commit waits for its server's client.
pub fn offered(servers: usize) -> World {
    let mut world = opened(servers);
    world.tick();
    world.settle_machines();
    world.tick();
    world
}

/// Its deployment has failed, and nobody was told yet.
pub fn failed(servers: usize) -> World {
    let mut world = offered(servers);
    world.client_ticks(&Fuse::never(), |_| false);
    world
}

/// One speaking installation with a ready environment.
pub fn ready() -> World {
    let mut world = World::new(2).speaks();
    let set = ["check_url=http://tester:hunter2@stg1.example:8000/health?x=1".to_owned()];
    world.operator(&mut world.store()).server_set("stg1", &set).unwrap();
    world.hub.open("dev1", false, world.now);
    world.minutes(4);
    world
}
