//! The passthrough: what Pingora's own phases carry, with the same guards around it.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::header::{TRANSFER_ENCODING, UPGRADE};
use http::{StatusCode, Version, response};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, Session};
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::Gate;
use super::context::Context;
use super::exchange;
use super::forward::{Framing, Told, hide_upstream, strip_hop_by_hop};
use super::respond::dress;
use crate::guard::caps::BodyKind;
use crate::guard::security_headers::Author;
use crate::guard::{Reason, Refusal};
use crate::observe::Carriage;

impl Gate {
    /// Where the request goes.
    pub(super) fn peer(&self, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let routed = ctx.routed.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let upstream = &routed.route.upstream;
        let mut peer = upstream.peer().ok_or_else(|| {
            Error::explain(ErrorType::ConnectNoRoute, "the upstream's name has no address yet").into_up()
        })?;
        let timeouts = &routed.route.timeouts;
        // Both directions of a tunnel may be silent for long; Pingora would cut it at the read timeout.
        let silence = if routed.websocket { timeouts.tunnel_idle } else { timeouts.first_byte };
        peer.options.read_timeout = Some(silence);
        peer.options.write_timeout = Some(timeouts.write);
        ctx.upstream_called = Some(Instant::now());
        Ok(Box::new(peer))
    }

    /// Rewrites the head for the upstream.
    pub(super) fn rewrite_request(&self, head: &mut RequestHeader, ctx: &Context) -> Result<()> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let told = Told {
            client: &routed.client,
            authority: routed.authority.as_deref(),
            upstream: &routed.route.upstream.host,
            request_id: &ctx.request_id,
            websocket: routed.websocket,
        };
        routed.route.guards.forwarding.request(head, &told);
        // Framing is settled by Pingora, after this.
        head.set_raw_path(routed.target.as_str().as_bytes())
    }

    /// Counts the body as it flows, under its cap.
    pub(super) fn count_request_body(
        &self,
        session: &Session,
        body: Option<&Bytes>,
        ctx: &mut Context,
    ) -> Result<()> {
        let (Some(body), Some(routed)) = (body, &ctx.routed) else { return Ok(()) };
        if session.was_upgraded() {
            return Ok(());
        }
        ctx.received += body.len() as u64;
        let caps = &routed.route.guards.caps;
        if let Err(refusal) = caps.check_length(ctx.received, BodyKind::Other) {
            ctx.refusal = Some(refusal);
            return Error::e_explain(ErrorType::HTTPStatus(413), "body cap");
        }
        Ok(())
    }

    /// Applies the response guards.
    pub(super) fn dress_passthrough(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        ctx.upstream_first_byte = ctx.upstream_called.map(|called| called.elapsed());
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
        hide_upstream(
            &mut parts.headers,
            routed.route.upstream.authority.as_str(),
            &routed.client,
            routed.authority.as_deref(),
        );
        dress(&mut parts, ctx, Author::Upstream);
        *head = ResponseHeader::from(parts);
        Ok(())
    }

    /// The address could not be reached: the next try goes to the name's next one.
    pub(super) fn note_unreachable(
        &self,
        peer: &HttpPeer,
        ctx: &Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let address: Option<SocketAddr> = peer.address().as_inet().copied();
        if let (Some(routed), Some(address)) = (&ctx.routed, address) {
            routed.route.upstream.unreachable(address);
        }
        // Nothing was sent yet, so another address may be tried; Pingora counts the tries.
        error.set_retry(true);
        error
    }

    /// Tells the client what went wrong, if it can still be told.
    pub(super) async fn fail(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
        let begun = session.response_written().is_some_and(|h| !h.status.is_informational());
        if ctx.carriage != Carriage::Passthrough || session.was_upgraded() || begun {
            return gone;
        }
        let refusal = match ctx.refusal.take().or_else(|| refusal_of(error)) {
            Some(refusal) => refusal,
            None => return gone,
        };
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
