//! Counts of the calls of the last while, in slots: memory is fixed, whatever the traffic.

use std::time::Duration;

use crate::state::Timestamp;
use crate::state::clock::micros;

/// A call leaves the window up to a tenth of its length early.
pub(super) const SLOTS: usize = 10;

/// What the calls of a window came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls whose end is known.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those whose first byte came late.
    pub slow: u32,
}

/// A sliding window.
#[derive(Debug)]
pub struct Window {
    /// Microseconds, never 0.
    slot: u64,
    /// Each with the number of the slot that it counts.
    slots: [(u64, Counts); SLOTS],
}

impl Window {
    pub fn new(span: Duration) -> Self {
        Self { slot: (micros(span) / SLOTS as u64).max(1), slots: Default::default() }
    }

    /// Counts a call that ended now.
    pub fn add(&mut self, failed: bool, slow: bool, now: Timestamp) {
        let number = now.as_micros() / self.slot;
        let (held, counts) = &mut self.slots[(number % SLOTS as u64) as usize];
        if *held != number {
            (*held, *counts) = (number, Counts::default());
        }
        counts.calls += 1;
        counts.failures += u32::from(failed);
        counts.slow += u32::from(slow);
    }

    /// What the window holds now.
    pub fn counts(&self, now: Timestamp) -> Counts {
        let oldest = (now.as_micros() / self.slot).saturating_sub(SLOTS as u64 - 1);
        let recent = self.slots.iter().filter(|(number, _)| *number >= oldest);
        recent.fold(Counts::default(), |sum, (_, counts)| Counts {
            calls: sum.calls + counts.calls,
            failures: sum.failures + counts.failures,
            slow: sum.slow + counts.slow,
        })
    }

    /// Forgets all calls.
    pub fn clear(&mut self) {
        self.slots = Default::default();
    }
}
