//! One run: looks at each server's duty, and does what is to be done, server beside server.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use pullre::config::ClientConfig;
use pullre::domain::ServerId;
use pullre::facts::Pulse as Measured;
use pullre::polling::next_look_behind;
use pullre::store::{Database, Duty, Store};
use pullre::words;
use pullre_http::probe::{Prober, without_credentials};

use crate::checkout;
use crate::deploy::{self, Ending};
use crate::identity::{self, Identity};
use crate::measure::measure;
use crate::notices::notices;
use crate::observe::{Slots, observe};
use crate::plan::{ClientPlan, plan};
use crate::pulse::{self, Pulse, VERSION};
use crate::site::Site;
use crate::state_dir::{Held, StateDir};
use crate::user::AppUser;

pub const NO_SERVER: &str =
    "no server of this machine is registered: `update-pull server register NAME` adds one";

/// Whether something failed; it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Failed(pub bool);

pub struct Client<'a> {
    config: &'a ClientConfig,
    secrets: Vec<&'a str>,
    state: StateDir,
    prober: Prober,
    /// Why there is none is said by every step that needs one.
    user: Result<Option<AppUser>, String>,
    identity: Identity,
    database: Database,
    /// Servers that another client was seen at work on: said once.
    busy: HashSet<ServerId>,
    /// When each server's last sign of life was given.
    signed: HashMap<ServerId, Instant>,
}

impl<'a> Client<'a> {
    pub fn new(config: &'a ClientConfig, server: Option<&str>) -> Result<Client<'a>> {
        Ok(Client {
            identity: Identity::find(config, server),
            database: identity::database(config)?,
            state: StateDir::open(&config.state_dir)?,
            secrets: config.secrets(),
            prober: Prober::new(),
            user: AppUser::find(config.app.user.as_deref()).map_err(|e| e.to_string()),
            config,
            busy: HashSet::new(),
            signed: HashMap::new(),
        })
    }

    /// One look; with `poll_seconds` one after the other, as long as no other run does so.
    pub fn run(&mut self) -> Result<Failed> {
        let began = Instant::now();
        let mut store = self.database.open()?;
        self.notice();
        let every = self.config.poll_seconds;
        // The first look is every run's own: the run before this one may be at work for long.
        let Failed(mut failed) = match self.look(&mut store, &mut None) {
            Err(e) if every > 0 => said(&e),
            done => done?,
        };
        let mut polling = None;
        while let Some(next) = next_look_behind(began.elapsed(), every) {
            std::thread::sleep(next.saturating_sub(began.elapsed()));
            if polling.is_none() {
                polling = self.state.lock_polling()?;
            }
            if polling.is_none() {
                continue;
            }
            // In a run of many looks the next one may well find the store again.
            let Failed(one) = self.look(&mut store, &mut polling).unwrap_or_else(|e| said(&e));
            failed |= one;
        }
        Ok(Failed(failed))
    }

    /// Warns of what somebody should mend, once: cron would mail it each minute.
    fn notice(&self) {
        let pulse = self.measure().ok();
        let notices = notices(self.config, pulse.as_ref());
        match self.state.is_news(&notices) {
            Ok(true) => notices.iter().for_each(|notice| tracing::warn!("{notice}")),
            Ok(false) => {}
            Err(e) => tracing::warn!("{e:#}"),
        }
    }

    fn measure(&self) -> Result<Measured> {
        measure(&[self.config.target_dir.template(), self.state.root()])
    }

    /// A sign of life of every server's client; not at each of many looks.
    fn give_sign(&mut self, store: &mut Store, server: ServerId) -> Result<()> {
        if self.signed.get(&server).is_some_and(|at| at.elapsed() < pulse::EVERY) {
            return Ok(());
        }
        store.agent_seen(server, VERSION, Timestamp::now())?;
        match self.measure() {
            Ok(pulse) => store.measured(server, &pulse)?,
            Err(e) => tracing::warn!("{e:#}"),
        }
        self.signed.insert(server, Instant::now());
        Ok(())
    }

    fn site(&self, duty: Duty) -> Site<'_> {
        let Client { config, secrets, state, prober, user, .. } = self;
        Site { config, state, prober, secrets, user, duty }
    }

    /// `polling` is let go of before anything is done, which may take long: another run looks
    /// after the other servers meanwhile.
    fn look(&mut self, store: &mut Store, polling: &mut Option<Held>) -> Result<Failed> {
        let duties = self.identity.duties(store)?;
        if duties.is_empty() {
            tracing::info!("{NO_SERVER}");
        }
        let slots: Slots = store.local_slots()?.into_iter().collect();
        let mut failed = self.stop_orphans(store, &duties);
        let (mut work, mut alive) = (Vec::new(), Vec::new());
        for duty in duties {
            let site = self.site(duty);
            let name = site.duty.name.clone();
            let observed = match observe(&site, &slots) {
                Ok(observed) => observed,
                Err(e) => {
                    tracing::error!(server = name, "{name}: {e:#}");
                    failed = true;
                    continue;
                }
            };
            let server = observed.duty.server;
            alive.extend(observed.is_on().then_some(server));
            match plan(&observed) {
                ClientPlan::Nothing { why } => {
                    tracing::debug!(server = name, "{name}: {why}");
                    if let Err(e) = self.state.rotate_app_log(server) {
                        tracing::warn!(server = name, "{name}: {e:#}");
                    }
                }
                _ => work.push(site.duty),
            }
        }
        for server in alive {
            self.give_sign(store, server)?;
        }
        if !work.is_empty() {
            drop(polling.take());
        }
        let work: Vec<Site<'_>> = work.into_iter().map(|duty| self.site(duty)).collect();
        let mut busy = HashSet::new();
        for (server, end) in self.serve_all(&work, &slots, store) {
            match end {
                End::Done(Failed(one)) => failed |= one,
                End::Busy => {
                    busy.insert(server);
                }
            }
        }
        drop(work);
        self.busy = busy;
        Ok(Failed(failed))
    }

    /// A broken app of one server, which takes its time to fail, holds up no other one.
    fn serve_all(
        &self,
        work: &[Site<'_>],
        slots: &Slots,
        store: &mut Store,
    ) -> Vec<(ServerId, End)> {
        let serve = |site: &Site<'_>, store: &mut Store| {
            let end = self.serve(site, slots, store).unwrap_or_else(|e| {
                tracing::error!(server = site.duty.name, "{}: {e:#}", site.duty.name);
                End::Done(Failed(true))
            });
            (site.duty.server, end)
        };
        if let [site] = work {
            return vec![serve(site, store)];
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = work
                .iter()
                .map(|site| {
                    let thread = scope.spawn(move || match self.database.open() {
                        Ok(mut store) => serve(site, &mut store),
                        Err(e) => {
                            tracing::error!(server = site.duty.name, "{}: {e}", site.duty.name);
                            (site.duty.server, End::Done(Failed(true)))
                        }
                    });
                    (site.duty.server, thread)
                })
                .collect();
            threads
                .into_iter()
                .map(|(server, thread)| {
                    // A panic was printed by its thread.
                    thread.join().unwrap_or((server, End::Done(Failed(true))))
                })
                .collect()
        })
    }

    /// Under the server's lock: observes again, does it, until nothing is left to do.
    fn serve(&self, site: &Site<'_>, slots: &Slots, store: &mut Store) -> Result<End> {
        let name = &site.duty.name;
        let Some(_held) = self.state.lock(site.duty.server)? else {
            if !self.busy.contains(&site.duty.server) {
                tracing::info!(server = name, "{name}: another staging-client is at work on it");
            }
            return Ok(End::Busy);
        };
        let mut failed = false;
        let mut last = String::new();
        loop {
            let duties = store.duties_of(site.duty.instance.as_ref().map_or(name, |id| &id.0))?;
            let Some(duty) = duties.into_iter().find(|duty| duty.server == site.duty.server) else {
                return Ok(End::Done(Failed(failed)));
            };
            let site = self.site(duty);
            let plan = plan(&observe(&site, slots)?);
            let said = plan.to_string();
            if matches!(plan, ClientPlan::Nothing { .. }) || said == last {
                return Ok(End::Done(Failed(failed)));
            }
            say(&format!("{name}: {said}"));
            last = match self.apply(&site, store, plan)? {
                // Another wish, which may read the same.
                Ending::Superseded => {
                    say(&format!("{name}: something newer is wanted"));
                    String::new()
                }
                Ending::Succeeded => said,
                Ending::Failed { step, reason } => {
                    tracing::error!(server = name, "{name}: {said}: step {step} failed: {reason}");
                    failed = true;
                    said
                }
            };
        }
    }

    fn apply(&self, site: &Site<'_>, store: &mut Store, plan: ClientPlan) -> Result<Ending> {
        let began = Timestamp::now();
        let name = &site.duty.name;
        let took = || words::duration(words::between(began, Timestamp::now()));
        let ending = match &plan {
            ClientPlan::Nothing { .. } => Ending::Succeeded,
            ClientPlan::Report { app, .. } => {
                store.app_is(site.duty.server, Some(app))?;
                return Ok(Ending::Succeeded);
            }
            ClientPlan::Wait { task, times, again_at } => {
                deploy::wait(site, store, task, *times, *again_at)?;
                return Ok(Ending::Succeeded);
            }
            ClientPlan::Collect { deployment } => return self.collect(site, store, *deployment),
            ClientPlan::StopApp { .. } => {
                let failure = deploy::stop_app(site, store)?.failure;
                let trouble = failure.as_ref().map(|why| format!("it cannot stop the app: {why}"));
                store.agent_trouble(site.duty.server, trouble.as_deref())?;
                return Ok(match failure {
                    Some(reason) => Ending::Failed { step: "stop", reason },
                    None => {
                        say(&format!("{name}: the app is stopped ({})", took()));
                        Ending::Succeeded
                    }
                });
            }
            ClientPlan::Deploy(task) => deploy::deploy(site, store, task)?,
            ClientPlan::StartAgain { task, restarts } => {
                deploy::start_again(site, store, task, *restarts)?
            }
            ClientPlan::GiveUp { task, times } => deploy::give_up(site, store, task, *times)?,
        };
        if let (Ending::Succeeded, Some(task)) = (&ending, &site.duty.task) {
            let Some(url) = &site.duty.check_url else {
                say(&format!("{name}: {} runs ({})", task.deployment.sha.short(), took()));
                return Ok(ending);
            };
            let (sha, url) = (task.deployment.sha.short(), without_credentials(url));
            say(&format!("{name}: {sha} answers at {url} ({})", took()));
        }
        Ok(ending)
    }

    fn collect(&self, site: &Site<'_>, store: &mut Store, deployment: i64) -> Result<Ending> {
        self.state.collected(site.duty.server)?;
        let keep = Duration::from_secs(u64::from(self.config.keep_days) * 86_400);
        let mut pulse = Pulse::new(store, site.duty.server);
        let done = self
            .state
            .forget_logs(keep)
            .and_then(|()| checkout::collect(site, deployment, &mut pulse));
        Ok(match done {
            Ok(()) => Ending::Succeeded,
            Err(e) => Ending::Failed { step: "collect", reason: format!("{e:#}") },
        })
    }

    /// Stops apps of slots that are not in the pool any more: nobody else would.
    fn stop_orphans(&self, store: &mut Store, duties: &[Duty]) -> bool {
        if self.identity != Identity::Local {
            return false;
        }
        self.try_stop_orphans(store, duties).unwrap_or_else(|e| {
            tracing::error!("{e:#}");
            true
        })
    }

    fn try_stop_orphans(&self, store: &mut Store, duties: &[Duty]) -> Result<bool> {
        let mut failed = false;
        for record in self.state.apps()? {
            if duties.iter().any(|duty| duty.server == record.server) {
                continue;
            }
            // Out of the pool, or removed as a whole.
            let row = store.duties_of(&record.name)?;
            let row = row.into_iter().find(|duty| duty.server == record.server);
            let is_removed = row.is_none();
            let duty = row.unwrap_or_else(|| Duty {
                server: record.server,
                name: record.name.clone(),
                instance: None,
                schema: String::new(),
                check_url: None,
                app: None,
                died: None,
                task: None,
                paused: false,
                holds: Vec::new(),
            });
            if duty.paused {
                continue;
            }
            let site = self.site(duty);
            let Some(_held) = self.state.lock(record.server)? else { continue };
            say(&format!("{}: stop the app: the server is not in the pool any more", record.name));
            let stopped = if is_removed {
                let pulse = &mut Pulse::new(store, record.server);
                crate::app::stop(&site, None, pulse).report
            } else {
                deploy::stop_app(&site, store).context("stopping the app of a former server")?
            };
            if let Some(reason) = stopped.failure {
                tracing::error!(server = record.name, "{}: {reason}", record.name);
                failed = true;
            }
        }
        Ok(failed)
    }
}

/// To stdout. That its reader is gone, or its disk full, ends no deployment in the middle.
pub fn say(line: &str) {
    if let Err(e) = writeln!(io::stdout(), "{line}")
        && e.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::warn!("cannot write to stdout: {e}");
    }
}

fn said(error: &anyhow::Error) -> Failed {
    tracing::error!("{error:#}");
    Failed(true)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done(Failed),
    Busy,
}
