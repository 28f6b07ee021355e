//! Who keeps a fleet up to date: whoever was last told to, until told otherwise.
//!
//! Settings that are no longer in force live on for as long as a request of theirs does, which may be a stream of an hour.
//! Their tasks must not go on meanwhile: they would ask twice, and judge by rules that were taken back.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::fleet::Fleet;

/// Numbers those who tend a fleet, one after another.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<u64>);

impl Turns {
    /// The number of a new tender. All before are out of office; `before_others` is done ere anyone can be in it again.
    pub(super) fn take_office(&self, before_others: impl FnOnce()) -> u64 {
        let mut current = self.0.lock();
        *current += 1;
        before_others();
        *current
    }

    /// Ends the office of tender `number`, if it holds it.
    pub(super) fn leave_office(&self, number: u64) {
        let mut current = self.0.lock();
        if *current == number {
            *current += 1;
        }
    }

    /// Does `work`, if tender `number` is in office: for so long nobody takes over.
    fn in_office<T>(&self, number: u64, work: impl FnOnce() -> T) -> Option<T> {
        let current = self.0.lock();
        (*current == number).then(work)
    }
}

/// A task's part in keeping a fleet up to date.
#[derive(Clone)]
pub(super) struct Tender {
    /// Name of the upstream, for the log.
    pub(super) upstream: Arc<str>,
    fleet: Weak<Fleet>,
    number: u64,
}

impl Tender {
    /// A task of tender `number`.
    pub(super) fn new(upstream: &str, fleet: &Arc<Fleet>, number: u64) -> Self {
        Self { upstream: upstream.into(), fleet: Arc::downgrade(fleet), number }
    }

    /// The fleet; `None`: there is nothing more to do.
    pub(super) fn fleet(&self) -> Option<Arc<Fleet>> {
        let fleet = self.fleet.upgrade()?;
        fleet.turns.in_office(self.number, || ())?;
        Some(fleet)
    }

    /// Does `work` on what requests go by, unless another has taken over meanwhile.
    pub(super) fn judge<T>(&self, fleet: &Fleet, work: impl FnOnce() -> T) -> Option<T> {
        fleet.turns.in_office(self.number, work)
    }
}
