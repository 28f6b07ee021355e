//! The store that the settings name: dispatched by a match, so that a request pays for no box.

use std::sync::Arc;
use std::time::Duration;

use super::admission::Settlement;
use super::budget::Hold;
use super::claim::{ClaimKey, KeptAnswer};
use super::embedded::{EmbeddedStats, EmbeddedStore, OpenError};
use super::{
    Balance, Ban, Bans, Decision, Demand, Draw, MemoryStats, MemoryStore, Standings, Store, StoreError,
    Subject,
};

/// One of the stores.
#[allow(clippy::large_enum_variant, reason = "there is one, in an Arc")]
pub enum AnyStore {
    /// In this process, forgotten with it.
    Memory(MemoryStore),
    /// On this machine's disk.
    Embedded(EmbeddedStore),
}

macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call,
            Self::Embedded($store) => $call,
        }
    };
}

impl AnyStore {
    /// Brings back what was counted before, if any of it is kept. A process that has the store may take `patience` to let it
    /// go. Blocks; to be called once, before anything is counted.
    ///
    /// # Errors
    /// It can't be read or kept. `Ok` with the reason: it is not kept, where nobody asked for that.
    pub fn open(&self, patience: Duration) -> Result<Option<OpenError>, OpenError> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Embedded(store) => store.open(patience),
        }
    }

    /// Keeps what is left to keep. Blocks; to be called when nothing is counted any more.
    pub fn close(&self) {
        if let Self::Embedded(store) = self {
            store.close();
        }
    }

    /// Lets the process that takes over have the store. Blocks.
    pub fn hand_over(&self) {
        if let Self::Embedded(store) = self
            && let Err(why) = store.hand_over()
        {
            tracing::error!(%why, "the store could not be handed over in good order");
        }
    }

    /// Why what is counted is not kept as it should be.
    pub fn ailment(&self) -> Option<String> {
        match self {
            Self::Memory(_) => None,
            Self::Embedded(store) => store.ailment(),
        }
    }

    /// What it took to keep what is counted; `None` if it is not.
    pub fn kept(&self) -> Option<EmbeddedStats> {
        match self {
            Self::Memory(_) => None,
            Self::Embedded(store) => store.kept(),
        }
    }

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

    fn settles_at_once(&self) -> bool {
        each!(self, store => store.settles_at_once())
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
