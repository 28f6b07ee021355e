//! Security events: one JSON object a line, for whoever watches the gate.

use std::net::IpAddr;

use crate::guard::{Event, Reason};
use crate::proxy::client::SubjectId;
use crate::state::clock::Timestamp;

use super::Record;
use super::line::{JsonLine, lossy, shortened};
use super::redact::{redact, redact_keys};

/// Bytes of a user agent that are written.
const AGENT_BYTES: usize = 200;
/// Bytes of any other field that are written.
const FIELD_BYTES: usize = 1024;

/// A refusal worth telling. Fields that a refusal at the door does not have are `None`.
#[derive(Clone, Copy, Debug)]
pub struct SecurityEvent<'a> {
    /// When.
    pub at: Timestamp,
    /// Why; also says which event it is.
    pub reason: Reason,
    /// One sentence.
    pub detail: &'a str,
    /// What became of it, where the request was served all the same.
    pub action: Option<&'static str>,
    /// The client's address.
    pub client_address: IpAddr,
    /// Digest of the user.
    pub user: Option<SubjectId>,
    /// Digest of the session.
    pub session: Option<SubjectId>,
    /// Digest of the device.
    pub device: Option<SubjectId>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// As received.
    pub user_agent: Option<&'a [u8]>,
    /// The request's id.
    pub request_id: Option<&'a str>,
    /// The request's method.
    pub method: Option<&'a str>,
    /// Normalised path without query.
    pub path: Option<&'a str>,
    /// The host asked for.
    pub host: Option<&'a str>,
}

/// Settings were read again.
#[derive(Clone, Copy, Debug)]
pub struct ReloadEvent<'a> {
    /// When.
    pub at: Timestamp,
    /// Who asked for it with the admin token; `None`: whoever sent the process a signal.
    pub client_address: Option<IpAddr>,
    /// Why the old ones stay in force, if they do.
    pub refused: Option<&'a str>,
}

impl ReloadEvent<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut line = JsonLine::begin(out, self.at);
        line.text("event", Event::ConfigReload.name());
        line.text("result", if self.refused.is_none() { "applied" } else { "refused" });
        line.text("asked_by", if self.client_address.is_none() { "signal" } else { "admin" });
        if let Some(address) = self.client_address {
            line.address("client_address", address);
        }
        if let Some(why) = self.refused {
            line.text("detail", shortened(&redact(why), FIELD_BYTES));
        }
        line.end();
    }
}

impl<'a> SecurityEvent<'a> {
    /// An event of which no request is known.
    pub const fn at_the_door(at: Timestamp, reason: Reason, detail: &'a str, client_address: IpAddr) -> Self {
        Self {
            at,
            reason,
            detail,
            action: None,
            client_address,
            user: None,
            session: None,
            device: None,
            route: None,
            user_agent: None,
            request_id: None,
            method: None,
            path: None,
            host: None,
        }
    }

    /// The event of a refused request; `None` if its reason raises none.
    pub(super) fn of(record: &Record<'a>) -> Option<Self> {
        // A ban was told when it was placed: to tell of each try would let the banned write the log full.
        let refusal = record.refusal.filter(|refusal| refusal.reason != Reason::Banned)?;
        refusal.reason.event()?;
        Some(Self::about(record, refusal.reason, &refusal.detail))
    }

    /// An event of a recorded request.
    pub(super) fn about(record: &Record<'a>, reason: Reason, detail: &'a str) -> Self {
        Self {
            at: record.at,
            reason,
            detail,
            action: None,
            client_address: record.client_address,
            user: record.user,
            session: record.session,
            device: record.device,
            route: record.route.map(|route| route.name()),
            user_agent: record.user_agent,
            request_id: Some(record.request_id),
            method: Some(record.method.as_str()),
            path: Some(record.path),
            host: Some(record.host),
        }
    }

    pub(super) fn write(&self, event: &'static str, out: &mut Vec<u8>) {
        let mut line = JsonLine::begin(out, self.at);
        line.text("event", event);
        line.text("reason", self.reason.code());
        line.text("detail", shortened(&redact(self.detail), FIELD_BYTES));
        line.maybe("action", self.action);
        line.address("client_address", self.client_address);
        for (key, subject) in [("user", self.user), ("session", self.session), ("device", self.device)] {
            if let Some(subject) = subject {
                line.subject(key, subject);
            }
        }
        line.maybe("route", self.route);
        for (key, value) in [("method", self.method), ("host", self.host), ("path", self.path)] {
            if let Some(value) = value {
                line.text(key, shortened(&redact(value), FIELD_BYTES));
            }
        }
        if let Some(id) = self.request_id {
            line.text("request_id", shortened(&redact_keys(id), AGENT_BYTES));
        }
        if let Some(agent) = self.user_agent {
            line.text("user_agent", shortened(&redact(&lossy(agent)), AGENT_BYTES));
        }
        line.end();
    }
}
