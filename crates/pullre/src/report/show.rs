//! What a reviewer shall see now of one pull request. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::markdown::{Masking, code, end_of_output, link, prose, shortened};
use super::{Answer, Settings, State, Told};
use crate::condition::{self, Ineligible, Policy};
use crate::domain::{InstanceState, PullNumber, PullState, Sha};
use crate::facts::{Assignment, CloneState, Deployment, Facts, Outcome, Pull, Server};
use crate::stage::{Stage, Standing, Standings};
use crate::status::shown_url;
use crate::store::Step;
use crate::words;

/// Those further behind are not told their place: each move of the queue would be a message.
const TOLD_THEIR_PLACE: usize = 5;
const OUTPUT_LINES: usize = 30;
/// GitHub takes 65,535 of a field, and of a comment.
const MOST_CHARACTERS: usize = 65_000;
/// Answers to commands that the comment keeps.
const ANSWERS: usize = 3;

/// Everything that is looked at.
#[derive(Debug)]
pub struct View<'a> {
    standings: Standings<'a>,
    masking: Masking<'a>,
    pub facts: &'a Facts,
    pub told: &'a Told,
    pub settings: &'a Settings,
    pub policy: &'a Policy,
    pub now: Timestamp,
    /// The lowest open pull request of each head: a commit may be the head of several.
    first_of: BTreeMap<&'a Sha, PullNumber>,
}

impl<'a> View<'a> {
    pub fn new(
        facts: &'a Facts,
        told: &'a Told,
        settings: &'a Settings,
        policy: &'a Policy,
        now: Timestamp,
    ) -> View<'a> {
        let mut first_of = BTreeMap::new();
        for pull in facts.pulls.values().filter(|p| p.request.state == PullState::Open) {
            first_of.entry(&pull.request.head).or_insert(pull.request.number);
        }
        let standings = Standings::new(facts, policy, now);
        let masking = Masking::of(settings, facts);
        View { standings, masking, facts, told, settings, policy, now, first_of }
    }

    /// The lowest open pull request with this head.
    pub fn first_of(&self, head: &Sha) -> Option<PullNumber> {
        self.first_of.get(head).copied()
    }
}

/// What is to be seen of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub state: State,
    /// Plain text, short.
    pub title: String,
    /// Markdown.
    pub summary: String,
    pub text: Option<String>,
    /// Where it can be looked at.
    pub url: Option<String>,
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub comment: String,
    /// Whether a comment is made where there is none yet: a rule of the operator's that keeps a
    /// pull request out is no reason to write to everybody.
    pub comments: bool,
    /// It has, or gets, a server.
    pub deploys: bool,
    /// It is closed, and nobody keeps its server.
    pub is_over: bool,
}

/// None: GitHub has not described it to us, so nothing is known.
pub fn show(pull: &Pull, view: &View<'_>) -> Option<Shown> {
    if !pull.described {
        return None;
    }
    let number = pull.request.number;
    let assignment = view.facts.assignments.get(&number);
    let server = assignment.and_then(|a| view.facts.servers.get(&a.server));
    let place = view.standings.place(pull);
    let why = place.map(|place| match place {
        // Not of how many: each one that comes or goes would be a message.
        ..=TOLD_THEIR_PLACE => {
            format!("place {place} in the queue; {}", view.standings.waits_for(place))
        }
        _ => format!("more than {TOLD_THEIR_PLACE} pull requests are before it"),
    });
    let standing = match why {
        Some(why) => Standing { stage: Stage::Queued, why, next: None },
        None => view.standings.of(pull),
    };
    let subject = Subject { pull, assignment, server, place, standing, view };
    Some(subject.shown())
}

struct Subject<'a> {
    pull: &'a Pull,
    assignment: Option<&'a Assignment>,
    server: Option<&'a Server>,
    place: Option<usize>,
    standing: Standing,
    view: &'a View<'a>,
}

impl Subject<'_> {
    /// Secrets go before anything is escaped or cut: after it they look different.
    fn masked<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.view.masking.masked(text)
    }

    fn prose(&self, text: &str) -> String {
        prose(&self.masked(text))
    }

    fn code(&self, text: &str) -> String {
        code(&self.masked(text))
    }

    fn end_of_output(&self, text: &str, lines: usize) -> Option<String> {
        end_of_output(&self.masked(text), lines)
    }

    fn shown(&self) -> Shown {
        let closed = self.pull.request.state == PullState::Closed;
        let state = match self.standing.stage {
            Stage::Ineligible => State::Neutral,
            Stage::Queued => State::Queued,
            Stage::Starting | Stage::Cloning | Stage::Deploying => State::InProgress,
            Stage::Ready => State::Success,
            Stage::Failed => State::Failure,
            Stage::Held => State::Held,
            Stage::Stopping | Stage::Closed => State::Cancelled,
        };
        let ready = state == State::Success;
        let deployment = self.deployment().filter(|_| ready).or_else(|| self.failed());
        let number = self.pull.request.number.0;
        let title = self.title();
        let (paragraphs, details) = (self.paragraphs(), self.details());
        let output = self.output();
        let mut summary = format!("Pull request #{number} at {}.", self.commit());
        for paragraph in &paragraphs {
            summary.push_str("\n\n");
            summary.push_str(paragraph);
        }
        if !details.is_empty() {
            summary.push_str("\n\n");
            summary.push_str(&details.join("\n"));
        }
        let comment = match (closed, self.standing.stage) {
            (true, Stage::Held) => self.comment_of_held(&paragraphs),
            (true, _) => self.last_comment(),
            (false, _) => self.comment(&paragraphs, &details, output.as_deref()),
        };
        Shown {
            state,
            title: shortened(&self.masked(&title), 200),
            summary: shortened(&self.masked(&summary), MOST_CHARACTERS),
            text: output.map(|text| self.masked(&text).into_owned()),
            url: self.server.and_then(shown_url).filter(|_| ready),
            began: deployment.map(|d| d.started_at.unwrap_or(d.offered_at)),
            ended: deployment.and_then(|d| d.finished_at),
            comment: shortened(&self.masked(&comment), MOST_CHARACTERS),
            comments: !closed && (!self.is_excluded() || self.has_answers()),
            deploys: self.assignment.is_some() && !closed,
            is_over: closed && state == State::Cancelled,
        }
    }

    fn is_excluded(&self) -> bool {
        let policy = self.view.policy;
        let why = condition::eligibility(self.pull, self.view.facts, policy).err();
        matches!(why, Some(Ineligible::Excluded(_)))
    }

    fn commit(&self) -> String {
        self.code(self.pull.request.head.short())
    }

    fn server_name(&self) -> String {
        let name = self.assignment.map(|a| self.view.facts.server_name(a.server));
        words::plain(&name.unwrap_or_else(|| "its server".into()))
    }

    /// The deployment of the head commit.
    fn deployment(&self) -> Option<&Deployment> {
        let deployment = self.assignment?.deployment.as_ref()?;
        (deployment.sha == self.pull.request.head).then_some(deployment)
    }

    fn steps(&self) -> &[Step] {
        let steps = self.deployment().and_then(|d| self.view.told.steps.get(&d.id));
        steps.map_or(&[], Vec::as_slice)
    }

    fn title(&self) -> String {
        let server = self.server_name();
        match self.standing.stage {
            Stage::Ineligible => {
                format!("No environment: {}", words::plain(&self.by_comment(&self.standing.why)))
            }
            Stage::Queued => match self.place {
                Some(place @ ..=TOLD_THEIR_PLACE) => format!("Queued, place {place}"),
                _ => "Queued".into(),
            },
            Stage::Starting => format!("Starting {server}"),
            Stage::Cloning => format!("Cloning the database for {server}"),
            Stage::Deploying => match self.steps().last() {
                Some(step) if step.finished_at.is_none() => {
                    format!("Deploying to {server}: {}", words::plain(&step.name))
                }
                _ => format!("Deploying to {server}"),
            },
            Stage::Ready => format!("Ready on {server}"),
            Stage::Failed => match self.failed() {
                Some(deployment) => {
                    let step = deployment.failed_step.as_deref().unwrap_or("deployment");
                    let why = deployment.reason.as_deref().unwrap_or("no reason recorded");
                    format!("Failed in {}: {}", words::plain(step), words::plain(why))
                }
                None => format!("Failed: {}", words::plain(&self.standing.why)),
            },
            Stage::Held => "Held".into(),
            Stage::Stopping | Stage::Closed => "Closed".into(),
        }
    }

    fn failed(&self) -> Option<&Deployment> {
        self.deployment()
            .filter(|d| self.standing.stage == Stage::Failed && d.outcome == Outcome::Failed)
    }

    /// Why it stands so, and what comes next; only what does not change by the minute.
    fn paragraphs(&self) -> Vec<String> {
        let server = self.prose(&self.server_name());
        let sentence = |text: &str| {
            // A name stays as it is written.
            let mut chars = text.chars();
            if text.starts_with(&self.server_name()) {
                return format!("{}.", self.prose(text));
            }
            let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            format!("{}.", self.prose(&format!("{first}{}", chars.as_str())))
        };
        let by_comment = |text: &String| sentence(&self.by_comment(text));
        let why = match self.standing.stage {
            Stage::Starting => format!("{server} comes up."),
            Stage::Cloning => format!("The database of {server} is being made ready."),
            Stage::Deploying => format!("{server} deploys it."),
            Stage::Ready => format!("{server} serves {}.", self.commit()),
            _ => by_comment(&self.standing.why),
        };
        let next = self.standing.next.as_ref().filter(|_| {
            !matches!(self.standing.stage, Stage::Starting | Stage::Cloning | Stage::Deploying)
        });
        [Some(why), next.map(by_comment)].into_iter().flatten().collect()
    }

    /// What can be done without our command line is told so.
    fn by_comment(&self, text: &str) -> String {
        let number = self.pull.request.number.0;
        ["redeploy", "release"].iter().fold(text.to_owned(), |text, verb| {
            let typed = format!("`update-pull pull {verb} {number}`");
            text.replace(&typed, &format!("`/pullre {verb}` in a comment"))
        })
    }

    /// What there is: address, server, data, how long it took.
    fn details(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(server) = self.server else { return lines };
        if let Some(url) = shown_url(server).filter(|_| self.standing.stage == Stage::Ready) {
            lines.push(format!("- URL: {}", link(&url)));
        }
        lines.push(format!("- Server: {}", self.prose(&server.name)));
        lines.extend(self.still_served(server));
        lines.extend(self.data(server));
        if let Some(deployment) = self.deployment().filter(|d| d.outcome == Outcome::Succeeded)
            && let (Some(began), Some(ended)) = (deployment.started_at, deployment.finished_at)
            && began < ended
        {
            let took = words::duration(words::between(began, ended));
            lines.push(format!("- Deployed: {}, in {took}", words::moment(ended)));
        }
        if self.failed().is_some() {
            lines.extend(self.steps().iter().map(|step| self.step_line(step)));
        }
        lines
    }

    /// What the server goes on with where it is not, or shall not stay, what is asked for.
    fn still_served(&self, server: &Server) -> Option<String> {
        let app = server.app.as_ref().filter(|app| app.pull == self.pull.request.number)?;
        let deployment = self.assignment?.deployment.as_ref()?;
        let stays = matches!(self.standing.stage, Stage::Held | Stage::Ineligible | Stage::Failed);
        let proved = match deployment.outcome {
            Outcome::Succeeded => stays && deployment.sha == app.sha,
            // It was there before.
            Outcome::Failed => stays && deployment.sha != app.sha,
            _ => false,
        };
        let View { policy, now, .. } = self.view;
        let silent = condition::silent(server.agent.as_ref(), None, policy, *now).is_some();
        let runs = server.state == Some(InstanceState::Running) && server.death.is_none();
        if !proved || silent || !runs {
            return None;
        }
        let at = shown_url(server).map_or(String::new(), |url| format!(" at {}", link(&url)));
        Some(format!("- Still serves: {}{at}", self.code(app.sha.short())))
    }

    fn data(&self, server: &Server) -> Option<String> {
        let schema = server.schema.as_ref().ok()?;
        let clone = self.view.facts.clones.get(schema)?;
        let ours = clone.pull == Some(self.pull.request.number)
            && matches!(clone.state, CloneState::Ready | CloneState::Stale);
        let source = clone.source.as_ref().filter(|_| ours)?;
        let mut line = format!(
            "- Database: {}, a copy of {}",
            self.code(schema.as_str()),
            self.code(source.as_str())
        );
        if let Some(at) = clone.finished_at {
            line.push_str(&format!(" made {}", words::moment(at)));
        }
        if let (Some(bytes), Some(millis)) = (clone.bytes, clone.millis) {
            let took = std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            let size = words::bytes(u64::try_from(bytes).unwrap_or(0));
            line.push_str(&format!(" ({size} in {})", words::duration(took)));
        }
        Some(line)
    }

    /// The end of what the failed step printed.
    fn output(&self) -> Option<String> {
        let failed = self.failed()?;
        let step = self.steps().iter().rfind(|s| failed.failed_step.as_ref() == Some(&s.name))?;
        self.end_of_output(&step.output, OUTPUT_LINES)
    }

    fn last_comment(&self) -> String {
        let mark = mark(self.pull.request.number);
        format!("{mark}\n**Staging: closed**\n\nIts server goes back to the pool.\n")
    }

    fn comment_of_held(&self, paragraphs: &[String]) -> String {
        let mut body = mark(self.pull.request.number);
        body.push_str("\n**Staging: closed, and held**\n");
        let served = self.server.and_then(|server| self.still_served(server));
        for paragraph in paragraphs.iter().chain(&served) {
            body.push_str(&format!("\n{paragraph}\n"));
        }
        body
    }

    fn comment(&self, paragraphs: &[String], details: &[String], output: Option<&str>) -> String {
        let mut body = mark(self.pull.request.number);
        body.push_str(&format!("\n**Staging: {}**", self.standing.stage));
        let url = self.server.and_then(shown_url);
        if let Some(url) = url.filter(|_| self.standing.stage == Stage::Ready) {
            body.push_str(&format!(" {}", link(&url)));
        }
        body.push('\n');
        for paragraph in paragraphs {
            body.push_str(&format!("\n{paragraph}\n"));
        }
        body.push_str(&format!("\n- Commit: {}\n", self.commit()));
        for line in details.iter().filter(|line| !line.starts_with("- URL:")) {
            body.push_str(&format!("{line}\n"));
        }
        if let Some(output) = output {
            body.push_str(&format!(
                "\n<details><summary>The end of its output</summary>\n\n{output}\n\n</details>\n"
            ));
        }
        let end = "\n<sub>People with write access can comment with a line `/pullre redeploy`, \
                   `reset-db`, `hold`, `release`, `stop` or `explain`.</sub>\n";
        let left = MOST_CHARACTERS.saturating_sub(body.chars().count() + end.chars().count());
        body.push_str(&self.answers(left));
        body.push_str(end);
        body
    }

    fn has_answers(&self) -> bool {
        self.view.told.answers.contains_key(&self.pull.request.number)
    }

    /// The newest of them that fit into so many characters.
    fn answers(&self, most: usize) -> String {
        let answers = self.view.told.answers.get(&self.pull.request.number);
        let newest = answers.into_iter().flatten().rev().take(ANSWERS);
        let mut left = most;
        let mut kept: Vec<String> = newest
            .map(|answer| self.answer(answer))
            .take_while(|text| {
                let length = text.chars().count();
                let fits = length <= left;
                left = left.saturating_sub(length);
                fits
            })
            .collect();
        kept.reverse();
        kept.concat()
    }

    fn answer(&self, answer: &Answer) -> String {
        let intro = format!(
            "{} of {}, {}",
            self.code(format!("/pullre {}", answer.verb).trim_end()),
            self.code(&answer.login),
            words::moment(answer.at)
        );
        match answer.text.trim_end().contains('\n') {
            false => format!("\n> {intro}: {}\n", self.prose(&answer.text)),
            true => format!(
                "\n<details><summary>An answer to /pullre {}</summary>\n\n{intro}\n\n{}\n\n</details>\n",
                self.prose(&answer.verb),
                self.end_of_output(&answer.text, 60).unwrap_or_default()
            ),
        }
    }

    fn step_line(&self, step: &Step) -> String {
        let name = self.prose(&step.name);
        match step.finished_at {
            None => format!("- {name}: has not ended"),
            Some(end) => {
                let took = words::duration(words::between(step.started_at, end));
                match step.exit_status {
                    Some(status) if status != 0 => {
                        format!("- {name}: exit status {status} after {took}")
                    }
                    _ => format!("- {name}: {took}"),
                }
            }
        }
    }
}

/// By which our comment is found again.
pub fn mark(number: PullNumber) -> String {
    format!("<!-- pullre:{} -->", number.0)
}
