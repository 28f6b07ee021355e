//! One shard of the memory store: a table of tallies with a hard cap, and the choice of what to forget.

mod rows;

use ahash::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::super::limit::Sliding;
use super::super::subject::{Kind, Subject};
use super::super::tally::Tally;

pub(super) use rows::{Drawn, Row};

/// Slots looked at to find one to forget: bounds the cost of a newcomer in a full shard.
const LOOKS: usize = 16;

/// How often a subject's marks may push out others' before its own are joined instead.
const HEAP_TRIES: usize = 4;

/// A window of a limit of a subject. The subject's bits are split to spare the padding of a `u128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    counter: u64,
    high: u64,
    low: u64,
    kind: Kind,
}

impl Key {
    pub(super) const fn new(window: &Sliding, subject: Subject) -> Self {
        let bits = subject.bits();
        Self { counter: window.counter, high: (bits >> 64) as u64, low: bits as u64, kind: subject.kind() }
    }

    /// Who draws.
    pub(super) const fn subject(&self) -> Subject {
        Subject::of(self.kind, (self.high as u128) << 64 | self.low as u128)
    }
}

/// What to do with a subject that has no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// An ordinary subject.
    Own,
    /// A network: has a sixteenth more of room.
    Network,
    /// All others together: one a window, always has room.
    Rest,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    tally: Tally,
    /// From then on the window is empty.
    expires: u64,
    /// Until then the subject is at its limit, and forgetting it would free it.
    full_until: u64,
    /// Drawn share of the maximum at the last draw, in 1/255: what forgetting it would give away.
    fullness: u8,
    vacant: bool,
    seen: Seen,
}

/// The number of the last change that a row had seen when it was kept: later ones are to be made again when a journal is
/// read. Six bytes, which fit where a slot had room anyway, outlast any disk.
#[derive(Clone, Copy, Debug, Default)]
struct Seen([u8; 6]);

impl Seen {
    const fn new(number: u64) -> Self {
        let [a, b, c, d, e, f, ..] = number.to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    const fn number(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// Bytes a slot costs: itself, its place in the index at its fullest, and in the free list.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>() + 12 + 4;

/// What a shard may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// Slots for ordinary subjects.
    pub(super) slots: usize,
    /// Bytes of marks beyond each slot's first.
    pub(super) heap: usize,
}

impl Caps {
    /// With the sixteenth that only networks may take.
    const fn all_slots(self) -> usize {
        self.slots + self.slots / 16
    }
}

/// The slots that the transaction at hand works on; they must not be forgotten under it.
pub(super) type Pinned = SmallVec<[u32; 8]>;

#[derive(Debug, Default)]
pub(super) struct Shard {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    heap: usize,
    hand: usize,
    /// Since it was last cut.
    changed: bool,
    pub(super) evicted: u64,
    pub(super) folded: u64,
    pub(super) joined: u64,
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots that the table has, vacant ones too.
    #[cfg(test)]
    pub(super) fn table_len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of marks on the heap.
    pub(super) const fn heap(&self) -> usize {
        self.heap
    }

    pub(super) fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let same = |&at: &u32| self.slots.get(at as usize).is_some_and(|slot| slot.key == *key);
        self.index.find(hash, same).copied()
    }

    pub(super) fn tally(&self, at: u32) -> Option<&Tally> {
        self.slots.get(at as usize).map(|slot| &slot.tally)
    }

    /// The tally at `at`, without what has left its window.
    pub(super) fn fresh_tally(&mut self, at: u32, now: u64, length: u64) -> Option<&Tally> {
        let slot = self.slots.get_mut(at as usize)?;
        slot.tally.expire(now, length);
        Some(&slot.tally)
    }

    /// An empty slot for `key`, which has none; `None` if all that could make room are at their limit.
    pub(super) fn create(
        &mut self,
        (hash, key): (u64, Key),
        rank: Rank,
        caps: Caps,
        now: u64,
        pinned: &[u32],
        seeds: &RandomState,
    ) -> Option<u32> {
        let cap = match rank {
            Rank::Own => caps.slots,
            Rank::Network => caps.all_slots(),
            Rank::Rest => usize::MAX,
        };
        if self.len() >= cap {
            let victim = self.victim(now, pinned, |_| true)?;
            self.evict(victim, seeds);
        }
        let slot = Slot {
            key,
            tally: Tally::EMPTY,
            expires: 0,
            full_until: 0,
            fullness: 0,
            vacant: false,
            seen: Seen::default(),
        };
        if self.free.is_empty() && self.slots.len() == self.slots.capacity() {
            self.grow(caps, seeds);
        }
        let at = match self.free.pop() {
            Some(at) => {
                *self.slots.get_mut(at as usize)? = slot;
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let rehash = |&at: &u32| self.slots.get(at as usize).map_or(0, |slot| seeds.hash_one(slot.key));
        self.index.insert_unique(hash, at, rehash);
        Some(at)
    }

    /// Reserves the whole table at once: memory not yet written to costs nothing, and nothing is ever copied under
    /// the lock. What goes beyond is one slot for the rest of each window.
    fn grow(&mut self, caps: Caps, seeds: &RandomState) {
        let more = caps.all_slots().saturating_sub(self.slots.len()).max(8);
        self.slots.reserve_exact(more);
        let rehash = |&at: &u32| self.slots.get(at as usize).map_or(0, |slot| seeds.hash_one(slot.key));
        self.index.reserve(more, rehash);
    }

    /// Forgets what was drawn from the slot at `at`.
    pub(super) fn clear(&mut self, at: u32) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        self.changed = true;
        self.heap -= slot.tally.heap();
        slot.tally = Tally::EMPTY;
        (slot.expires, slot.full_until, slot.fullness) = (0, 0, 0);
    }

    /// Draws `weight` from the slot at `at`.
    pub(super) fn draw(
        &mut self,
        at: u32,
        (now, weight): (u64, u64),
        window: &Sliding,
        caps: Caps,
        pinned: impl Fn() -> Pinned,
        seeds: &RandomState,
    ) {
        self.changed = true;
        let Some(growth) = self.tally(at).map(|tally| tally.growth(now, window.grain)) else { return };
        let room = growth == 0 || self.heap_room(growth, caps, now, pinned, seeds);
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        if room {
            let before = slot.tally.heap();
            slot.tally.draw(now, weight, window.grain);
            self.heap += slot.tally.heap() - before;
        } else {
            self.joined += 1;
            slot.tally.draw_in_place(now, weight, window.grain);
        }
        let used = slot.tally.used();
        slot.expires = slot.tally.whole_at(window.length).unwrap_or(now);
        slot.fullness = (u128::from(used) * 255 / u128::from(window.max.max(1))).min(255) as u8;
        slot.full_until = match used >= window.max {
            true => slot.tally.fits_at(1, window).unwrap_or(slot.expires),
            false => 0,
        };
    }

    fn heap_room(
        &mut self,
        growth: usize,
        caps: Caps,
        now: u64,
        pinned: impl Fn() -> Pinned,
        seeds: &RandomState,
    ) -> bool {
        for _ in 0..HEAP_TRIES {
            if self.heap + growth <= caps.heap {
                return true;
            }
            let victim = self.victim(now, &pinned(), |slot| slot.tally.heap() > 0);
            let Some(victim) = victim else { return false };
            self.evict(victim, seeds);
        }
        self.heap + growth <= caps.heap
    }

    /// What to forget: of the next few slots the first that has expired, else the one with the least drawn;
    /// never one that is at its limit. Thus a spray of strangers pushes out strangers, not whoever has nearly
    /// spent a limit.
    fn victim(&mut self, now: u64, pinned: &[u32], wanted: impl Fn(&Slot) -> bool) -> Option<u32> {
        let mut least: Option<(u8, u32)> = None;
        for _ in 0..LOOKS.min(self.slots.len()) {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let (at, slot) = (u32::try_from(self.hand).ok()?, self.slots.get(self.hand)?);
            if slot.vacant || !wanted(slot) || pinned.contains(&at) {
                continue;
            }
            if slot.expires <= now {
                return Some(at);
            }
            if slot.full_until <= now && least.is_none_or(|(fullness, _)| slot.fullness < fullness) {
                least = Some((slot.fullness, at));
            }
        }
        least.map(|(_, at)| at)
    }

    fn evict(&mut self, at: u32, seeds: &RandomState) {
        self.evicted += 1;
        self.remove(at, seeds);
    }

    fn remove(&mut self, at: u32, seeds: &RandomState) {
        let Some(slot) = self.slots.get_mut(at as usize).filter(|slot| !slot.vacant) else { return };
        self.changed = true;
        self.heap -= slot.tally.heap();
        slot.tally = Tally::EMPTY;
        slot.vacant = true;
        if let Ok(entry) = self.index.find_entry(seeds.hash_one(slot.key), |&other| other == at) {
            entry.remove();
        }
        self.free.push(at);
    }

    /// Forgets the expired among the slots `from..from + count` and gives back spare heap; false past the
    /// end.
    pub(super) fn sweep(&mut self, from: usize, count: usize, now: u64, seeds: &RandomState) -> bool {
        let end = self.slots.len().min(from.saturating_add(count));
        for at in from..end {
            let Some(slot) = self.slots.get_mut(at).filter(|slot| !slot.vacant) else { continue };
            if slot.expires <= now {
                self.remove(at as u32, seeds);
            } else {
                let before = slot.tally.heap();
                slot.tally.shrink();
                self.heap -= before - slot.tally.heap();
            }
        }
        end < self.slots.len()
    }

    /// Gives back the table of a spray that has passed: once seven eighths are vacant, the rest moves
    /// together.
    pub(super) fn compact(&mut self, seeds: &RandomState) {
        if self.slots.len() < 64 || self.len() > self.slots.len() / 8 {
            return;
        }
        self.slots.retain(|slot| !slot.vacant);
        self.slots.shrink_to_fit();
        self.free = Vec::new();
        self.hand = 0;
        self.index = HashTable::with_capacity(self.slots.len());
        let rehash = |&at: &u32| self.slots.get(at as usize).map_or(0, |slot| seeds.hash_one(slot.key));
        for (at, slot) in (0u32..).zip(&self.slots) {
            self.index.insert_unique(seeds.hash_one(slot.key), at, rehash);
        }
    }
}
