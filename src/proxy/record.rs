//! Writes a request down once it is over, and settles what is still open.

use std::sync::PoisonError;

use http::header::{HeaderName, REFERER, USER_AGENT};
use pingora::Error;
use pingora::protocols::http::ServerSession;
use tracing::debug;

use super::Gate;
use super::context::Context;
use crate::observe::{Carriage, Record};
use crate::server::door::client_stream;
use crate::state::admission::Outcome;

impl Gate {
    /// The end of a request, however it came.
    pub(super) fn record(&self, session: &ServerSession, error: Option<&Error>, ctx: &mut Context) {
        if let Some(error) = error {
            debug!(request_id = ctx.request_id(), kind = error.etype().as_str(), "request ended by an error");
        }
        self.report(ctx, error);
        if let Some(admission) = ctx.admission.take() {
            admission.settle(match (&ctx.refusal, error) {
                (None, None) => Outcome::Served,
                (None, Some(_)) => Outcome::ClientGone,
                (Some(_), _) if ctx.carriage == Carriage::Gate => Outcome::NeverSent,
                (Some(_), _) => Outcome::UpstreamFailed,
            });
        }
        if let Some(late) = ctx.noted_late.take() {
            let late = std::mem::take(&mut *late.lock().unwrap_or_else(PoisonError::into_inner));
            ctx.noted.extend(late.noted);
            ctx.seen.extend(late.seen);
        }
        let request = session.req_header();
        let header = |name: &HeaderName| request.headers.get(name).map(http::HeaderValue::as_bytes);
        let routed = ctx.routed.as_ref();
        let client = routed.map(|routed| &routed.client);
        let peer = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
        let unknown = std::net::IpAddr::from([0, 0, 0, 0]);
        let status = session.response_written().map(|head| head.status);
        self.observer.record(&Record {
            at: ctx.began,
            method: &request.method,
            // A path that can't be normalised is anybody's text, secrets cut in half among it.
            path: routed.map_or("-", |routed| routed.target.path()),
            query: routed.and_then(|routed| routed.query()),
            keys: ctx.live.client.key_names(),
            host: routed
                .and_then(|routed| routed.authority.as_deref())
                .or_else(|| request.headers.get(http::header::HOST)?.to_str().ok())
                .unwrap_or_default(),
            version: request.version,
            status,
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            duration: ctx.started.elapsed(),
            upstream_duration: ctx.upstream_first_byte,
            client_address: client.map(|client| client.address).or(peer).unwrap_or(unknown),
            user: client.and_then(|client| client.user),
            session: client.and_then(|client| client.session),
            device: client.and_then(|client| client.device),
            route: routed.and_then(|routed| ctx.live.route_series(&routed.route)),
            upstream: routed
                .and_then(|routed| ctx.live.outbound_of(&routed.upstream))
                .map(|outbound| &outbound.series),
            retries: ctx.retries,
            fallback: ctx.fallback,
            traffic: routed.map_or(crate::guard::Traffic::Page, |routed| routed.traffic),
            carriage: ctx.carriage,
            refusal: ctx.refusal.as_ref(),
            noted: &ctx.noted,
            seen: (!ctx.seen.is_empty()).then_some(&ctx.seen),
            request_id: ctx.request_id(),
            user_agent: header(&USER_AGENT),
            referer: header(&REFERER),
            model: None,
        });
        ctx.in_flight = None;
        if let Some(io) = client_stream(session) {
            io.return_alarm(std::mem::take(&mut ctx.alarm));
        }
    }
}
