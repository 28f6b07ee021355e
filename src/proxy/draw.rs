//! Takes what a request needs from the store, and says in HTTP's words what it answers.

use std::time::Duration;

use pingora::protocols::http::ServerSession;

use super::Gate;
use super::context::Context;
use crate::guard::limits::{Drawer, Draws};
use crate::guard::{Reason, Refusal};
use crate::state::admission::{Admission, Admitted};
use crate::state::claim::{Claim, Holder};
use crate::state::{Decision, Demand, Denial, Draw, Store, StoreError};

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
            Decision::Granted => Ok(()),
            Decision::Denied(denial) => Err(refusal(draws, denial)),
        }
    }

    /// Draws what has flown already: where a window has less than that left, all that it has.
    pub(super) async fn draw_flown(&self, session: &ServerSession, ctx: &Context) {
        let Some(routed) = &ctx.routed else { return };
        let head = routed.head(session);
        let status = ctx.live.is_status_path(head.path, head.method);
        let drawer = Drawer::of(&head, &ctx.live.client, &routed.route.name, status);
        let (bytes_in, bytes_out) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
        let flown = routed.route.guards.limits.flown(&drawer, bytes_in, bytes_out);
        for draw in flown.as_slice() {
            let drawn = self.admissions.draw(&[*draw]).await;
            let rest = match &drawn {
                Ok(Decision::Denied(Denial::Limited { standing, .. })) => standing.remaining,
                _ => 0,
            };
            if rest > 0 {
                let _ = self.admissions.draw(&[Draw { weight: rest, ..*draw }]).await;
            }
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
            Admitted::Granted(admission) => Ok(Some(admission)),
            Admitted::Denied(Denial::Claimed { claim, by }) => Err(NotAdmitted::Claimed(claim, by)),
            Admitted::Denied(denial) => Err(refusal(draws, denial).into()),
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
        // Draws that are not settled claim and hold nothing.
        Denial::Claimed { .. } | Denial::Spent { .. } => unavailable(StoreError::Stopped),
    }
}

/// Not granted is not served: an unlimited upstream costs more than a refused request.
fn unavailable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "the store of limits could not decide");
    Refusal::new(Reason::StoreUnavailable, "The limits can't be counted at the moment.", "")
}
