//! The store that the settings name: dispatched by a match, so that a request pays for no box.

use std::io;
use std::sync::Arc;

use super::admission::Settlement;
use super::budget::Hold;
use super::claim::{ClaimKey, KeptAnswer};
use super::{
    Balance, Ban, Bans, Decision, Demand, Draw, MemoryStats, MemoryStore, RedisStore, Standings, Store,
    StoreError, Subject,
};

/// One of the stores.
#[allow(clippy::large_enum_variant, reason = "there is one of it, behind a pointer")]
pub enum AnyStore {
    /// In this process, forgotten with it.
    Memory(MemoryStore),
    /// In a server that several gates share.
    Shared(RedisStore),
}

macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call,
            Self::Shared($store) => $call,
        }
    };
}

/// Waits for what the store does. What waits for a server is boxed: its state would else make every request's larger.
macro_rules! waits {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call.await,
            Self::Shared($store) => Box::pin($call).await,
        }
    };
}

impl AnyStore {
    /// Makes it ready to be asked. Blocks for a moment; a store that is out of reach is no error.
    ///
    /// # Errors
    /// The system refuses what is needed.
    pub fn start(&self) -> io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Shared(store) => store.start(),
        }
    }

    /// The store, if several gates share it.
    pub fn shared(&self) -> Option<&RedisStore> {
        match self {
            Self::Memory(_) => None,
            Self::Shared(store) => Some(store),
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
        waits!(self, store => store.admit(demand))
    }

    async fn settle(&self, batch: &[Settlement]) -> Result<(), StoreError> {
        waits!(self, store => store.settle(batch))
    }

    async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        waits!(self, store => store.standings(draws))
    }

    async fn balances(&self, holds: &[Hold<'_>]) -> Result<Vec<Balance>, StoreError> {
        waits!(self, store => store.balances(holds))
    }

    async fn reset(&self, draws: &[Draw<'_>]) -> Result<(), StoreError> {
        waits!(self, store => store.reset(draws))
    }

    async fn persist(&self) -> Result<(), StoreError> {
        waits!(self, store => store.persist())
    }

    async fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) -> Result<(), StoreError> {
        waits!(self, store => store.keep_answer(key, answer))
    }

    async fn kept_answer(&self, key: ClaimKey) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
        waits!(self, store => store.kept_answer(key))
    }

    fn bans(&self) -> &Bans {
        each!(self, store => store.bans())
    }

    async fn ban(&self, ban: Ban) -> Result<bool, StoreError> {
        waits!(self, store => store.ban(ban))
    }

    async fn lift(&self, subject: Subject) -> Result<Option<Arc<Ban>>, StoreError> {
        waits!(self, store => store.lift(subject))
    }
}
