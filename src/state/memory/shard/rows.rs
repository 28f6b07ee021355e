//! The counters of a shard as they are kept, and how they come back.

use ahash::RandomState;

use super::super::super::codec::{Reader, put_u64, put_varint};
use super::super::super::record::put_account;
use super::{Caps, Key, Kind, Pinned, Rank, Seen, Shard, Sliding, Subject};

/// A counter that was kept.
pub(in super::super) struct Row {
    key: Key,
    expires: u64,
    full_until: u64,
    fullness: u8,
    /// When and how much was drawn, oldest first; never empty.
    marks: Vec<(u64, u64)>,
}

/// A draw that was made before.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Drawn {
    /// The number of the change.
    pub(in super::super) number: u64,
    pub(in super::super) at: u64,
    pub(in super::super) weight: u64,
}

impl Row {
    pub(in super::super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (counter, subject) = reader.account()?;
        let (expires, full_until, fullness) = (reader.u64()?, reader.u64()?, reader.u8()?);
        let count = reader.varint()?;
        let mut at = reader.u64()?;
        let mut marks = vec![(at, reader.varint()?)];
        for _ in 1..count {
            at = at.checked_add(reader.varint()?)?;
            marks.push((at, reader.varint()?));
        }
        Some(Self { key: Key::of(counter, subject), expires, full_until, fullness, marks })
    }

    pub(in super::super) fn key(&self) -> &Key {
        &self.key
    }

    /// Has it as if no draw were later than `now`: a clock that was wrong and was set back would lock people out until it
    /// is right again.
    fn not_after(&mut self, now: u64) {
        let newest = self.marks.last().map_or(0, |(at, _)| *at);
        self.marks.iter_mut().for_each(|(at, _)| *at = (*at).min(now));
        self.expires -= newest.saturating_sub(now).min(self.expires);
        self.full_until = self.full_until.min(self.expires);
    }
}

impl Key {
    pub(in super::super) fn of(counter: u64, subject: Subject) -> Self {
        Self::new(&Sliding::new(0, 0, counter), subject)
    }

    const fn rank(&self) -> Rank {
        match self.kind {
            Kind::NetworkV4 | Kind::NetworkV6 => Rank::Network,
            Kind::Rest => Rank::Rest,
            _ => Rank::Own,
        }
    }
}

impl Shard {
    /// Whether anything has changed since this was asked last.
    pub(in super::super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Writes those of the slots `from..from + count` that count at `now`; false past the end.
    pub(in super::super) fn write(&self, from: usize, count: usize, now: u64, into: &mut Vec<u8>) -> bool {
        let end = self.slots.len().min(from.saturating_add(count));
        for slot in self.slots.get(from..end).unwrap_or_default() {
            let mut marks = slot.tally.marks();
            if slot.vacant || slot.expires <= now {
                continue;
            }
            let Some((first, weight)) = marks.next() else { continue };
            put_account(into, (slot.key.counter, slot.key.subject()));
            put_u64(into, slot.expires);
            put_u64(into, slot.full_until);
            into.push(slot.fullness);
            put_varint(into, slot.tally.marks().count() as u64);
            put_u64(into, first);
            put_varint(into, weight);
            let mut last = first;
            for (at, weight) in marks {
                put_varint(into, at - last);
                put_varint(into, weight);
                last = at;
            }
        }
        end < self.slots.len()
    }

    /// Takes a row back that had seen all changes up to `seen`.
    pub(in super::super) fn restore(
        &mut self,
        hash: u64,
        mut row: Row,
        seen: u64,
        caps: Caps,
        now: u64,
        seeds: &RandomState,
    ) {
        row.not_after(now);
        if row.expires <= now {
            return;
        }
        let Some(at) = self.find(hash, &row.key).or_else(|| {
            let rank = row.key.rank();
            self.create((hash, row.key), rank, caps, now, &[], seeds)
        }) else {
            return;
        };
        self.clear(at);
        let spare = caps.heap.saturating_sub(self.heap);
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        for (at, weight) in row.marks {
            if slot.tally.heap() + slot.tally.growth(at, 1) <= spare {
                slot.tally.draw(at, weight, 1);
            } else {
                slot.tally.draw_in_place(at, weight, 1);
            }
        }
        (slot.expires, slot.full_until, slot.fullness) = (row.expires, row.full_until, row.fullness);
        slot.seen = Seen::new(seen);
        self.heap += slot.tally.heap();
    }

    /// Makes a draw again, unless the row has seen it.
    pub(in super::super) fn draw_again(
        &mut self,
        (hash, key): (u64, Key),
        drawn: Drawn,
        window: &Sliding,
        caps: Caps,
        now: u64,
        seeds: &RandomState,
    ) {
        if drawn.at.saturating_add(window.length) <= now {
            return;
        }
        let Some(at) = self
            .find(hash, &key)
            .or_else(|| self.create((hash, key), key.rank(), caps, now, &[], seeds))
            .filter(|at| !self.has_seen(*at, drawn.number))
        else {
            return;
        };
        // Marks are in the order of time, whatever the clock did between two runs.
        let newest = self.tally(at).and_then(|tally| tally.marks().last()).map_or(0, |(at, _)| at);
        let then = drawn.at.min(now).max(newest);
        self.fresh_tally(at, then, window.length);
        self.draw(at, (then, drawn.weight), window, caps, Pinned::new, seeds);
    }

    /// Forgets again what was drawn, unless the row has seen that it was forgotten.
    pub(in super::super) fn clear_again(&mut self, hash: u64, key: &Key, number: u64) {
        if let Some(at) = self.find(hash, key).filter(|at| !self.has_seen(*at, number)) {
            self.clear(at);
        }
    }

    fn has_seen(&self, at: u32, number: u64) -> bool {
        self.slots.get(at as usize).is_some_and(|slot| slot.seen.number() >= number)
    }
}
