//! HTTP hygiene: a head that two parsers could read differently is refused, whatever ours would make of it.
//!
//! HTTP/1 heads are judged on their bytes as received, since a parser repairs what must be seen here (Pingora
//! drops a Content-Length beside Transfer-Encoding, takes bare line feeds, escapes a space in the target).
//! HTTP/2 has no framing to disguise; what would become ambiguous once rewritten to HTTP/1 is refused.

mod fields;
mod h1;
mod h2;
mod request_line;
mod unreadable;
mod values;

pub use h1::check_raw_head;
pub use h2::check_h2_head;
pub use unreadable::Unreadable;

use std::borrow::Cow;

use super::{Reason, Refusal, Verdict};

/// What hygiene leaves to the operator; the rest follows from the RFCs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hygiene {
    /// A body on GET or HEAD: it has no meaning (RFC 9110 §9.3.1), and some upstreams leave it on the
    /// connection, where it is read as the next request.
    pub get_body: GetBody,
}

/// What to do with a GET or HEAD that has a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GetBody {
    /// Refuse it.
    #[default]
    Reject,
    /// Forward it (Elasticsearch's search API wants it).
    Allow,
}

impl Hygiene {
    /// Method names are compared in any case: upstreams exist that do so too.
    fn check_body(&self, method: &[u8], has_body: bool) -> Verdict {
        let without = method.eq_ignore_ascii_case(b"GET") || method.eq_ignore_ascii_case(b"HEAD");
        if self.get_body == GetBody::Reject && has_body && without {
            let detail = "A GET or HEAD request has a body (RFC 9110 §9.3.1).";
            return Err(Refusal::new(Reason::MalformedRequest, detail, "hygiene.get_body"));
        }
        Ok(())
    }
}

/// CONNECT would make an open proxy of the gate; TRACE echoes credentials (RFC 9110 §9.3.6, §9.3.8).
fn check_method(method: &[u8]) -> Verdict {
    if method.eq_ignore_ascii_case(b"CONNECT") || method.eq_ignore_ascii_case(b"TRACE") {
        return Err(Refusal::new(Reason::MethodDenied, "CONNECT and TRACE are not served here.", ""));
    }
    Ok(())
}

/// No setting changes what the RFCs demand.
fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Reason::MalformedRequest, Cow::Borrowed(detail), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_written_and_a_typo_is_an_error() {
        let read = |text| serde_json::from_str::<Hygiene>(text);
        assert_eq!(read("{}").ok(), Some(Hygiene { get_body: GetBody::Reject }));
        assert_eq!(read(r#"{"get_body": "allow"}"#).ok(), Some(Hygiene { get_body: GetBody::Allow }));
        assert!(read(r#"{"get-body": "allow"}"#).is_err());
    }
}
