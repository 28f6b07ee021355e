//! The store that the settings name: dispatched by a match, so that a request pays for no box.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Settlement;
use super::budget::Hold;
use super::claim::{ClaimKey, KeptAnswer};
use super::embedded::{EmbeddedStats, EmbeddedStore, OpenError};
use super::{
    Balance, Ban, Bans, Decision, Demand, Draw, MemoryStats, MemoryStore, RedisStore, Standings, Store,
    StoreError, Subject,
};

/// One of the stores.
#[allow(clippy::large_enum_variant, reason = "there is one of it, behind a pointer")]
pub enum AnyStore {
    /// In this process, forgotten with it.
    Memory(MemoryStore),
    /// On this machine's disk.
    Embedded(EmbeddedStore),
    /// In a server that several gates share.
    Shared(RedisStore),
}

macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call,
            Self::Embedded($store) => $call,
            Self::Shared($store) => $call,
        }
    };
}

/// Waits for what the store does. What waits for a server is boxed: its state would else make every request's larger.
macro_rules! waits {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call.await,
            Self::Embedded($store) => $call.await,
            Self::Shared($store) => Box::pin($call).await,
        }
    };
}

impl AnyStore {
    /// Connects to the server that is shared, if one is. Blocks for a moment; a server out of reach is no error.
    ///
    /// # Errors
    /// The system refuses what is needed.
    pub fn start(&self) -> io::Result<()> {
        match self {
            Self::Memory(_) | Self::Embedded(_) => Ok(()),
            Self::Shared(store) => store.start(),
        }
    }

    /// Brings back what was counted before, if any of it is kept here. A process that has the store may take `patience` to
    /// let it go. Blocks; to be called once, before anything is counted.
    ///
    /// # Errors
    /// It can't be read or kept. `Ok` with the reason: it is not kept, where nobody asked for that.
    pub fn open(&self, patience: Duration) -> Result<Option<OpenError>, OpenError> {
        match self {
            Self::Memory(_) | Self::Shared(_) => Ok(None),
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

    /// Why what is counted is not kept on the disk as it should be.
    pub fn ailment(&self) -> Option<String> {
        match self {
            Self::Memory(_) | Self::Shared(_) => None,
            Self::Embedded(store) => store.ailment(),
        }
    }

    /// What it took to keep on the disk what is counted; `None` if it is not kept there.
    pub fn kept(&self) -> Option<EmbeddedStats> {
        match self {
            Self::Memory(_) | Self::Shared(_) => None,
            Self::Embedded(store) => store.kept(),
        }
    }

    /// The store, if several gates share it.
    pub fn shared(&self) -> Option<&RedisStore> {
        match self {
            Self::Memory(_) | Self::Embedded(_) => None,
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

    fn settles_at_once(&self) -> bool {
        each!(self, store => store.settles_at_once())
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
