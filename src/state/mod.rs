//! What requests share: limits, each counted exactly on sliding windows, and the admissions that draw on
//! them.
//!
//! A request asks a [`Store`] for everything it needs as one [`Demand`]; the store grants all of it or takes
//! nothing. A grant that must be settled later is held as an [`admission::Admission`], which settles exactly
//! once on every way out, through the [`settle::SettleActor`].

pub mod admission;
pub mod clock;
pub mod inflight;
mod limit;
mod memory;
pub mod settle;
mod subject;
#[cfg(test)]
pub(crate) mod suite;
pub mod switches;
mod tally;
mod transaction;

pub use clock::{Clock, ManualClock, Timestamp};
pub use limit::{LimitError, LimitSpec, Window};
pub use memory::{MemoryConfig, MemoryStats, MemoryStore};
pub use subject::{Kind, Subject};
pub use transaction::{AdmissionId, Decision, Demand, Draw, Standing, Standings};

use self::admission::Settlement;
use std::fmt;

/// Where limits are counted.
///
/// A call that fails leaves unknown whether it took effect. `settle` may be repeated freely; `admit` is
/// repeated by nobody.
pub trait Store: Send + Sync + 'static {
    /// Grants all of `demand` or takes nothing.
    fn admit(&self, demand: &Demand<'_>) -> impl Future<Output = Result<Decision, StoreError>> + Send;

    /// Closes admissions. An id that is unknown or already settled is passed over, so that a batch of which a
    /// part may have been settled can be sent again whole.
    fn settle(&self, batch: &[Settlement]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// How the windows of `draws` stand now. Draws nothing, whatever the weights say.
    fn standings(&self, draws: &[Draw<'_>]) -> impl Future<Output = Result<Standings, StoreError>> + Send;
}

/// The store could not decide: the request is neither granted nor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// As many admissions are open as the store tracks.
    TooManyOpen,
    /// Settlements wait in such number that no more admissions may be opened.
    SettleBacklog,
    /// The settle actor has stopped; nothing can be admitted that needs settling.
    Stopped,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyOpen => "too many admissions are open",
            Self::SettleBacklog => "too many settlements are waiting",
            Self::Stopped => "settling has stopped",
        })
    }
}

impl std::error::Error for StoreError {}
