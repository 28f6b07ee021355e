//! An operator's own format of the access log, in nginx's manner: text with variables in it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::proxy::client::SubjectId;

use super::access::{FIELD_BYTES, TARGET_BYTES, version};
use super::line::{lossy, push_address, push_number, push_quoted, shortened};
use super::redact::{redact, redact_keys, redact_query, redact_url};
use super::{Record, stamp};

/// A pattern, parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Arc<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Value(Variable),
}

macro_rules! variables {
    ($($variant:ident = $name:literal;)*) => {
        /// What a pattern can show of a request: nginx's names where nginx has one, else those of the JSON lines.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Variable { $(
            #[doc = concat!("`$", $name, "`")]
            $variant,
        )* }

        impl Variable {
            /// Every variable.
            pub const ALL: &'static [Variable] = &[$(Variable::$variant,)*];

            /// The name without its `$`.
            pub const fn name(self) -> &'static str {
                match self { $(Variable::$variant => $name,)* }
            }
        }
    };
}

variables! {
    RemoteAddr = "remote_addr";
    RemoteUser = "remote_user";
    TimeLocal = "time_local";
    TimeIso8601 = "time_iso8601";
    Msec = "msec";
    Request = "request";
    RequestMethod = "request_method";
    RequestUri = "request_uri";
    Uri = "uri";
    Args = "args";
    Host = "host";
    ServerProtocol = "server_protocol";
    Status = "status";
    BodyBytesSent = "body_bytes_sent";
    BytesIn = "bytes_in";
    RequestTime = "request_time";
    UpstreamResponseTime = "upstream_response_time";
    Upstream = "upstream";
    RequestId = "request_id";
    HttpReferer = "http_referer";
    HttpUserAgent = "http_user_agent";
    Route = "route";
    Traffic = "traffic";
    Carriage = "carriage";
    Reason = "reason";
    WouldRefuse = "would_refuse";
    Session = "session";
    Device = "device";
}

/// Why a pattern can't be used.
#[derive(Debug, PartialEq, Eq)]
pub enum PatternError {
    /// No variable has this name.
    Unknown(Box<str>),
    /// A line break, which would make two lines of one.
    LineBreak,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "there is no variable ${name}; known are")?;
                Variable::ALL.iter().try_for_each(|known| write!(f, " ${}", known.name()))
            }
            Self::LineBreak => f.write_str("a line of the log has no line break in it"),
        }
    }
}

impl Pattern {
    /// Parses text with `$name` in it. A name reaches as far as lower-case letters, digits and `_` do.
    ///
    /// # Errors
    /// A name that is no variable's, and a line break.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains(['\n', '\r']) {
            return Err(PatternError::LineBreak);
        }
        let mut parts = text.split('$');
        let plain = |text: &str| Some(Piece::Text(text.into())).filter(|_| !text.is_empty());
        let mut pieces: Vec<Piece> = parts.next().and_then(plain).into_iter().collect();
        for part in parts {
            let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let (name, rest) = part.split_at(part.find(|c| !in_name(c)).unwrap_or(part.len()));
            let variable = Variable::ALL.iter().find(|variable| variable.name() == name);
            pieces.push(Piece::Value(*variable.ok_or_else(|| PatternError::Unknown(name.into()))?));
            pieces.extend(plain(rest));
        }
        Ok(Self(pieces.into()))
    }

    /// Appends the line of a request.
    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for piece in &*self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(variable) => variable.write(record, out),
            }
        }
        out.push(b'\n');
    }
}

impl Variable {
    /// Appends the value, or `-` if there is none.
    fn write(self, record: &Record<'_>, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: Option<&str>| match text {
            Some(text) if !text.is_empty() => push_quoted(out, text),
            _ => out.push(b'-'),
        };
        let field = |out: &mut Vec<u8>, value: Option<&str>| {
            text(out, value.map(redact).as_deref().map(|value| shortened(value, FIELD_BYTES)));
        };
        match self {
            Self::RemoteAddr => push_address(out, record.client_address),
            Self::RemoteUser => subject(out, record.user),
            Self::Session => subject(out, record.session),
            Self::Device => subject(out, record.device),
            Self::TimeLocal => stamp::push_clf(out, record.at),
            Self::TimeIso8601 => stamp::push_rfc3339(out, record.at),
            Self::Msec => seconds(out, Duration::from_micros(record.at.as_micros())),
            Self::Request => {
                Self::RequestMethod.write(record, out);
                out.push(b' ');
                Self::RequestUri.write(record, out);
                out.push(b' ');
                Self::ServerProtocol.write(record, out);
            }
            Self::RequestMethod => field(out, Some(record.method.as_str())),
            Self::RequestUri => {
                Self::Uri.write(record, out);
                if record.query.is_some() {
                    out.push(b'?');
                    Self::Args.write(record, out);
                }
            }
            Self::Uri => text(out, Some(shortened(&redact(record.path), TARGET_BYTES))),
            Self::Args => {
                let query = record.query.map(|query| redact_query(query, record.keys));
                text(out, query.as_deref().map(|query| shortened(query, TARGET_BYTES)));
            }
            Self::Host => field(out, Some(record.host)),
            Self::ServerProtocol => out.extend_from_slice(version(record.version).as_bytes()),
            Self::Status => push_number(out, record.status.map_or(0, |status| status.as_u16().into())),
            Self::BodyBytesSent => push_number(out, record.bytes_out),
            Self::BytesIn => push_number(out, record.bytes_in),
            Self::RequestTime => seconds(out, record.duration),
            Self::UpstreamResponseTime => match record.upstream_duration {
                Some(took) => seconds(out, took),
                None => out.push(b'-'),
            },
            Self::Upstream => text(out, record.upstream.map(|upstream| upstream.name())),
            Self::RequestId => text(out, Some(shortened(&redact_keys(record.request_id), FIELD_BYTES))),
            Self::HttpReferer => {
                let referer = record.referer.map(lossy);
                let referer = referer.as_deref().map(|referer| redact_url(referer, record.keys));
                text(out, referer.as_deref().map(|referer| shortened(referer, FIELD_BYTES)));
            }
            Self::HttpUserAgent => field(out, record.user_agent.map(lossy).as_deref()),
            Self::Route => text(out, record.route.map(|route| route.name())),
            Self::Traffic => text(out, Some(record.traffic_name())),
            Self::Carriage => text(out, Some(record.carriage.name())),
            Self::Reason => text(out, record.refusal.map(|refusal| refusal.reason.code())),
            Self::WouldRefuse => {
                let codes = record.noted.iter().map(|refusal| refusal.reason.code()).collect::<Vec<_>>();
                text(out, Some(&codes.join(",")));
            }
        }
    }
}

fn subject(out: &mut Vec<u8>, subject: Option<SubjectId>) {
    match subject {
        Some(subject) => out.extend_from_slice(&subject.shown()),
        None => out.push(b'-'),
    }
}

/// Seconds with three decimals, as nginx has them.
fn seconds(out: &mut Vec<u8>, took: Duration) {
    push_number(out, took.as_secs());
    let millis = took.subsec_millis();
    let digit = |value: u32| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A misspelt variable would leave a hole in every line until somebody looks for what it should have told.
    #[test]
    fn an_unknown_variable_is_named() {
        let unknown = |name: &str| Err(PatternError::Unknown(name.into()));
        assert_eq!(Pattern::parse("$remote_adr x"), unknown("remote_adr"));
        assert_eq!(Pattern::parse("costs 5$"), unknown(""));
        assert_eq!(Pattern::parse("$Status"), unknown(""));
        assert_eq!(Pattern::parse("$status\n$uri"), Err(PatternError::LineBreak));
        let told = unknown("x").map(|_: Pattern| ()).map_err(|error| error.to_string());
        assert!(told.is_err_and(|told| told.contains("$x;") && told.contains(" $time_local")));
    }

    /// Text next to a variable must not be taken for its name, nor lost.
    #[test]
    fn text_and_variables_stand_as_written() {
        let pieces = Pattern::parse("a$status-b$uri$args\"").map(|pattern| pattern.0.to_vec());
        let text = |text: &str| Piece::Text(text.into());
        let value = Piece::Value;
        let expected = [
            text("a"),
            value(Variable::Status),
            text("-b"),
            value(Variable::Uri),
            value(Variable::Args),
            text("\""),
        ];
        assert_eq!(pieces, Ok(expected.to_vec()));
    }
}
