//! Who has claimed what.

mod rows;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::super::claim::{Claim, ClaimKey, Holder, KeptAnswer};
use super::super::clock::micros;
use super::super::record::{Change, Changes};

pub(in super::super) use rows::Answered;

const SHARDS: usize = 64;

#[derive(Debug)]
struct Entry {
    content: u128,
    /// When it was claimed, in microseconds.
    at: u64,
    /// When it is free again once its request was served.
    until: u64,
    under_way: bool,
    answer: Option<Arc<KeptAnswer>>,
    /// The number of the last change that the row had seen when it was kept.
    seen: u64,
    /// Its request is another process's, which may have ended.
    inherited: bool,
}

impl Entry {
    fn is_taken(&self, now: u64) -> bool {
        self.under_way || now < self.until
    }
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<ClaimKey, Entry, RandomState>,
    /// Keys in the order in which they were claimed, with when: what is forgotten first if there is no room.
    order: VecDeque<(ClaimKey, u64)>,
    /// Bytes of answers.
    bytes: usize,
    /// Since it was last cut.
    changed: bool,
    /// Keys of claims whose answers have changed since then, if somebody wants to know.
    answered: Option<Vec<ClaimKey>>,
}

/// All claims, bounded: the oldest that are not under way make room for new ones.
pub(super) struct Claims {
    shards: [Mutex<Shard>; SHARDS],
    /// Claims in a shard, at most.
    max: usize,
    /// Bytes of answers in a shard, at most.
    max_bytes: usize,
}

/// The shards of a demand's claims, locked.
pub(super) struct Locked<'a>(SmallVec<[(usize, MutexGuard<'a, Shard>); 2]>);

impl Claims {
    /// None yet; `kept`: somebody wants to know which answers change.
    pub(super) fn new(max: usize, max_bytes: usize, kept: bool) -> Self {
        let shard = || Shard { answered: kept.then(Vec::new), ..Shard::default() };
        let shards = std::array::from_fn(|_| Mutex::new(shard()));
        Self { shards, max: max.div_ceil(SHARDS).max(1), max_bytes: max_bytes / SHARDS }
    }

    /// Locks the shards of `claims`, lowest first, so that no two transactions wait for each other.
    pub(super) fn lock(&self, claims: &[Claim]) -> Locked<'_> {
        let mut ids: SmallVec<[usize; 4]> = claims.iter().map(|claim| shard_of(claim.key)).collect();
        ids.sort_unstable();
        ids.dedup();
        Locked(ids.into_iter().map(|id| (id, self.shards[id].lock())).collect())
    }

    /// Takes `claims`, none of which is taken.
    pub(super) fn take(&self, claims: &[Claim], locked: &mut Locked<'_>, now: u64) {
        for claim in claims {
            let Some(shard) = locked.of(claim.key) else { continue };
            let entry = Entry {
                content: claim.content,
                at: now,
                until: now.saturating_add(micros(claim.keep)),
                under_way: true,
                answer: None,
                seen: 0,
                inherited: false,
            };
            shard.put(claim.key, entry);
            shard.make_room(self.max);
        }
    }

    /// The request that claimed `key` has ended: the claim stands as long as it should, or is free.
    pub(super) fn end(&self, key: ClaimKey, stays: bool, now: u64, changes: &Changes) {
        let mut shard = self.shards[shard_of(key)].lock();
        if shard.end(key, stays) {
            changes.put(now, &Change::Ended { key, stays });
        }
    }

    /// Keeps an answer for `key`, if it is claimed and there is room.
    pub(super) fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) {
        self.put_answer(key, answer);
        self.shards[shard_of(key)].lock().note_answer(key);
    }

    fn put_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) {
        let mut shard = self.shards[shard_of(key)].lock();
        let size = answer.size();
        if size > self.max_bytes || !shard.entries.contains_key(&key) {
            return;
        }
        // The oldest answers make room; their claims stand.
        while shard.bytes + size > self.max_bytes {
            let oldest =
                shard.entries.iter_mut().filter(|(_, e)| e.answer.is_some()).min_by_key(|(_, e)| e.at);
            let Some((oldest, freed)) = oldest.and_then(|(key, entry)| Some((*key, entry.answer.take()?)))
            else {
                return;
            };
            shard.bytes -= freed.size();
            shard.note_answer(oldest);
        }
        if let Some(entry) = shard.entries.get_mut(&key) {
            let before = entry.answer.replace(answer).map_or(0, |answer| answer.size());
            shard.bytes = shard.bytes + size - before;
        }
    }

    /// The answer that is kept for `key`.
    pub(super) fn kept_answer(&self, key: ClaimKey, now: u64) -> Option<Arc<KeptAnswer>> {
        let shard = self.shards[shard_of(key)].lock();
        shard.entries.get(&key).filter(|entry| entry.is_taken(now))?.answer.clone()
    }

    /// Forgets what is free. Takes each lock in turn.
    pub(super) fn sweep(&self, now: u64) {
        for shard in &self.shards {
            shard.lock().sweep(now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }
}

impl Locked<'_> {
    fn of(&mut self, key: ClaimKey) -> Option<&mut Shard> {
        let id = shard_of(key);
        self.0.iter_mut().find(|(other, _)| *other == id).map(|(_, shard)| &mut **shard)
    }

    /// The first of `claims` that somebody has.
    pub(super) fn taken(&mut self, claims: &[Claim], now: u64) -> Option<(usize, Holder)> {
        claims.iter().enumerate().find_map(|(at, claim)| {
            let entry = self.of(claim.key)?.entries.get(&claim.key).filter(|entry| entry.is_taken(now))?;
            let holder = Holder {
                under_way: entry.under_way,
                same_content: entry.content == claim.content,
                age: Duration::from_micros(now.saturating_sub(entry.at)),
                free_in: Duration::from_micros(entry.until.saturating_sub(now)),
            };
            Some((at, holder))
        })
    }
}

impl Shard {
    /// Whether there was anything to end.
    fn end(&mut self, key: ClaimKey, stays: bool) -> bool {
        match self.entries.get_mut(&key).filter(|entry| entry.under_way) {
            Some(entry) if stays => entry.under_way = false,
            Some(_) => self.forget(key),
            None => return false,
        }
        self.changed = true;
        true
    }

    fn put(&mut self, key: ClaimKey, entry: Entry) {
        self.changed = true;
        self.order.push_back((key, entry.at));
        if let Some(Entry { answer: Some(answer), .. }) = self.entries.insert(key, entry) {
            self.bytes -= answer.size();
        }
    }

    fn note_answer(&mut self, key: ClaimKey) {
        if let Some(answered) = &mut self.answered {
            answered.push(key);
        }
    }

    fn forget(&mut self, key: ClaimKey) {
        self.changed = true;
        if let Some(Entry { answer: Some(answer), .. }) = self.entries.remove(&key) {
            self.bytes -= answer.size();
            self.note_answer(key);
        }
    }

    /// Forgets the oldest that are not under way until `max` are left.
    fn make_room(&mut self, max: usize) {
        for _ in 0..self.order.len() {
            if self.entries.len() <= max {
                return;
            }
            let Some((key, at)) = self.order.pop_front() else { return };
            match self.entries.get(&key).filter(|entry| entry.at == at) {
                Some(entry) if entry.under_way => self.order.push_back((key, at)),
                Some(_) => self.forget(key),
                None => {}
            }
        }
    }

    fn sweep(&mut self, now: u64) {
        let (before, mut freed) = (self.entries.len(), 0);
        self.entries.retain(|_, entry| {
            let stays = entry.is_taken(now);
            if !stays {
                freed += entry.answer.as_ref().map_or(0, |answer| answer.size());
            }
            stays
        });
        self.bytes -= freed;
        self.changed |= before > self.entries.len();
        let entries = &self.entries;
        self.order.retain(|(key, at)| entries.get(key).is_some_and(|entry| entry.at == *at));
    }
}

/// Keys are digests: their low bits spread them evenly.
fn shard_of(key: ClaimKey) -> usize {
    (key.0 % SHARDS as u128) as usize
}
