//! Sends the gate's own answers: dressed by the response guards like any other, with the rest of the request drained.

use http::StatusCode;
use http::header::HeaderName;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::time::{Duration, Instant, timeout_at};

use super::Gate;
use super::context::Context;
use super::reply::Reply;
use crate::guard::Refusal;
use crate::guard::security_headers::Author;

/// Bytes of a refused body that are read, so that the client reads its answer instead of a reset.
const DRAIN_BYTES: usize = 64 * 1024;
/// How long that may take.
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(1);

pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Gate {
    /// Answers a refused request; nothing of it is inspected or forwarded any more.
    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        refusal: Refusal,
    ) -> Result<()> {
        let reply = Reply::refusal(&refusal, ctx.shape, ctx.request_id());
        ctx.refusal = Some(refusal);
        self.answer(session, ctx, reply).await
    }

    /// Sends an answer of the gate's own.
    pub(super) async fn answer(&self, session: &mut Session, ctx: &mut Context, reply: Reply) -> Result<()> {
        let unread = !session.is_body_done();
        if unread || self.stop.draining() {
            session.set_keepalive(None);
        }
        let mut head = reply.head()?;
        dress(&mut head, ctx, Author::Gate);
        let bodiless = reply.body.is_empty() || reply.status == StatusCode::NO_CONTENT;
        let mut tasks = vec![HttpTask::Header(Box::new(head), bodiless)];
        if !bodiless {
            tasks.push(HttpTask::Body(Some(reply.body), true));
        }
        let deadline = Instant::now() + ctx.live.timeouts.write;
        timeout_at(deadline, session.write_response_tasks(tasks))
            .await
            .map_err(|_| Error::explain(ErrorType::WriteTimedout, "the client does not read its answer"))??;
        if unread {
            drain(session).await;
        }
        Ok(())
    }
}

/// Applies the response guards to a head, the gate's own or the upstream's.
pub(super) fn dress(head: &mut ResponseHeader, ctx: &Context, author: Author) {
    let _ = head.insert_header(REQUEST_ID.clone(), ctx.request_id.clone());
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
async fn drain(session: &mut Session) {
    let waits = session.get_header_bytes("expect").eq_ignore_ascii_case(b"100-continue");
    if waits && session.body_bytes_read() == 0 {
        return;
    }
    let deadline = Instant::now() + DRAIN_TIME;
    let mut drained = 0;
    while drained < DRAIN_BYTES {
        match timeout_at(deadline, session.read_request_body()).await {
            Ok(Ok(Some(bytes))) => drained += bytes.len(),
            _ => return,
        }
    }
}
