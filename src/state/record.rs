//! What changes in a store, as a journal takes it: each change says what one row gained or lost, so that it can be applied
//! to that row alone.

use std::cell::RefCell;
use std::sync::Arc;

use super::bans::Ban;
use super::budget::Period;
use super::claim::ClaimKey;
use super::clock::Timestamp;
use super::codec::{Reader, put_bytes, put_subject, put_u64, put_u128, put_varint};
use super::limit::Sliding;
use super::subject::Subject;

/// Where changes go.
pub(super) trait Feed: Send + Sync {
    /// Takes a record, and gives it the next number. Called while the locks of all rows that it changes are held, so that
    /// the records of each row are in the order of its changes.
    fn append(&self, record: &[u8]);

    /// The number of the last record. Asked under the lock of a row: every change that the row has seen has this or a
    /// lower number, every one to come a higher.
    fn last(&self) -> u64;

    /// Asks for the right to spend up to `raise.to`, which a power cut will not take back. Answers a ticket to wait by.
    fn raise(&self, raise: Raise) -> u64;
}

/// The account of a subject in a budget.
pub(super) type AccountKey = (u64, Subject);

/// What an account may spend in a period before it has to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raise {
    pub(super) account: AccountKey,
    pub(super) period: Period,
    pub(super) max: u64,
    pub(super) to: u64,
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// `weight` was drawn.
    Drawn { window: Sliding, subject: Subject, weight: u64 },
    /// What was drawn is forgotten.
    Cleared { counter: u64, subject: Subject },
    /// `key` was claimed.
    Claimed { key: ClaimKey, content: u128, until: u64 },
    /// The request that claimed `key` has ended; the claim stays, or is free.
    Ended { key: ClaimKey, stays: bool },
    /// `amount` is held.
    Held { account: AccountKey, period: Period, max: u64, amount: u64 },
    /// What was held since `start` was spent.
    Settled { account: AccountKey, start: Timestamp, held: u64, spent: u64 },
    /// Somebody is banned.
    Banned(Ban),
    /// Somebody is not banned any more.
    Lifted(Subject),
}

const DRAWN: u8 = 1;
/// As much as was drawn just before and by the same, from another window.
const DRAWN_TOO: u8 = 2;
const CLEARED: u8 = 3;
const CLAIMED: u8 = 4;
const ENDED: u8 = 5;
const HELD: u8 = 6;
const SETTLED: u8 = 7;
const BANNED: u8 = 8;
const LIFTED: u8 = 9;

/// Writes one record: when it happened, and its changes.
pub(super) struct Recorder<'a> {
    bytes: &'a mut Vec<u8>,
    drawn: Option<(Subject, u64)>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>, at: u64) -> Self {
        bytes.clear();
        put_u64(bytes, at);
        Self { bytes, drawn: None }
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() <= size_of::<u64>()
    }

    pub(super) fn drawn(&mut self, window: &Sliding, subject: Subject, weight: u64) {
        if self.drawn == Some((subject, weight)) {
            self.bytes.push(DRAWN_TOO);
        } else {
            self.bytes.push(DRAWN);
            put_subject(self.bytes, subject);
            put_varint(self.bytes, weight);
            self.drawn = Some((subject, weight));
        }
        put_u64(self.bytes, window.counter);
        put_varint(self.bytes, window.length);
        put_varint(self.bytes, window.max);
    }

    pub(super) fn put(&mut self, change: &Change) {
        let bytes = &mut *self.bytes;
        match change {
            Change::Drawn { window, subject, weight } => self.drawn(window, *subject, *weight),
            Change::Cleared { counter, subject } => {
                bytes.push(CLEARED);
                put_account(bytes, (*counter, *subject));
            }
            Change::Claimed { key, content, until } => {
                bytes.push(CLAIMED);
                put_u128(bytes, key.0);
                put_u128(bytes, *content);
                put_u64(bytes, *until);
            }
            Change::Ended { key, stays } => {
                bytes.push(ENDED);
                put_u128(bytes, key.0);
                bytes.push((*stays).into());
            }
            Change::Held { account, period, max, amount } => {
                bytes.push(HELD);
                put_account(bytes, *account);
                put_period(bytes, *period);
                put_varint(bytes, *max);
                put_varint(bytes, *amount);
            }
            Change::Settled { account, start, held, spent } => {
                bytes.push(SETTLED);
                put_account(bytes, *account);
                put_u64(bytes, start.as_micros());
                put_varint(bytes, *held);
                put_varint(bytes, *spent);
            }
            Change::Banned(ban) => {
                bytes.push(BANNED);
                put_ban(bytes, ban);
            }
            Change::Lifted(subject) => {
                bytes.push(LIFTED);
                put_subject(bytes, *subject);
            }
        }
    }
}

pub(super) fn put_account(bytes: &mut Vec<u8>, (counter, subject): AccountKey) {
    put_u64(bytes, counter);
    put_subject(bytes, subject);
}

pub(super) fn put_period(bytes: &mut Vec<u8>, period: Period) {
    put_u64(bytes, period.start.as_micros());
    put_u64(bytes, period.end.as_micros());
}

pub(super) fn put_ban(bytes: &mut Vec<u8>, ban: &Ban) {
    put_subject(bytes, ban.subject);
    [ban.since, ban.until, ban.remembered_until].iter().for_each(|at| put_u64(bytes, at.as_micros()));
    bytes.extend([ban.level, ban.by_hand.into()]);
    put_bytes(bytes, ban.reason.as_bytes());
}

impl Reader<'_> {
    pub(super) fn at(&mut self) -> Option<Timestamp> {
        self.u64().map(Timestamp::from_micros)
    }

    pub(super) fn account(&mut self) -> Option<AccountKey> {
        Some((self.u64()?, self.subject()?))
    }

    pub(super) fn period(&mut self) -> Option<Period> {
        Some(Period { start: self.at()?, end: self.at()? })
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        self.u8().filter(|byte| *byte < 2).map(|byte| byte == 1)
    }

    pub(super) fn ban(&mut self) -> Option<Ban> {
        Some(Ban {
            subject: self.subject()?,
            since: self.at()?,
            until: self.at()?,
            remembered_until: self.at()?,
            level: self.u8()?,
            by_hand: self.flag()?,
            reason: std::str::from_utf8(self.bytes()?).ok()?.into(),
        })
    }

    fn change(&mut self, drawn: &mut Option<(Subject, u64)>) -> Option<Change> {
        Some(match self.u8()? {
            tag @ (DRAWN | DRAWN_TOO) => {
                if tag == DRAWN {
                    *drawn = Some((self.subject()?, self.varint()?));
                }
                let (subject, weight) = (*drawn)?;
                let (counter, length, max) = (self.u64()?, self.varint()?, self.varint()?);
                Change::Drawn { window: Sliding::new(length, max, counter), subject, weight }
            }
            CLEARED => Change::Cleared { counter: self.u64()?, subject: self.subject()? },
            CLAIMED => {
                Change::Claimed { key: ClaimKey(self.u128()?), content: self.u128()?, until: self.u64()? }
            }
            ENDED => Change::Ended { key: ClaimKey(self.u128()?), stays: self.flag()? },
            HELD => Change::Held {
                account: self.account()?,
                period: self.period()?,
                max: self.varint()?,
                amount: self.varint()?,
            },
            SETTLED => Change::Settled {
                account: self.account()?,
                start: self.at()?,
                held: self.varint()?,
                spent: self.varint()?,
            },
            BANNED => Change::Banned(self.ban()?),
            LIFTED => Change::Lifted(self.subject()?),
            _ => return None,
        })
    }
}

/// Reads a record: hands each change, with when it happened, to `apply`. False if it is none.
pub(super) fn read(record: &[u8], mut apply: impl FnMut(u64, Change)) -> bool {
    let mut reader = Reader(record);
    let Some(at) = reader.u64() else { return false };
    let mut drawn = None;
    while !reader.is_empty() {
        let Some(change) = reader.change(&mut drawn) else { return false };
        apply(at, change);
    }
    true
}

/// The way of changes to a journal, if there is one.
#[derive(Clone)]
pub(super) struct Changes(Option<Arc<dyn Feed>>);

impl Changes {
    /// Nobody wants to know.
    pub(super) const NONE: Self = Self(None);

    pub(super) fn to(feed: Arc<dyn Feed>) -> Self {
        Self(Some(feed))
    }

    pub(super) fn feed(&self) -> Option<&dyn Feed> {
        self.0.as_deref()
    }

    /// Records what `write` says, as one; to be called while the locks of all that it changes are held.
    #[inline]
    pub(super) fn record(&self, at: u64, write: impl FnOnce(&mut Recorder<'_>)) {
        thread_local! {
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(feed) = &self.0 else { return };
        SCRATCH.with_borrow_mut(|bytes| {
            let mut recorder = Recorder::new(bytes, at);
            write(&mut recorder);
            if !recorder.is_empty() {
                feed.append(bytes);
            }
        });
    }

    /// Records one change.
    pub(super) fn put(&self, at: u64, change: &Change) {
        self.record(at, |recorder| recorder.put(change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::client::SubjectId;

    pub(crate) fn every_change() -> Vec<Change> {
        let user = Subject::user(SubjectId(7 << 64));
        let window = |counter, max| Sliding::new(60_000_000, max, counter);
        let period = Period { start: Timestamp::from_micros(10), end: Timestamp::from_micros(1 << 50) };
        let ban = Ban {
            subject: user,
            since: period.start,
            until: period.end,
            remembered_until: period.end,
            level: 3,
            reason: "rate_limited".into(),
            by_hand: true,
        };
        vec![
            Change::Drawn { window: window(1, 5), subject: Subject::global(), weight: 1 },
            Change::Drawn { window: window(2, 5000), subject: Subject::global(), weight: 1 },
            Change::Drawn { window: window(2, 5000), subject: user, weight: 1 },
            Change::Drawn { window: window(3, u64::MAX), subject: user, weight: 200 },
            Change::Cleared { counter: 1, subject: user },
            Change::Claimed { key: ClaimKey(1 << 100), content: 9, until: 77 },
            Change::Ended { key: ClaimKey(1 << 100), stays: true },
            Change::Held { account: (4, user), period, max: 1000, amount: 10 },
            Change::Settled { account: (4, user), start: period.start, held: 10, spent: u64::MAX },
            Change::Banned(ban),
            Change::Lifted(user),
        ]
    }

    /// A change that was read back as another would be counted to somebody else.
    #[test]
    fn a_record_reads_as_it_was_written_or_not_at_all() {
        let (mut bytes, changes) = (Vec::new(), every_change());
        let mut recorder = Recorder::new(&mut bytes, 42);
        changes.iter().for_each(|change| recorder.put(change));
        let mut read_back = Vec::new();
        assert!(read(&bytes, |at, change| {
            assert_eq!(at, 42);
            read_back.push(change);
        }));
        assert_eq!(read_back, changes);
        assert!(!read(&bytes[..bytes.len() - 1], |_, _| ()) && !read(&[9, 9], |_, _| ()));
        bytes.push(200);
        assert!(!read(&bytes, |_, _| ()));
    }
}
