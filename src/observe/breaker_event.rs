//! What becomes of a circuit breaker, and of what is switched by hand: one JSON object a line, among the security events.

use std::net::IpAddr;

use tracing::warn;

use crate::state::clock::Timestamp;

use super::line::{JsonLine, shortened};
use super::redact::redact;

/// Bytes of a text that are written.
const FIELD_BYTES: usize = 1024;

/// A breaker moved or was switched; or maintenance was.
#[derive(Clone, Copy, Debug)]
pub struct BreakerEvent<'a> {
    /// When.
    pub at: Timestamp,
    /// The breaker's upstream; `None` for maintenance, which is the whole gate's.
    pub upstream: Option<&'a str>,
    /// Code of why it moved.
    pub cause: &'static str,
    /// State before.
    pub before: &'static str,
    /// State after.
    pub after: &'static str,
    /// Who decides about the breaker: before, and now.
    pub mode: Option<(&'static str, &'static str)>,
    /// What callers are told.
    pub detail: Option<&'a str>,
    /// Address of whoever switched it by hand.
    pub by: Option<IpAddr>,
}

impl BreakerEvent<'_> {
    /// Tells it to whoever watches the program's own log.
    pub(super) fn say(&self) {
        let what = self.upstream.unwrap_or("maintenance");
        warn!(what, cause = self.cause, before = self.before, after = self.after, "circuit breaker");
    }

    pub(super) fn write(&self, event: &'static str, out: &mut Vec<u8>) {
        let mut line = JsonLine::begin(out, self.at);
        line.text("event", event);
        line.text("cause", self.cause);
        line.maybe("upstream", self.upstream);
        line.text("before", self.before);
        line.text("after", self.after);
        if let Some((before, now)) = self.mode {
            line.text("mode", now);
            line.maybe("mode_before", Some(before).filter(|before| *before != now));
        }
        if let Some(detail) = self.detail {
            line.text("detail", shortened(&redact(detail), FIELD_BYTES));
        }
        if let Some(by) = self.by {
            line.address("client_address", by);
        }
        line.end();
    }
}
