//! What stands between the gate and each upstream: its breaker, its retries, its metrics.

use std::sync::Arc;

use super::Gate;
use super::context::Context;
use crate::guard::{Reason, Refusal};
use crate::observe::{Fallback, UpstreamSeries};
use crate::upstream::Upstream;
use crate::upstream::breaker::{Breaker, Permit};
use crate::upstream::retry::Retries;

/// The way to one upstream.
pub struct Outbound {
    /// Its metrics.
    pub series: UpstreamSeries,
    /// Its breaker.
    pub breaker: Arc<Breaker>,
    /// Its retries.
    pub retries: Retries,
}

impl Gate {
    /// Takes leave for one call to the upstream of the request; to its fallback, if that one is not to be called.
    pub(super) fn take_permit(&self, ctx: &mut Context) -> Result<(), Refusal> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        match permit(ctx, &routed.upstream) {
            Ok(permit) => {
                ctx.permit = Some(permit);
                Ok(())
            }
            Err(refusal) if self.divert(ctx, refusal.reason) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Turns a request of which its upstream saw nothing to the fallback upstream; false if there is none to turn to.
    pub(super) fn divert(&self, ctx: &mut Context, reason: Reason) -> bool {
        let Some(routed) = &ctx.routed else { return false };
        let next = routed.route.fallback.as_ref().and_then(|fallback| fallback.upstream.clone());
        let Some(next) = next.filter(|_| ctx.diverted.is_none()) else { return false };
        let Ok(permit) = permit(ctx, &next) else { return false };
        ctx.permit = Some(permit);
        ctx.diverted = Some(reason);
        ctx.fallback = Some(Fallback::Upstream);
        if let Some(routed) = &mut ctx.routed {
            routed.upstream = next;
        }
        true
    }
}

fn permit(ctx: &Context, upstream: &Arc<Upstream>) -> Result<Permit, Refusal> {
    // Every upstream of a route stands among the settings' upstreams, so there always is one.
    let outbound = ctx.live.outbound_of(upstream).ok_or_else(|| {
        Refusal::new(Reason::InternalError, "The gate failed; the request was not served.", "")
    })?;
    outbound.breaker.enter(ctx.arriving).map_err(|wait| {
        let detail = "The app is not called for now: it keeps failing, or was cut off by hand.";
        Refusal::new(Reason::CircuitOpen, detail, "breaker").after(wait)
    })
}
