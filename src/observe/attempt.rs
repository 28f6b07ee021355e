//! A caller proved who it is: one JSON object a line, among the security events. Told when a token is seen for the first
//! time, not with each request that it comes with.

use crate::guard::Event;
use crate::guard::jwt::Identity;

use super::Record;
use super::line::{JsonLine, lossy, shortened};
use super::redact::{redact, redact_keys};

/// Bytes of a user agent that are written.
const AGENT_BYTES: usize = 200;
/// Bytes of any other field that are written.
const FIELD_BYTES: usize = 1024;

/// Writes the line. Of the token nothing is told but its name in the config; of the user, the digest.
pub(super) fn write(record: &Record<'_>, identity: &Identity, out: &mut Vec<u8>) {
    let mut line = JsonLine::begin(out, record.at);
    line.text("event", Event::AuthAttempt.name());
    line.word("result", "accepted");
    line.text("token", &identity.token);
    line.word("class", identity.class.name());
    line.address("client_address", record.client_address);
    for (key, subject) in [("user", record.user), ("session", record.session), ("device", record.device)] {
        if let Some(subject) = subject {
            line.subject(key, subject);
        }
    }
    line.maybe("route", record.route.map(|route| route.name()));
    for (key, value) in [("method", record.method.as_str()), ("host", record.host), ("path", record.path)] {
        line.text(key, shortened(&redact(value), FIELD_BYTES));
    }
    line.text("request_id", shortened(&redact_keys(record.request_id), AGENT_BYTES));
    if let Some(agent) = record.user_agent {
        line.text("user_agent", shortened(&redact(&lossy(agent)), AGENT_BYTES));
    }
    line.end();
}
