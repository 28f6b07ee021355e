//! Sends the gate's own answers: dressed by the response guards like any other, with the rest of the request drained.

use http::header::{HeaderName, HeaderValue};
use http::{StatusCode, response};
use pingora::http::ResponseHeader;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::{Error, ErrorType, Result};
use tokio::time::{Duration, Instant, timeout_at};

use super::Gate;
use super::body::declared_length;
use super::context::Context;
use super::fallback::X_FALLBACK;
use super::keep;
use super::reply::Reply;
use super::request_id::X_REQUEST_ID;
use super::stream::Form;
use crate::guard::security_headers::Author;
use crate::guard::{Reason, Refusal};
use crate::observe::Fallback;
use crate::state::claim::KeptAnswer;

/// Bytes of a refused body that are read, so that the client reads its answer instead of a reset.
pub(super) const DRAIN_BYTES: u64 = 64 * 1024;
/// A body that says it is no longer than this is read to its end: SDKs send all of it before they read.
const DRAIN_DECLARED: u64 = 32 * 1024 * 1024;
/// How long that may take.
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(1);

static BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

impl Gate {
    /// Answers a refused request; nothing of it is inspected or forwarded any more.
    pub(super) async fn refuse(
        &self,
        session: &mut ServerSession,
        ctx: &mut Context,
        refusal: Refusal,
    ) -> Result<()> {
        if !ctx.head_passed {
            session.set_keepalive(None);
        }
        let fallback = ctx.routed.as_ref().and_then(|routed| routed.route.fallback.as_ref());
        let events = ctx.stream_asked || ctx.routed.as_ref().is_some_and(|routed| routed.accepts_events);
        let fallback = fallback.and_then(|by| by.answer(refusal.reason, events));
        if fallback.is_some() {
            ctx.fallback = Some(Fallback::Answer);
        }
        let reply = fallback.unwrap_or_else(|| Reply::refusal(&refusal, ctx.shape, ctx.request_id()));
        ctx.refusal = Some(refusal);
        self.answer(session, ctx, reply).await
    }

    /// Answers a request as the first of its kind was answered.
    pub(super) async fn repeat(
        &self,
        session: &mut ServerSession,
        ctx: &mut Context,
        answer: &KeptAnswer,
    ) -> Result<()> {
        match keep::again(answer) {
            Some(reply) => self.send(session, ctx, reply, Author::Upstream).await,
            None => {
                let detail = "The same call was served before; its answer can't be given again.";
                self.refuse(session, ctx, Refusal::new(Reason::Duplicate, detail, "idempotency")).await
            }
        }
    }

    /// Sends an answer of the gate's own.
    pub(super) async fn answer(
        &self,
        session: &mut ServerSession,
        ctx: &mut Context,
        reply: Reply,
    ) -> Result<()> {
        self.send(session, ctx, reply, Author::Gate).await
    }

    async fn send(
        &self,
        session: &mut ServerSession,
        ctx: &mut Context,
        reply: Reply,
        author: Author,
    ) -> Result<()> {
        // What a refused try has drawn stands. Where it can't be kept, it is answered all the same.
        let _ = self.persist().await;
        let unread = !session.is_body_done();
        if unread || self.stop.draining() {
            session.set_keepalive(None);
        }
        let mut head = reply.head();
        dress(&mut head, ctx, author);
        let bodiless = reply.body.is_empty() || reply.status == StatusCode::NO_CONTENT;
        let mut tasks = vec![HttpTask::Header(Box::new(ResponseHeader::from(head)), bodiless)];
        if !bodiless {
            tasks.push(HttpTask::Body(Some(reply.body), true));
        }
        let deadline = Instant::now() + ctx.timeouts().write;
        timeout_at(deadline, session.response_duplex_vec(tasks))
            .await
            .map_err(|_| Error::explain(ErrorType::WriteTimedout, "the client does not read its answer"))??;
        if unread {
            drain(session).await;
        }
        Ok(())
    }
}

/// Applies the response guards to a head, the gate's own or the upstream's.
pub(super) fn dress(head: &mut response::Parts, ctx: &Context, author: Author) {
    head.headers.insert(&X_REQUEST_ID, ctx.request_id.clone());
    if let (Some(reason), Author::Upstream) = (ctx.diverted, author) {
        head.headers.insert(&X_FALLBACK, HeaderValue::from_static(reason.code()));
    }
    if author == Author::Upstream && Form::of(&head.headers).is_some() {
        // An nginx further out would hold events back.
        head.headers.insert(&BUFFERING, HeaderValue::from_static("no"));
    }
    match &ctx.routed {
        Some(routed) => {
            routed.route.guards.dress(head, author, &routed.client, routed.origin.as_ref());
        }
        None => {
            if let Some(guards) = ctx.live.fallback() {
                guards.dress_unknown(head);
            }
        }
    }
}

/// None if the client still waits for `100 Continue`: it was never sent, so no body comes.
pub(super) async fn drain(session: &mut ServerSession) {
    let waits = session.get_header_bytes("expect").eq_ignore_ascii_case(b"100-continue");
    if waits && session.body_bytes_read() == 0 {
        return;
    }
    let declared = declared_length(&session.req_header().headers).filter(|length| *length <= DRAIN_DECLARED);
    let (most, deadline) = (declared.unwrap_or(DRAIN_BYTES), Instant::now() + DRAIN_TIME);
    let mut drained = 0;
    while drained < most {
        match timeout_at(deadline, session.read_request_body()).await {
            Ok(Ok(Some(bytes))) => drained += bytes.len() as u64,
            _ => return,
        }
    }
}
