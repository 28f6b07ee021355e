//! What an operator does, on its way into the audit and the events.

use std::net::IpAddr;

use serde_json::Value;

use super::clean;
use super::row::Row;
use crate::guard::Event;
use crate::observe::line::{JsonLine, shortened};
use crate::observe::redact::redact;
use crate::state::Timestamp;

/// Bytes of a text that are kept.
const TEXT_BYTES: usize = 1024;

/// Who acts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// The socket's other end; `None`: a signal to the process.
    pub address: Option<IpAddr>,
    /// Mark of the token: tells one from another, and nothing else.
    pub token: Option<String>,
}

/// Something to be done.
#[derive(Clone, Debug)]
pub struct Act {
    /// By whom.
    pub by: Actor,
    /// What: a stable word.
    pub act: &'static str,
    /// To whom or what.
    pub subject: Option<String>,
    /// What was asked for.
    pub asked: Value,
}

/// An act that was written down and may be done.
#[derive(Clone, Copy, Debug)]
#[must_use = "what became of it is to be written, too"]
pub struct Began {
    pub(super) row: Option<u64>,
}

/// What became of an act.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was done: how it stood before, and stands now.
    Done(Value, Value),
    /// It can't be done, for this reason.
    Refused(String),
    /// It should have been done, but something failed.
    Failed(String),
}

impl Act {
    pub(super) fn row(&self) -> Row {
        Row {
            address: self.by.address.map(|address| address.to_canonical().to_string()),
            token: self.by.token.clone(),
            act: self.act.into(),
            subject: self.subject.as_deref().map(clean_text),
            outcome: "begun".into(),
            asked: clean(self.asked.clone()),
            ..Row::default()
        }
    }
}

impl Outcome {
    const fn word(&self) -> &'static str {
        match self {
            Self::Done(..) => "done",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    pub(super) fn row(&self, act: &Act) -> Row {
        let row = Row { outcome: self.word().into(), asked: Value::Null, ..act.row() };
        match self {
            Self::Done(before, after) => {
                Row { before: clean(before.clone()), after: clean(after.clone()), ..row }
            }
            Self::Refused(why) | Self::Failed(why) => Row { detail: Some(clean_text(why)), ..row },
        }
    }

    /// The event of it.
    pub(in crate::observe) fn write(&self, at: Timestamp, act: &Act, began: Began, out: &mut Vec<u8>) {
        let row = self.row(act);
        let mut line = JsonLine::begin(out, at);
        line.text("event", Event::AdminAct.name());
        line.text("act", act.act);
        line.text("outcome", self.word());
        line.maybe("subject", row.subject.as_deref());
        if let Some(address) = act.by.address {
            line.address("client_address", address);
        }
        line.maybe("token", act.by.token.as_deref());
        for (key, value) in [("before", &row.before), ("after", &row.after)] {
            if !value.is_null() {
                line.text(key, &value.to_string());
            }
        }
        line.maybe("detail", row.detail.as_deref());
        if let Some(row) = began.row {
            line.number("audit_row", row);
        }
        line.end();
    }
}

pub(super) fn clean_text(text: &str) -> String {
    shortened(&redact(text), TEXT_BYTES).to_owned()
}
