//! The rules of the planner, whatever happens: pull requests, people, machines and processes do
//! random things, and after each of them the rules hold. In the end everything settles.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::prelude::*;
use pullre::condition;
use pullre::domain::{InstanceState, PullNumber, PullState, Sha};
use pullre::facts::CloneState;
use pullre::reconcile::Said;
use pullre::roster::Roster;
use pullre::stage::{Stage, standing};
use testkit::fuse::Fuse;
use testkit::world::World;

const SERVERS: usize = 3;
/// A machine in the pool that a person keeps out of automatic hands.
const HELD: &str = "stg3";
/// A machine that is registered, but not in the pool.
const OTHER: &str = "stg4";

#[derive(Debug, Clone)]
enum Happening {
    Open {
        author: u8,
        fork: bool,
    },
    Push(u8),
    Close(u8),
    Reopen(u8),
    Approve(u8),
    Hold(u8),
    Stop(u8),
    Release(u8),
    Redeploy(u8),
    ResetDb(u8),
    UndoReset(u8),
    Tick,
    /// A tick that dies after so many operations.
    TickKilled(u32),
    /// A tick with another whole tick inside, at the n-th thing that it does.
    TicksOverlap(usize),
    /// Staging clients look; the app of the one pull request cannot be deployed.
    Clients {
        broken: u8,
    },
    ClientsKilled(u32),
    /// While clients deploy, this pull request is pushed to and a tick runs.
    ClientsOvertaken(u8),
    MachinesArrive,
    MachineStops(u8),
    MachineVanishes(u8),
    StartsRefused(bool),
    /// The provider has, or has not, a machine for this server.
    Capacity(u8, bool),
    ProviderAway(bool),
    ForgeAway(bool),
    Pause,
    Resume,
    Minutes(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let pull = 1..5_u8;
    prop_oneof![
        3 => (0..3_u8, prop::bool::weighted(0.3)).prop_map(|(author, fork)| Open { author, fork }),
        3 => pull.clone().prop_map(Push),
        3 => pull.clone().prop_map(Close),
        2 => pull.clone().prop_map(Reopen),
        2 => pull.clone().prop_map(Approve),
        1 => pull.clone().prop_map(Hold),
        2 => pull.clone().prop_map(Stop),
        2 => pull.clone().prop_map(Release),
        1 => pull.clone().prop_map(Redeploy),
        1 => pull.clone().prop_map(ResetDb),
        1 => pull.clone().prop_map(UndoReset),
        8 => Just(Tick),
        4 => (0..120_u32).prop_map(TickKilled),
        3 => (0..6_usize).prop_map(TicksOverlap),
        6 => (0..6_u8).prop_map(|broken| Clients { broken }),
        3 => (0..20_u32).prop_map(ClientsKilled),
        3 => pull.clone().prop_map(ClientsOvertaken),
        6 => Just(MachinesArrive),
        1 => (1..=SERVERS as u8).prop_map(MachineStops),
        1 => (1..=2_u8).prop_map(MachineVanishes),
        1 => any::<bool>().prop_map(StartsRefused),
        2 => (1..=2_u8, any::<bool>()).prop_map(|(n, there)| Capacity(n, there)),
        1 => any::<bool>().prop_map(ProviderAway),
        1 => any::<bool>().prop_map(ForgeAway),
        1 => Just(Pause),
        2 => Just(Resume),
        4 => (1..30_u8).prop_map(Minutes),
    ]
}

fn world(new: impl Fn(usize) -> World) -> World {
    let mut world = new(SERVERS);
    world.policy.cloning.keep_previous = true;
    world.add_server();
    let mut store = world.store();
    let mut operator = world.operator(&mut store);
    operator.server_hold(HELD, "not ours", None).unwrap();
    operator.server_set(OTHER, &["is_staging=0".into()]).unwrap();
    // Something that was there before us, in the schema of a server of the pool.
    world.write_schema(HELD);
    world
}

/// The same with life in it: one environment from the repository itself and one of an approved
/// fork, and one that waits.
fn lively_world(new: impl Fn(usize) -> World, approved: &mut Approved) -> World {
    let mut world = world(new);
    world.hub.open("dev1", false, world.now);
    let fork = world.hub.open("dev2", true, world.now);
    world.minutes(1);
    let head = world.hub.pulls()[1].head.clone();
    world.operator(&mut world.store()).approve(fork, &head).unwrap();
    approved.insert(head);
    world.minutes(3);
    assert_eq!(world.apps.len(), 2);
    world.hub.open("dev1", false, world.now);
    world
}

/// Every commit of a fork that a person ever allowed to run.
type Approved = BTreeSet<Sha>;

fn happen(world: &mut World, approved: &mut Approved, happening: &Happening) {
    use Happening::*;
    let number = |n: &u8| PullNumber((*n).into());
    let now = world.now;
    // A verb that is refused in this state is no fault; what it must not do is checked after.
    match happening {
        Open { author, fork } => {
            world.hub.open(["dev1", "dev2", "stranger"][usize::from(*author)], *fork, now);
        }
        Push(n) => world.hub.push(number(n), now),
        Close(n) => world.hub.close(number(n), now),
        Reopen(n) => world.hub.reopen(number(n), now),
        Approve(n) => {
            let pull = world.hub.pulls().into_iter().find(|pull| pull.number == number(n));
            if let Some(pull) = pull
                && world.operator(&mut world.store()).approve(number(n), &pull.head).is_ok()
            {
                approved.insert(pull.head);
            }
        }
        Hold(n) => drop(world.operator(&mut world.store()).pull_hold(number(n), "mine", None)),
        Stop(n) => drop(world.operator(&mut world.store()).pull_stop(number(n))),
        Release(n) => drop(world.operator(&mut world.store()).pull_release(number(n))),
        Redeploy(n) => drop(world.operator(&mut world.store()).redeploy(
            number(n),
            &world.policy,
            &world.locks(),
        )),
        ResetDb(n) => drop(world.operator(&mut world.store()).reset_db(number(n), &world.locks())),
        UndoReset(n) => drop(world.operator(&mut world.store()).undo_reset(
            number(n),
            &world.policy,
            &world.locks(),
        )),
        Tick => drop(world.tick()),
        TickKilled(operations) => drop(world.try_tick(&Fuse::after(*operations))),
        TicksOverlap(at) => {
            let done = Mutex::new(0);
            let outer: &World = world;
            outer.tick_beside(&|said| {
                if !matches!(said, Said::Done { .. }) {
                    return;
                }
                let this = {
                    let mut done = done.lock().unwrap();
                    *done += 1;
                    *done - 1
                };
                if this == *at {
                    outer.tick();
                }
            });
        }
        Clients { broken } => {
            let broken = number(broken);
            world.client_ticks(&Fuse::never(), |pull| pull != broken);
        }
        ClientsKilled(operations) => world.client_ticks(&Fuse::after(*operations), |_| true),
        ClientsOvertaken(n) => {
            world.client_ticks_beside(&Fuse::never(), |_| true, &|world| {
                world.hub.push(number(n), world.now);
                world.tick();
            });
        }
        MachinesArrive => world.settle_machines(),
        MachineStops(n) => {
            let name = format!("stg{n}");
            if name != HELD && world.fleet.state(&name) == Some(InstanceState::Running) {
                world.fleet.force(&name, Some(InstanceState::Stopped));
                world.settle_machines();
            }
        }
        MachineVanishes(n) => {
            world.fleet.force(&format!("stg{n}"), None);
            world.settle_machines();
        }
        Capacity(n, there) => world.fleet.set_capacity(&format!("stg{n}"), *there),
        StartsRefused(refused) => world.fleet.refuse_starts(*refused),
        ProviderAway(away) => world.fleet.set_unreachable(*away),
        ForgeAway(away) => world.hub.set_unreachable(*away),
        Pause => world.operator(&mut world.store()).pause().unwrap(),
        Resume => world.operator(&mut world.store()).resume().unwrap(),
        Minutes(n) => world.advance(i64::from(*n) * 60),
    }
}

/// What holds at every moment.
fn check(world: &World, approved: &Approved) -> Result<(), TestCaseError> {
    let facts = world.facts();
    prop_assert!(facts.unreadable.is_empty(), "{:?}", facts.unreadable);

    // What is said of all servers at once is what is said of each.
    let roster = Roster::of(&facts);
    for server in facts.servers.values() {
        let alone = condition::unusable(server, &facts);
        prop_assert_eq!(roster.unusable(server.id), alone.as_ref());
        let assignment = facts.assignment_of_server(server.id);
        prop_assert_eq!(roster.pull(server.id), assignment.map(|a| a.pull));
    }

    // What belongs to no environment, or is held, is never touched.
    for (id, effect) in world.fleet.effects() {
        prop_assert!(id.0 != HELD && id.0 != OTHER, "{id} was touched: {effect:?}");
    }
    // Nobody's data is ever overwritten, but what we made ourselves.
    for schema in ["dev1", "dev2", HELD] {
        prop_assert!(world.holds_data_of(schema, schema), "{schema} was overwritten");
    }
    for (schema, clone) in &facts.clones {
        prop_assert!(!matches!(schema.as_str(), "dev1" | "dev2"));
        let server = &facts.servers[&clone.server];
        prop_assert_eq!(server.schema.as_ref().unwrap(), schema);
        // Whatever counts as ready is whole, and its own source's.
        if clone.state == CloneState::Ready {
            let source = clone.source.as_ref().unwrap();
            prop_assert!(world.holds_data_of(schema.as_str(), source.as_str()));
        }
    }
    // No machine runs the app of one pull request while it is another's to serve and ready.
    for (id, app) in &world.apps {
        let server = facts.servers.values().find(|s| s.instance.as_ref() == Some(id)).unwrap();
        prop_assert!(server.app.is_some(), "an app on {id} that nobody knows of: {app:?}");
    }
    let mut servers: Vec<_> = facts.assignments.values().map(|a| a.server).collect();
    servers.sort_unstable();
    servers.dedup();
    prop_assert_eq!(servers.len(), facts.assignments.len(), "one server, one pull request");
    // Code of a fork runs only where exactly that commit was approved.
    for app in world.apps.values() {
        let pull = &facts.pulls.get(&app.pull);
        if let Some(pull) = pull.filter(|pull| pull.request.is_fork) {
            prop_assert!(approved.contains(&app.sha), "{} was never approved", app.sha);
            prop_assert_eq!(app.pull, pull.request.number);
        }
    }
    // Ready means: the machine runs, its client reported the head, on data that is there.
    for pull in facts.pulls.values() {
        let number = pull.request.number;
        if standing(pull, &facts, &world.policy, world.now).stage == Stage::Ready {
            let assignment = &facts.assignments[&number];
            let server = &facts.servers[&assignment.server];
            let deployment = assignment.deployment.as_ref().unwrap();
            prop_assert_eq!(&deployment.sha, &pull.request.head);
            let app = server.app.as_ref().unwrap();
            prop_assert_eq!((app.pull, &app.sha), (number, &pull.request.head));
        }
    }
    Ok(())
}

/// What a whole tick has done, whatever GitHub says.
fn check_obeyed(world: &World) -> Result<(), TestCaseError> {
    let (observed, _) = world.plan();
    let facts = &observed.facts;
    if facts.paused.is_some() || observed.instances.known().is_none() {
        return Ok(());
    }
    for assignment in facts.assignments.values() {
        let pull = &facts.pulls[&assignment.pull];
        let held = condition::hold(pull, facts.servers.get(&assignment.server), world.now);
        let keeps = pull.stopped.is_none() || held.is_some();
        prop_assert!(keeps, "{} was stopped and keeps its server", assignment.pull);
    }
    Ok(())
}

/// What holds once the world has been quiet for a while.
fn check_settled(world: &mut World, approved: &Approved) -> Result<(), TestCaseError> {
    world.fleet.refuse_starts(false);
    ["stg1", "stg2"].into_iter().for_each(|name| world.fleet.set_capacity(name, true));
    world.fleet.set_unreachable(false);
    world.hub.set_unreachable(false);
    world.operator(&mut world.store()).resume().unwrap();
    for number in 1..=world.hub.pulls().len() as u32 {
        drop(world.operator(&mut world.store()).pull_release(PullNumber(number)));
    }
    // Long enough for the longest pause after failures, and for the grace of what is ineligible.
    world.minutes(5);
    world.advance(7200);
    world.minutes(10);
    check(world, approved)?;
    let (_, plan) = world.plan();
    prop_assert!(plan.is_idle(), "still to do:\n{plan}");

    let facts = world.facts();
    let mut free = 0;
    for server in facts.servers.values().filter(|server| server.is_staging && server.hold.is_none())
    {
        let assigned = facts.assignment_of_server(server.id).is_some();
        let Some(state) = server.state else {
            prop_assert!(!assigned, "a vanished machine serves nobody");
            continue;
        };
        if !assigned {
            free += 1;
            prop_assert_eq!(state, InstanceState::Stopped, "{} runs for nobody", &server.name);
        }
    }
    for request in world.hub.pulls() {
        let pull = world.store().pull(request.number).unwrap();
        let assigned = facts.assignments.contains_key(&request.number);
        let Some(pull) = pull else {
            prop_assert_eq!(request.state, PullState::Closed, "{} was forgotten", request.number);
            continue;
        };
        prop_assert_eq!(&pull.request, &request, "what we know is what is");
        let stage = standing(&pull, &facts, &world.policy, world.now).stage;
        let expected =
            match (request.state, condition::eligibility(&pull, &facts, &world.policy).is_ok()) {
                (PullState::Closed, _) => Stage::Closed,
                (PullState::Open, false) => Stage::Ineligible,
                (PullState::Open, true) if assigned => Stage::Ready,
                (PullState::Open, true) => {
                    prop_assert_eq!(free, 0, "{} waits while a server is free", request.number);
                    let waits = plan.queue.iter().any(|waiting| waiting.pull == request.number);
                    prop_assert!(waits, "{} has no place in the queue", request.number);
                    Stage::Queued
                }
            };
        prop_assert_eq!(stage, expected, "{}", request.number);
        prop_assert!(stage == Stage::Ready || !assigned, "{} keeps a server", request.number);
    }
    Ok(())
}

fn hold_on(new: impl Fn(usize) -> World, cases: u32) {
    // PROPTEST_RNG_SEED repeats a run; a failure prints the shortest sequence of happenings.
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let happenings = prop::collection::vec(happening(), 1..60);
    let ran = Cell::new(0);
    proptest!(config, |(lively in any::<bool>(), happenings in happenings)| {
        ran.set(ran.get() + 1);
        let mut approved = Approved::new();
        let mut world = if lively { lively_world(&new, &mut approved) } else { world(&new) };
        for happening in &happenings {
            happen(&mut world, &mut approved, happening);
            check(&world, &approved)?;
            if matches!(happening, Happening::Tick) {
                check_obeyed(&world)?;
            }
        }
        check_settled(&mut world, &approved)?;
    });
    assert!(ran.get() >= cases);
}

/// `PROPTEST_CASES` looks harder.
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn the_rules_hold_whatever_happens() {
    hold_on(World::new, cases(100));
}

#[test]
fn the_rules_hold_whatever_happens_on_mariadb() {
    hold_on(World::on_mariadb, cases(10));
}
