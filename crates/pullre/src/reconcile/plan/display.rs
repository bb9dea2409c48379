//! A plan in words: what `update-pull plan` prints and a tick tells.

use std::fmt;

use super::{Action, Chain, Plan, Record, Subject};
use crate::words;

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Environment(number) => write!(f, "{number}"),
            Subject::Server(_) => write!(f, "pool"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Pull(request) => {
                let author = request.author.as_ref().map_or("nobody", |login| login.0.as_str());
                write!(
                    f,
                    "{} {} at {} by {}: {}",
                    request.number,
                    request.state.as_str(),
                    request.head.short(),
                    words::plain(author),
                    words::plain(&request.title)
                )
            }
            Record::Touched { pull, at } => write!(f, "{pull} was touched at {at}"),
            Record::Gone(number) => write!(f, "{number} is gone from GitHub"),
            Record::Eligible(number) => write!(f, "{number} may have an environment"),
            Record::Ineligible(number) => write!(f, "{number} may have no environment"),
            Record::Instance { name, state: Some(state), .. } => write!(f, "{name} is {state}"),
            Record::Instance { name, state: None, .. } => write!(f, "{name} has no instance"),
            Record::FellBack { name, why, .. } => write!(f, "{name} does not start: {why}"),
            Record::StopSettled { name, .. } => write!(f, "{name} needs no stop any more"),
            Record::Refused(Some(what)) => write!(f, "refused: {what}"),
            Record::Refused(None) => write!(f, "nothing is refused any more"),
            Record::Forget { before } => {
                write!(f, "history from before {} is removed", words::moment(*before))
            }
            Record::Mark(mark) => write!(f, "GitHub read up to {}", mark.watermark),
        }
    }
}

impl Chain {
    /// For whom and where, to begin a sentence about it.
    pub fn subject_on_server(&self) -> String {
        match self.subject {
            Subject::Environment(number) => format!("{number} on {}", self.server_name),
            Subject::Server(_) => self.server_name.clone(),
        }
    }
}

/// One action, of a chain on the server of this name.
#[derive(Debug)]
pub struct ActionOn<'a>(pub &'a Action, pub &'a str);

impl fmt::Display for ActionOn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ActionOn(action, server) = self;
        match action {
            Action::Assign { .. } => write!(f, "assign {server}"),
            Action::Withdraw => write!(f, "let the app on {server} be stopped"),
            Action::Start { .. } => write!(f, "start {server}"),
            Action::Clone { source, destination } => write!(f, "clone {source} to {destination}"),
            Action::Undo { schema } => write!(f, "bring the previous data of {schema} back"),
            Action::Offer { sha, attempt: 1 } => write!(f, "deploy {} on {server}", sha.short()),
            Action::Offer { sha, attempt } => {
                write!(f, "deploy {} on {server}, try {attempt}", sha.short())
            }
            Action::Release => write!(f, "release {server}"),
            Action::Stop { .. } => write!(f, "stop {server}"),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<6}", self.subject.to_string())?;
        for (index, action) in self.actions.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", ActionOn(action, &self.server_name))?;
        }
        write!(f, " ({})", self.why)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note   {note}")?;
        }
        for record in self.records.iter().filter(|record| !record.is_bookkeeping()) {
            writeln!(f, "seen   {record}")?;
        }
        for chain in &self.chains {
            writeln!(f, "{chain}")?;
        }
        if !self.refused.is_empty() {
            writeln!(f, "refused: {}", self.refusal())?;
            for chain in &self.refused {
                writeln!(f, "  not  {chain}")?;
            }
        }
        for waiting in &self.queue {
            writeln!(
                f,
                "{:<6}waits, place {}: {}",
                waiting.pull.to_string(),
                waiting.place,
                waiting.why
            )?;
        }
        for saying in &self.sayings {
            writeln!(f, "say    {saying}")?;
        }
        if !self.has_news()
            && self.sayings.is_empty()
            && self.queue.is_empty()
            && self.notes.is_empty()
        {
            writeln!(f, "nothing to do")?;
        }
        Ok(())
    }
}
