//! Finds out whose a request is, where a token says so.

use pingora::protocols::http::ServerSession;

use super::Gate;
use super::context::Context;
use crate::guard::Refusal;
use crate::guard::auth::{Auth, Unproven};
use crate::guard::jwt::{Accepted, Issuer};

/// How often a request has the keys of an issuer fetched: the first answer may be older than the token.
const RENEWALS: usize = 2;

impl Gate {
    /// Verifies the tokens that a request sends, and takes their word on who the client is.
    ///
    /// # Errors
    /// The refusal of a token that is not good, or of a request that needs one. The client is then who it was before.
    pub(super) async fn identify(&self, session: &ServerSession, ctx: &mut Context) -> Result<(), Refusal> {
        let Some(routed) = &mut ctx.routed else { return Ok(()) };
        let route = routed.route.clone();
        let Some(auth) = &route.guards.auth else { return Ok(()) };
        let headers = &session.req_header().headers;
        let mut checked = auth.check(headers, self.clock.now());
        if let Err(Unproven::UnknownKey(issuer)) = &checked {
            // Boxed, as it is rare: the future of every request would carry it along.
            checked = Box::pin(self.check_anew(auth, session, issuer.as_ref())).await;
        }
        let Some(accepted) = checked.map_err(Unproven::into_refusal)? else { return Ok(()) };
        self.observer.metrics().token_accepted();
        ctx.attempt = accepted.first;
        ctx.live.client.identify(&mut routed.client, accepted.identity, headers);
        Ok(())
    }

    /// Waits until the issuer was asked for its keys again, and verifies once more.
    async fn check_anew(
        &self,
        auth: &Auth,
        session: &ServerSession,
        issuer: &Issuer,
    ) -> Result<Option<Accepted>, Unproven> {
        for _ in 1..RENEWALS {
            issuer.renew(self.clock.now()).await;
            let checked = auth.check(&session.req_header().headers, self.clock.now());
            if !matches!(checked, Err(Unproven::UnknownKey(_))) {
                return checked;
            }
        }
        issuer.renew(self.clock.now()).await;
        auth.check(&session.req_header().headers, self.clock.now())
    }
}
