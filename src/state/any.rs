//! The store that the settings name: dispatched by a match, so that a request pays for no box.

use std::sync::Arc;

use super::admission::Settlement;
use super::budget::Hold;
use super::claim::{ClaimKey, KeptAnswer};
use super::{
    Balance, Ban, Bans, Decision, Demand, Draw, MemoryStats, MemoryStore, Standings, Store, StoreError,
    Subject,
};

/// One of the stores.
pub enum AnyStore {
    /// In this process, forgotten with it.
    Memory(MemoryStore),
}

macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call,
        }
    };
}

impl AnyStore {
    /// Forgets what has expired. Meant for a timer, some seconds apart.
    pub fn sweep(&self) {
        each!(self, store => store.sweep());
    }

    /// What it holds in this process's memory.
    pub fn stats(&self) -> MemoryStats {
        each!(self, store => store.stats())
    }
}

impl Store for AnyStore {
    async fn admit(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        each!(self, store => store.admit(demand).await)
    }

    async fn settle(&self, batch: &[Settlement]) -> Result<(), StoreError> {
        each!(self, store => store.settle(batch).await)
    }

    async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        each!(self, store => store.standings(draws).await)
    }

    async fn balances(&self, holds: &[Hold<'_>]) -> Result<Vec<Balance>, StoreError> {
        each!(self, store => store.balances(holds).await)
    }

    async fn reset(&self, draws: &[Draw<'_>]) -> Result<(), StoreError> {
        each!(self, store => store.reset(draws).await)
    }

    async fn persist(&self) -> Result<(), StoreError> {
        each!(self, store => store.persist().await)
    }

    async fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) -> Result<(), StoreError> {
        each!(self, store => store.keep_answer(key, answer).await)
    }

    async fn kept_answer(&self, key: ClaimKey) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
        each!(self, store => store.kept_answer(key).await)
    }

    fn bans(&self) -> &Bans {
        each!(self, store => store.bans())
    }

    async fn ban(&self, ban: Ban) -> Result<bool, StoreError> {
        each!(self, store => store.ban(ban).await)
    }

    async fn lift(&self, subject: Subject) -> Result<Option<Arc<Ban>>, StoreError> {
        each!(self, store => store.lift(subject).await)
    }
}
