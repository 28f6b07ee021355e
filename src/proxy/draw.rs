//! Takes what a request needs from the store, and says in HTTP's words what it answers.

use std::time::Duration;

use super::Gate;
use crate::guard::limits::Draws;
use crate::guard::{Reason, Refusal};
use crate::state::admission::{Admission, Admitted};
use crate::state::claim::{Claim, Holder};
use crate::state::{Decision, Demand, Denial, StoreError};

/// Why a request was not admitted.
pub(super) enum NotAdmitted {
    /// It is to be told so.
    Refused(Refusal),
    /// The claim of that index has this holder.
    Claimed(usize, Holder),
}

impl From<Refusal> for NotAdmitted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

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

    /// Takes `draws` and `claims`, to be settled when the request has ended; nothing to take is nothing to settle.
    pub(super) async fn admit(
        &self,
        draws: &Draws<'_>,
        claims: &[Claim],
    ) -> Result<Option<Admission>, NotAdmitted> {
        let demand = Demand { claims, ..Demand::draws(draws.as_slice()) };
        if draws.as_slice().is_empty() && claims.is_empty() {
            return Ok(None);
        }
        match self.admissions.admit(demand).await.map_err(unavailable)? {
            Admitted::Granted { admission, .. } => Ok(Some(admission)),
            Admitted::Denied(Denial::Claimed { claim, by }) => Err(NotAdmitted::Claimed(claim, by)),
            Admitted::Denied(denial) => Err(refusal(draws, denial).into()),
        }
    }
}

fn refusal(draws: &Draws<'_>, denial: Denial) -> Refusal {
    match denial {
        Denial::Limited { standing, retry_after } => draws.refusal(&standing, retry_after.unwrap_or(NEVER)),
        // Draws that are not settled claim and hold nothing.
        Denial::Claimed { .. } | Denial::Spent { .. } => unavailable(StoreError::Stopped),
    }
}

/// Not granted is not served: an unlimited upstream costs more than a refused request.
fn unavailable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "the store of limits could not decide");
    Refusal::new(Reason::StoreUnavailable, "The limits can't be counted at the moment.", "")
}
