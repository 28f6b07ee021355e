//! What a request asks of shared state, as one transaction, and what it is told.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use smallvec::SmallVec;

use super::budget::Hold;
use super::claim::{Claim, Holder};
use super::limit::{LimitSpec, Sliding};
use super::subject::Subject;

/// Names one admission among those of all replicas, so that it can be settled, or asked for again, by id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdmissionId(pub u128);

impl fmt::Debug for AdmissionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdmissionId({:032x})", self.0)
    }
}

/// One draw: `weight` from every window of `limit`, for `subject`.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The limit drawn from.
    pub limit: &'a LimitSpec,
    /// Who draws.
    pub subject: Subject,
    /// How much: 1 for a request, bytes for bandwidth. 0 draws nothing and is never refused.
    pub weight: u64,
}

impl<'a> Draw<'a> {
    /// A draw of 1.
    pub const fn one(limit: &'a LimitSpec, subject: Subject) -> Self {
        Self { limit, subject, weight: 1 }
    }
}

/// All that one transaction takes: every part is granted, or nothing is taken. Claims are looked at first, then draws,
/// then holds: a duplicate is told as one, whatever is left of its sender's limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand<'a> {
    /// Set if the grant must be settled later, as claims and holds must; such a demand is made through
    /// [`Admissions::admit`](super::admission::Admissions::admit).
    pub id: Option<AdmissionId>,
    /// Things that nobody else may have in hand, each key once.
    pub claims: &'a [Claim],
    /// The draws. Two on the same limit and subject count as their sum.
    pub draws: &'a [Draw<'a>],
    /// What may be spent at most. Two on the same budget and subject count as their sum.
    pub holds: &'a [Hold<'a>],
}

impl<'a> Demand<'a> {
    /// A demand that is never settled: its draws stand whatever follows.
    pub const fn draws(draws: &'a [Draw<'a>]) -> Self {
        Self { id: None, claims: &[], draws, holds: &[] }
    }
}

/// How one window of one draw stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Index of the draw in the demand.
    pub draw: usize,
    /// Draws allowed in the window.
    pub max: u64,
    /// Draws left: after this demand if it was granted, without it if it was refused.
    pub remaining: u64,
    /// Length of the window.
    pub window: Duration,
    /// Until the window is whole again if nothing more is drawn. Zero if nothing is drawn now.
    pub reset: Duration,
}

impl Standing {
    /// How `window` of draw `draw` stands with `used` of it drawn.
    pub(crate) fn new(draw: usize, window: &Sliding, used: u64, reset: Duration) -> Self {
        let remaining = window.max.saturating_sub(used);
        Self { draw, max: window.max, remaining, window: Duration::from_micros(window.length), reset }
    }
}

/// How every window of every draw stands, in the demand's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings(SmallVec<[Standing; 3]>);

impl Standings {
    pub(crate) fn push(&mut self, standing: Standing) {
        self.0.push(standing);
    }

    /// The one that will refuse first: with the least left, or of equals the one that takes longest to be
    /// whole.
    pub fn tightest(&self) -> Option<&Standing> {
        self.0.iter().min_by_key(|standing| (standing.remaining, std::cmp::Reverse(standing.reset)))
    }
}

impl Deref for Standings {
    type Target = [Standing];

    fn deref(&self) -> &[Standing] {
        &self.0
    }
}

/// What a store answers to a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All was granted.
    Granted,
    /// Nothing was taken.
    Denied(Denial),
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Somebody has what was claimed.
    Claimed {
        /// Index of the claim in the demand.
        claim: usize,
        /// Who has it.
        by: Holder,
    },
    /// A window of a limit is full. Of several, the one that refuses longest is told.
    Limited {
        /// The window that refused.
        standing: Standing,
        /// Exactly how long it refuses; `None` if the draw is more than the window can ever hold.
        retry_after: Option<Duration>,
    },
    /// A budget is spent, or so much of it held that this does not fit. Of several, the one whose period lasts longest
    /// is told.
    Spent {
        /// Index of the hold in the demand.
        hold: usize,
        /// How its budget stands.
        balance: Balance,
    },
}

/// How a budget stands in its period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// What may be spent in a period.
    pub max: u64,
    /// Spent in it, with what an earlier period overshot.
    pub spent: u64,
    /// Held for requests that are under way.
    pub held: u64,
    /// Until the next period begins.
    pub reset: Duration,
}

impl Balance {
    /// What can still be held.
    pub const fn remaining(&self) -> u64 {
        self.max.saturating_sub(self.spent.saturating_add(self.held))
    }
}

impl Decision {
    /// Whether all was granted.
    pub const fn is_granted(&self) -> bool {
        matches!(self, Self::Granted)
    }
}
