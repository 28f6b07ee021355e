//! What requests share: limits, each counted exactly on sliding windows; claims; budgets; bans; and the admissions
//! that take from them.
//!
//! A request asks a [`Store`] for everything it needs as one [`Demand`]; the store grants all of it or takes
//! nothing. A grant that must be settled later is held as an [`admission::Admission`], which settles exactly
//! once on every way out, through the [`settle::SettleActor`].

pub mod admission;
mod any;
pub mod bans;
pub mod budget;
pub mod claim;
pub mod clock;
mod codec;
pub mod config;
pub mod embedded;
pub mod inflight;
mod limit;
mod memory;
mod record;
mod redis;
pub mod reputation;
pub mod settle;
mod subject;
#[cfg(test)]
pub(crate) mod suite;
pub mod switches;
mod tally;
mod transaction;

pub use self::redis::{LinkStats, RedisConfig, RedisFile, RedisStore};
pub use any::AnyStore;
pub use bans::{Ban, Bans};
pub use clock::{Clock, ManualClock, Timestamp};
pub use limit::{LimitError, LimitSpec, Window};
pub use memory::{MemoryConfig, MemoryStats, MemoryStore};
pub use subject::{Kind, Subject};
pub use transaction::{AdmissionId, Balance, Decision, Demand, Denial, Draw, Standing, Standings};

use std::fmt;
use std::sync::Arc;

use self::admission::Settlement;
use self::budget::Hold;
use self::claim::{ClaimKey, KeptAnswer};

/// Where limits are counted.
///
/// A call that fails leaves unknown whether it took effect. `settle` may be repeated freely; `admit` is
/// repeated by nobody.
pub trait Store: Send + Sync + 'static {
    /// Grants all of `demand` or takes nothing. Claims and holds are never granted to a demand without an id.
    fn admit(&self, demand: &Demand<'_>) -> impl Future<Output = Result<Decision, StoreError>> + Send;

    /// Closes admissions: gives claims back whose requests were not served, and turns holds into what was spent, in the
    /// periods in which they were held. An id that is unknown or already settled is passed over, so that a batch of which a
    /// part may have been settled can be sent again whole.
    fn settle(&self, batch: &[Settlement]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether [`settle`](Self::settle) costs no waiting, so that a request may do it itself rather than leave it to the
    /// settle actor.
    fn settles_at_once(&self) -> bool;

    /// How the windows of `draws` stand now. Draws nothing, whatever the weights say.
    fn standings(&self, draws: &[Draw<'_>]) -> impl Future<Output = Result<Standings, StoreError>> + Send;

    /// How the budgets of `holds` stand now, in their order. Holds nothing, whatever the amounts say.
    fn balances(&self, holds: &[Hold<'_>]) -> impl Future<Output = Result<Vec<Balance>, StoreError>> + Send;

    /// Forgets all that was drawn from the windows of `draws`.
    fn reset(&self, draws: &[Draw<'_>]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns once all that was granted, claimed, held, spent or banned before the call outlives this process. Nothing
    /// of a request may leave the gate before: not to the upstream, which may charge for it, nor to the client.
    fn persist(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Keeps the answer to a request for whoever claims `key` again, as long as the claim stands. To be called before the
    /// request is settled; passed over if nobody has claimed it.
    fn keep_answer(
        &self,
        key: ClaimKey,
        answer: Arc<KeptAnswer>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The answer that is kept for `key`.
    fn kept_answer(
        &self,
        key: ClaimKey,
    ) -> impl Future<Output = Result<Option<Arc<KeptAnswer>>, StoreError>> + Send;

    /// The bans in force, to be asked on every request: where they are shared, the local copy.
    fn bans(&self) -> &Bans;

    /// Bans a subject, in place of an earlier ban of it. False: there is no room for another.
    fn ban(&self, ban: Ban) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Lifts the ban of `subject` and forgets that it ever was; answers it if there was one.
    fn lift(&self, subject: Subject) -> impl Future<Output = Result<Option<Arc<Ban>>, StoreError>> + Send;
}

/// The store could not decide: the request is neither granted nor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// As many admissions are open as the store tracks.
    TooManyOpen,
    /// Settlements wait in such number that no more admissions may be opened.
    SettleBacklog,
    /// As many accounts of budgets are in use as the store keeps.
    TooManyAccounts,
    /// The shared store does not answer.
    Unreachable,
    /// The shared store of budgets is away, and nothing may be spent without it.
    BudgetsAway,
    /// The settle actor has stopped; nothing can be admitted that needs settling.
    Stopped,
    /// What would be granted can't be kept: a crash would forget it.
    NotKept,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyOpen => "too many admissions are open",
            Self::SettleBacklog => "too many settlements are waiting",
            Self::TooManyAccounts => "too many accounts of budgets are in use",
            Self::Unreachable => "the shared store does not answer",
            Self::BudgetsAway => "the shared store of budgets is away",
            Self::Stopped => "settling has stopped",
            Self::NotKept => "what would be granted can't be kept on the disk",
        })
    }
}

impl std::error::Error for StoreError {}
