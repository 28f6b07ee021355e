//! One sliding window of one subject: the draws still in it, oldest first.

use std::collections::VecDeque;
use std::mem::size_of;

use super::limit::Sliding;

/// `weight` drawn at `at` (microseconds since the epoch).
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: u64,
    weight: u64,
}

/// The first capacity of a queue of marks.
const FIRST_CAPACITY: usize = 4;

/// The draws in the window. Most subjects of a spray draw once, so one mark needs no heap.
#[derive(Debug)]
enum Marks {
    None,
    One(Mark),
    Many(VecDeque<Mark>),
}

/// Counts the draws of one subject in one window.
///
/// A draw made at `t` is in the window at `t`, and out of it at `t + length`.
#[derive(Debug)]
pub(super) struct Tally {
    used: u64,
    marks: Marks,
}

impl Tally {
    pub(super) const EMPTY: Self = Self { used: 0, marks: Marks::None };

    /// Forgets what has left the window.
    pub(super) fn expire(&mut self, now: u64, length: u64) {
        match &mut self.marks {
            Marks::None => {}
            Marks::One(mark) => {
                if mark.at.saturating_add(length) <= now {
                    *self = Self::EMPTY;
                }
            }
            Marks::Many(marks) => {
                while let Some(mark) = marks.front().filter(|mark| mark.at.saturating_add(length) <= now) {
                    self.used = self.used.saturating_sub(mark.weight);
                    marks.pop_front();
                }
            }
        }
    }

    /// The sum of the weights in the window. Call [`expire`](Self::expire) first.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// The weights that will still be in the window at `now`: for a look that changes nothing.
    pub(super) fn used_at(&self, now: u64, length: u64) -> u64 {
        let gone = |mark: &&Mark| mark.at.saturating_add(length) <= now;
        self.used.saturating_sub(self.iter().take_while(gone).map(|mark| mark.weight).sum())
    }

    /// When the window's last draw leaves it; `None` if it is empty.
    pub(super) fn whole_at(&self, length: u64) -> Option<u64> {
        let newest = match &self.marks {
            Marks::None => None,
            Marks::One(mark) => Some(mark),
            Marks::Many(marks) => marks.back(),
        };
        newest.map(|mark| mark.at.saturating_add(length))
    }

    /// When `weight` will fit, for a weight that does not fit now; `None` if it never will.
    pub(super) fn fits_at(&self, weight: u64, window: &Sliding) -> Option<u64> {
        let excess = self.used.saturating_sub(window.max.checked_sub(weight)?);
        let mut freed = 0u64;
        let mut frees = |mark: &&Mark| {
            freed = freed.saturating_add(mark.weight);
            freed >= excess
        };
        self.iter().find(&mut frees).map(|mark| mark.at.saturating_add(window.length))
    }

    fn iter(&self) -> impl Iterator<Item = &Mark> {
        let (one, many) = match &self.marks {
            Marks::None => (None, None),
            Marks::One(mark) => (Some(mark), None),
            Marks::Many(marks) => (None, Some(marks)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// When and how much, oldest first.
    pub(super) fn marks(&self) -> impl Iterator<Item = (u64, u64)> {
        self.iter().map(|mark| (mark.at, mark.weight))
    }

    /// How many bytes more of heap the next draw at `now` needs.
    pub(super) fn growth(&self, now: u64, grain: u64) -> usize {
        let slots = match &self.marks {
            Marks::None => 0,
            Marks::One(mark) => {
                if shares_grain(mark.at, now, grain) {
                    0
                } else {
                    FIRST_CAPACITY
                }
            }
            Marks::Many(marks) if marks.len() < marks.capacity() => 0,
            Marks::Many(marks) => match marks.back() {
                Some(mark) if shares_grain(mark.at, now, grain) => 0,
                _ => marks.capacity().max(FIRST_CAPACITY),
            },
        };
        slots * size_of::<Mark>()
    }

    /// Draws `weight` at `now`, which is not before any earlier draw. Allocates as [`growth`](Self::growth)
    /// says.
    pub(super) fn draw(&mut self, now: u64, weight: u64, grain: u64) {
        self.used = self.used.saturating_add(weight);
        let newest = match &mut self.marks {
            Marks::None => None,
            Marks::One(mark) => Some(mark),
            Marks::Many(marks) => marks.back_mut(),
        };
        if let Some(mark) = newest.filter(|mark| shares_grain(mark.at, now, grain)) {
            // The earlier draw now leaves as late as this one: late by less than a grain, never early.
            *mark = Mark { at: now, weight: mark.weight.saturating_add(weight) };
            return;
        }
        let mark = Mark { at: now, weight };
        match &mut self.marks {
            Marks::None => self.marks = Marks::One(mark),
            Marks::One(first) => {
                let mut marks = VecDeque::with_capacity(FIRST_CAPACITY);
                marks.extend([*first, mark]);
                self.marks = Marks::Many(marks);
            }
            Marks::Many(marks) => {
                if marks.len() == marks.capacity() {
                    marks.reserve_exact(marks.capacity().max(FIRST_CAPACITY));
                }
                marks.push_back(mark);
            }
        }
    }

    /// Draws `weight` at `now` without a byte more of memory: a neighbouring mark is joined with a later one
    /// to make room, so that some draws leave late, none early.
    pub(super) fn draw_in_place(&mut self, now: u64, weight: u64, grain: u64) {
        match &mut self.marks {
            Marks::Many(marks) if marks.len() > 1 => {
                if let Some(oldest) = marks.pop_front()
                    && let Some(next) = marks.front_mut()
                {
                    next.weight = next.weight.saturating_add(oldest.weight);
                }
                self.draw(now, weight, grain);
            }
            _ => self.draw(now, weight, u64::MAX),
        }
    }

    /// Bytes of heap held.
    pub(super) fn heap(&self) -> usize {
        match &self.marks {
            Marks::Many(marks) => marks.capacity() * size_of::<Mark>(),
            Marks::None | Marks::One(_) => 0,
        }
    }

    /// Gives back heap that a past burst left behind.
    pub(super) fn shrink(&mut self) {
        let Marks::Many(marks) = &mut self.marks else { return };
        match (marks.len(), marks.front()) {
            (1, Some(mark)) => self.marks = Marks::One(*mark),
            (0, _) => self.marks = Marks::None,
            (len, _) if len * 4 <= marks.capacity() => marks.shrink_to(len * 2),
            _ => {}
        }
    }
}

/// Whether a draw at `now` may join a mark made at `at`.
const fn shares_grain(at: u64, now: u64, grain: u64) -> bool {
    at == now || (grain > 1 && at / grain == now / grain)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::{LimitSpec, Window};

    /// The window of 10 s with `max` draws.
    fn window(max: u64) -> Sliding {
        LimitSpec::new("x", [Window { length: Duration::from_secs(10), max }]).unwrap().sliding()[0]
    }

    /// Draws joined for want of memory would be forgotten too early, or count for ever.
    #[test]
    fn joined_draws_leave_together_late_but_leave() {
        let window = window(100);
        for apart in [1, 2, 5, 9] {
            let mut tally = Tally::EMPTY;
            for at in 0..apart {
                tally.draw(at, 1, 1);
            }
            let heap = tally.heap();
            for at in apart..50 {
                tally.draw_in_place(at, 2, 1);
                assert_eq!((tally.used(), tally.heap()), (apart + 2 * (at + 1 - apart), heap));
            }
            tally.expire(window.length + 48, window.length);
            assert!(tally.used() >= 2, "the last draw has not left");
            tally.expire(window.length + 49, window.length);
            assert_eq!((tally.used(), tally.whole_at(window.length)), (0, None));
        }
    }

    /// The shard's bound on memory rests on this figure.
    #[test]
    fn growth_foretells_the_heap_and_shrink_gives_it_back() {
        let window = window(256);
        let mut tally = Tally::EMPTY;
        for at in 0..256 {
            let foretold = tally.heap() + tally.growth(at, window.grain);
            tally.draw(at, 1, window.grain);
            assert_eq!(tally.heap(), foretold);
        }
        assert_eq!(tally.heap(), 256 * size_of::<Mark>());
        tally.expire(window.length + 251, window.length);
        tally.shrink();
        assert!(tally.heap() <= 8 * size_of::<Mark>());
        tally.expire(window.length + 254, window.length);
        tally.shrink();
        assert_eq!((tally.used(), tally.heap()), (1, 0));
    }

    /// A day's window of a million draws would keep a million times.
    #[test]
    fn a_large_window_keeps_few_marks() {
        let window = window(1_000_000);
        let mut tally = Tally::EMPTY;
        for at in (0..3 * window.length).step_by(997) {
            tally.expire(at, window.length);
            tally.draw(at, 1, window.grain);
        }
        assert!(tally.heap() <= 256 * size_of::<Mark>(), "{} bytes", tally.heap());
    }
}
