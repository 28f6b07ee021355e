//! The access log: one line a request, as JSON or in the combined format.

use std::io::Write;

use http::Version;

use super::line::{JsonLine, lossy, push_address, push_number, push_quoted, shortened};
use super::redact::{redact, redact_keys, redact_query, redact_url};
use super::{Record, stamp};

/// Bytes of a path or query that are logged.
const TARGET_BYTES: usize = 2048;
/// Bytes of a header field that are logged.
const FIELD_BYTES: usize = 512;

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// One JSON object; absent values are left out.
    Json,
    /// As Apache and nginx: address, user, time, request line, status, bytes, referer, user agent.
    Combined,
}

impl AccessFormat {
    pub(super) fn write(self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json(record, out),
            Self::Combined => combined(record, out),
        }
    }
}

fn json(record: &Record<'_>, out: &mut Vec<u8>) {
    let mut line = JsonLine::begin(out, record.at);
    line.address("client_address", record.client_address);
    line.text("method", shortened(&redact(record.method.as_str()), FIELD_BYTES));
    line.text("host", shortened(&redact(record.host), FIELD_BYTES));
    line.text("path", shortened(&redact(record.path), TARGET_BYTES));
    if let Some(query) = record.query {
        line.text("query", shortened(&redact_query(query), TARGET_BYTES));
    }
    line.word("version", version(record.version));
    if let Some(status) = record.status {
        line.number("status", status.as_u16().into());
    }
    line.number("bytes_in", record.bytes_in);
    line.number("bytes_out", record.bytes_out);
    line.millis("duration_ms", record.duration);
    if let Some(upstream) = record.upstream {
        line.text("upstream", upstream.name());
    }
    if let Some(took) = record.upstream_duration {
        line.millis("upstream_ms", took);
    }
    line.maybe("route", record.route.map(|route| route.name()));
    line.word("traffic", record.traffic_name());
    line.word("carriage", record.carriage.name());
    line.maybe("reason", record.refusal.map(|refusal| refusal.reason.code()));
    for (key, subject) in [("user", record.user), ("session", record.session), ("device", record.device)] {
        if let Some(subject) = subject {
            line.subject(key, subject);
        }
    }
    if let Some(model) = record.model {
        line.text("model", shortened(&redact(model), FIELD_BYTES));
    }
    line.text("request_id", shortened(&redact_keys(record.request_id), FIELD_BYTES));
    if let Some(agent) = record.user_agent {
        line.text("user_agent", shortened(&redact(&lossy(agent)), FIELD_BYTES));
    }
    if let Some(referer) = record.referer {
        line.text("referer", shortened(&redact_url(&lossy(referer)), FIELD_BYTES));
    }
    line.end();
}

fn combined(record: &Record<'_>, out: &mut Vec<u8>) {
    push_address(out, record.client_address);
    out.extend_from_slice(b" - ");
    match record.user {
        // Writing to a vector can't fail.
        Some(user) => drop(write!(out, "{user}")),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" [");
    stamp::push_clf(out, record.at);
    out.extend_from_slice(b"] \"");
    push_quoted(out, shortened(&redact(record.method.as_str()), FIELD_BYTES));
    out.push(b' ');
    push_quoted(out, shortened(&redact(record.path), TARGET_BYTES));
    if let Some(query) = record.query {
        out.push(b'?');
        push_quoted(out, shortened(&redact_query(query), TARGET_BYTES));
    }
    out.push(b' ');
    out.extend_from_slice(version(record.version).as_bytes());
    out.extend_from_slice(b"\" ");
    push_number(out, record.status.map_or(0, |status| status.as_u16().into()));
    out.push(b' ');
    push_number(out, record.bytes_out);
    out.extend_from_slice(b" \"");
    match record.referer {
        Some(referer) => push_quoted(out, shortened(&redact_url(&lossy(referer)), FIELD_BYTES)),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" \"");
    match record.user_agent {
        Some(agent) => push_quoted(out, shortened(&redact(&lossy(agent)), FIELD_BYTES)),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\"\n");
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}
