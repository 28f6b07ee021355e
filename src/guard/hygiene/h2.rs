//! Judges an HTTP/2 head by what it would mean once rewritten to HTTP/1 (RFC 9113 §8).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, ORIGIN, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;

use super::values::{IMITATION, content_length, expect, host, imitates_framing};
use super::{Hygiene, check_method, malformed};
use crate::guard::Verdict;

/// Fields that belong to an HTTP/1 connection (RFC 9113 §8.2.2).
const CONNECTION_SPECIFIC: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields of which guard and upstream could each take another one.
const SINGLE: [HeaderName; 5] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, AUTHORIZATION, ORIGIN];

/// Refuses a head that breaks RFC 9113 §8, or that would be ambiguous to an HTTP/1 upstream.
///
/// `has_body`: the stream was not ended by its head.
pub fn check_h2_head(head: &Parts, has_body: bool, rules: &Hygiene) -> Verdict {
    let headers = &head.headers;
    check_method(head.method.as_str().as_bytes())?;
    if CONNECTION_SPECIFIC.iter().any(|name| headers.contains_key(name)) {
        return Err(malformed("There is a field that HTTP/2 does not have (RFC 9113 §8.2.2)."));
    }
    if headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(malformed("TE is something else than trailers (RFC 9113 §8.2.2)."));
    }
    if headers.keys().any(|name| imitates_framing(name.as_str().as_bytes())) {
        return Err(malformed(IMITATION));
    }
    if SINGLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
        return Err(malformed(
            "Host, Content-Length, Content-Type, Authorization or Origin is repeated (RFC 9110 §5.3).",
        ));
    }
    let announced = match headers.get(CONTENT_LENGTH) {
        Some(value) => content_length(value.as_bytes())?,
        None => false,
    };
    headers.get_all(EXPECT).iter().try_for_each(|value| expect(value.as_bytes()))?;
    check_authority(head)?;
    rules.check_body(head.method.as_str().as_bytes(), has_body || announced)
}

fn check_authority(head: &Parts) -> Verdict {
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let field = head.headers.get(HOST).map(|value| value.as_bytes());
    match (authority, field) {
        (Some(authority), Some(field)) if !authority.eq_ignore_ascii_case(field) => {
            Err(malformed(":authority and Host name different places (RFC 9113 §8.3.1)."))
        }
        (Some(place), _) | (None, Some(place)) => host(place),
        (None, None) => Err(malformed("There is neither :authority nor Host (RFC 9113 §8.3.1).")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::super::GetBody;
    use super::*;

    fn head(method: &str, uri: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, HeaderValue::from_static(value));
        }
        builder.body(()).expect("the test's own request").into_parts().0
    }

    #[track_caller]
    fn refused(fields: &[(&'static str, &'static str)], part: &str) {
        match check_h2_head(&head("POST", "https://h/", fields), true, &Hygiene::default()) {
            Ok(()) => panic!("passed: {fields:?}"),
            Err(refusal) => assert!(refusal.detail.contains(part), "{fields:?}: {}", refusal.detail),
        }
    }

    #[test]
    fn what_browsers_send_passes() {
        let fields = [
            ("te", "trailers"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("content-length", "4"),
            ("host", "H"),
        ];
        let rules = Hygiene::default();
        assert_eq!(check_h2_head(&head("POST", "https://h/a", &fields), true, &rules), Ok(()));
        assert_eq!(check_h2_head(&head("GET", "/", &[("host", "h:80")]), false, &rules), Ok(()));
    }

    #[test]
    fn nothing_becomes_framing_on_the_way_to_an_http1_upstream() {
        refused(&[("transfer-encoding", "chunked")], "does not have");
        refused(&[("connection", "close")], "does not have");
        refused(&[("keep-alive", "1")], "does not have");
        refused(&[("proxy-connection", "x")], "does not have");
        refused(&[("upgrade", "h2c")], "does not have");
        refused(&[("te", "gzip")], "trailers");
        refused(&[("content-length", "4"), ("content-length", "4")], "repeated");
        refused(&[("content-length", "+4")], "decimal");
        refused(&[("transfer_encoding", "chunked")], "imitates");
        refused(&[("expect", "x")], "Expect");
    }

    #[test]
    fn the_guards_and_the_upstream_see_one_host() {
        refused(&[("host", "evil")], "different places");
        refused(&[("host", "h"), ("host", "h")], "repeated");
        refused(&[("origin", "a"), ("origin", "b")], "repeated");
        let rules = Hygiene::default();
        for uri in ["/", "https://user@h/"] {
            assert!(check_h2_head(&head("GET", uri, &[]), false, &rules).is_err(), "{uri}");
        }
        let verdict = check_h2_head(&head("CONNECT", "h:443", &[]), true, &rules);
        assert!(verdict.is_err());
    }

    #[test]
    fn a_get_with_a_body_is_the_operators_choice() {
        let get = head("GET", "https://h/", &[]);
        assert_eq!(check_h2_head(&get, false, &Hygiene::default()), Ok(()));
        assert!(check_h2_head(&get, true, &Hygiene::default()).is_err());
        assert_eq!(check_h2_head(&get, true, &Hygiene { get_body: GetBody::Allow }), Ok(()));
    }
}
