//! The exchange: forwards a request, and streams the answer back in one loop. A request is read whole first, or else is
//! an upload that is handed on in the same loop.
//!
//! Every wait has a deadline of this loop's own, because Pingora's restart whenever a read is dropped. Once the final
//! head was sent, a failure of the upstream is an error: an orderly end would disguise a truncated answer.

use std::io;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, response};
use pingora::http::ResponseHeader;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::{Error, ErrorType};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::forward::{Framing, strip_hop_by_hop};
use super::timeouts::Timeouts;
use super::upload::Halted;
use super::watch::Watch;
use crate::guard::{Reason, Refusal};
use crate::upstream::{Answer, CallError, RequestBody, Upstream};

/// How an exchange ended.
#[derive(Debug)]
pub enum Ended {
    /// The whole answer was written.
    Served,
    /// Nothing was sent to the client yet; this is what it is to be told.
    Failed(Refusal),
    /// What still came of the request's body was refused.
    Refused(Refusal),
    /// The client left, or would not read.
    ClientGone,
    /// The upstream broke off after the head was sent; the client's connection must break, too.
    Truncated(Box<Error>),
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

/// Sends `request` to `upstream` and its answer to the client. `first_byte` is set to when the upstream's head came, from
/// the start of the call; `dress` applies the response guards to the head.
pub async fn carry(
    session: &mut ServerSession,
    watch: &mut Watch,
    upstream: &Upstream,
    timeouts: &Timeouts,
    request: http::Request<RequestBody>,
    first_byte: &mut Option<Duration>,
    dress: impl FnOnce(&mut ServerSession, &mut response::Parts),
) -> Ended {
    let started = Instant::now();
    let call = upstream.pool().call(request);
    let (mut head, answer) = match watch.during(session, call, timeouts.first_byte).await {
        Err(halted) => return halted.into(),
        Ok(None) => return Ended::Failed(no_first_byte()),
        Ok(Some(Err(error))) => return Ended::Failed(refusal_of(&error)),
        Ok(Some(Ok(answer))) => answer,
    };
    *first_byte = Some(started.elapsed());
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ended::Failed(unasked_switch());
    }
    let stream = is_event_stream(&head.headers);
    let pace = Pace::new(timeouts, stream, started);
    if stream {
        watch.strict(session);
    }
    if watch.is_sending() {
        // The rest of the request may never be read.
        session.set_keepalive(None);
    }
    reframe(session, &mut head, answer.is_end());
    dress(session, &mut head);
    relay(session, watch, head.into(), answer, &pace).await
}

/// When to give up, by the kind of answer.
struct Pace {
    read: Duration,
    write: Duration,
    end: Option<Instant>,
}

impl Pace {
    fn new(timeouts: &Timeouts, stream: bool, started: Instant) -> Self {
        let (read, end) = match stream {
            true => (timeouts.stream_idle, Some(started + timeouts.stream_total)),
            false => (timeouts.between_bytes, None),
        };
        Self { read, write: timeouts.write, end }
    }

    /// Resolves when a wait for the upstream has lasted too long. Looks at the clock only once it is waited for.
    async fn silence(&self) {
        sleep_until(self.within(self.read)).await;
    }

    fn within(&self, wait: Duration) -> Instant {
        let next = Instant::now() + wait;
        self.end.map_or(next, |end| end.min(next))
    }
}

async fn relay(
    session: &mut ServerSession,
    watch: &mut Watch,
    head: ResponseHeader,
    mut answer: Answer<'_>,
    pace: &Pace,
) -> Ended {
    let bodiless = answer.is_end();
    let mut tasks = vec![HttpTask::Header(Box::new(head), bodiless)];
    let mut last = bodiless;
    loop {
        if !tasks.is_empty() {
            let batch = std::mem::take(&mut tasks);
            match timeout_at(pace.within(pace.write), session.response_duplex_vec(batch)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return Ended::ClientGone,
            }
        }
        if last {
            return Ended::Served;
        }
        let frame = tokio::select! {
            biased;
            frame = answer.frame() => frame,
            halted = watch.gone(session) => return halted.into(),
            () = pace.silence() => return truncated("the upstream fell silent"),
        };
        match frame {
            None => {
                last = true;
                tasks.push(HttpTask::Done);
            }
            Some(Err(error)) => return Ended::Truncated(because("the upstream broke off", error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    last = answer.is_end();
                    tasks.push(HttpTask::Body(Some(data), last));
                }
                Err(frame) => {
                    last = true;
                    tasks.push(HttpTask::Trailer(frame.into_trailers().ok().map(Box::new)));
                }
            },
        }
    }
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

/// Whether an answer comes in events: server-sent events or newline-delimited JSON.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let starts = |name: &[u8]| kind.len() >= name.len() && kind[..name.len()].eq_ignore_ascii_case(name);
    starts(b"text/event-stream") || starts(b"application/x-ndjson") || starts(b"application/jsonl")
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
fn refusal_of(error: &CallError) -> Refusal {
    match error {
        CallError::Broken(_) => broken(),
        CallError::Connect(error) if error.kind() == io::ErrorKind::TimedOut => no_connection_in_time(),
        CallError::Connect(_) => unreachable(),
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
    Refusal::new(Reason::UpstreamTimeout, detail, "upstream_connections.connect_timeout")
}

pub(super) fn unreachable() -> Refusal {
    Refusal::new(Reason::UpstreamUnreachable, "The upstream can't be reached.", "upstream (UPSTREAM_URL)")
}

fn truncated(why: &'static str) -> Ended {
    Ended::Truncated(Error::explain(ErrorType::ReadTimedout, why).into_up())
}

fn because(why: &'static str, error: hyper::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, why, error).into_up()
}
