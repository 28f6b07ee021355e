//! Caps on the size of a request: its target, its header fields and, by what it declares, its body (V1).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Fault, Head, Reason, Refusal, Verdict};
use crate::config::units::ByteSize;

/// Pingora reads no more fields than this.
pub(super) const READABLE_FIELDS: usize = 256;

/// Caps, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path and query together.
    pub uri: ByteSize,
    /// Header fields, each line counted.
    pub header_count: usize,
    /// All header fields together, as HTTP/1.1 writes them.
    pub header_bytes: ByteSize,
    /// One header field's value. Cookies of a chain of apps on one domain are what grows longest.
    pub header_value: ByteSize,
    /// Bodies.
    pub body: BodyConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            uri: ByteSize(8 * 1024),
            header_count: 100,
            header_bytes: ByteSize(32 * 1024),
            header_value: ByteSize(16 * 1024),
            body: BodyConfig::default(),
        }
    }
}

/// Caps on bodies by kind, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BodyConfig {
    /// JSON outside model APIs, and what else is inspected.
    pub json: ByteSize,
    /// Requests to model APIs, which carry pictures inline.
    pub model: ByteSize,
    /// All else: uploads and streams, which are not held in memory.
    pub other: ByteSize,
    /// Bytes a second below which a body uses up `timeouts.body_idle`.
    pub min_rate: ByteSize,
}

impl Default for BodyConfig {
    fn default() -> Self {
        Self {
            json: ByteSize(1 << 20),
            model: ByteSize(20 << 20),
            other: ByteSize(100 << 20),
            min_rate: ByteSize(500),
        }
    }
}

/// What a body is, as far as its cap goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// JSON outside model APIs, and what else is inspected.
    Json,
    /// A request to a model API.
    Model,
    /// Anything that streams through.
    Other,
}

impl BodyKind {
    /// The config key of its cap.
    pub const fn setting(self) -> &'static str {
        match self {
            BodyKind::Json => "caps.body.json",
            BodyKind::Model => "caps.body.model",
            BodyKind::Other => "caps.body.other",
        }
    }
}

/// The caps, as run.
#[derive(Clone, Debug)]
pub struct Caps {
    uri: usize,
    fields: usize,
    head: usize,
    value: usize,
    json: u64,
    model: u64,
    other: u64,
    min_rate: u64,
}

impl Caps {
    /// Builds the guard.
    ///
    /// # Errors
    /// A cap of zero, and more fields than can be read.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let body = &config.body;
        let bytes = |key: &'static str, size: ByteSize| match size.0 {
            0 => Err(Fault::new(key, "must be more than 0")),
            bytes => Ok(bytes),
        };
        // On a machine of 32 bits, more than it can address is no cap.
        let length = |key, size| bytes(key, size).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if !(1..=READABLE_FIELDS).contains(&config.header_count) {
            return Err(Fault::new("caps.header_count", format!("must be from 1 to {READABLE_FIELDS}")));
        }
        Ok(Self {
            uri: length("caps.uri", config.uri)?,
            fields: config.header_count,
            head: length("caps.header_bytes", config.header_bytes)?,
            value: length("caps.header_value", config.header_value)?,
            json: bytes(BodyKind::Json.setting(), body.json)?,
            model: bytes(BodyKind::Model.setting(), body.model)?,
            other: bytes(BodyKind::Other.setting(), body.other)?,
            min_rate: bytes("caps.body.min_rate", body.min_rate)?,
        })
    }

    /// Refuses a head with too long a target, too many fields, or too many bytes of them.
    pub fn check(&self, head: &Head<'_>) -> Verdict {
        let uri = head.path.len() + head.query.map_or(0, |query| query.len() + 1);
        if uri > self.uri {
            let detail = format!("The path and query are longer than {} bytes.", self.uri);
            return Err(Refusal::new(Reason::UriTooLong, detail, "caps.uri"));
        }
        if head.headers.len() > self.fields {
            return too_large(
                format!("There are more than {} header fields.", self.fields),
                "caps.header_count",
            );
        }
        let mut total = 0;
        for (name, value) in head.headers {
            // ": " and the line's end.
            total += name.as_str().len() + value.len() + 4;
            if value.len() > self.value {
                let detail = format!(
                    "The value of header field `{}` is longer than {} bytes.",
                    shortened(name),
                    self.value
                );
                return too_large(detail, "caps.header_value");
            }
        }
        if total > self.head {
            let detail = format!("The header fields are longer than {} bytes together.", self.head);
            return too_large(detail, "caps.header_bytes");
        }
        Ok(())
    }

    /// Most bytes that a body of this kind may have.
    pub const fn body(&self, kind: BodyKind) -> u64 {
        match kind {
            BodyKind::Json => self.json,
            BodyKind::Model => self.model,
            BodyKind::Other => self.other,
        }
    }

    /// Bytes a second that a body has to keep up.
    pub const fn min_rate(&self) -> u64 {
        self.min_rate
    }

    /// Refuses a body by its length in bytes: the one declared, before it is read, or the one counted so far.
    pub fn check_length(&self, length: u64, kind: BodyKind) -> Verdict {
        let cap = self.body(kind);
        if length <= cap {
            return Ok(());
        }
        let detail = format!("The body is larger than {cap} bytes.");
        Err(Refusal::new(Reason::BodyTooLarge, detail, kind.setting()))
    }
}

fn too_large(detail: String, setting: &'static str) -> Verdict {
    Err(Refusal::new(Reason::HeadersTooLarge, detail, setting))
}

/// A field's name for the answer: field names may be as long as a client likes.
fn shortened(name: &http::HeaderName) -> &str {
    name.as_str().get(..64).unwrap_or(name.as_str())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::testing::Request;
    use super::*;

    fn caps() -> Caps {
        Caps::build(&Config::default()).expect("the defaults build")
    }

    fn refused(request: &Request) -> Option<(Reason, String)> {
        caps().check(&request.head()).err().map(|r| (r.reason, r.setting.into_owned()))
    }

    /// A long link still has to work, one byte more must not reach an upstream with a smaller buffer.
    #[test]
    fn targets_up_to_the_cap() {
        let mut request = Request::new(Method::GET);
        request.path = format!("/{}", "a".repeat(4095));
        request.query = Some("b".repeat(4095));
        assert_eq!(refused(&request), None);
        request.query = Some("b".repeat(4096));
        assert_eq!(refused(&request), Some((Reason::UriTooLong, "caps.uri".into())));
    }

    /// Floods of fields cost the upstream memory for each.
    #[test]
    fn fields_up_to_the_cap() {
        let many = |n| (0..n).fold(Request::new(Method::GET), |request, _| request.with("x-a", "1"));
        assert_eq!(refused(&many(100)), None);
        assert_eq!(refused(&many(101)), Some((Reason::HeadersTooLarge, "caps.header_count".into())));
        let one = |n: usize| Request::new(Method::GET).with("cookie", &"c".repeat(n));
        assert_eq!(refused(&one(16 * 1024)), None);
        assert_eq!(refused(&one(16 * 1024 + 1)), Some((Reason::HeadersTooLarge, "caps.header_value".into())));
        // Each field's name, colon, space and line end count: 10 and 7 bytes.
        let both = |n: usize| one(16 * 1024 - 10).with("x-b", &"b".repeat(n));
        assert_eq!(refused(&both(16 * 1024 - 7)), None);
        let beyond = both(16 * 1024 - 6);
        assert_eq!(refused(&beyond), Some((Reason::HeadersTooLarge, "caps.header_bytes".into())));
    }

    /// A picture for a model fits; the same bytes as chat JSON don't; nothing is read to find out.
    #[test]
    fn bodies_by_kind() {
        let caps = caps();
        for (kind, cap, setting) in [
            (BodyKind::Json, 1 << 20, "caps.body.json"),
            (BodyKind::Model, 20 << 20, "caps.body.model"),
            (BodyKind::Other, 100 << 20, "caps.body.other"),
        ] {
            assert_eq!(caps.check_length(cap, kind), Ok(()));
            let refusal = caps.check_length(cap + 1, kind).expect_err("one byte too many");
            assert_eq!((refusal.reason, &*refusal.setting), (Reason::BodyTooLarge, setting));
        }
        assert!(caps.check_length(u64::MAX, BodyKind::Other).is_err());
    }

    /// A cap of nothing would refuse every request.
    #[test]
    fn bad_caps_are_refused_at_start() {
        let key = |config: Config| Caps::build(&config).expect_err("refused").key.into_owned();
        assert_eq!(key(Config { uri: ByteSize(0), ..Config::default() }), "caps.uri");
        assert_eq!(key(Config { header_count: 0, ..Config::default() }), "caps.header_count");
        assert_eq!(key(Config { header_count: 257, ..Config::default() }), "caps.header_count");
        let body = BodyConfig { json: ByteSize(0), ..BodyConfig::default() };
        assert_eq!(key(Config { body, ..Config::default() }), "caps.body.json");
    }

    /// A typing error must not leave a cap at its default.
    #[test]
    fn unknown_keys_are_errors() {
        assert!(serde_json::from_str::<Config>(r#"{"uri": "100", "body": {"json": "5"}}"#).is_ok());
        assert!(serde_json::from_str::<Config>(r#"{"url": 100}"#).is_err());
    }
}
