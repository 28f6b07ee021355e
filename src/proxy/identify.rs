//! Finds out whose a request is, where a token says so.

use std::sync::Arc;

use pingora::protocols::http::ServerSession;

use super::Gate;
use super::context::Context;
use crate::guard::auth::Unproven;
use crate::guard::jwt::Issuer;
use crate::guard::{Reason, Refusal};

/// How often a request has the keys of an issuer fetched: the first answer may be older than the token.
const RENEWALS: u8 = 2;

impl Gate {
    /// Verifies the tokens that a request sends, and takes their word on who the client is. Waits only where a token is
    /// signed with a key that its issuer may just have published.
    ///
    /// # Errors
    /// The refusal of a token that is not good, or of a request that needs one. The client is then who it was before.
    pub(super) async fn identify(&self, session: &ServerSession, ctx: &mut Context) -> Result<(), Refusal> {
        match self.try_identify(session, ctx) {
            Ok(()) => Ok(()),
            Err(Unproven::Refused(refusal)) => Err(refusal),
            // Nobody fetches keys for a request that is only explained.
            Err(Unproven::UnknownKey(issuer)) if ctx.noted.trail_mut().is_some() => {
                let detail =
                    "The token is signed with a key that is not known here: no issuer is asked for its keys.";
                let setting = format!("jwt.tokens.{}", issuer.name);
                Err(Refusal::new(Reason::IssuerUnavailable, detail, setting))
            }
            // Boxed, as it is rare: the future of every request would carry it along.
            Err(Unproven::UnknownKey(issuer)) => {
                let anew = Box::pin(self.identify_anew(session, ctx, &issuer)).await;
                anew.map_err(Unproven::into_refusal)
            }
        }
    }

    fn try_identify(&self, session: &ServerSession, ctx: &mut Context) -> Result<(), Unproven> {
        let Some(routed) = &mut ctx.routed else { return Ok(()) };
        let Some(auth) = &routed.route.guards.auth else { return Ok(()) };
        let headers = &session.req_header().headers;
        let Some(accepted) = auth.check(headers, self.clock.now())? else { return Ok(()) };
        self.observer.metrics().token_accepted();
        ctx.attempt = accepted.first;
        ctx.live.client.identify(&mut routed.client, accepted.identity, headers);
        Ok(())
    }

    /// Has the issuer asked for its keys again, and verifies once more.
    async fn identify_anew(
        &self,
        session: &ServerSession,
        ctx: &mut Context,
        issuer: &Arc<Issuer>,
    ) -> Result<(), Unproven> {
        let mut renewals = RENEWALS;
        loop {
            // Looked at before the key is looked for once more: what has come by then need not be asked for.
            let fetches = issuer.fetches();
            let identified = self.try_identify(session, ctx);
            let unknown = matches!(identified, Err(Unproven::UnknownKey(_)));
            let failed = renewals < RENEWALS && !issuer.is_well();
            if !unknown || renewals == 0 || failed {
                return identified;
            }
            issuer.renew(self.clock.now(), fetches).await;
            renewals -= 1;
        }
    }
}
