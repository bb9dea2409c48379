//! Looks at what strangers may have changed: in a thread apart, with the rights of the user whose
//! it is, and for a while only. A FIFO in the place of a file would hold whoever opens it for ever.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use git2::Repository;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::user::AppUser;

/// Answers take milliseconds, but for those about each folder of a large tree on a slow disk.
const LONGEST: Duration = Duration::from_secs(60);

/// Who looks, and for how long.
#[derive(Debug, Clone)]
pub struct Look {
    /// None: whoever runs this program.
    pub user: Option<AppUser>,
    step_timeout: Duration,
}

impl Look {
    pub fn new(user: Option<&AppUser>, step_timeout: Duration) -> Look {
        Look { user: user.cloned(), step_timeout }
    }

    /// One look at something in or around `place`.
    pub fn at<T: Send + 'static>(
        &self,
        place: &Path,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let user = self.user.clone();
        let (tell, hear) = mpsc::channel();
        spawn(move || {
            // Nobody may listen any more.
            let _ = tell.send(take_rights(user.as_ref()).map(|()| look()));
        })?;
        hears(place, &hear, self.patience())?
    }

    /// Opens a repository and keeps it in its thread.
    pub fn open(
        &self,
        place: &Path,
        open: impl FnOnce() -> Result<Repository> + Send + 'static,
    ) -> Result<Apart> {
        let user = self.user.clone();
        let (tell, hear) = mpsc::channel();
        let (ask, questions) = mpsc::channel::<Question>();
        spawn(move || {
            let opened = take_rights(user.as_ref()).and_then(|()| open());
            match opened {
                Ok(repository) => {
                    let _ = tell.send(Ok(()));
                    // Until nobody can ask any more.
                    questions.iter().for_each(|question| question(&repository));
                }
                Err(e) => drop(tell.send(Err(e))),
            }
        })?;
        hears(place, &hear, self.patience())??;
        Ok(Apart { ask, place: place.to_owned(), look: self.clone() })
    }

    fn patience(&self) -> Duration {
        self.step_timeout.min(LONGEST)
    }
}

/// A thread that does not answer is left alone: it ends with this program.
fn hears<T>(place: &Path, hear: &Receiver<T>, patience: Duration) -> Result<T> {
    let shown = place.display();
    hear.recv_timeout(patience).map_err(|e| match e {
        RecvTimeoutError::Timeout => anyhow!(
            "{shown} cannot be read within {} s: something that git reads there, or in \
             ~/.gitconfig, is no ordinary file; `find {shown} -type p` shows FIFOs, remove it",
            patience.as_secs()
        ),
        RecvTimeoutError::Disconnected => anyhow!("looking at {shown} broke off"),
    })
}

type Question = Box<dyn FnOnce(&Repository) + Send>;

/// A repository in its thread.
#[derive(Debug)]
pub struct Apart {
    ask: Sender<Question>,
    place: PathBuf,
    look: Look,
}

impl Apart {
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Repository) -> T + Send + 'static,
    ) -> Result<T> {
        self.ask_within(self.look.patience(), question)
    }

    /// What looks at each folder of the tree may take as long as a step.
    pub fn ask_long<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Repository) -> T + Send + 'static,
    ) -> Result<T> {
        self.ask_within(self.look.step_timeout, question)
    }

    fn ask_within<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce(&Repository) -> T + Send + 'static,
    ) -> Result<T> {
        let (tell, hear) = mpsc::channel();
        let question: Question = Box::new(move |repository| {
            let _ = tell.send(question(repository));
        });
        // Where the thread is gone nothing is heard.
        let _ = self.ask.send(question);
        hears(&self.place, &hear, patience)
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().name("look".into()).spawn(work).context("starting a thread").map(drop)
}

/// From now on this thread has the user's rights, as far as files go. Only ever a thread apart, and
/// for good: Linux keeps these two identities for each thread.
fn take_rights(user: Option<&AppUser>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    let (gid, uid) = (Gid::from_raw(user.gid()), Uid::from_raw(user.uid()));
    setfsgid(gid);
    setfsuid(uid);
    // It gives no error, but what was before.
    if setfsgid(gid) != gid || setfsuid(uid) != uid {
        bail!(
            "the rights of exec_user {} cannot be taken: run staging-client as root",
            user.name()
        );
    }
    Ok(())
}
