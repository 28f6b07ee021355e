//! Reads a request body once: whole, under a cap and one deadline; and tells what it is by looking at it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Version};
use pingora::protocols::http::ServerSession;
use tokio::time::{Instant, timeout_at};

use super::body_memory::Held;
use super::patience::Patience;
use super::timeouts::Timeouts;
use crate::guard::json::opener;
use crate::guard::{Reason, Refusal};

/// Why a body could not be read.
#[derive(Debug)]
pub enum Unread {
    /// The client is to be told.
    Refused(Refusal),
    /// The client is gone.
    Gone,
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Unread::Refused(refusal)
    }
}

/// What a body looks like from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// JSON to some parser, whatever its type says.
    Json,
    /// Nothing but blanks as far as was looked; JSON may follow.
    Hidden,
    /// A form, by its first field.
    Form,
    /// Something else, or nothing.
    Other,
}

/// Bytes that are looked at, at most.
const PEEKED: usize = 32 * 1024;

/// Pieces that are looked at, at most: a body of one-byte chunks is not worth the work.
const PEEKED_CHUNKS: usize = 256;

/// A body on its way in.
pub struct BodyReader {
    deadline: Instant,
    allowed: Duration,
    patience: Patience,
    first: Option<Bytes>,
}

impl BodyReader {
    /// `since`: when the head was complete. `min_rate`: bytes a second that a body has to keep up.
    pub fn new(since: std::time::Instant, timeouts: &Timeouts, min_rate: u64) -> Self {
        let allowed = timeouts.request_body;
        let patience = Patience::new(timeouts.body_idle, min_rate);
        Self { deadline: Instant::from_std(since) + allowed, allowed, patience, first: None }
    }

    /// Reads until the body can be told by its first visible byte.
    pub async fn peek(&mut self, session: &mut ServerSession) -> Result<Look, Unread> {
        if self.first.is_none() {
            self.invite(session).await?;
            let first = self.next(session).await?.unwrap_or_default();
            self.first = Some(match opener(&first) {
                None if !session.is_body_done() => self.past_blanks(session, first).await?,
                _ => first,
            });
        }
        Ok(match opener(self.first.as_deref().unwrap_or_default()) {
            Some(b'{' | b'[') => Look::Json,
            None if !session.is_body_done() => Look::Hidden,
            _ if self.first.as_deref().is_some_and(looks_like_form) => Look::Form,
            _ => Look::Other,
        })
    }

    /// Reads on behind blanks, until something visible comes or as much was looked at as is worth it.
    async fn past_blanks(&mut self, session: &mut ServerSession, first: Bytes) -> Result<Bytes, Unread> {
        let mut seen = BytesMut::from(first);
        for _ in 0..PEEKED_CHUNKS {
            let Some(more) = self.next(session).await? else { break };
            seen.extend_from_slice(&more);
            if opener(&more).is_some() || seen.len() >= PEEKED || session.is_body_done() {
                break;
            }
        }
        Ok(seen.freeze())
    }

    /// What was read to tell what it is.
    pub fn start(&self) -> &[u8] {
        self.first.as_deref().unwrap_or_default()
    }

    /// What was read to tell what it is, and how long the rest is waited for, which streams.
    pub fn into_first(self) -> (Bytes, Patience) {
        (self.first.unwrap_or_default(), self.patience)
    }

    /// Reads the rest. `cap` in bytes; `setting` names the key that sets it.
    pub async fn whole(
        mut self,
        session: &mut ServerSession,
        cap: u64,
        setting: &'static str,
        held: &mut Held,
    ) -> Result<Bytes, Unread> {
        self.peek(session).await?;
        let first = self.first.take().unwrap_or_default();
        let too_large = || {
            let detail = format!("The body is larger than {cap} bytes.");
            Unread::Refused(Refusal::new(Reason::BodyTooLarge, detail, setting))
        };
        if first.len() as u64 > cap {
            return Err(too_large());
        }
        let mut hold = |bytes: usize| match held.grow(bytes as u64) {
            true => Ok(()),
            false => Err(Unread::Refused(no_memory(held))),
        };
        hold(first.len())?;
        if session.is_body_done() {
            return Ok(first);
        }
        let declared = declared_length(&session.req_header().headers).unwrap_or(0).min(cap);
        // A promise of many bytes must not cost memory before they come.
        let room = usize::try_from(declared).unwrap_or(0).min(256 * 1024).max(first.len());
        let mut body = BytesMut::with_capacity(room);
        body.extend_from_slice(&first);
        while let Some(chunk) = self.next(session).await? {
            if (body.len() + chunk.len()) as u64 > cap {
                return Err(too_large());
            }
            hold(chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Pingora never sends `100 Continue` by itself.
    async fn invite(&self, session: &mut ServerSession) -> Result<(), Unread> {
        let request = session.req_header();
        let expects =
            request.headers.get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if expects && request.version >= Version::HTTP_11 && !session.is_body_done() {
            let invitation = timeout_at(self.deadline, session.write_continue_response()).await;
            return invitation.map_err(|_| Unread::Gone)?.map_err(|_| Unread::Gone);
        }
        Ok(())
    }

    async fn next(&mut self, session: &mut ServerSession) -> Result<Option<Bytes>, Unread> {
        let due = self.patience.wait(std::time::Instant::now()).into();
        match timeout_at(self.deadline.min(due), session.read_request_body()).await {
            Ok(Ok(chunk)) => {
                let bytes = chunk.as_ref().map_or(0, Bytes::len);
                self.patience.received(std::time::Instant::now(), bytes);
                Ok(chunk)
            }
            Ok(Err(error)) => Err(unread(&error)),
            Err(_) if due < self.deadline => Err(too_slow()),
            Err(_) => {
                let detail = format!("The body did not arrive within {:?}.", self.allowed);
                Err(Unread::Refused(Refusal::new(Reason::BodyTimeout, detail, "timeouts.request_body")))
            }
        }
    }
}

pub(super) fn too_slow() -> Unread {
    let detail = "The body stopped arriving, or arrived too slowly.";
    Unread::Refused(Refusal::new(Reason::BodyTimeout, detail, "timeouts.body_idle, caps.body.min_rate"))
}

pub(super) fn no_memory(held: &Held) -> Refusal {
    let detail =
        format!("The bodies of all requests together hold {} bytes, which is all they may.", held.max());
    Refusal::new(Reason::Overloaded, detail, "body_memory")
}

/// A broken chunk is the client's fault and worth telling; a broken connection can't be told.
pub(super) fn unread(error: &pingora::Error) -> Unread {
    use pingora::ErrorType::{ConnectionClosed, ReadError, ReadTimedout};
    match error.etype() {
        ConnectionClosed | ReadError | ReadTimedout => Unread::Gone,
        _ => Unread::Refused(Refusal::new(
            Reason::MalformedRequest,
            "The body's framing is broken (RFC 9112 §7).",
            "",
        )),
    }
}

/// `Content-Length`, if one was given.
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// What `Content-Type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// JSON of any kind.
    Json,
    /// A form without files.
    Form,
    /// A form with files.
    Multipart,
    /// There is no `Content-Type`; Rack, for one, then reads a form.
    Untyped,
    /// Plain text, which some apps read as JSON all the same.
    Text,
    /// JSON in lines.
    Lines,
    /// Something else.
    Other,
}

/// Names of JSON in lines (NDJSON, JSON Lines, the `stream+json` of Spring).
const LINES: [&str; 7] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/stream+json",
];

/// Reads `Content-Type`.
pub fn declared_type(headers: &HeaderMap) -> Declared {
    let Some(value) = headers.get(CONTENT_TYPE).map(|v| v.as_bytes().trim_ascii()) else {
        return Declared::Untyped;
    };
    // Some parsers stop at a comma or a space as well.
    let essence = value.split(|b| matches!(b, b';' | b',' | b' ' | b'\t')).next().unwrap_or_default();
    let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
    let ends = |suffix: &str| {
        essence.len() > suffix.len()
            && essence[essence.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
    };
    if LINES.iter().any(|lines| is(lines)) {
        Declared::Lines
    } else if is("application/json") || is("text/json") || ends("+json") {
        Declared::Json
    } else if is("application/x-www-form-urlencoded") {
        Declared::Form
    } else if essence.len() > 10 && essence[..10].eq_ignore_ascii_case(b"multipart/") {
        Declared::Multipart
    } else if is("text/plain") {
        Declared::Text
    } else {
        Declared::Other
    }
}

/// The `charset` of `Content-Type`, if it names one that is not UTF-8 (or ASCII, which is part of it).
pub fn foreign_charset(headers: &HeaderMap) -> bool {
    let parameters = headers.get(CONTENT_TYPE).filter(|value| value.as_bytes().contains(&b';'));
    let Some(value) = parameters.and_then(|value| value.to_str().ok()) else { return false };
    value.split(';').skip(1).filter_map(|p| p.split_once('=')).any(|(name, charset)| {
        let charset = charset.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("charset")
            && !["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|c| charset.eq_ignore_ascii_case(c))
    })
}

/// Whether a body begins with a field of a form: a name without what would be encoded in one, then `=`.
fn looks_like_form(start: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"*-._+%[]".contains(b);
    let name = start.iter().take_while(|b| plain(b)).count();
    name > 0 && start.get(name) == Some(&b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rack reads a form where no Content-Type is given; a file of that kind must not be held for one.
    #[test]
    fn forms_are_seen_by_their_first_field() {
        for start in [&b"a=1"[..], b"message=x", b"messages%5B0%5D[text]=", b"a.b+c=="] {
            assert!(looks_like_form(start), "{start:?}");
        }
        for start in [&b""[..], b"=x", b"message", b"a b=c", b"<a href=x>", b"--boundary", b"a&b=c"] {
            assert!(!looks_like_form(start), "{start:?}");
        }
    }

    fn typed(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(value))])
    }

    /// UTF-7 or UTF-16 text would reach the upstream's parser unread.
    #[test]
    fn charsets_and_types() {
        assert!(foreign_charset(&typed("application/json; charset=utf-16")));
        assert!(foreign_charset(&typed("text/plain; q=1; Charset=\"UTF-7\"")));
        assert!(!foreign_charset(&typed("application/json; charset=UTF-8")));
        assert_eq!(declared_type(&typed("Application/JSON;charset=utf-8")), Declared::Json);
        assert_eq!(declared_type(&typed("application/problem+json")), Declared::Json);
        assert_eq!(declared_type(&typed("multipart/form-data; boundary=x")), Declared::Multipart);
        for form in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded ;charset=utf-8"]
        {
            assert_eq!(declared_type(&typed(form)), Declared::Form);
        }
        assert_eq!(declared_type(&typed("application/x-www-form-urlencoded, text/plain")), Declared::Form);
        assert_eq!(declared_type(&typed("text/plain;charset=utf-8")), Declared::Text);
        assert_eq!(declared_type(&typed("text/csv")), Declared::Other);
        assert_eq!(declared_type(&typed("application/x-ndjson")), Declared::Lines);
        assert_eq!(declared_type(&HeaderMap::new()), Declared::Untyped);
    }
}
