//! The one way through, from a complete head to an answer or to the passthrough.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::{Method, Uri, Version, response};
use hyper::body::Body as _;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType, Result};
use tracing::error;

use super::Gate;
use super::api::{self, Api};
use super::body::{
    self, BodyReader, Declared, Look, Unread, declared_length, declared_type, looks_like_json,
};
use super::context::{Context, Target};
use super::exchange::{self, Call, Ended, Progress, Terms};
use super::forward::{Told, hide_upstream};
use super::reply::Reply;
use super::respond::{drain, dress};
use super::route::Inspect;
use super::stream::{Reader, asks_for_stream};
use super::upload::{Ahead, Arriving, Sending};
use super::watch::{Gone, Watch};
use crate::guard::body::Syntax;
use crate::guard::caps::BodyKind;
use crate::guard::cors::Preflight;
use crate::guard::limits::{Drawer, Draws};
use crate::guard::mode::{Guard, NotedLate};
use crate::guard::security_headers::Author;
use crate::guard::{Reason, Refusal};
use crate::observe::Carriage;
use crate::state::admission::Outcome;
use crate::upstream::RequestBody;

/// Why a request does not go on.
enum Halt {
    /// It is answered.
    Answered,
    /// It is to be refused.
    Refused(Refusal),
    /// The client is gone, or the answer broke off: the connection has to end.
    Broken(Box<Error>),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Halt::Refused(refusal)
    }
}

impl From<Gone> for Halt {
    fn from(_: Gone) -> Self {
        Halt::Broken(Error::explain(ErrorType::ConnectionClosed, "the client left").into_down())
    }
}

impl From<Unread> for Halt {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Refused(refusal) => Halt::Refused(refusal),
            Unread::Gone => Gone.into(),
        }
    }
}

impl From<Box<Error>> for Halt {
    fn from(error: Box<Error>) -> Self {
        Halt::Broken(error)
    }
}

impl Gate {
    /// Serves a request: `Ok(true)` if it was answered, `Ok(false)` if Pingora is to carry it.
    pub(super) async fn serve(&self, session: &mut ServerSession, ctx: &mut Context) -> Result<bool> {
        // Pingora has no such net: a panic would only close the connection, and leave no trace.
        let passed = AssertUnwindSafe(self.pass(session, ctx)).catch_unwind().await.unwrap_or_else(|_| {
            self.observer.metrics().panicked();
            error!(
                request_id = ctx.request_id(),
                "a guard or the exchange panicked; the request was not served"
            );
            let refusal =
                Refusal::new(Reason::InternalError, "The gate failed; the request was not served.", "");
            Err(Halt::Refused(refusal))
        });
        match passed {
            Ok(()) => Ok(false),
            Err(Halt::Answered) => Ok(true),
            Err(Halt::Broken(error)) => Err(error),
            Err(Halt::Refused(refusal))
                if session.response_written().is_some_and(|h| !h.status.is_informational()) =>
            {
                let error = Error::explain(ErrorType::InternalError, refusal.reason.code());
                ctx.refusal = Some(refusal);
                Err(error)
            }
            Err(Halt::Refused(refusal)) => {
                self.refuse(session, ctx, refusal).await?;
                Ok(true)
            }
        }
    }

    async fn pass(&self, session: &mut ServerSession, ctx: &mut Context) -> Result<(), Halt> {
        let malformed = ctx.refusal.take();
        // Even a malformed request is answered in the shape of the path that it names, if it names one.
        let understood = self.understand(session, ctx);
        if let Some(refusal) = malformed {
            return Err(refusal.into());
        }
        understood?;
        self.head_stage(session, ctx).await?;
        ctx.head_passed = true;
        self.inspect_target(ctx)?;
        if self.body_stage(session, ctx).await? {
            ctx.carriage = Carriage::Passthrough;
            return Ok(());
        }
        Err(Halt::Answered)
    }

    /// All that can be decided from the head, cheapest first, and the draws that stand whatever follows.
    async fn head_stage(&self, session: &mut ServerSession, ctx: &mut Context) -> Result<(), Halt> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        #[cfg(debug_assertions)]
        ctx.live.panic_if_asked(routed.target.path());
        let route = routed.route.clone();
        let guards = &route.guards;
        guards.check_head(&routed.head(session), &self.timers, &mut ctx.noted)?;
        // To verify a signature costs more than all that stands before it, so who asks too often is refused first; unless
        // how often one may ask goes by who one is.
        let early = guards.limits.head_goes_by_class();
        let mut identified = if early { self.identify(session, ctx).await } else { Ok(()) };
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let head = routed.head(session);
        let status = ctx.live.is_status_path(head.path, head.method);
        let places = guards.concurrency.enter(&self.inflight, &routed.client);
        let mut places = guards.observed.judge(Guard::Concurrency, places, &mut ctx.noted)?;
        let drawer = Drawer::of(&head, &ctx.live.client, &route.name, status);
        let drawn = self.draw(&guards.limits.head_draws(&drawer)).await;
        guards.observed.judge(Guard::Limits, drawn, &mut ctx.noted)?;
        if !early {
            identified = self.identify(session, ctx).await;
        }
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let head = routed.head(session);
        if let Some(preflight) = guards.preflight(&head) {
            self.answer(session, ctx, preflight_reply(&preflight)).await?;
            return Err(Halt::Answered);
        }
        // Not before: a preflight carries no token, and who is refused has drawn from the address.
        guards.observed.judge(Guard::Auth, identified, &mut ctx.noted)?;
        if let Some(places) = &mut places {
            let entered = guards.concurrency.enter_user(&self.inflight, &routed.client, places);
            guards.observed.judge(Guard::Concurrency, entered, &mut ctx.noted)?;
        }
        ctx.places = places;
        if status {
            let drawer = Drawer::of(&head, &ctx.live.client, &route.name, true);
            let drawn = self.draw(&guards.limits.body_draws(&drawer)).await;
            guards.observed.judge(Guard::Limits, drawn, &mut ctx.noted)?;
            let live = ctx.live.clone();
            let mut draws = Draws::default();
            for route in &live.routes {
                let drawer = Drawer::of(&head, &live.client, &route.name, false);
                route.guards.limits.add_all(&drawer, &mut draws);
            }
            let reply = self.status(&draws, &routed.client).await?;
            self.answer(session, ctx, reply).await?;
            return Err(Halt::Answered);
        }
        self.check_maintenance()?;
        Ok(())
    }

    /// Reads and inspects the body where there is one to inspect, and forwards it. `true`: Pingora is to carry it.
    async fn body_stage(&self, session: &mut ServerSession, ctx: &mut Context) -> Result<bool, Halt> {
        let Some(routed) = &ctx.routed else { return Ok(true) };
        let (route, api, websocket) = (routed.route.clone(), routed.api, routed.websocket);
        if session.is_body_empty() {
            self.admit_body(session, ctx, &[]).await?;
            if websocket {
                return Ok(true);
            }
            self.exchange(session, ctx, Bytes::new().into(), None).await?;
            return Ok(false);
        }
        let uncoded = refuse_encodings(&session.req_header().headers);
        route.guards.observed.judge(Guard::Json, uncoded, &mut ctx.noted)?;
        let declared = declared_type(&session.req_header().headers);
        let kind = expected_kind(api, declared);
        let caps = &route.guards.caps;
        if let Some(length) = declared_length(&session.req_header().headers) {
            // What is declared as JSON, or sent to a known API, will be held to that cap; the rest may be an upload.
            caps.check_length(length, kind)?;
        }
        let known = matches!(declared, Declared::Json | Declared::Form)
            || (api.is_some() && declared != Declared::Multipart);
        let mut reader = BodyReader::new(ctx.started, &route.timeouts, caps.min_rate());
        let look = reader.peek(session).await?;
        let form = declared == Declared::Form || (declared == Declared::Untyped && look == Look::Form);
        let json = matches!(look, Look::Json | Look::Hidden);
        let inspected = route.inspect == Inspect::Auto && (known || json || form);
        if !inspected {
            // Boxed, as most requests are none: their future would carry it along.
            Box::pin(self.upload(session, ctx, reader)).await?;
            return Ok(false);
        }
        let declared_json = declared == Declared::Json || look == Look::Json;
        if (declared_json || form) && body::foreign_charset(&session.req_header().headers) {
            let detail = "JSON (RFC 8259 §8.1) and forms are UTF-8; the Content-Type names another charset.";
            let refusal = Refusal::new(Reason::UnsupportedCharset, detail, "");
            route.guards.observed.judge::<()>(Guard::Json, Err(refusal), &mut ctx.noted)?;
        }
        let kind = if kind == BodyKind::Other { BodyKind::Json } else { kind };
        let mut held = self.bodies.share();
        let body = reader.whole(session, caps.body(kind), kind.setting(), &mut held).await?;
        ctx.held = Some(held);
        let syntax = Syntax { json: declared_json || looks_like_json(&body), form };
        let body = self.inspect(body, syntax, ctx)?;
        if !syntax.json && !syntax.form {
            self.look_at_upload(&body, session, ctx)?;
        }
        self.admit_body(session, ctx, &body).await?;
        self.exchange(session, ctx, body.into(), None).await?;
        Ok(false)
    }

    /// A body that was read whole for its path's sake, and is no JSON, may be a file.
    fn look_at_upload(&self, body: &[u8], session: &ServerSession, ctx: &mut Context) -> Result<(), Halt> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let guards = &routed.route.guards;
        let looked = guards.begin_upload(&routed.head(session)).and_then(|upload| {
            let Some(mut upload) = upload else { return Ok(()) };
            upload.feed(body)?;
            upload.end()
        });
        guards.observed.judge(Guard::Uploads, looked, &mut ctx.noted)?;
        Ok(())
    }

    /// Looks at the beginning of a body that streams, and then forwards it as it comes.
    async fn upload(
        &self,
        session: &mut ServerSession,
        ctx: &mut Context,
        reader: BodyReader,
    ) -> Result<(), Halt> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let route = routed.route.clone();
        let looked_at = route.inspect != Inspect::Off;
        let guard = if looked_at { route.guards.begin_upload(&routed.head(session)) } else { Ok(None) };
        let observed = route.guards.observed;
        let guard = observed.judge(Guard::Uploads, guard, &mut ctx.noted)?.flatten();
        ctx.noted_late = (guard.is_some() && observed.contains(Guard::Uploads)).then(NotedLate::default);
        let declared = declared_length(&session.req_header().headers);
        let (first, patience) = reader.into_first();
        let arriving = Arriving::new(route, guard, ctx.noted_late.clone(), declared, patience);
        let (body, sending) = match arriving.look_ahead(session, first, self.bodies.share()).await? {
            Ahead::Whole(body, held) => {
                ctx.held = Some(held);
                (body.into(), None)
            }
            Ahead::Begun(sending, body) => (body, Some(sending)),
        };
        ctx.arriving = sending.is_some();
        self.admit_body(session, ctx, &[]).await?;
        self.exchange(session, ctx, body, sending).await
    }

    /// The guard of the texts in path and query: what it asks for is changed in what is forwarded.
    fn inspect_target(&self, ctx: &mut Context) -> Result<(), Halt> {
        let Some(routed) = &mut ctx.routed else { return Ok(()) };
        // By the path alone: a chat that does not say that it streams is asked by GET all the same.
        let asked = || api::recognise(&Method::POST, routed.target.path(), true);
        let query = routed.query();
        let api = routed.api.or(routed.route.api).or_else(|| query.and_then(|_| asked()));
        let found = routed.route.guards.check_target(routed.target.path(), query, api, &mut ctx.noted)?;
        if found.path.is_some() || found.query.is_some() {
            let path = found.path.as_deref().unwrap_or(routed.target.path());
            routed.target = Target::new(path, found.query.as_deref().or(query));
        }
        ctx.seen.extend(found.seen);
        Ok(())
    }

    /// The body guards: shape, length and content of texts; and the session that the body names, if the head named none.
    /// Answers the body as it is to be forwarded.
    fn inspect(&self, body: Bytes, syntax: Syntax, ctx: &mut Context) -> Result<Bytes, Halt> {
        let live = ctx.live.clone();
        let Some(routed) = &mut ctx.routed else { return Ok(body) };
        let guards = &routed.route.guards;
        let found = guards.check_body(&body, syntax, routed.api, &self.timers, &mut ctx.noted)?;
        if let Some(session) = found.session {
            live.client.session_from_body(&mut routed.client, &session);
        }
        ctx.seen.extend(found.seen);
        Ok(found.rewritten.map_or(body, Bytes::from))
    }

    /// Takes leave to call the upstream, then draws what depends on the body: all granted, or nothing taken.
    async fn admit_body(&self, session: &ServerSession, ctx: &mut Context, body: &[u8]) -> Result<(), Halt> {
        if let Some(routed) = &ctx.routed {
            let path = routed.target.path();
            ctx.stream_asked = asks_for_stream(routed.api, path, routed.accepts_events, body);
        }
        self.take_permit(ctx)?;
        let admitted = self.draw_body(session, ctx).await;
        if admitted.is_err() {
            // Others may probe the upstream meanwhile, and no fallback serves it.
            ctx.permit = None;
            ctx.diverted = None;
            ctx.fallback = None;
        }
        admitted
    }

    async fn draw_body(&self, session: &ServerSession, ctx: &mut Context) -> Result<(), Halt> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let head = routed.head(session);
        let drawer = Drawer::of(&head, &ctx.live.client, &routed.route.name, false);
        let guards = &routed.route.guards;
        let admitted = self.admit(&guards.limits.body_draws(&drawer)).await;
        ctx.admission = guards.observed.judge(Guard::Limits, admitted, &mut ctx.noted)?.flatten();
        Ok(())
    }

    /// Forwards a request that was read whole, or else its `upload`, and streams the answer back.
    async fn exchange(
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
        let outcome = match &ended {
            Ended::Served => Outcome::Served,
            Ended::Stopped { why, .. } if why.reason != Reason::StreamIdle => Outcome::Served,
            Ended::ClientGone | Ended::Refused(_) => Outcome::ClientGone,
            Ended::Unsent(_) => Outcome::NeverSent,
            Ended::Failed(_) | Ended::Truncated(_) | Ended::Stopped { .. } => Outcome::UpstreamFailed,
        };
        if let Some(admission) = ctx.admission.take() {
            admission.settle(outcome);
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
        let upstream = routed.upstream.clone();
        let told = Told {
            client: &routed.client,
            authority: routed.authority.as_deref(),
            upstream: upstream.host(),
            request_id: &ctx.request_id,
            websocket: false,
            now: self.clock.now(),
        };
        let request_head = session.req_header();
        let mut headers: HeaderMap = request_head.headers.clone();
        headers.reserve(TOLD);
        routed.route.guards.forwarding.request(&mut headers, &told);
        headers.remove(http::header::TRANSFER_ENCODING);
        let stream_asked = ctx.stream_asked;
        if stream_asked {
            // Nothing can be added to a stream that is coded, and coding holds events back.
            headers.remove(http::header::ACCEPT_ENCODING);
        }
        if let Some(length) = body.size_hint().exact()
            && (length > 0 || headers.contains_key(CONTENT_LENGTH))
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let uri = Uri::try_from(routed.target.as_str())
            .map_err(|_| Refusal::new(Reason::InvalidPath, "The path can't be forwarded.", "paths"))?;
        let mut request = http::Request::new(body);
        *request.method_mut() = request_head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;

        if let Some(admission) = &mut ctx.admission {
            admission.note(Outcome::Abandoned);
        }
        let live = ctx.live.clone();
        let Some(outbound) = live.outbound_of(&upstream) else { return Ok(Ended::Served) };
        let mut permit = ctx.permit.take();
        let mut progress = Progress::default();
        // Once the answer begins, the body is sent: what it held is free for others.
        let mut held = ctx.held.take();
        let dressing = &*ctx;
        let terms = Terms {
            timeouts: &routed.route.timeouts,
            streams: &routed.route.streams,
            stream_asked,
            reader: Reader { api: routed.api, shape: ctx.shape, request_id: &ctx.request_id },
            stop: &self.stop,
            metrics: self.observer.metrics().streams(),
        };
        let dress = |session: &mut ServerSession, head: &mut response::Parts, first_byte| {
            held = None;
            if let Some(permit) = &mut permit {
                permit.answered(head.status, first_byte);
            }
            if self.stop.draining() {
                session.set_keepalive(None);
            }
            hide_upstream(&mut head.headers, &upstream, &routed.client, routed.authority.as_deref());
            dress(head, dressing, Author::Upstream);
        };
        let call = Call {
            upstream: &upstream,
            client: &routed.client,
            own_host: routed.route.guards.forwarding.host_of_upstream,
            retries: &outbound.retries,
            request,
        };
        let ended = exchange::carry(session, watch, call, &terms, &mut progress, dress).await;
        ctx.held = held;
        ctx.upstream_first_byte = progress.first_byte;
        ctx.retries += progress.retries;
        let failed = match &ended {
            Ended::Unsent(_) | Ended::Failed(_) | Ended::Truncated(_) => true,
            Ended::Stopped { why, .. } => why.reason == Reason::StreamIdle,
            Ended::Served | Ended::ClientGone | Ended::Refused(_) => false,
        };
        if let Some(permit) = permit.filter(|_| failed) {
            permit.failed();
        }
        Ok(ended)
    }
}

fn preflight_reply(preflight: &Preflight) -> Reply {
    let mut reply = Reply::empty(Preflight::STATUS);
    for (name, value) in preflight.fields() {
        if let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) {
            reply.headers.push((name, value.clone()));
        }
    }
    reply
}

/// About as many fields as forwarding adds.
const TOLD: usize = 8;

/// A body that the guards can't read would reach the upstream unread.
fn refuse_encodings(headers: &HeaderMap) -> Result<(), Refusal> {
    let coded =
        headers.get_all(CONTENT_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coded {
        let detail = "Send the body as it is: Content-Encoding is not accepted on requests.";
        return Err(Refusal::new(Reason::UnsupportedEncoding, detail, ""));
    }
    Ok(())
}

fn expected_kind(api: Option<Api>, declared: Declared) -> BodyKind {
    match (api, declared) {
        (_, Declared::Multipart) => BodyKind::Other,
        (Some(api), _) if api.is_model() => BodyKind::Model,
        (Some(_), _) | (None, Declared::Json | Declared::Form) => BodyKind::Json,
        (None, Declared::Untyped | Declared::Other) => BodyKind::Other,
    }
}
