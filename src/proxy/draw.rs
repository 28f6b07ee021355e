//! Takes what a request needs from the store, and says in HTTP's words what it answers.

use std::time::Duration;

use super::Gate;
use crate::guard::limits::Draws;
use crate::guard::{Reason, Refusal};
use crate::state::admission::{Admission, Admitted};
use crate::state::{Decision, Demand, Denial, Store, StoreError};

/// Told where a request draws more than a window can ever hold: waiting would not help.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

impl Gate {
    /// Takes `draws`, which then stand whatever becomes of the request.
    pub(super) async fn draw(&self, draws: &Draws<'_>) -> Result<(), Refusal> {
        if draws.as_slice().is_empty() {
            return Ok(());
        }
        match self.admissions.draw(draws.as_slice()).await.map_err(unavailable)? {
            Decision::Granted { .. } => Ok(()),
            Decision::Denied(denial) => Err(refusal(draws, denial)),
        }
    }

    /// Takes `draws`, to be settled when the request has ended; nothing to take is nothing to settle.
    pub(super) async fn admit(&self, draws: &Draws<'_>) -> Result<Option<Admission>, Refusal> {
        if draws.as_slice().is_empty() {
            return Ok(None);
        }
        match self.admissions.admit(Demand::draws(draws.as_slice())).await.map_err(unavailable)? {
            Admitted::Granted { admission, .. } => Ok(Some(admission)),
            Admitted::Denied(denial) => Err(refusal(draws, denial)),
        }
    }
}

impl Gate {
    /// Returns once all that was taken so far would outlive this process: before anything of the request leaves the gate.
    pub(super) async fn persist(&self) -> Result<(), Refusal> {
        self.admissions.store().persist().await.map_err(unavailable)
    }
}

fn refusal(draws: &Draws<'_>, denial: Denial) -> Refusal {
    match denial {
        Denial::Limited { standing, retry_after } => draws.refusal(&standing, retry_after.unwrap_or(NEVER)),
        // Nothing is claimed or held yet.
        Denial::Claimed { .. } | Denial::Spent { .. } => unavailable(StoreError::Stopped),
    }
}

/// Not granted is not served: an unlimited upstream costs more than a refused request.
fn unavailable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "the store of limits could not decide");
    Refusal::new(Reason::StoreUnavailable, "The limits can't be counted at the moment.", "")
}
