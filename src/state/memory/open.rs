//! The admissions that were granted and not yet settled, and what they took that must be settled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::super::claim::ClaimKey;
use super::super::transaction::AdmissionId;
use super::accounts::Held;

const SHARDS: usize = 64;

/// What an admission has to give back or account for.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) claims: SmallVec<[ClaimKey; 2]>,
    pub(super) holds: SmallVec<[Held; 4]>,
}

/// Most admissions only draw, and have nothing to give back.
type Open = Option<Box<Taken>>;

/// A bounded set of ids.
pub(super) struct OpenAdmissions {
    shards: [Mutex<HashMap<u128, Open, RandomState>>; SHARDS],
    count: AtomicUsize,
    max: usize,
}

impl OpenAdmissions {
    pub(super) fn new(max: usize) -> Self {
        let seeds = RandomState::new();
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(seeds.clone())));
        Self { shards, count: AtomicUsize::new(0), max }
    }

    /// Opens `id`; false if there is no room for it.
    pub(super) fn open(&self, id: AdmissionId) -> bool {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if self.shard(id).lock().insert(id.0, None).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Notes what `id` has taken.
    pub(super) fn note(&self, id: AdmissionId, taken: Taken) {
        if let Some(open) = self.shard(id).lock().get_mut(&id.0) {
            *open = Some(Box::new(taken));
        }
    }

    /// Closes `id`, and answers what it has taken; nothing happens if it is not open.
    pub(super) fn close(&self, id: AdmissionId) -> Option<Box<Taken>> {
        let closed = self.shard(id).lock().remove(&id.0)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        closed
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ids count up, so that their low bits spread them evenly.
    fn shard(&self, id: AdmissionId) -> &Mutex<HashMap<u128, Open, RandomState>> {
        &self.shards[(id.0 % SHARDS as u128) as usize]
    }
}
