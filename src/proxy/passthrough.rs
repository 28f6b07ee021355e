//! The passthrough: WebSockets, which Pingora's own phases carry, with the same guards around them.
//!
//! Pingora has one timeout for all reads from the upstream. That one is the tunnel's; the others are set on the client's
//! stream, which Pingora watches all the while.

use std::time::Instant;

use http::header::{TRANSFER_ENCODING, UPGRADE};
use http::{StatusCode, Version, response};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::Gate;
use super::context::Context;
use super::exchange;
use super::forward::{Framing, Told, hide_upstream, strip_hop_by_hop};
use super::respond::dress;
use crate::guard::security_headers::Author;
use crate::guard::{Reason, Refusal};
use crate::observe::Carriage;
use crate::server::door::client_stream;
use crate::upstream::Rotation;
use crate::upstream::breaker::Permit;

impl Gate {
    /// Where the request goes.
    pub(super) fn peer(&self, session: &Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let routed = ctx.routed.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let rotation = ctx.rotation.get_or_insert_with(|| routed.upstream.rotation(&routed.client));
        // A server that was reached stays the one: what is tried again was sent on a connection that had ended.
        let turn = ctx.turn.take().or_else(|| rotation.next_turn());
        let peer = turn.as_ref().and_then(|turn| turn.peer(rotation.share()));
        ctx.turn = turn;
        let mut peer = peer.ok_or_else(|| {
            Error::explain(ErrorType::ConnectNoRoute, "no server of the upstream has an address yet")
                .into_up()
        })?;
        let timeouts = &routed.route.timeouts;
        peer.options.read_timeout = Some(timeouts.tunnel_idle);
        peer.options.write_timeout = Some(timeouts.write);
        let called = *ctx.upstream_called.get_or_insert_with(Instant::now);
        if let Some(io) = client_stream(session) {
            io.set_due((called + timeouts.first_byte).into());
        }
        Ok(Box::new(peer))
    }

    /// Rewrites the head for the upstream.
    pub(super) fn rewrite_request(&self, head: &mut RequestHeader, ctx: &Context) -> Result<()> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let server = ctx.turn.as_ref().map(|turn| &turn.server().host);
        let told = Told {
            client: &routed.client,
            authority: routed.authority.as_deref(),
            upstream: server.unwrap_or_else(|| routed.upstream.host()),
            request_id: &ctx.request_id,
            websocket: routed.websocket,
        };
        routed.route.guards.forwarding.request(head, &told);
        // Framing is settled by Pingora, after this.
        head.set_raw_path(routed.target.as_str().as_bytes())
    }

    /// Applies the response guards.
    pub(super) fn dress_passthrough(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            let first_byte = ctx.upstream_called.map(|called| called.elapsed()).unwrap_or_default();
            ctx.permit.iter_mut().for_each(|permit| permit.answered(head.status, first_byte));
        }
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let to_websocket = |head: &ResponseHeader| {
            head.headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
        };
        if switching && !(routed.websocket && to_websocket(head)) {
            ctx.refusal = Some(exchange::unasked_switch());
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "an unasked 101").map_err(|e| e.into_up());
        }
        if head.status.is_informational() && !switching {
            return Ok(());
        }
        ctx.upstream_first_byte = ctx.upstream_called.map(|called| called.elapsed());
        if let Some(io) = client_stream(session) {
            let timeouts = &routed.route.timeouts;
            // An app that refuses says so in a few words.
            let allowed = if switching { timeouts.tunnel_total } else { timeouts.between_bytes };
            io.set_due((Instant::now() + allowed).into());
        }
        if self.stop.draining() {
            session.set_keepalive(None);
        }
        let mut parts =
            response::Parts::from(std::mem::replace(head, ResponseHeader::build_no_case(200, None)?));
        if !switching {
            strip_hop_by_hop(&mut parts.headers, Framing::Kept);
            if session.req_header().version == Version::HTTP_10 {
                // Chunks came with HTTP/1.1; the end of the connection is the end of the body.
                parts.headers.remove(TRANSFER_ENCODING);
            }
        }
        if let Some(turn) = &ctx.turn {
            turn.answered();
        }
        hide_upstream(&mut parts.headers, &routed.upstream, &routed.client, routed.authority.as_deref());
        dress(&mut parts, ctx, Author::Upstream);
        *head = ResponseHeader::from(parts);
        Ok(())
    }

    /// The server could not be reached: the next try goes to the next one, or to the fallback upstream.
    pub(super) fn note_unreachable(&self, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
        if let Some(turn) = ctx.turn.take() {
            turn.failed(&error);
        }
        let mut another = ctx.rotation.as_ref().is_some_and(|rotation| !rotation.is_over());
        if !another {
            let permit = ctx.permit.take();
            another = self.divert(ctx, Reason::UpstreamUnreachable);
            if another {
                permit.into_iter().for_each(Permit::failed);
                ctx.rotation = None;
            } else {
                ctx.permit = permit;
            }
        }
        // Nothing was sent yet, so another server may be tried.
        error.set_retry(another);
        error
    }

    /// Tells the upstream's breaker how the call went.
    pub(super) fn report(&self, ctx: &mut Context, error: Option<&Error>) {
        let Some(permit) = ctx.permit.take() else { return };
        // How a tunnel ends says nothing about the upstream: each side may end it at any time.
        let tunnel = ctx.upstream_first_byte.is_some() && ctx.routed.as_ref().is_some_and(|r| r.websocket);
        let broken = error.is_some_and(|error| *error.esource() == ErrorSource::Upstream);
        let told = ctx.refusal.as_ref().is_some_and(|refusal| refusal.reason.is_upstreams());
        if (broken || told) && !tunnel {
            permit.failed();
        }
    }

    /// Tells the client what went wrong, if it can still be told.
    pub(super) async fn fail(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
        let begun = session.response_written().is_some_and(|h| !h.status.is_informational());
        if ctx.carriage != Carriage::Passthrough || session.was_upgraded() || begun {
            return gone;
        }
        let waited = ctx.upstream_called.filter(|_| ctx.upstream_first_byte.is_none());
        let late = waited.is_some_and(|called| called.elapsed() >= ctx.timeouts().first_byte);
        let cause = || if late { Some(exchange::no_first_byte()) } else { refusal_of(error) };
        let refusal = match ctx.refusal.take().or_else(cause) {
            Some(refusal) => refusal,
            None => return gone,
        };
        if let (Some(turn), Reason::UpstreamFailed | Reason::UpstreamTimeout) = (&ctx.turn, refusal.reason) {
            turn.failed(error);
            if ctx.rotation.as_ref().is_some_and(Rotation::is_contained) {
                ctx.permit = None;
            }
        }
        let status = refusal.reason.status().as_u16();
        session.set_keepalive(None);
        let _ = self.refuse(session, ctx, refusal).await;
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }
}

/// `None`: the client is gone.
fn refusal_of(error: &Error) -> Option<Refusal> {
    use ErrorType::*;
    let upstream = *error.esource() == ErrorSource::Upstream;
    let refusal = match error.etype() {
        ConnectTimedout | TLSHandshakeTimedout => exchange::no_connection_in_time(),
        ConnectRefused | ConnectNoRoute | ConnectError | SocketError | BindError if upstream => {
            exchange::unreachable()
        }
        TLSHandshakeFailure | InvalidCert | HandshakeError if upstream => exchange::unreachable(),
        ReadTimedout | WriteTimedout if upstream => exchange::no_first_byte(),
        _ if upstream => exchange::broken(),
        ReadError | WriteError | ConnectionClosed | ReadTimedout | WriteTimedout | H2Error => return None,
        InvalidHTTPHeader | HTTPStatus(400) => {
            Refusal::new(Reason::MalformedRequest, "The body's framing is broken (RFC 9112 §7).", "")
        }
        _ if *error.esource() == ErrorSource::Downstream => {
            Refusal::new(Reason::MalformedRequest, "The request broke off or is not HTTP.", "")
        }
        _ => Refusal::new(Reason::InternalError, "The gate failed; the request was not served.", ""),
    };
    Some(refusal)
}
