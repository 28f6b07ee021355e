//! The memory store as it is kept: cut into pieces that are written one by one while it works, and put together again.

use super::super::codec::{Reader, put_u64};
use super::super::record::{Change, Raise};
use super::accounts::Accounts;
use super::claims::Claims;
use super::shard::{Drawn, Key, Row};
use super::{Arc, Ban, ClaimKey, KeptAnswer, MemoryStore, SHARDS, Subject};

pub(in super::super) use super::claims::Answered;

/// Counters cut under one lock.
const STEP: usize = 512;

/// A number that no row has seen: that of a change which another process made.
const UNSEEN: u64 = u64::MAX;

/// What is kept in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Table {
    Counters,
    Claims,
    Accounts,
}

impl Table {
    pub(in super::super) const ALL: [Self; 3] = [Self::Counters, Self::Claims, Self::Accounts];

    /// Pieces of it.
    pub(in super::super) const fn pieces(self) -> usize {
        match self {
            Self::Counters => SHARDS,
            Self::Claims => Claims::SHARDS,
            Self::Accounts => Accounts::SHARDS,
        }
    }
}

impl MemoryStore {
    /// The number of the last change.
    fn last(&self) -> u64 {
        self.changes.feed().map_or(0, super::super::record::Feed::last)
    }

    /// Appends a piece, unless nothing of it has changed since this was asked last, or it is wanted in any case. False if
    /// not. Holds each lock for some microseconds.
    pub(in super::super) fn cut(&self, table: Table, piece: usize, all: bool, into: &mut Vec<u8>) -> bool {
        let now = self.clock.now().as_micros();
        match table {
            Table::Counters => self.cut_counters(piece, all, now, into),
            Table::Claims => chunk(into, |rows| self.claims.write(piece, all, now, || self.last(), rows)),
            Table::Accounts => chunk(into, |rows| self.accounts.write(piece, all, || self.last(), rows)),
        }
    }

    fn cut_counters(&self, piece: usize, all: bool, now: u64, into: &mut Vec<u8>) -> bool {
        let Some(shard) = self.shards.get(piece) else { return false };
        // Nobody may move a counter to where this was already.
        let _tending = self.tending.lock();
        if !shard.lock().take_changed() && !all {
            return false;
        }
        let (mut from, mut more) = (0, true);
        while more {
            chunk(into, |rows| {
                let shard = shard.lock();
                more = shard.write(from, STEP, now, rows);
                Some(self.last())
            });
            from += STEP;
        }
        true
    }

    /// The answers in a piece of the claims that have changed since this was asked last; with those that have not if `all`
    /// are wanted.
    pub(in super::super) fn answered(&self, piece: usize, all: bool) -> Vec<Answered> {
        self.claims.answered(piece, all)
    }

    /// The bans that have changed since this was asked last, as they are now.
    pub(in super::super) fn cut_bans(&self) -> Vec<(Subject, Option<Arc<Ban>>)> {
        let mut banned = self.banned.lock();
        banned.drain().map(|subject| (subject, self.bans.remembered(subject))).collect()
    }

    /// Every ban, in force or remembered.
    pub(in super::super) fn all_bans(&self) -> Vec<Arc<Ban>> {
        self.bans.all()
    }

    /// Takes a ban back.
    pub(in super::super) fn restore_ban(&self, ban: Ban) {
        self.bans.put(ban);
    }

    /// Takes a piece back. False if it is none.
    pub(in super::super) fn restore(&self, table: Table, piece: &[u8]) -> bool {
        let now = self.clock.now().as_micros();
        let mut reader = Reader(piece);
        while !reader.is_empty() {
            let (Some(seen), Some(length)) = (reader.u64(), reader.u64()) else { return false };
            let Some(rows) = usize::try_from(length).ok().and_then(|length| reader.take(length)) else {
                return false;
            };
            let mut rows = Reader(rows);
            while !rows.is_empty() {
                let restored = match table {
                    Table::Counters => Row::read(&mut rows).map(|row| self.restore_counter(row, seen, now)),
                    Table::Claims => self.claims.restore(&mut rows, seen, now),
                    Table::Accounts => self.accounts.restore(&mut rows, seen),
                };
                if restored.is_none() {
                    return false;
                }
            }
        }
        true
    }

    fn restore_counter(&self, row: Row, seen: u64, now: u64) {
        let (hash, shard) = self.place(row.key());
        self.shards[shard].lock().restore(hash, row, seen, self.caps, now, &self.seeds);
    }

    fn place(&self, key: &Key) -> (u64, usize) {
        (self.seeds.hash_one(key), usize::from(self.shard_of(key.subject())))
    }

    pub(in super::super) fn restore_answer(&self, key: ClaimKey, at: u64, answer: KeptAnswer) {
        self.claims.restore_answer(key, at, answer);
    }

    /// To be called when all pieces are restored.
    pub(in super::super) fn restored(&self) {
        self.claims.restored();
    }

    /// Makes change `number` again, where its row has not seen it.
    pub(in super::super) fn change_again(&self, number: u64, at: u64, change: &Change) {
        self.apply(number, at, change);
    }

    /// Takes over a change that another process made, as one of this process.
    pub(in super::super) fn take_over(&self, at: u64, change: &Change) {
        // No lock is held from one to the other: a piece that is cut between them has the change, and makes it again.
        // That counts a draw or a hold of a process that was on its way out twice, if this one is killed in the same
        // moment.
        self.changes.put(at, change);
        self.apply(UNSEEN, at, change);
    }

    fn apply(&self, number: u64, at: u64, change: &Change) {
        let now = self.clock.now().as_micros();
        match change {
            Change::Drawn { window, subject, weight } => {
                let key = Key::new(window, *subject);
                let (hash, shard) = self.place(&key);
                let mut shard = self.shards[shard].lock();
                let drawn = Drawn { number, at, weight: *weight };
                shard.draw_again((hash, key), drawn, window, self.caps, now, &self.seeds);
            }
            Change::Cleared { counter, subject } => {
                let key = Key::of(*counter, *subject);
                let (hash, shard) = self.place(&key);
                self.shards[shard].lock().clear_again(hash, &key, number);
            }
            Change::Claimed { key, content, until } => {
                self.claims.claim_again(number, at, (*key, *content, *until));
            }
            Change::Ended { key, stays } => {
                self.claims.end_again(number, *key, *stays);
            }
            Change::Held { account, period, max, amount } => {
                self.accounts.hold_again(number, *account, *period, *max, *amount);
            }
            Change::Settled { account, start, held, spent } => {
                self.accounts.settle_again(number, *account, *start, *held, *spent);
            }
            Change::Banned(ban) => {
                self.banned.lock().insert(ban.subject);
                self.bans.put(ban.clone());
            }
            Change::Lifted(subject) => {
                self.banned.lock().insert(*subject);
                self.bans.remove(*subject);
            }
        }
    }

    /// What another process left open, which has ended: what it held is spent, what it claimed is free.
    pub(in super::super) fn settle_inherited(&self) {
        let now = self.clock.now().as_micros();
        self.accounts.spend_inherited(now, &self.changes);
        self.claims.free_inherited(now, &self.changes);
    }

    pub(in super::super) fn spend_ceiling(&self, raise: &Raise) {
        self.accounts.spend_ceiling(raise);
    }

    pub(in super::super) fn raised(&self, raise: &Raise) {
        self.accounts.raised(raise);
    }

    pub(in super::super) fn ceilings(&self) -> Vec<Raise> {
        self.accounts.ceilings()
    }
}

/// Appends rows that have seen the same changes, with the number of the last. False if there are none to append.
fn chunk(into: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Option<u64>) -> bool {
    let start = into.len();
    put_u64(into, 0);
    put_u64(into, 0);
    let Some(seen) = write(into) else {
        into.truncate(start);
        return false;
    };
    let length = (into.len() - start - 16) as u64;
    if let Some(head) = into.get_mut(start..start + 16) {
        head[..8].copy_from_slice(&seen.to_le_bytes());
        head[8..].copy_from_slice(&length.to_le_bytes());
    }
    true
}
