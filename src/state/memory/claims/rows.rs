//! Claims as they are kept, and how they come back.

use std::sync::Arc;

use super::super::super::codec::{Reader, put_u64, put_u128};
use super::super::super::record::{Change, Changes};
use super::{ClaimKey, Claims, Entry, KeptAnswer, SHARDS, shard_of};

/// An answer whose keeping has changed.
pub(in super::super::super) struct Answered {
    pub(in super::super::super) key: ClaimKey,
    /// The answer; when it was claimed, which tells it from answers to others who claim the same; and until when it is
    /// kept. `None`: it is kept no more.
    pub(in super::super::super) answer: Option<(Arc<KeptAnswer>, u64, u64)>,
}

impl Claims {
    pub(in super::super) const SHARDS: usize = SHARDS;

    /// Writes the claims of a shard that stand at `now`, unless none has changed since this was asked last or `all` are
    /// wanted. `last` is asked for the number of the last change while none is made.
    pub(in super::super) fn write(
        &self,
        shard: usize,
        all: bool,
        now: u64,
        last: impl FnOnce() -> u64,
        into: &mut Vec<u8>,
    ) -> Option<u64> {
        let mut shard = self.shards.get(shard)?.lock();
        if !std::mem::take(&mut shard.changed) && !all {
            return None;
        }
        for (key, entry) in shard.entries.iter().filter(|(_, entry)| entry.is_taken(now)) {
            put_u128(into, key.0);
            put_u128(into, entry.content);
            put_u64(into, entry.at);
            put_u64(into, entry.until);
            into.push(entry.under_way.into());
        }
        Some(last())
    }

    /// The answers of a shard that have changed since this was asked last; with those that have not if `all` are wanted.
    pub(in super::super) fn answered(&self, shard: usize, all: bool) -> Vec<Answered> {
        let Some(mut shard) = self.shards.get(shard).map(|shard| shard.lock()) else { return Vec::new() };
        let mut keys = shard.answered.as_mut().map(std::mem::take).unwrap_or_default();
        if all {
            keys.extend(
                shard.entries.iter().filter(|(_, entry)| entry.answer.is_some()).map(|(key, _)| *key),
            );
        }
        keys.sort_unstable();
        keys.dedup();
        let answer = |key: &ClaimKey| {
            let entry = shard.entries.get(key)?;
            Some((entry.answer.clone()?, entry.at, entry.until))
        };
        keys.into_iter().map(|key| Answered { key, answer: answer(&key) }).collect()
    }

    /// Takes a claim back that had seen all changes up to `seen`. Its request was another process's.
    pub(in super::super) fn restore(&self, reader: &mut Reader<'_>, seen: u64, now: u64) -> Option<()> {
        let (key, content) = (ClaimKey(reader.u128()?), reader.u128()?);
        let (at, until, under_way) = (reader.u64()?, reader.u64()?, reader.flag()?);
        // A clock that was wrong and was set back must not keep a claim until it is right again.
        let ahead = at.saturating_sub(now);
        let (at, until) = (at - ahead, until.saturating_sub(ahead));
        let entry = Entry { content, at, until, under_way, answer: None, seen, inherited: under_way };
        let mut shard = self.shards[shard_of(key)].lock();
        if entry.is_taken(now) && shard.entries.get(&key).is_none_or(|known| known.seen < seen) {
            shard.put(key, entry);
        }
        Some(())
    }

    /// Claims again what another process claimed at `at` as change `number`, unless the row has seen it.
    pub(in super::super) fn claim_again(
        &self,
        number: u64,
        at: u64,
        (key, content, until): (ClaimKey, u128, u64),
    ) {
        let mut shard = self.shards[shard_of(key)].lock();
        if shard.entries.get(&key).is_none_or(|entry| entry.seen < number) {
            let entry = Entry { content, at, until, under_way: true, answer: None, seen: 0, inherited: true };
            shard.put(key, entry);
            shard.make_room(self.max);
        }
    }

    /// Ends a claim again, unless the row has seen that it has ended. Whether there was anything to end.
    pub(in super::super) fn end_again(&self, number: u64, key: ClaimKey, stays: bool) -> bool {
        let mut shard = self.shards[shard_of(key)].lock();
        let unseen = |entry: &Entry| entry.seen < number && entry.inherited;
        shard.entries.get(&key).is_some_and(unseen) && shard.end(key, stays)
    }

    /// Frees the claims of another process that has ended, and with it the requests that were under way.
    pub(in super::super) fn free_inherited(&self, now: u64, changes: &Changes) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let left = |entry: &Entry| entry.under_way && entry.inherited;
            let keys: Vec<_> = shard.entries.iter().filter(|(_, e)| left(e)).map(|(key, _)| *key).collect();
            for key in keys {
                shard.end(key, false);
                changes.put(now, &Change::Ended { key, stays: false });
            }
        }
    }

    /// To be called when all is restored: what is forgotten first for want of room is what was claimed first.
    pub(in super::super) fn restored(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.order.make_contiguous().sort_unstable_by_key(|(_, at)| *at);
            shard.make_room(self.max);
        }
    }

    /// Takes an answer back that was kept for whoever claimed `key` at `at`.
    pub(in super::super) fn restore_answer(&self, key: ClaimKey, at: u64, answer: KeptAnswer) {
        let same = self.shards[shard_of(key)].lock().entries.get(&key).is_some_and(|entry| entry.at == at);
        if same {
            self.put_answer(key, Arc::new(answer));
        }
    }
}
