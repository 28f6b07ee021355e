//! The one way through, from a complete head to an answer or to the passthrough.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::Method;
use http::header::{CONTENT_ENCODING, HeaderMap};
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType, Result};
use tracing::error;

use super::Gate;
use super::api::{self, Api};
use super::body::{self, BodyReader, Declared, Look, Unread, declared_type};
use super::context::{Context, Target};
use super::draw::NotAdmitted;
use super::reply::Reply;
use super::route::Inspect;
use super::stream::asks_for_stream;
use super::upload::Arriving;
use super::watch::Gone;
use crate::guard::body::{Hold, Syntax};
use crate::guard::caps::BodyKind;
use crate::guard::chain::Stage;
use crate::guard::cors::Preflight;
use crate::guard::duplicates::{Sent, Told};
use crate::guard::json;
use crate::guard::limits::{Drawer, Draws};
use crate::guard::mode::{Guard, NotedLate};
use crate::guard::text::Values;
use crate::guard::{Reason, Refusal};
use crate::observe::Carriage;
use crate::state::Store;
use crate::state::claim::KeptAnswer;

/// Why a request does not go on.
pub(super) enum Halt {
    /// It is answered.
    Answered,
    /// It is to be refused.
    Refused(Refusal),
    /// It was answered before, and is answered alike.
    Again(Arc<KeptAnswer>),
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
            Err(Halt::Again(answer)) => {
                self.repeat(session, ctx, &answer).await?;
                Ok(true)
            }
            Err(Halt::Refused(refusal))
                if session.response_written().is_some_and(|h| !h.status.is_informational()) =>
            {
                let error = Error::explain(ErrorType::InternalError, refusal.reason.code());
                ctx.refusal = Some(refusal);
                Err(error)
            }
            Err(Halt::Refused(refusal)) => {
                // In a box, as most requests are not refused: their future would carry it along.
                Box::pin(self.refuse(session, ctx, refusal)).await?;
                Ok(true)
            }
        }
    }

    async fn pass(&self, session: &mut ServerSession, ctx: &mut Context) -> Result<(), Halt> {
        let malformed = ctx.refusal.take();
        // Even a malformed request is answered in the shape of the path that it names, if it names one.
        let understood = self.understand(session, ctx);
        ctx.noted.at(Stage::Hygiene);
        if let Some(refusal) = malformed {
            return Err(refusal.into());
        }
        ctx.noted.at(Stage::Paths);
        understood?;
        ctx.noted.at(Stage::Client);
        self.head_stage(session, ctx).await?;
        ctx.head_passed = true;
        ctx.noted.at(Stage::Target);
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
        ctx.noted.at(Stage::Bans);
        self.check_banned(&routed.client)?;
        let guards = &routed.route.guards;
        let head = routed.head(session);
        guards.check_head(&head, &self.timers, &mut ctx.noted)?;
        let status = ctx.live.is_status_path(head.path, head.method);
        let places = guards.concurrency.enter(&self.inflight, &routed.client);
        let places = guards.observed.judge(Guard::Concurrency, places, &mut ctx.noted)?;
        let drawer = Drawer::of(&head, &ctx.live.client, &routed.route.name, status)
            .weighing(self.weight_of(ctx, &routed.client));
        ctx.noted.at(Stage::AddressLimits);
        let drawn = self.draw(&guards.limits.head_draws(&drawer)).await;
        guards.observed.judge(Guard::Limits, drawn, &mut ctx.noted)?;
        ctx.places = places;
        if let Some(preflight) = guards.preflight(&head) {
            Box::pin(self.answer(session, ctx, preflight_reply(&preflight))).await?;
            return Err(Halt::Answered);
        }
        if status {
            return Box::pin(self.tell_limits(session, ctx)).await;
        }
        ctx.noted.at(Stage::Maintenance);
        self.check_maintenance()?;
        Ok(())
    }

    /// Answers a caller who asks for its own limits.
    async fn tell_limits(&self, session: &mut ServerSession, ctx: &mut Context) -> Result<(), Halt> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let (head, rules) = (routed.head(session), &ctx.live.client);
        let guards = &routed.route.guards;
        ctx.noted.at(Stage::Limits);
        let drawer =
            Drawer::of(&head, rules, &routed.route.name, true).weighing(self.weight_of(ctx, &routed.client));
        let drawn = self.draw(&guards.limits.body_draws(&drawer)).await;
        guards.observed.judge(Guard::Limits, drawn, &mut ctx.noted)?;
        let mut draws = Draws::default();
        for route in &ctx.live.routes {
            let drawer = Drawer::of(&head, rules, &route.name, false);
            route.guards.limits.add_all(&drawer, &mut draws);
        }
        let reply = self.status(&draws, &routed.client).await?;
        drop(draws);
        self.answer(session, ctx, reply).await?;
        Err(Halt::Answered)
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
        ctx.noted.at(Stage::Body);
        let uncoded = refuse_encodings(&session.req_header().headers);
        route.guards.observed.judge(Guard::Json, uncoded, &mut ctx.noted)?;
        let declared = declared_type(&session.req_header().headers);
        let kind = expected_kind(api, declared);
        let caps = &route.guards.caps;
        if let Some(length) = ctx.declared {
            // What is declared as JSON, or sent to a known API, will be held to that cap; the rest may be an upload.
            caps.check_length(length, kind)?;
        }
        let known = matches!(declared, Declared::Json | Declared::Form)
            || (api.is_some() && declared != Declared::Multipart);
        let mut reader = BodyReader::new(ctx.started, &route.timeouts, caps.min_rate());
        let look = reader.peek(session).await?;
        let form = declared == Declared::Form || (declared == Declared::Untyped && look == Look::Form);
        let hold = hold(api, declared);
        // What can't be JSON from the first bytes on may be a large file, and streams.
        let refuted = || match hold {
            Hold::Strict | Hold::Lines => false,
            Hold::Text => !json::begins(reader.start()) && json::refuted(reader.start()),
            Hold::Loose => json::refuted(reader.start()),
        };
        let json = matches!(look, Look::Json | Look::Hidden) && !refuted();
        let inspected = route.inspect == Inspect::Auto && (known || json || form);
        if !inspected {
            // Boxed, as most requests are none: their future would carry it along.
            Box::pin(self.upload(session, ctx, reader)).await?;
            return Ok(false);
        }
        let declared_json = declared == Declared::Json || look == Look::Json;
        let foreign = body::foreign_charset(&session.req_header().headers);
        if foreign && (form || declared_json && hold == Hold::Strict) {
            route.guards.observed.judge::<()>(Guard::Json, Err(wrong_charset()), &mut ctx.noted)?;
        }
        let kind = if kind == BodyKind::Other { BodyKind::Json } else { kind };
        let mut held = self.bodies.share();
        let body = reader.whole(session, caps.body(kind), kind.setting(), &mut held).await?;
        ctx.held = Some(held);
        let syntax = Syntax { json: declared_json || json::opens(&body), form, hold };
        ctx.noted.at(Stage::Texts);
        let (body, other) = self.inspect(body, syntax, ctx)?;
        if other {
            self.look_at_upload(&body, session, ctx)?;
        } else if foreign && hold != Hold::Strict {
            route.guards.observed.judge::<()>(Guard::Json, Err(wrong_charset()), &mut ctx.noted)?;
        }
        self.admit_body(session, ctx, &body).await?;
        self.exchange(session, ctx, body.into(), None).await?;
        Ok(false)
    }

    /// A body that was read whole for its path's sake, and is no JSON, may be a file.
    fn look_at_upload(&self, body: &[u8], session: &ServerSession, ctx: &mut Context) -> Result<(), Halt> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let guards = &routed.route.guards;
        let begun = guards.begin_upload(&routed.head(session), routed.api);
        let Some(mut upload) = guards.observed.judge(Guard::Uploads, begun, &mut ctx.noted)?.flatten() else {
            return Ok(());
        };
        let looked = upload.feed(body).and_then(|()| upload.end());
        ctx.noted.extend(upload.take_report().noted);
        Ok(looked?)
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
        let guard =
            if looked_at { route.guards.begin_upload(&routed.head(session), routed.api) } else { Ok(None) };
        let guard = route.guards.observed.judge(Guard::Uploads, guard, &mut ctx.noted)?.flatten();
        let late = NotedLate::default();
        ctx.noted_late = guard.is_some().then(|| late.clone());
        let (first, patience) = reader.into_first();
        let arriving = Arriving::new(route, guard, late, ctx.declared, patience, self.bodies.share());
        let ahead = arriving.look_ahead(session, first, self.bodies.share()).await?;
        ctx.held = ahead.held;
        self.take_named(ctx, ahead.named);
        ctx.arriving = ahead.sending.is_some();
        self.admit_body(session, ctx, &[]).await?;
        self.exchange(session, ctx, ahead.body, ahead.sending).await
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
    /// Answers the body as it is to be forwarded, and whether it is neither JSON nor a form.
    fn inspect(&self, body: Bytes, syntax: Syntax, ctx: &mut Context) -> Result<(Bytes, bool), Halt> {
        let Some(routed) = &ctx.routed else { return Ok((body, false)) };
        let guards = &routed.route.guards;
        let found = guards.check_body(&body, syntax, routed.api, &self.timers, &mut ctx.noted)?;
        self.take_named(ctx, found.named);
        ctx.seen.extend(found.seen);
        let other = found.other || !syntax.json && !syntax.form;
        Ok((found.rewritten.map_or(body, Bytes::from), other))
    }

    /// Takes in what a body names. Its session counts where the head named none.
    fn take_named(&self, ctx: &mut Context, named: Values) {
        if let (Some(session), Some(routed)) = (&named.session, &mut ctx.routed) {
            ctx.live.client.session_from_body(&mut routed.client, session);
        }
        ctx.named = named;
    }

    /// Takes leave to call the upstream, then draws what depends on the body: all granted, or nothing taken.
    async fn admit_body(&self, session: &ServerSession, ctx: &mut Context, body: &[u8]) -> Result<(), Halt> {
        if let Some(routed) = &ctx.routed {
            let path = routed.target.path();
            ctx.stream_asked = asks_for_stream(routed.api, path, routed.accepts_events, body);
            if ctx.stream_asked || routed.websocket {
                let guards = &routed.route.guards;
                let places = guards.concurrency.enter_stream(&self.streams, &routed.client);
                let places = guards.observed.judge(Guard::Concurrency, places, &mut ctx.noted)?;
                ctx.places = places.or(ctx.places.take());
            }
        }
        ctx.noted.at(Stage::Breaker);
        self.take_permit(ctx)?;
        ctx.noted.at(Stage::Limits);
        let admitted = self.draw_body(session, ctx, body).await;
        if admitted.is_err() {
            // Others may probe the upstream meanwhile, and no fallback serves it.
            ctx.permit = None;
            ctx.diverted = None;
            ctx.fallback = None;
        }
        admitted
    }

    async fn draw_body(&self, session: &ServerSession, ctx: &mut Context, body: &[u8]) -> Result<(), Halt> {
        let Some(routed) = &ctx.routed else { return Ok(()) };
        let (head, rules, guards) = (routed.head(session), &ctx.live.client, &routed.route.guards);
        let drawer = Drawer::of(&head, rules, &routed.route.name, false)
            .naming(&ctx.named.counted)
            .weighing(self.weight_of(ctx, &routed.client));
        let mut draws = guards.limits.body_draws(&drawer);
        let message = ctx.named.message.as_deref();
        let sent = Sent { head: &head, rules, api: routed.api, body, inspected: !ctx.arriving, message };
        let claims = guards.claims(&sent, &mut draws, &mut ctx.noted)?;
        let mut admitted = self.admit(&draws, claims.as_slice()).await;
        if let Err(NotAdmitted::Claimed(at, holder)) = &admitted {
            let refusal = match claims.told(*at, holder) {
                Told::Refused(refusal) => refusal,
                Told::Again(key, refusal) => match self.store().kept_answer(key).await {
                    Ok(Some(answer)) => return Err(Halt::Again(answer)),
                    Ok(None) | Err(_) => refusal,
                },
            };
            guards.observed.judge(Guard::Duplicates, Err::<(), _>(refusal), &mut ctx.noted)?;
            admitted = self.admit(&draws, &[]).await;
        } else {
            ctx.keep = claims.keeps();
        }
        let admitted = admitted.map_err(|why| match why {
            NotAdmitted::Refused(refusal) => refusal,
            // Nothing was claimed the second time.
            NotAdmitted::Claimed(..) => Refusal::new(Reason::Duplicate, "The same message came before.", ""),
        });
        // With what the head drew: once for both, as that costs a write.
        let admitted = match admitted {
            Ok(admission) => self.persist().await.map(|()| admission),
            refused => refused,
        };
        let about = match &admitted {
            Err(refusal) if refusal.reason == Reason::LoopDetected => Guard::Loops,
            _ => Guard::Limits,
        };
        ctx.admission = guards.observed.judge(about, admitted, &mut ctx.noted)?.flatten();
        Ok(())
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

fn wrong_charset() -> Refusal {
    let detail = "JSON (RFC 8259 §8.1) and forms are UTF-8; the Content-Type names another charset.";
    Refusal::new(Reason::UnsupportedCharset, detail, "")
}

/// How a body that begins as JSON is held to it. An API that is known takes JSON whatever it is called; elsewhere what is
/// called something else may be that.
fn hold(api: Option<Api>, declared: Declared) -> Hold {
    match (api, declared) {
        (None, Declared::Lines | Declared::Multipart | Declared::Other) => Hold::Loose,
        (Some(_), Declared::Lines) => Hold::Lines,
        (None, Declared::Text) => Hold::Text,
        (Some(_), _) | (None, Declared::Json | Declared::Form | Declared::Untyped) => Hold::Strict,
    }
}

fn expected_kind(api: Option<Api>, declared: Declared) -> BodyKind {
    match (api, declared) {
        (_, Declared::Multipart) => BodyKind::Other,
        (Some(api), _) if api.is_model() => BodyKind::Model,
        (Some(_), _) | (None, Declared::Json | Declared::Form) => BodyKind::Json,
        (None, Declared::Untyped | Declared::Text | Declared::Lines | Declared::Other) => BodyKind::Other,
    }
}
