//! Answers and records a request whose head could not be read: no route and no client are known of it.

use std::net::IpAddr;

use http::{Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Gate;
use super::api;
use super::path::{NormalPath, clean_query, split_target};
use super::reply::Reply;
use super::respond::{DRAIN_BYTES, DRAIN_TIME, dress};
use crate::guard::hygiene::Unreadable;
use crate::guard::security_headers::Author;
use crate::guard::{Refusal, Traffic};
use crate::observe::line::lossy;
use crate::observe::{Carriage, Record};
use crate::server::door::client_stream;

impl Gate {
    /// Refuses an HTTP/1 head that Pingora gave up, judged by its bytes, and ends the connection. Answers why.
    pub(super) async fn refuse_unreadable(&self, mut session: ServerSession) -> Option<Refusal> {
        let Some(io) = client_stream(&session) else {
            session.shutdown().await;
            return None;
        };
        let overlong = io.head_is_overlong();
        let raw = io.head_done(<[u8]>::to_vec);
        let mut ctx = self.context();
        ctx.in_flight = Some(self.stop.enter());
        ctx.request_id = self.ids.make();
        let head = Unreadable::judge(&raw, overlong, &ctx.live.hygiene);
        let (path, query) = split_target(head.target.unwrap_or_default());
        let reply = Reply::refusal(&head.refusal, api::error_shape_of(&lossy(path), false), ctx.request_id());
        let (mut answer, length) = (reply.head(), reply.body.len());
        dress(&mut answer, &ctx, Author::Gate);
        let sent = session.write_error_response(ResponseHeader::from(answer), reply.body);
        let sent = matches!(timeout(ctx.live.timeouts.write, sent).await, Ok(Ok(())));

        let path = NormalPath::parse(path, &ctx.live.paths).ok();
        let query = query.and_then(|query| clean_query(query).ok());
        let peer = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
        self.observer.record(&Record {
            at: ctx.began,
            method: &head.method.and_then(|method| Method::from_bytes(method).ok()).unwrap_or_else(unknown),
            path: path.as_ref().map_or("-", NormalPath::as_str),
            query: query.as_deref(),
            keys: ctx.live.client.key_names(),
            host: &head.field("host").map(lossy).unwrap_or_default(),
            version: Version::HTTP_11,
            status: session.response_written().map(|head| head.status),
            bytes_in: 0,
            bytes_out: if sent { length as u64 } else { 0 },
            duration: ctx.started.elapsed(),
            upstream_duration: None,
            client_address: peer.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            user: None,
            session: None,
            device: None,
            route: None,
            upstream: None,
            retries: 0,
            fallback: None,
            traffic: Traffic::Page,
            carriage: Carriage::Gate,
            refusal: Some(&head.refusal),
            noted: &[],
            seen: None,
            request_id: ctx.request_id(),
            user_agent: head.field("user-agent"),
            referer: head.field("referer"),
            model: None,
        });
        ctx.in_flight = None;
        let refusal = head.refusal;
        if let ServerSession::H1(session) = session {
            linger(session.into_inner()).await;
        }
        Some(refusal)
    }
}

/// Stands for a method that is none.
fn unknown() -> Method {
    // A hyphen is a token (RFC 9110 §5.6.2).
    Method::from_bytes(b"-").unwrap_or_default()
}

/// Ends a connection on which the client may still be sending: closed at once, it would see a reset for an answer.
async fn linger(mut io: Stream) {
    let drained = async {
        AsyncWriteExt::shutdown(&mut io).await?;
        let (mut chunk, mut left) = ([0; 4096], DRAIN_BYTES);
        while left > 0 {
            match io.read(&mut chunk).await? {
                0 => break,
                read => left = left.saturating_sub(read as u64),
            }
        }
        std::io::Result::Ok(())
    };
    // Whoever sends more than this, or has gone, loses the answer.
    let _ = timeout(DRAIN_TIME, drained).await;
}
