//! A streamed body that sends one event, waits the pace, and sends the next.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame};
use serde_json::{Map, Value};
use tokio::time::{Sleep, sleep};

/// The body of every answer of the demo: whole with a length, or streamed without one.
pub(super) type Answer = Either<Full<Bytes>, Paced>;

/// Server-sent events with a pause between them. Dropped with the connection, so a client that goes away ends it.
pub(super) struct Paced {
    events: VecDeque<Bytes>,
    pace: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    /// Streams `events` with `pace` between two of them; a zero pace never waits.
    pub(super) fn new(events: impl Into<VecDeque<Bytes>>, pace: Duration) -> Self {
        Self { events: events.into(), pace, pause: None }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let event = self.events.pop_front();
        if !self.pace.is_zero() && !self.events.is_empty() {
            self.pause = Some(Box::pin(sleep(self.pace)));
        }
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_empty()
    }
}

/// One server-sent event. JSON has no raw line break, so one `data` line holds it (HTML Living Standard § 9.2.6).
pub(super) fn event(data: &Value) -> Bytes {
    format!("data: {data}\n\n").into()
}

/// One named event whose data repeats the name as `type`.
pub(super) fn typed(name: &str, fields: Value) -> Bytes {
    let mut data = Map::from_iter([("type".to_owned(), name.into())]);
    if let Value::Object(fields) = fields {
        data.extend(fields);
    }
    format!("event: {name}\ndata: {}\n\n", Value::Object(data)).into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;

    /// A reader must see each event when it is due, not all of them at the end.
    #[tokio::test]
    async fn waits_between_events_and_not_before_or_after() {
        let pace = Duration::from_millis(5);
        let mut body = Paced::new([Bytes::from_static(b"a"), Bytes::from_static(b"b")], pace);
        let start = Instant::now();
        assert!(body.frame().await.is_some());
        assert!(!body.is_end_stream());
        assert!(body.frame().await.is_some());
        assert!(start.elapsed() >= pace);
        assert!(body.is_end_stream() && body.pause.is_none());
        assert!(body.frame().await.is_none());
    }

    /// Measurements and tests need the stream without the show.
    #[tokio::test]
    async fn a_zero_pace_never_waits() {
        let mut body = Paced::new(vec![Bytes::from_static(b"a"); 3], Duration::ZERO);
        for _ in 0..3 {
            assert!(body.frame().await.is_some());
            assert!(body.pause.is_none());
        }
    }
}
