//! What is told of a request: for machines as it stands here, for people by `show`.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::request::Request;
use crate::config::Config;
use crate::guard::Refusal;
use crate::guard::body::TextSeen;
use crate::guard::chain::Stage;
use crate::guard::sanitize::{Action, Sink};
use crate::guard::trail::Step;
use crate::observe::redact::{KeyNames, redact, redact_query};
use crate::proxy::explain::{Explained, Forwarded, Understood};

/// Characters of a text that are shown.
const SHOWN: usize = 80;
/// Characters in front of the first change that are shown.
const BEFORE: usize = 20;

/// What became of a request, and what else would have.
#[derive(Debug, Serialize)]
pub struct Report {
    pub request: AskedFor,
    pub understood: Option<Understood>,
    /// Where the route was written.
    pub route_place: Option<String>,
    pub way: Vec<StageReport>,
    pub texts: Vec<TextReport>,
    /// Windows that it drew from, as they stand then, counted from nothing.
    pub limits: Vec<Value>,
    pub forwarded: Option<Forwarded>,
    pub answer: Option<Answer>,
}

#[derive(Debug, Serialize)]
pub struct AskedFor {
    pub method: String,
    pub host: String,
    pub target: String,
    pub from: IpAddr,
    pub body_bytes: usize,
}

/// What a stage came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It let the request pass.
    Passed,
    /// It refuses the request.
    Refused,
    /// It would refuse it, if nothing before it did.
    WouldRefuse,
    /// It would refuse it, but only observes.
    Observed,
    /// It is off, or has nothing to do with such a request.
    NothingToDo,
    /// It belongs to the gate that serves.
    NotAsked,
    /// The request never came here.
    NotReached,
}

#[derive(Debug, Serialize)]
pub struct StageReport {
    pub stage: &'static str,
    pub outcome: Outcome,
    pub refusals: Vec<RefusalReport>,
}

#[derive(Debug, Serialize)]
pub struct RefusalReport {
    pub reason: &'static str,
    pub status: u16,
    pub detail: String,
    pub setting: String,
}

#[derive(Debug, Serialize)]
pub struct TextReport {
    pub part: &'static str,
    pub field: String,
    pub setting: &'static str,
    pub characters: u64,
    pub most: Option<u64>,
    pub sink: Option<Sink>,
    pub action: Option<Action>,
    pub before: String,
    pub after: Option<String>,
}

/// The gate's own answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Report {
    /// `first`: as the gate takes it; `all`: what else would have refused it, where something did.
    pub(super) fn of(
        config: &Config,
        from: IpAddr,
        (request, keys): (&Request, KeyNames<'_>),
        first: Explained,
        all: Option<Explained>,
    ) -> Self {
        let target = match request.target.split_once('?') {
            None => redact(&request.target).into_owned(),
            Some((path, query)) => format!("{}?{}", redact(path), redact_query(query, keys)),
        };
        let (answer, forwarded) = (Answer::read(&first.answer), first.forwarded);
        let (understood, steps, texts, limits) = match all {
            // The first one's limits: what the others would have drawn from is no answer to what this one did.
            Some(all) => (all.understood, all.steps, all.texts, first.limits),
            None => (first.understood, first.steps, first.texts, first.limits),
        };
        let place = understood.as_ref().and_then(|understood| config.route_place(understood.route_index));
        Self {
            request: AskedFor {
                method: request.method.clone(),
                host: request.host.clone(),
                target,
                from,
                body_bytes: request.body,
            },
            way: way(&steps),
            texts: texts.iter().map(TextReport::of).collect(),
            route_place: place,
            understood,
            limits,
            forwarded,
            answer,
        }
    }
}

/// Every stage of the way, with what came of it.
fn way(steps: &[Step]) -> Vec<StageReport> {
    let last = steps.iter().map(|step| step.stage).max();
    let enforced = |step: &&Step| step.refused.as_ref().is_some_and(|(_, observes)| !observes);
    // The first is what refuses the request: those behind it were asked because refusals went on.
    let refuses = steps.iter().find(enforced).map(|step| step.stage);
    let report = |stage: &Stage| {
        let mut reached = steps.iter().filter(|step| step.stage == *stage).peekable();
        let asked = reached.peek().is_some();
        let refused: Vec<_> = reached.filter_map(|step| step.refused.as_ref()).collect();
        let outcome = match stage {
            Stage::Connections => Outcome::NotAsked,
            // Whatever the answer is, it comes through here.
            Stage::Dress | Stage::Settle => Outcome::Passed,
            stage if refuses == Some(*stage) => Outcome::Refused,
            _ if refused.iter().any(|(_, observes)| !observes) => Outcome::WouldRefuse,
            _ if !refused.is_empty() => Outcome::Observed,
            _ if asked => Outcome::Passed,
            stage if last.is_some_and(|last| *stage < last) => Outcome::NothingToDo,
            _ => Outcome::NotReached,
        };
        let refusals = refused.iter().map(|(why, _)| RefusalReport::of(why)).collect();
        StageReport { stage: stage.name(), outcome, refusals }
    };
    Stage::WAY.iter().map(report).collect()
}

impl RefusalReport {
    fn of(refusal: &Refusal) -> Self {
        Self {
            reason: refusal.reason.code(),
            status: refusal.reason.status().as_u16(),
            detail: refusal.detail.to_string(),
            setting: refusal.setting.to_string(),
        }
    }
}

impl TextReport {
    fn of(text: &TextSeen) -> Self {
        let before = redact(&text.before);
        let after = text.after.as_deref().map(redact);
        // From a little before the first difference on.
        let same = after.as_deref().map_or(0, |after| {
            before.chars().zip(after.chars()).take_while(|(before, after)| before == after).count()
        });
        let from = same.saturating_sub(BEFORE);
        Self {
            part: text.part,
            field: text.field.to_string(),
            setting: text.setting,
            characters: text.characters,
            most: text.most,
            sink: text.target.map(|target| target.sink),
            action: text.target.map(|target| target.action),
            before: excerpt(&before, from),
            after: after.map(|after| excerpt(&after, from)),
        }
    }
}

fn excerpt(text: &str, from: usize) -> String {
    let mut shown: String = text.chars().skip(from).take(SHOWN).collect();
    if from > 0 {
        shown.insert(0, '…');
    }
    if text.chars().nth(from + SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

impl Answer {
    /// As it went over the wire.
    fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Some(Self { status, fields, body: body.to_owned() })
    }
}
