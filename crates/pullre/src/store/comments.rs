//! What people asked for in comments, and how far it is.

use jiff::{SignedDuration, Timestamp};

use super::backend::{Row, Value};
use super::effects::Won;
use super::reports::readable;
use super::{Result, Store, harmless_twice};
use crate::domain::{Invalid, PullNumber};
use crate::ports::Reaction;

/// Comments that were changed in the same second as the last one read are read again.
pub const COMMENTS_OVERLAP: SignedDuration = SignedDuration::from_mins(1);

/// A command that somebody wrote, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCommand {
    pub comment: i64,
    pub number: PullNumber,
    pub login: String,
    pub verb: String,
    pub state: CommandState,
    pub changed_at: Timestamp,
    pub reaction: Option<Reaction>,
}

/// What is between two of these may be lost by a crash, and is never done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandState {
    /// Read; nothing was done.
    New,
    /// A tick is at it, or died in it: nobody knows whether it was done, so it is not done again.
    Taken,
    /// Done or refused; the reaction is still to be put.
    Answered,
    Done,
}

impl CommandState {
    pub fn as_str(self) -> &'static str {
        match self {
            CommandState::New => "new",
            CommandState::Taken => "taken",
            CommandState::Answered => "answered",
            CommandState::Done => "done",
        }
    }
}

impl std::str::FromStr for CommandState {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        Ok(match s {
            "new" => CommandState::New,
            "taken" => CommandState::Taken,
            "answered" => CommandState::Answered,
            "done" => CommandState::Done,
            _ => return Err(Invalid::new(s, "the state of a command")),
        })
    }
}

impl Store {
    /// Comments were read up to `read`; these commands were among them. `due`: the mark that made
    /// us read them, unless the list has changed again.
    pub fn comments_read(
        &mut self,
        commands: &[StoredCommand],
        read: Timestamp,
        due: &str,
    ) -> Result<()> {
        self.transaction(|store| {
            for command in commands {
                let id = Value::from(command.comment);
                let known = store.query_one(
                    "SELECT comment_id FROM comment_commands WHERE comment_id = ?",
                    std::slice::from_ref(&id),
                )?;
                if known.is_some() {
                    continue;
                }
                // Another tick may have read it in the meantime.
                harmless_twice(store.execute(
                    "INSERT INTO comment_commands
                         (comment_id, pull_number, login, verb, state, changed_at)
                     VALUES (?, ?, ?, ?, ?, ?)",
                    &[
                        id,
                        command.number.0.into(),
                        command.login.chars().take(128).collect::<String>().into(),
                        command.verb.chars().take(20).collect::<String>().into(),
                        CommandState::New.as_str().into(),
                        command.changed_at.into(),
                    ],
                ))?;
            }
            store.set_setting("comments_read", Some(read.to_string()))?;
            store
                .execute(
                    "DELETE FROM settings WHERE name = 'comments_due' AND content = ?",
                    &[due.into()],
                )
                .map(drop)
        })
    }

    /// Commands that are not done yet, the oldest first.
    pub fn open_commands(&mut self) -> Result<Vec<StoredCommand>> {
        let rows = self.query(
            "SELECT * FROM comment_commands WHERE state <> 'done' ORDER BY comment_id",
            &[],
        )?;
        rows.iter().filter_map(|row| readable(command(row)).transpose()).collect()
    }

    /// `No` where another tick was faster.
    pub fn command_is(
        &mut self,
        command: &StoredCommand,
        state: CommandState,
        answer: Option<(Reaction, Option<&str>)>,
        now: Timestamp,
    ) -> Result<Won> {
        let (reaction, text) = match answer {
            Some((reaction, text)) => (Some(reaction), text),
            None => (command.reaction, None),
        };
        let keep = if answer.is_some() { "answer = ?" } else { "answer = COALESCE(?, answer)" };
        let matched = self.execute(
            &format!(
                "UPDATE comment_commands SET state = ?, changed_at = ?, reaction = ?, {keep}
                 WHERE comment_id = ? AND state = ?"
            ),
            &[
                state.as_str().into(),
                now.into(),
                reaction.map(Reaction::as_str).into(),
                text.into(),
                command.comment.into(),
                command.state.as_str().into(),
            ],
        )?;
        Ok(matched.into())
    }
}

fn command(row: &Row) -> Result<StoredCommand> {
    Ok(StoredCommand {
        comment: row.int("comment_id")?,
        number: PullNumber(row.u32("pull_number")?),
        login: row.text("login")?,
        verb: row.text("verb")?,
        state: row.parsed("state")?,
        changed_at: row.time("changed_at")?,
        reaction: row.opt_parsed("reaction")?,
    })
}
