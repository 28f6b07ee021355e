//! The exchange: forwards a request, and hands the answer to the relay. A request is read whole first, or else is an
//! upload that is handed on meanwhile.
//!
//! Every wait has a deadline of the gate's own, because Pingora's restart whenever a read is dropped. Once the final
//! head was sent, a failure of the upstream is an error: an orderly end would disguise a truncated answer.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode, Version, response};
use pingora::Error;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use super::client::Client;
use super::forward::{Framing, strip_hop_by_hop};
use super::keep::Keeper;
use super::pace::Pace;
use super::relay::Relay;
use super::stream::{Reader, Stream, Streams};
use super::timeouts::Timeouts;
use super::upload::Halted;
use super::watch::Watch;
use crate::guard::{Reason, Refusal, Verdict};
use crate::observe::StreamMetrics;
use crate::server::{Alarm, Stop};
use crate::upstream::retry::Retries;
use crate::upstream::{CallError, RequestBody, Upstream, Wait};

/// How an exchange ended.
#[derive(Debug)]
pub enum Ended {
    /// The whole answer was written.
    Served,
    /// No connection: the upstream saw nothing of the request, and nothing was sent to the client yet.
    Unsent(Refusal),
    /// Nothing was sent to the client yet; this is what it is to be told.
    Failed(Refusal),
    /// What still came of the request's body was refused, or its answer is one stream too many.
    Refused(Refusal),
    /// The client left, or would not read.
    ClientGone,
    /// The upstream broke off after the head was sent; the client's connection must break, too.
    Truncated(Box<Error>),
    /// The gate ended a stream. `whole`: the client was told why; else its connection must break.
    Stopped {
        /// Why.
        why: Refusal,
        /// Whether the stream ended in good order.
        whole: bool,
    },
}

impl From<Halted> for Ended {
    fn from(halted: Halted) -> Self {
        match halted {
            Halted::Gone => Ended::ClientGone,
            Halted::Refused(refusal) => Ended::Refused(refusal),
            Halted::Stalled => Ended::Failed(stalled()),
        }
    }
}

impl Ended {
    /// The word for it in metrics.
    fn word(&self) -> &'static str {
        match self {
            Ended::Served => "done",
            Ended::ClientGone => "client_gone",
            Ended::Truncated(_) => Reason::UpstreamFailed.code(),
            Ended::Unsent(why) | Ended::Failed(why) | Ended::Refused(why) | Ended::Stopped { why, .. } => {
                why.reason.code()
            }
        }
    }
}

/// What a request was sent under.
pub struct Terms<'a> {
    /// Times that are allowed.
    pub timeouts: &'a Timeouts,
    /// What is done in streams of events.
    pub streams: &'a Streams,
    /// Whether the client asked for a stream.
    pub stream_asked: bool,
    /// Who reads the answer.
    pub reader: Reader<'a>,
    /// The end of the server.
    pub stop: &'a Stop,
    /// The series of streams.
    pub metrics: &'a StreamMetrics,
}

/// What is sent where.
pub struct Call<'a> {
    /// Where it goes.
    pub upstream: &'a Arc<Upstream>,
    /// Who asks.
    pub client: &'a Client,
    /// Whether each server sees its own name in `Host`.
    pub own_host: bool,
    /// Whether it may be tried again.
    pub retries: &'a Retries,
    /// The request.
    pub request: Box<http::Request<RequestBody>>,
}

/// How a call went: what is known of it before it ends.
#[derive(Debug, Default)]
pub struct Progress {
    /// From the start of the call to the upstream's head.
    pub first_byte: Option<Duration>,
    /// Tries after the first.
    pub retries: u32,
    /// Keeps the answer, if it is to be kept.
    pub keeper: Option<Keeper>,
    /// Whether it failed at one server that is left alone now, while others are well.
    pub contained: bool,
}

/// Sends a request to its upstream and the answer to the client; `unasked_stream` decides about a stream that was not
/// asked for as one, `dress` applies the response guards to the head.
pub async fn carry(
    session: &mut ServerSession,
    (watch, alarm): (&mut Watch, &mut Alarm),
    call: Call<'_>,
    terms: &Terms<'_>,
    progress: &mut Progress,
    unasked_stream: impl FnOnce() -> Verdict,
    dress: impl FnOnce(&mut ServerSession, &mut response::Parts, Duration, Option<&mut Keeper>),
) -> Ended {
    let started = Instant::now();
    let Call { upstream, client, own_host, retries, request } = call;
    if terms.stream_asked {
        watch.strict(session);
    }
    let wait = Wait::default();
    // A call that is given up tells so when it is dropped.
    let called = {
        let call = pin!(retries.call(upstream, (client, own_host), request, (&mut progress.retries, &wait)));
        watch.during(session, call, (&wait, alarm), started, terms.timeouts.first_byte).await
    };
    progress.contained = wait.is_contained();
    let (mut head, answer) = match called {
        Err(halted) => return halted.into(),
        Ok(None) => return Ended::Failed(no_first_byte()),
        Ok(Some(Err(CallError::Connect(error)))) => return Ended::Unsent(no_connection(&error)),
        Ok(Some(Err(CallError::Broken(_)))) => return Ended::Failed(broken()),
        Ok(Some(Ok(answer))) => answer,
    };
    let first_byte = watch.since_sent(started);
    progress.first_byte = Some(first_byte);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ended::Failed(unasked_switch());
    }
    let stream = Stream::of(&head);
    if stream.is_some()
        && !terms.stream_asked
        && let Err(refusal) = unasked_stream()
    {
        return Ended::Refused(refusal);
    }
    let pace = match &stream {
        Some(_) => Pace::of_stream(terms.timeouts, terms.streams, started),
        None => Pace::of_answer(terms.timeouts),
    };
    let open = stream.as_ref().map(|_| terms.metrics.open());
    if stream.is_some() {
        watch.strict(session);
    }
    if watch.is_sending() {
        // The rest of the request may never be read.
        session.set_keepalive(None);
    }
    reframe(session, &mut head, answer.is_end());
    let keeper = &mut progress.keeper;
    dress(session, &mut head, first_byte, keeper.as_mut());
    let mut relay = Relay { session, watch, alarm, terms, pace, stream, keeper: keeper.as_mut() };
    let ended = relay.run(head, answer).await;
    if let Some(open) = open {
        open.ended(ended.word());
    }
    ended
}

/// About as many fields as the response guards and framing add.
const DRESSED: usize = 16;

/// Makes the head what this client's connection needs: framing by its protocol, no field of the upstream's connection.
fn reframe(session: &ServerSession, head: &mut response::Parts, empty: bool) {
    let headers = &mut head.headers;
    headers.reserve(DRESSED);
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    strip_hop_by_hop(headers, Framing::Rewritten);
    head.version = Version::HTTP_11;
    let request = session.req_header();
    let framed_by_status = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if chunked || head.status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    let has_body = !framed_by_status && request.method != Method::HEAD;
    if has_body && !headers.contains_key(CONTENT_LENGTH) && !session.is_http2() {
        if empty {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        } else if request.version == Version::HTTP_11 {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// A 101 that nobody asked for would turn the connection into a tunnel past all guards.
pub(super) fn unasked_switch() -> Refusal {
    Refusal::new(Reason::UpstreamFailed, "The upstream switched protocols unasked.", "")
}

pub(super) fn no_first_byte() -> Refusal {
    Refusal::new(
        Reason::UpstreamTimeout,
        "The upstream did not begin to answer in time.",
        "timeouts.first_byte",
    )
}

/// What the client is told; the cause itself stays here, since it may name addresses.
fn no_connection(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::TimedOut => no_connection_in_time(),
        _ => unreachable(),
    }
}

fn stalled() -> Refusal {
    Refusal::new(Reason::UpstreamTimeout, "The upstream did not take the upload in time.", "timeouts.write")
}

pub(super) fn broken() -> Refusal {
    Refusal::new(Reason::UpstreamFailed, "The upstream broke off or answered what is not HTTP.", "")
}

pub(super) fn no_connection_in_time() -> Refusal {
    let detail = "The upstream could not be reached in time.";
    Refusal::new(Reason::UpstreamTimeout, detail, "upstream_defaults.connect_timeout")
}

pub(super) fn unreachable() -> Refusal {
    Refusal::new(Reason::UpstreamUnreachable, "The upstream can't be reached.", "upstream (UPSTREAM_URL)")
}
