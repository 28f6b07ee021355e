//! The grant a request holds: settled once, whichever way the request ends.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;
use tokio::sync::mpsc::OwnedPermit;

use super::settle::Settler;
use super::transaction::{AdmissionId, Decision, Demand, Denial, Draw, Standings};
use super::{Store, StoreError};

/// How an admitted request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The last byte of the answer was written.
    Served,
    /// The same, and the answer was an error: whoever tries again is to be served.
    Declined,
    /// The client left before that.
    ClientGone,
    /// The upstream failed, or took too long.
    UpstreamFailed,
    /// Provably nothing of it reached the upstream.
    NeverSent,
    /// It was dropped on the way with something sent: how it ended is not known.
    Abandoned,
    /// A defect in the gate ended it after something was sent.
    Panicked,
}

impl Outcome {
    /// Whether what was claimed stays taken: the answer is the client's.
    pub const fn keeps_claims(self) -> bool {
        matches!(self, Self::Served)
    }

    /// Whether what was held may have been spent.
    pub const fn spends(self) -> bool {
        !matches!(self, Self::NeverSent)
    }
}

/// What was spent of each hold, in the demand's order.
pub type Spent = SmallVec<[u64; 2]>;

/// Tells the store how an admission ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Which admission.
    pub id: AdmissionId,
    /// How it ended.
    pub outcome: Outcome,
    /// What is known to be spent; `None`: as much as was held, unless nothing of the request was sent.
    pub spent: Option<Spent>,
}

/// A grant that must be settled. Dropped, it settles with the outcome noted last.
#[must_use = "dropping an admission settles it"]
#[derive(Debug)]
pub struct Admission {
    id: AdmissionId,
    outcome: Outcome,
    spent: Option<Spent>,
    /// Whether somebody else may wait for what it claims.
    claims: bool,
    /// A slot in the settle actor's channel, taken before the grant: settling can't find the channel full.
    slot: Option<OwnedPermit<Settlement>>,
}

impl Admission {
    /// Its id.
    pub const fn id(&self) -> AdmissionId {
        self.id
    }

    /// Notes how it ends if no more is heard: [`Outcome::NeverSent`] at first, [`Outcome::Abandoned`] once
    /// any of the request may have reached the upstream.
    pub const fn note(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Notes what was spent of each hold, in the demand's order: as it is known so far.
    pub fn note_spent(&mut self, spent: Spent) {
        self.spent = Some(spent);
    }

    /// Settles. Sends at once, without waiting.
    pub fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let outcome = match self.outcome {
            Outcome::Abandoned if std::thread::panicking() => Outcome::Panicked,
            outcome => outcome,
        };
        slot.send(Settlement { id: self.id, outcome, spent: self.spent.take() });
    }
}

/// What a demand that must be settled is answered.
#[derive(Debug)]
pub enum Admitted {
    /// All was granted: to hold as long as the request lasts.
    Granted(Admission),
    /// Nothing was taken.
    Denied(Denial),
}

/// Where requests are admitted: a store, and the actor that settles with it.
#[derive(Debug)]
pub struct Admissions<S> {
    store: Arc<S>,
    settler: Settler,
    /// Random, so that the ids of replicas and of earlier runs differ.
    boot: u64,
    next: AtomicU64,
}

impl<S: Store> Admissions<S> {
    /// Admits by `store`; `settler` must settle with the same.
    pub fn new(store: Arc<S>, settler: Settler) -> Self {
        let boot = RandomState::new().hash_one(std::process::id());
        Self { store, settler, boot, next: AtomicU64::new(0) }
    }

    /// Takes `draws`, which then stand whatever becomes of the request: there is nothing to settle.
    pub async fn draw(&self, draws: &[Draw<'_>]) -> Result<Decision, StoreError> {
        self.store.admit(&Demand::draws(draws)).await
    }

    /// Takes what `demand` asks for, under an id of its own, to be settled when the request has ended.
    ///
    /// On an error, or if the future is dropped, it is unknown whether the store granted: the admission is
    /// then settled as never sent.
    pub async fn admit(&self, demand: Demand<'_>) -> Result<Admitted, StoreError> {
        let id =
            AdmissionId(u128::from(self.boot) << 64 | u128::from(self.next.fetch_add(1, Ordering::Relaxed)));
        let slot = Some(self.settler.reserve()?);
        let claims = !demand.claims.is_empty();
        let mut admission = Admission { id, outcome: Outcome::NeverSent, spent: None, claims, slot };
        match self.store.admit(&Demand { id: Some(id), ..demand }).await? {
            Decision::Granted => Ok(Admitted::Granted(admission)),
            Decision::Denied(denial) => {
                admission.slot = None;
                Ok(Admitted::Denied(denial))
            }
        }
    }

    /// Settles `admission` before it returns, where that costs no waiting or where somebody may wait for what it claims: a
    /// client that was told of a failure may try again at once. Else, and if the store fails, the actor settles it.
    pub async fn settle(&self, mut admission: Admission, outcome: Outcome) {
        admission.outcome = outcome;
        if admission.claims || self.store.settles_at_once() {
            let Admission { id, ref spent, .. } = admission;
            let settlement = Settlement { id, outcome, spent: spent.clone() };
            if self.store.settle(&[settlement]).await.is_ok() {
                admission.slot = None;
            }
        }
    }

    /// How the windows of `draws` stand now; draws nothing.
    pub async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        self.store.standings(draws).await
    }

    /// The way to the actor that settles.
    pub const fn settler(&self) -> &Settler {
        &self.settler
    }

    /// The store.
    pub const fn store(&self) -> &Arc<S> {
        &self.store
    }
}
