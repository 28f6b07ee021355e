//! Exact counts of what is in flight, by subject (L7).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;

use super::subject::{Kind, Subject};

const SHARDS: usize = 64;

/// Counts what is in flight. It remembers only subjects that have something in flight, so a cap on
/// [`Subject::global`], acquired first, bounds its memory.
#[derive(Debug)]
pub struct Inflight {
    /// Of everyone together: all threads would meet at the lock of its shard.
    everyone: AtomicU32,
    seeds: RandomState,
    shards: [Mutex<HashMap<Subject, u32, RandomState>>; SHARDS],
}

impl Default for Inflight {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflight {
    /// Nothing in flight.
    pub fn new() -> Self {
        let seeds = RandomState::new();
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(seeds.clone())));
        Self { everyone: AtomicU32::new(0), seeds, shards }
    }

    /// Counts one more for `subject` until the permit is dropped; `None` if it has `max` in flight or more.
    pub fn try_acquire(self: &Arc<Self>, subject: Subject, max: u32) -> Option<Permit> {
        if max == 0 {
            return None;
        }
        if subject.kind() == Kind::Global {
            let one_more = |count: u32| (count < max).then_some(count + 1);
            self.everyone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        } else {
            let mut shard = self.shard(subject).lock();
            let count = shard.entry(subject).or_insert(0);
            if *count >= max {
                return None;
            }
            *count += 1;
        }
        Some(Permit { subject, inflight: Arc::clone(self) })
    }

    /// How many `subject` has in flight.
    pub fn count(&self, subject: Subject) -> u32 {
        if subject.kind() == Kind::Global {
            return self.everyone.load(Ordering::Relaxed);
        }
        self.shard(subject).lock().get(&subject).copied().unwrap_or(0)
    }

    /// How many subjects have something in flight. Takes every lock in turn; meant for a scrape.
    pub fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, subject: Subject) -> &Mutex<HashMap<Subject, u32, RandomState>> {
        &self.shards[(self.seeds.hash_one(subject) >> 32) as usize % SHARDS]
    }
}

/// One in flight, until dropped.
#[must_use = "dropping a permit ends the flight"]
#[derive(Debug)]
pub struct Permit {
    subject: Subject,
    inflight: Arc<Inflight>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.subject.kind() == Kind::Global {
            self.inflight.everyone.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut shard = self.inflight.shard(self.subject).lock();
        if let Some(count) = shard.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::client::SubjectId;

    const USER: Subject = Subject::user(SubjectId(7));

    /// A cap that is met early turns clients away; one that is met late protects nothing.
    #[test]
    fn exactly_max_are_in_flight_and_a_dropped_permit_makes_room() {
        for subject in [USER, Subject::global()] {
            let inflight = Arc::new(Inflight::new());
            let mut permits: Vec<_> = (0..3).filter_map(|_| inflight.try_acquire(subject, 3)).collect();
            assert_eq!((permits.len(), inflight.count(subject)), (3, 3));
            assert!(inflight.try_acquire(subject, 3).is_none());
            assert!(
                inflight.try_acquire(Subject::session(SubjectId(7)), 1).is_some(),
                "another subject has its own cap"
            );
            permits.pop();
            assert!(inflight.try_acquire(subject, 3).is_some());
            assert!(inflight.try_acquire(subject, 0).is_none());
        }
    }

    /// Every address that ever connected would stay in memory.
    #[test]
    fn a_subject_with_nothing_in_flight_is_forgotten() {
        let inflight = Arc::new(Inflight::new());
        for id in 0..1000 {
            assert!(inflight.try_acquire(Subject::user(SubjectId(id)), 0).is_none());
            drop(inflight.try_acquire(Subject::user(SubjectId(id)), 1));
        }
        assert_eq!(inflight.subjects(), 0);
    }

    /// A request that panics must give its place back, or the gate closes for good after `max` defects.
    #[test]
    fn threads_never_exceed_the_cap_and_a_panic_gives_the_place_back() {
        let inflight = Arc::new(Inflight::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let permit = inflight.try_acquire(USER, 5);
                        assert!(inflight.count(USER) <= 5);
                        drop(permit);
                    }
                });
            }
        });
        let held = inflight.try_acquire(USER, 5);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = held;
            std::panic::resume_unwind(Box::new("a defect"));
        }));
        assert!(unwound.is_err());
        assert_eq!((inflight.count(USER), inflight.subjects()), (0, 0));
    }
}
