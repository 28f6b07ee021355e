//! The access log: one line a request, as JSON or by a pattern.

use http::Version;

use super::Record;
use super::line::{JsonLine, lossy, shortened};
use super::pattern::Pattern;
use super::redact::{redact, redact_keys, redact_query, redact_url};

/// Bytes of a path or query that are logged.
pub(super) const TARGET_BYTES: usize = 2048;
/// Bytes of a header field that are logged.
pub(super) const FIELD_BYTES: usize = 512;

/// As Apache and nginx have it; the user is a digest.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
    \"$http_referer\" \"$http_user_agent\"";

/// How a line of the access log looks. As text: `json`, `combined`, or a pattern with a `$variable` in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^(json|combined)$|\\$"))]
pub enum AccessFormat {
    /// One JSON object; absent values are left out.
    Json,
    /// Text with values in it; `-` stands for absent ones.
    Pattern(Pattern),
}

impl TryFrom<String> for AccessFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pattern = match text.as_str() {
            "json" => return Ok(Self::Json),
            "combined" => COMBINED,
            pattern if pattern.contains('$') => pattern,
            _ => return Err("the format is json, combined, or a pattern with a $variable in it".to_owned()),
        };
        Pattern::parse(pattern).map(Self::Pattern).map_err(|error| error.to_string())
    }
}

impl AccessFormat {
    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json(record, out),
            Self::Pattern(pattern) => pattern.write(record, out),
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
        line.text("query", shortened(&redact_query(query, record.keys), TARGET_BYTES));
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
    if !record.noted.is_empty() {
        line.words("would_refuse", record.noted.iter().map(|refusal| refusal.reason.code()));
    }
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
        line.text("referer", shortened(&redact_url(&lossy(referer), record.keys), FIELD_BYTES));
    }
    line.end();
}

pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}
