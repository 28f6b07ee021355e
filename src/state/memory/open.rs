//! The admissions that were granted and not yet settled.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;

use super::super::transaction::AdmissionId;

const SHARDS: usize = 64;

/// A bounded set of ids.
pub(super) struct OpenAdmissions {
    shards: [Mutex<HashSet<u128, RandomState>>; SHARDS],
    count: AtomicUsize,
    max: usize,
}

impl OpenAdmissions {
    pub(super) fn new(max: usize) -> Self {
        let seeds = RandomState::new();
        let shards = std::array::from_fn(|_| Mutex::new(HashSet::with_hasher(seeds.clone())));
        Self { shards, count: AtomicUsize::new(0), max }
    }

    /// Opens `id`; false if there is no room for it.
    pub(super) fn open(&self, id: AdmissionId) -> bool {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if !self.shard(id).lock().insert(id.0) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Closes `id`; nothing happens if it is not open.
    pub(super) fn close(&self, id: AdmissionId) {
        if self.shard(id).lock().remove(&id.0) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ids count up, so that their low bits spread them evenly.
    fn shard(&self, id: AdmissionId) -> &Mutex<HashSet<u128, RandomState>> {
        &self.shards[(id.0 % SHARDS as u128) as usize]
    }
}
