//! Names of what is kept in the server. All begin with one prefix; all but the three that never grow expire.

use super::super::budget::{BudgetSpec, Calendar};
use super::super::claim::ClaimKey;
use super::super::limit::{LimitSpec, Sliding};
use super::super::subject::Subject;
use super::super::transaction::AdmissionId;

/// A name. Subjects and digests stand in it as bytes.
pub(super) type Key = Vec<u8>;

/// Makes names. They hold the operator's own names of limits and budgets, not hashes of them: gates of different builds
/// must agree.
pub(super) struct Keys {
    prefix: Box<str>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    fn key(&self, kind: &str, parts: &[&[u8]]) -> Key {
        let length = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut key = Key::with_capacity(self.prefix.len() + 1 + kind.len() + length);
        key.extend_from_slice(self.prefix.as_bytes());
        key.push(b':');
        key.extend_from_slice(kind.as_bytes());
        for part in parts {
            key.push(b':');
            key.extend_from_slice(part);
        }
        key
    }

    /// The draws of `subject` in a window.
    pub(super) fn counter(&self, limit: &LimitSpec, window: &Sliding, subject: Subject) -> Key {
        let mut length = itoa::Buffer::new();
        let length = length.format(window.length).as_bytes();
        self.key("l", &[limit.name().as_bytes(), length, &subject.to_bytes()])
    }

    /// What `subject` has spent of a budget.
    pub(super) fn account(&self, budget: &BudgetSpec, subject: Subject) -> Key {
        let calendar = match budget.calendar() {
            Calendar::Hour => b"h",
            Calendar::Day => b"d",
            Calendar::Week => b"w",
            Calendar::Month => b"m",
        };
        self.key("b", &[budget.name().as_bytes(), calendar, &subject.to_bytes()])
    }

    /// A claim.
    pub(super) fn claim(&self, key: ClaimKey) -> Key {
        self.key("c", &[&key.0.to_be_bytes()])
    }

    /// A claim, and the answer kept for it.
    pub(super) fn claim_and_answer(&self, key: ClaimKey) -> [Key; 2] {
        let claim = self.claim(key);
        let answer = [&claim, &b":a"[..]].concat();
        [claim, answer]
    }

    /// What an admission has taken that must be settled.
    pub(super) fn record(&self, id: AdmissionId) -> Key {
        self.key("o", &[&id.0.to_be_bytes()])
    }

    /// That what an admission spent without the server is known to it.
    pub(super) fn charged(&self, id: AdmissionId) -> Key {
        self.key("x", &[&id.0.to_be_bytes()])
    }

    /// What the names of bans begin with.
    pub(super) fn bans(&self) -> Key {
        self.key("ban", &[b""])
    }

    /// The ban of a subject.
    pub(super) fn ban(&self, subject: Subject) -> Key {
        self.key("ban", &[&subject.to_bytes()])
    }

    /// Who is banned or freed, in the order in which it happened.
    pub(super) fn changes(&self) -> Key {
        self.key("bans", &[])
    }

    /// The gates that live, by when they were last heard of.
    pub(super) fn gates(&self) -> Key {
        self.key("gates", &[])
    }

    /// A random text that lasts as long as the server's data: another one means that all was lost.
    pub(super) fn epoch(&self) -> Key {
        self.key("epoch", &[])
    }
}
