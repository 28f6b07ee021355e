//! Streams of events: what is one, and what the gate may add to it (X1).
//!
//! The upstream's bytes pass as they are. Only where they stand between two events may the gate say something of its
//! own: that the connection lives, or, at the end, why there is no more.

mod asked;
mod borders;
mod last_event;

use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, response};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{Span, Toggle};
use crate::guard::{Fault, Refusal};

pub use asked::asks_for_stream;
pub use last_event::Reader;

use borders::{BOM, Borders, LineEnd};

/// What the gate does in streams, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// After how long a silence a comment is sent.
    pub heartbeat: Toggle<Span>,
}

/// What the gate does in streams, as run.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// After how long a silence a comment is sent.
    pub heartbeat: Option<Duration>,
}

impl Streams {
    /// Builds the settings.
    ///
    /// # Errors
    /// A heartbeat of zero, which would never pause.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let heartbeat = config.heartbeat.as_option().map(|span| span.0);
        if heartbeat.is_some_and(|pause| pause.is_zero()) {
            return Err(Fault::new("streams.heartbeat", "is 0; write a length of time such as 15s, or off"));
        }
        Ok(Self { heartbeat })
    }
}

/// How a stream keeps its events apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events: by blank lines (WHATWG HTML §9.2).
    Events,
    /// One JSON value a line.
    Lines,
}

impl Form {
    /// The form that an answer has by its `Content-Type`; `None` if it is no stream of events.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE)?.as_bytes();
        let is = |name: &[u8]| kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if is(b"text/event-stream") {
            Some(Form::Events)
        } else if is(b"application/x-ndjson") || is(b"application/jsonl") {
            Some(Form::Lines)
        } else {
            None
        }
    }
}

/// A stream on its way to the client.
#[derive(Debug)]
pub struct Stream {
    form: Form,
    /// `None` if nothing may be added: its bytes are counted, coded, or no events after all.
    borders: Option<Borders>,
    beaten: bool,
}

impl Stream {
    /// The stream that an answer begins, if it is one.
    pub fn of(head: &response::Parts) -> Option<Self> {
        let form = Form::of(&head.headers)?;
        let plain = head.status == StatusCode::OK
            && !head.headers.contains_key(CONTENT_LENGTH)
            && !head.headers.contains_key(CONTENT_ENCODING);
        Some(Self { form, borders: plain.then(|| Borders::new(form)), beaten: false })
    }

    /// What the client gets of a piece: all of it. Only a byte order mark that comes behind a heartbeat is left out,
    /// since it is none but at the very beginning, and would become part of the first field's name.
    pub fn pass(&mut self, mut piece: Bytes) -> Bytes {
        if let Some(borders) = &mut self.borders {
            if self.beaten && !borders.begun() && piece.starts_with(BOM) {
                piece.advance(BOM.len());
            }
            borders.pass(&piece);
        }
        piece
    }

    /// Whether the gate may say something here.
    pub fn at_border(&self) -> bool {
        self.border().is_some()
    }

    /// A comment that keeps the connection alive, if one may stand here. Clients ignore it.
    pub fn heartbeat(&mut self) -> Option<Bytes> {
        let comment = match (self.form, self.border()?) {
            (Form::Lines, _) => return None,
            (Form::Events, LineEnd::Lf) => ":\n\n",
            (Form::Events, LineEnd::CrLf) => ":\r\n\r\n",
            (Form::Events, LineEnd::Cr) => ":\r\r",
        };
        self.beaten = true;
        Some(Bytes::from_static(comment.as_bytes()))
    }

    /// An event that tells its reader why there are no more, if one may stand here. In the middle of an event there is
    /// none: the blank line that it needs would hand half an event out as a whole one.
    pub fn last_event(&self, why: &Refusal, reader: &Reader<'_>) -> Option<Bytes> {
        Some(last_event::last_event(self.form, self.border()?, why, reader).into())
    }

    fn border(&self) -> Option<LineEnd> {
        self.borders.as_ref()?.here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(fields: &[(&'static str, &'static str)]) -> Option<Stream> {
        let mut response = http::Response::new(());
        for (name, value) in fields {
            response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
        }
        Stream::of(&response.into_parts().0)
    }

    /// A comment in a coded body breaks the coding; beyond a length, the next answer; in JSON, the JSON.
    #[test]
    fn nothing_is_added_where_it_would_break_something() {
        let events = ("content-type", "text/event-stream; charset=utf-8");
        let beats = |fields: &[_]| stream(fields).expect("a stream").heartbeat().is_some();
        assert!(beats(&[events]));
        assert!(!beats(&[events, ("content-encoding", "gzip")]));
        assert!(!beats(&[events, ("content-length", "100")]));
        assert!(!beats(&[("content-type", "application/x-ndjson")]));
        assert!(stream(&[("content-type", "application/json")]).is_none());
        assert!(stream(&[]).is_none());
    }

    /// A mark behind a heartbeat would turn the first `data` into a field that no client knows.
    #[test]
    fn a_byte_order_mark_behind_a_heartbeat_is_left_out() {
        let (first, events) = ("\u{FEFF}data: a\n\n", [("content-type", "text/event-stream")]);
        let mut untouched = stream(&events).expect("a stream");
        assert_eq!(untouched.pass(first.into()), first);
        let mut beaten = stream(&events).expect("a stream");
        beaten.heartbeat().expect("a border");
        assert_eq!(beaten.pass(first.into()), "data: a\n\n");
        assert_eq!(beaten.pass(first.into()), first, "only the beginning has a mark");
    }

    /// Clients that split at `\r\n\r\n` only would take a comment and the event behind it for one.
    #[test]
    fn heartbeats_end_their_lines_as_the_stream_does() {
        let mut stream = stream(&[("content-type", "text/event-stream")]).expect("a stream");
        assert_eq!(stream.heartbeat().as_deref(), Some(&b":\n\n"[..]));
        stream.pass("data: a\r\n\r\n".into());
        assert_eq!(stream.heartbeat().as_deref(), Some(&b":\r\n\r\n"[..]));
        stream.pass("data: b\r\r".into());
        assert_eq!(stream.heartbeat().as_deref(), Some(&b":\r\r"[..]));
        stream.pass("data: c".into());
        assert_eq!(stream.heartbeat(), None);
    }
}
