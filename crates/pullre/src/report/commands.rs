//! What people ask for in comments: a line `/pullre VERB`, from somebody who may write to the
//! repository, obeyed once.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;

use super::apply::{Odd, may_write};
use crate::domain::{Login, PullNumber};
use crate::facts::Facts;
use crate::ops::{Operator, OpsError};
use crate::ports::{Comment, ForgeError, Post, PostError, Reaction};
use crate::reconcile::lock::LockName;
use crate::reconcile::{Clock, Controller};
use crate::store::{COMMENTS_OVERLAP, CommandState, Store, StoreError, StoredCommand, Won};
use crate::words;

/// After an outage what was asked for longer ago than this is not done any more.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// Whoever is at a command for longer has died.
const TAKEN_FOR: Duration = Duration::from_secs(600);

const PREFIX: &str = "/pullre";
/// What is kept as the verb of a comment that has more than one.
const SEVERAL: &str = "(several)";
const VERBS: &str = "`redeploy`, `reset-db`, `hold`, `release`, `stop` and `explain`";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Redeploy,
    ResetDb,
    Hold,
    Release,
    Stop,
    Explain,
}

impl Verb {
    fn of(word: &str) -> Option<Verb> {
        Some(match word.to_ascii_lowercase().as_str() {
            "redeploy" => Verb::Redeploy,
            "reset-db" => Verb::ResetDb,
            "hold" => Verb::Hold,
            "release" => Verb::Release,
            "stop" => Verb::Stop,
            "explain" => Verb::Explain,
            _ => return None,
        })
    }

    /// Whether it is done under the lock of the environment, which a tick at work holds for long.
    fn needs_lock(self) -> bool {
        matches!(self, Verb::Redeploy | Verb::ResetDb)
    }
}

/// The words behind `/pullre` on the lines of a comment that are commands: nothing that is quoted,
/// code, or an HTML comment.
pub fn parse(body: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fence: Option<(char, usize)> = None;
    let mut hidden = false;
    for line in body.lines() {
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        let first = text.chars().next().unwrap_or(' ');
        let run = text.chars().take_while(|c| *c == first).count();
        if let Some((mark, length)) = fence {
            let closes = first == mark && run >= length && text[run..].trim().is_empty();
            if closes && indent < 4 {
                fence = None;
            }
            continue;
        }
        if hidden {
            hidden = !line.contains("-->");
            continue;
        }
        // What is indented this far is code.
        if indent >= 4 || line.starts_with('\t') {
            continue;
        }
        if matches!(first, '`' | '~') && run >= 3 {
            fence = Some((first, run));
            continue;
        }
        if let Some(begin) = line.rfind("<!--") {
            hidden = !line[begin..].contains("-->");
            continue;
        }
        if let Some((begin, rest)) = text.split_at_checked(PREFIX.len())
            && begin.eq_ignore_ascii_case(PREFIX)
            && (rest.is_empty() || rest.starts_with([' ', '\t']))
        {
            found.push(rest.trim().to_owned());
        }
    }
    found
}

/// Reads what people asked for, if the list of pull requests has changed, and does it. Returns how
/// much was done. Trouble with GitHub is warned of, and a later tick goes on.
pub(crate) fn obey(
    controller: &Controller<'_>,
    store: &mut Store,
    facts: &Facts,
    clock: Clock,
) -> Result<usize, StoreError> {
    if facts.paused.is_some() {
        return Ok(0);
    }
    match read_and_do(controller, store, facts, clock) {
        Ok(done) => Ok(done),
        Err(Stop::Store(e)) => Err(e),
        Err(Stop::Forge(e)) => {
            let why = format!("commands in comments wait: {e}");
            warn_once(store, why).map(|()| 0)
        }
    }
}

fn warn_once(store: &mut Store, why: String) -> Result<(), StoreError> {
    if store.commands_trouble(Some(&why))? {
        tracing::warn!("{why}");
    }
    Ok(())
}

/// Why a command waits, and perhaps all others with it.
enum Stop {
    Store(StoreError),
    Forge(ForgeError),
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Stop {
        Stop::Store(e)
    }
}

impl From<ForgeError> for Stop {
    fn from(e: ForgeError) -> Stop {
        Stop::Forge(e)
    }
}

fn read_and_do(
    controller: &Controller<'_>,
    store: &mut Store,
    facts: &Facts,
    clock: Clock,
) -> Result<usize, Stop> {
    let now = clock.now();
    if let Some(due) = &facts.comments_due {
        let oldest = now.saturating_sub(OLDEST).unwrap_or(now);
        let since = facts.comments_read.unwrap_or(now).max(oldest);
        if controller.report.report {
            let from = since.saturating_sub(COMMENTS_OVERLAP).unwrap_or(since);
            let comments = match controller.forge.read_comments(from) {
                // Asked again when the list has changed: what was written until then is read then.
                Err(ForgeError::Forbidden(why)) => {
                    store.comments_read(&[], since, due)?;
                    let why = format!(
                        "commands in comments are not heard: GitHub does not let comments be read \
                         ({why}). It needs issues: read"
                    );
                    return Ok(warn_once(store, why).map(|()| 0)?);
                }
                comments => comments?,
            };
            let read = comments.iter().map(|comment| comment.updated_at).max();
            let commands: Vec<_> = comments.into_iter().filter_map(command).collect();
            let numbers: BTreeSet<_> = commands.iter().map(|command| command.number).collect();
            let pulls = store.pulls(&numbers.into_iter().collect::<Vec<_>>())?;
            let is_pull = |command: &StoredCommand| {
                pulls.iter().any(|pull| pull.request.number == command.number)
            };
            let commands: Vec<_> = commands.into_iter().filter(is_pull).collect();
            store.comments_read(&commands, read.map_or(since, |read| read.max(since)), due)?;
            if facts.commands_trouble.is_some() {
                // News again, should it come back.
                let _ = store.commands_trouble(None)?;
            }
        } else {
            // Whoever lets us speak later does not mean what was asked for until then.
            store.comments_read(&[], now, due)?;
        }
    }
    let (mut done, mut odd) = (0, Odd::default());
    let doer = Doer { controller, facts, clock };
    let mut go_on = |did: Result<bool, Stop>| match did {
        Ok(did) => {
            done += usize::from(did);
            Ok(())
        }
        // It may be this one alone; a day later it is too old, and is asked about no more.
        Err(Stop::Forge(e)) => {
            let why = e.to_string();
            odd.add(e)?;
            tracing::warn!("a command in a comment waits: {why}");
            Ok(())
        }
        Err(e) => Err(e),
    };
    for command in store.open_commands()? {
        go_on(doer.one(command, store))?;
    }
    // Whoever may not command does not use up the reactions of those who may.
    for command in store.open_commands()?.into_iter().filter(is_refused) {
        go_on(doer.react(command, store).map(|()| false))?;
    }
    Ok(done)
}

/// Whether all that is left is to say no.
fn is_refused(command: &StoredCommand) -> bool {
    command.state == CommandState::Answered && command.reaction == Some(Reaction::Refused)
}

/// The command in a comment, if there is one.
fn command(comment: Comment) -> Option<StoredCommand> {
    let login = comment.author?.0;
    let verb = match parse(&comment.body).as_slice() {
        [] => return None,
        [one] => one.clone(),
        [_, ..] => SEVERAL.to_owned(),
    };
    Some(StoredCommand {
        comment: comment.id,
        number: comment.number,
        login,
        verb: words::plain(&verb),
        state: CommandState::New,
        // An edit makes nothing newer: a comment that was obeyed and forgotten is not obeyed again.
        changed_at: comment.created_at,
        reaction: None,
    })
}

struct Doer<'a> {
    controller: &'a Controller<'a>,
    facts: &'a Facts,
    clock: Clock,
}

impl Doer<'_> {
    /// Whether something was done.
    fn one(&self, mut command: StoredCommand, store: &mut Store) -> Result<bool, Stop> {
        match command.state {
            CommandState::New => {
                let login = Login(command.login.clone());
                let asked = command.changed_at;
                let old = words::between(asked, self.clock.now()) > OLDEST.unsigned_abs();
                let may = match self.may(&login) {
                    Err(_) if old => false,
                    other => other?,
                };
                let (state, reaction, text) = if !may {
                    // No words: whoever may not command shall not fill the comment either.
                    (CommandState::Answered, Reaction::Refused, None)
                } else if old {
                    let text = "not done: it was asked for more than a day ago; ask again";
                    (CommandState::Answered, Reaction::NotUnderstood, Some(text.to_owned()))
                } else if !self.facts.pulls.contains_key(&command.number) {
                    let text = "not done: it was closed; ask again once it is open";
                    (CommandState::Answered, Reaction::NotUnderstood, Some(text.to_owned()))
                } else if Verb::of(&command.verb).is_some_and(Verb::needs_lock)
                    && self.is_at_work(command.number)?
                {
                    return Ok(false); // A tick is at it; the next one does this.
                } else {
                    // Before it is done: a crash must not do it twice.
                    if self.is(&mut command, CommandState::Taken, None, store)? == Won::No {
                        return Ok(false);
                    }
                    let (reaction, text) = self.act(&command, store)?;
                    (CommandState::Answered, reaction, Some(text))
                };
                let answer = Some((reaction, text.as_deref()));
                if self.is(&mut command, state, answer, store)? == Won::Yes && may {
                    self.react(command, store)?;
                }
                Ok(may)
            }
            CommandState::Taken
                if words::between(command.changed_at, self.clock.now()) > TAKEN_FOR =>
            {
                let text =
                    "it was interrupted; if the stage above is not what you asked for, ask again";
                let answer = Some((Reaction::NotUnderstood, Some(text)));
                if self.is(&mut command, CommandState::Answered, answer, store)? == Won::Yes {
                    self.react(command, store)?;
                }
                Ok(true)
            }
            CommandState::Answered if is_refused(&command) => Ok(false),
            CommandState::Answered => self.react(command, store).map(|()| true),
            CommandState::Taken | CommandState::Done => Ok(false),
        }
    }

    fn is(
        &self,
        command: &mut StoredCommand,
        state: CommandState,
        answer: Option<(Reaction, Option<&str>)>,
        store: &mut Store,
    ) -> Result<Won, StoreError> {
        let won = store.command_is(command, state, answer, self.clock.now())?;
        command.state = state;
        if let Some((reaction, _)) = answer {
            command.reaction = Some(reaction);
        }
        Ok(won)
    }

    fn may(&self, login: &Login) -> Result<bool, Stop> {
        match self.controller.forge.may_write(login) {
            Ok(may) => Ok(may),
            // Whoever cannot be asked about has no right.
            Err(PostError::Forbidden(why) | PostError::Rejected(why)) => {
                tracing::warn!("whether {login} may command cannot be asked: {why}");
                Ok(false)
            }
            Err(PostError::Gone(_)) => Ok(false),
            Err(PostError::Forge(e)) => Err(e.into()),
        }
    }

    fn is_at_work(&self, number: PullNumber) -> Result<bool, Stop> {
        let lock = self.controller.locks.try_lock(&LockName::Environment(number));
        lock.map(|held| held.is_none())
            .map_err(|e| Stop::Forge(ForgeError::Local(format!("cannot lock: {e}"))))
    }

    fn react(&self, mut command: StoredCommand, store: &mut Store) -> Result<(), Stop> {
        let reaction = command.reaction.unwrap_or(Reaction::NotUnderstood);
        if !may_write(store, !is_refused(&command), self.clock.now())? {
            return Ok(());
        }
        let post = Post::Reaction { comment: command.comment, reaction };
        match self.controller.forge.post(&post) {
            Err(PostError::Forge(e)) => return Err(e.into()),
            // The comment may be gone, or reactions not permitted: the words are enough.
            Err(e) => tracing::debug!("no reaction to comment {}: {e}", command.comment),
            Ok(_) => {}
        }
        // `No`: another tick has put it too, which GitHub counts once.
        let _ = self.is(&mut command, CommandState::Done, None, store)?;
        Ok(())
    }

    fn act(&self, command: &StoredCommand, store: &mut Store) -> Result<(Reaction, String), Stop> {
        let Some(verb) = Verb::of(&command.verb) else {
            let text = match command.verb.as_str() {
                SEVERAL => "one command in a comment, please".to_owned(),
                _ => format!("not understood; there are {VERBS}, without more words"),
            };
            return Ok((Reaction::NotUnderstood, text));
        };
        let Controller { policy, locks, .. } = self.controller;
        let number = command.number;
        let who = format!("{} (comment)", command.login);
        let mut operator = Operator { store, who: &who, now: self.clock.now() };
        let done = match verb {
            Verb::Redeploy => operator.redeploy(number, policy, locks).map(str::to_owned),
            Verb::ResetDb => operator.reset_db(number, locks).map(|()| {
                "its app is stopped, its data cloned anew, and its app started again".to_owned()
            }),
            Verb::Hold => operator
                .pull_hold(number, &format!("by {} in a comment", command.login), None)
                .map(|()| "held: nothing changes it before `/pullre release`".to_owned()),
            Verb::Release => {
                operator.pull_release(number).map(|()| "in automatic hands again".to_owned())
            }
            Verb::Stop => operator.pull_stop(number).map(|()| {
                "its server goes back to the pool; `/pullre release` brings it back".to_owned()
            }),
            Verb::Explain => operator.explain(number, policy).map(|told| told.to_string()),
        };
        match done {
            Ok(text) => Ok((Reaction::Done, text)),
            Err(OpsError::Store(e)) => Err(e.into()),
            Err(e) => Ok((Reaction::NotUnderstood, e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_line_of_its_own() {
        let one = |text: &str| parse(text).join("|");
        assert_eq!(one("/pullre redeploy"), "redeploy");
        assert_eq!(one("Please:\r\n\r\n  /pullre   reset-db  \r\nthanks"), "reset-db");
        assert_eq!(one("/pullre"), "");
        assert_eq!(parse("/pullre").len(), 1);
        assert_eq!(one("/pullre stop\n/pullre hold"), "stop|hold");
        // As telephones write at the beginning of a sentence.
        assert_eq!(one("/Pullre Stop"), "Stop");
        for none in [
            "you can write /pullre redeploy",
            "> /pullre redeploy",
            "    /pullre redeploy",
            "\t/pullre redeploy",
            "```\n/pullre redeploy\n```",
            "~~~~sh\n/pullre redeploy\n~~~\n/pullre stop\n~~~~",
            "`/pullre redeploy`",
            "<!--\n/pullre redeploy\n-->",
            "<!-- /pullre redeploy -->",
            "/pullre-redeploy",
            "/pullredeploy",
            "- /pullre redeploy",
            "",
        ] {
            assert_eq!(parse(none), [] as [String; 0], "{none:?}");
        }
        assert_eq!(one("```\nx\n```\n/pullre stop"), "stop");
        assert_eq!(one("<!-- x -->\n/pullre stop"), "stop");
    }
}
