//! The call of a request to its upstream, and to its fallback if that one saw nothing of it.

use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Uri, Version, response};
use hyper::body::Body as _;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType};

use super::Gate;
use super::context::{Context, Routed};
use super::exchange::{self, Call, Ended, Progress, Terms};
use super::explain::show;
use super::forward::{Told, hide_upstream};
use super::keep::Keeper;
use super::respond::{drain, dress};
use super::serve::Halt;
use super::stream::Reader;
use super::upload::Sending;
use super::watch::{Gone, Watch};
use crate::guard::mode::Guard;
use crate::guard::security_headers::Author;
use crate::guard::{Reason, Refusal};
use crate::observe::Carriage;
use crate::state::Store;
use crate::state::admission::Outcome;
use crate::upstream::RequestBody;

/// About as many fields as forwarding adds.
const TOLD: usize = 8;

impl Gate {
    /// Forwards a request that was read whole, or else its `upload`, and streams the answer back.
    pub(super) async fn exchange(
        &self,
        session: &mut ServerSession,
        ctx: &mut Context,
        body: RequestBody,
        upload: Option<Box<Sending>>,
    ) -> Result<(), Halt> {
        ctx.carriage = if upload.is_some() { Carriage::Passthrough } else { Carriage::Exchange };
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let fallback = routed.route.fallback.as_ref().and_then(|fallback| fallback.upstream.as_ref());
        let spare = fallback.and_then(|_| body.whole()).cloned();
        let mut watch = Watch::new(session, upload);
        let ended = match (self.call(session, ctx, &mut watch, body).await?, spare) {
            (Ended::Unsent(refusal), Some(body)) if self.divert(ctx, refusal.reason) => {
                Box::pin(self.call(session, ctx, &mut watch, body.into())).await?
            }
            (ended, _) => ended,
        };
        let error = session.response_written().is_some_and(|head| head.status.as_u16() >= 400);
        let outcome = match &ended {
            Ended::Served if error => Outcome::Declined,
            Ended::Served => Outcome::Served,
            Ended::Stopped { why, .. } if why.reason != Reason::StreamIdle => Outcome::Served,
            Ended::ClientGone | Ended::Refused(_) => Outcome::ClientGone,
            Ended::Unsent(_) => Outcome::NeverSent,
            Ended::Failed(_) | Ended::Truncated(_) | Ended::Stopped { .. } => Outcome::UpstreamFailed,
        };
        if let (Some((key, _)), Outcome::Served, Some(answer)) = (ctx.keep, outcome, ctx.kept.take()) {
            // Before the claim is settled: who comes then finds the answer. One that can't be kept is not given again.
            let _ = self.store().keep_answer(key, answer).await;
        }
        if let Some(admission) = ctx.admission.take() {
            self.admissions.settle(admission, outcome).await;
        }
        match ended {
            Ended::Served => {
                if watch.is_sending() {
                    drain(session).await;
                }
                Ok(())
            }
            Ended::ClientGone => Err(Gone.into()),
            Ended::Unsent(refusal) | Ended::Failed(refusal) | Ended::Refused(refusal) => Err(refusal.into()),
            Ended::Truncated(error) => {
                ctx.refusal =
                    Some(Refusal::new(Reason::UpstreamFailed, "The upstream broke off its answer.", ""));
                Err(error.into())
            }
            Ended::Stopped { why, whole } => {
                let reason = why.reason;
                ctx.refusal = Some(why);
                match whole {
                    true => Ok(()),
                    false => Err(Error::explain(ErrorType::ReadTimedout, reason.code()).into()),
                }
            }
        }
    }

    /// Makes one call, and tells the upstream's breaker how it went.
    async fn call(
        &self,
        session: &mut ServerSession,
        ctx: &mut Context,
        watch: &mut Watch,
        body: RequestBody,
    ) -> Result<Ended, Refusal> {
        let Some(routed) = &ctx.routed else { return Ok(Ended::Served) };
        let Some(outbound) = ctx.live.outbound_of(&routed.upstream) else { return Ok(Ended::Served) };
        let request = outgoing(session, ctx, routed, body)?;
        if ctx.noted.trail_mut().is_some() {
            return Ok(Box::pin(show(session, ctx, watch, *request)).await);
        }
        if let Some(admission) = &mut ctx.admission {
            admission.note(Outcome::Abandoned);
        }
        let mut permit = ctx.permit.take();
        // Once the answer begins, the body is sent: what it held is free for others.
        let mut held = ctx.held.take();
        let mut alarm = std::mem::take(&mut ctx.alarm);
        let (mut places, mut noted) = (ctx.places.take(), std::mem::take(&mut ctx.noted));
        let keeper = ctx.keep.map(|(_, max)| Keeper::new(max));
        let mut progress = Progress { keeper, ..Progress::default() };
        let dressing = &*ctx;
        let terms = Terms {
            timeouts: &routed.route.timeouts,
            streams: &routed.route.streams,
            stream_asked: ctx.stream_asked,
            reader: Reader { api: routed.api, shape: ctx.shape, request_id: &ctx.request_id },
            stop: &self.stop,
            metrics: self.observer.metrics().streams(),
        };
        let unasked_stream = || {
            let guards = &routed.route.guards;
            let entered = guards.concurrency.enter_stream(&self.streams, &routed.client);
            let entered = guards.observed.judge(Guard::Concurrency, entered, &mut noted)?;
            places = entered.or(places.take());
            Ok(())
        };
        let dress = |session: &mut ServerSession,
                     head: &mut response::Parts,
                     first_byte,
                     keeper: Option<&mut Keeper>| {
            held = None;
            if let Some(permit) = &mut permit {
                permit.answered(head.status, first_byte);
            }
            if self.stop.draining() {
                session.set_keepalive(None);
            }
            hide_upstream(&mut head.headers, &routed.upstream, &routed.client, routed.authority.as_deref());
            if let Some(keeper) = keeper {
                keeper.head(head);
            }
            dress(head, dressing, Author::Upstream);
        };
        let call = Call {
            upstream: &routed.upstream,
            client: &routed.client,
            own_host: routed.route.guards.forwarding.host_of_upstream,
            retries: &outbound.retries,
            request,
        };
        let ended =
            exchange::carry(session, (watch, &mut alarm), call, &terms, &mut progress, unasked_stream, dress)
                .await;
        ctx.alarm = alarm;
        ctx.held = held;
        (ctx.places, ctx.noted) = (places, noted);
        ctx.kept = progress.keeper.and_then(Keeper::finish);
        ctx.upstream_first_byte = progress.first_byte;
        ctx.retries += progress.retries;
        let failed = match &ended {
            Ended::Unsent(_) | Ended::Failed(_) | Ended::Truncated(_) => true,
            Ended::Stopped { why, .. } => why.reason == Reason::StreamIdle,
            Ended::Served | Ended::ClientGone | Ended::Refused(_) => false,
        };
        // What one server of several does is no reason to leave all of them alone.
        if let Some(permit) = permit.filter(|_| failed && !progress.contained) {
            permit.failed();
        }
        Ok(ended)
    }
}

/// The request as the upstream gets it; in a box, since it is handed down from call to call.
fn outgoing(
    session: &ServerSession,
    ctx: &Context,
    routed: &Routed,
    body: RequestBody,
) -> Result<Box<Request<RequestBody>>, Refusal> {
    let told = Told {
        client: &routed.client,
        authority: routed.authority.as_deref(),
        upstream: routed.upstream.host(),
        request_id: &ctx.request_id,
        websocket: false,
    };
    let head = session.req_header();
    let mut headers = head.headers.clone();
    headers.reserve(TOLD);
    routed.route.guards.forwarding.request(&mut headers, &told);
    headers.remove(TRANSFER_ENCODING);
    if ctx.stream_asked {
        // Nothing can be added to a stream that is coded, and coding holds events back.
        headers.remove(ACCEPT_ENCODING);
    }
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || headers.contains_key(CONTENT_LENGTH))
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let uri = Uri::try_from(routed.target.as_str())
        .map_err(|_| Refusal::new(Reason::InvalidPath, "The path can't be forwarded.", "paths"))?;
    let mut request = Box::new(Request::new(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(request)
}
