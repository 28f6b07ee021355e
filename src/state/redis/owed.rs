//! The admissions of this gate for which the server may hold something.

use std::collections::HashSet;

use ahash::RandomState;
use parking_lot::Mutex;

use super::super::transaction::AdmissionId;

const SHARDS: usize = 16;

/// A set of ids. It holds as many as admissions are open, which the settle actor's channel bounds.
#[derive(Default)]
pub(super) struct Owed([Mutex<HashSet<u128, RandomState>>; SHARDS]);

impl Owed {
    pub(super) fn insert(&self, id: AdmissionId) {
        self.shard(id).lock().insert(id.0);
    }

    pub(super) fn remove(&self, id: AdmissionId) {
        self.shard(id).lock().remove(&id.0);
    }

    pub(super) fn contains(&self, id: AdmissionId) -> bool {
        self.shard(id).lock().contains(&id.0)
    }

    /// Ids count up, so that their low bits spread them evenly.
    fn shard(&self, id: AdmissionId) -> &Mutex<HashSet<u128, RandomState>> {
        &self.0[(id.0 % SHARDS as u128) as usize]
    }
}
