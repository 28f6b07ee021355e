//! Judges an HTTP/1 head on its bytes as received.

use memchr::memchr;

use super::fields::Fields;
use super::request_line::RequestLine;
use super::{Hygiene, malformed};
use crate::guard::{Refusal, Verdict};

/// Refuses a head that breaks RFC 9112, or that another parser could frame or route in another way; answers its length.
///
/// `raw` starts with the first byte after the previous message and reaches to the end of the head at least; what
/// follows the blank line is not looked at. No allocation.
pub fn check_raw_head(raw: &[u8], rules: &Hygiene) -> Result<usize, Refusal> {
    match read::<false>(raw, rules) {
        Ok(length) if is_plain(raw.get(..length).unwrap_or(raw)) => Ok(length),
        // Something is wrong: once more, slowly, to say what.
        _ => read::<true>(raw, rules),
    }
}

/// Reads a head line by line; looks into the values of all fields only if `STRICT`.
fn read<const STRICT: bool>(raw: &[u8], rules: &Hygiene) -> Result<usize, Refusal> {
    // RFC 9112 §2.2: one empty line before the request line is tolerated, for clients that end a POST with
    // it.
    let mut lines = Lines { rest: raw.strip_prefix(b"\r\n").unwrap_or(raw) };
    let line = lines.next()?;
    if line.is_empty() {
        return Err(malformed("There is more than one empty line before the request line (RFC 9112 §2.2)."));
    }
    let request = RequestLine::parse(line)?;
    let mut fields = Fields::default();
    loop {
        match lines.next()? {
            b"" => break,
            line => fields.take::<STRICT>(line)?,
        }
    }
    check_routing(&request, &fields)?;
    check_framing(&request, &fields)?;
    rules.check_body(request.method, fields.chunked || fields.content_length == Some(true))?;
    Ok(raw.len() - lines.rest.len())
}

/// Whether a head has no control characters but tabs and line ends. One look at all of it costs a third of one at each
/// value: without an early exit, it is compiled to vector code.
fn is_plain(head: &[u8]) -> bool {
    let followed = head.iter().zip(head.get(1..).unwrap_or_default());
    !followed.fold(false, |odd, (&byte, &next)| {
        let line_end = (byte == b'\n') | ((byte == b'\r') & (next == b'\n'));
        odd | ((byte < b' ') & (byte != b'\t') & !line_end) | (byte == 0x7f)
    })
}

/// The lines of a head, which all end in CR LF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a [u8], Refusal> {
        let end =
            memchr(b'\n', self.rest).ok_or_else(|| malformed("The head breaks off (RFC 9112 §2.1)."))?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        line.strip_suffix(b"\r").ok_or_else(|| malformed("A line ends in a bare line feed (RFC 9112 §2.2)."))
    }
}

fn check_routing(request: &RequestLine<'_>, fields: &Fields<'_>) -> Verdict {
    match (request.authority, fields.host) {
        (_, None) if !request.old => Err(malformed("The Host field is missing (RFC 9112 §3.2).")),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(malformed("The request target and Host name different places (RFC 9112 §3.2.2)."))
        }
        _ => Ok(()),
    }
}

fn check_framing(request: &RequestLine<'_>, fields: &Fields<'_>) -> Verdict {
    if fields.chunked && fields.content_length.is_some() {
        return Err(malformed("There are both Transfer-Encoding and Content-Length (RFC 9112 §6.3)."));
    }
    if fields.chunked && request.old {
        return Err(malformed("HTTP/1.0 has no Transfer-Encoding (RFC 9112 §6.1)."));
    }
    // One that is not announced for this connection, or in 1.0, must be ignored, and is not by everyone.
    if fields.upgrade && (request.old || !fields.connection_upgrade) {
        return Err(malformed("Upgrade needs HTTP/1.1 and Connection: upgrade (RFC 9110 §7.8)."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::GetBody;
    use super::*;
    use crate::guard::Reason;

    fn judge(head: &str) -> Verdict {
        check_raw_head(head.as_bytes(), &Hygiene::default()).map(|_| ())
    }

    /// A POST with these field lines, each ended by the test itself.
    #[track_caller]
    fn with(lines: &str, part: &str) {
        refused(&format!("POST /api/chat HTTP/1.1\r\nHost: h\r\n{lines}\r\n"), part);
    }

    /// Refused, and for that rule: a head refused for another one would hide that the rule is gone.
    #[track_caller]
    fn refused(head: &str, part: &str) {
        match judge(head) {
            Ok(()) => panic!("passed: {head:?}"),
            Err(refusal) => assert!(refusal.detail.contains(part), "{head:?}: {}", refusal.detail),
        }
    }

    #[test]
    fn what_clients_really_send_passes() {
        for head in [
            "GET / HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET /a|b?q=\"x\"&r={y} HTTP/1.1\r\nhOST: h\r\n\r\n",
            "GET /ü HTTP/1.1\r\nHost: h\r\nX-Name: José\r\nX-Empty:\r\nX-Tab:\ta\tb \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            "POST /v1 HTTP/1.1\r\nHost: h\r\ncontent-length:12\r\nExpect: 100-Continue\r\n\r\nbody \x01",
            "POST /v1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked \r\nTrailer: x\r\n\r\n",
            "DELETE /v1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://H.example:81/x HTTP/1.1\r\nHost: h.Example:81\r\n\r\n",
            "GET HTTPS://h?q HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
            "PATCH / HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nCookie: b=2\r\nX: 1\r\nX: 2\r\napi_key: k\r\n\r\n",
        ] {
            assert_eq!(judge(head), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn a_body_has_one_length() {
        with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "both");
        with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "both");
        with("Content-Length: 4\r\nContent-Length: 4\r\n", "more than one Content-Length");
        for value in ["4, 4", "+4", "0x4", "4 4", "", "4a"] {
            with(&format!("Content-Length: {value}\r\n"), "decimal number");
        }
        for value in [
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "chunked;q=1",
            "\"chunked\"",
            "",
            "xchunked",
            "chunked,",
        ] {
            with(&format!("Transfer-Encoding: {value}\r\n"), "else than chunked");
        }
        with(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "more than one Transfer-Encoding",
        );
        with("Transfer_Encoding: chunked\r\n", "imitates");
        with("content_length: 4\r\n", "imitates");
        refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "no Transfer-Encoding");
    }

    #[test]
    fn a_field_line_ends_where_everyone_thinks_it_ends() {
        with("X: a\nTransfer-Encoding: chunked\r\n", "bare line feed");
        with("X: a\rTransfer-Encoding: chunked\r\n", "bare carriage return");
        with("X\r: a\r\n", "bare carriage return");
        with("X: a\r\r\n", "bare carriage return");
        with("X: a\r\n b\r\n", "starts with white space");
        with("X: a\r\n\tContent-Length: 9\r\n", "starts with white space");
        with("X: a\0b\r\n", "control character");
        with("X: a\x7f\r\n", "control character");
        with("X: \x0bchunked\r\n", "control character");
        refused("GET / HTTP/1.1\nHost: h\n\n", "bare line feed");
        refused("GET / HTTP/1.1\r\nHost: h\r\n\n", "bare line feed");
        refused(" GET / HTTP/1.1\r\nHost: h\r\n\r\n", "request line");
        refused("GET / HTTP/1.1\r\n Host: h\r\n\r\n", "starts with white space");
        refused("GET / HTTP/1.1\r\nHost: h\r\n", "breaks off");
        refused("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "more than one empty line");
        refused("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "bare line feed");
    }

    #[test]
    fn a_field_name_is_one_name() {
        with("Content-Length : 4\r\n", "white space between");
        with("Content-Length\t: 4\r\n", "white space between");
        with("Content Length: 4\r\n", "not a token");
        with("Content-Length\u{df}: 4\r\n", "not a token");
        with("X\0: 4\r\n", "not a token");
        with("\"X\": 4\r\n", "not a token");
        with("X-Lonely\r\n", "no colon");
        with(": x\r\n", "no name");
    }

    #[test]
    fn the_guards_and_the_upstream_see_one_host_origin_and_credential() {
        refused("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", "missing");
        refused("GET / HTTP/1.1\r\nHost:\r\n\r\n", "empty");
        refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "name or address");
        with("Host: evil\r\n", "more than one Host");
        with("Host: h\r\n", "more than one Host");
        refused("GET http://evil/ HTTP/1.1\r\nHost: h\r\n\r\n", "different places");
        refused("GET http://h@evil/ HTTP/1.1\r\nHost: h\r\n\r\n", "user information");
        refused("GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", "empty");
        with("Origin: a\r\nOrigin: b\r\n", "more than one Origin");
        with("Authorization: a\r\nauthorization: b\r\n", "more than one Authorization");
        with("Content-Type: text/html\r\nContent-Type: application/json\r\n", "more than one Content-Type");
    }

    #[test]
    fn the_request_line_is_read_in_one_way() {
        for line in
            ["GET /a b HTTP/1.1", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", "GET /", "GET"]
        {
            refused(&format!("{line}\r\nHost: h\r\n\r\n"), "not method, space");
        }
        for version in ["HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.10", "HTTP/01.1", "RTSP/1.0", ""] {
            refused(&format!("GET / {version}\r\nHost: h\r\n\r\n"), "version");
        }
        for method in ["G:T", "GET\0", "GÉT", "\"GET\"", ""] {
            refused(&format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"), "method");
        }
        for target in ["a/b", "*", "h:443", "ftp://h/", "?q", "", "javascript://h/"] {
            refused(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), "target");
        }
        refused("GET /\t HTTP/1.1\r\nHost: h\r\n\r\n", "control character");
        refused("GET /\r/ HTTP/1.1\r\nHost: h\r\n\r\n", "control character");
        let fragment = judge("GET /public#/../admin HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(fragment.map_err(|refusal| refusal.reason), Err(Reason::InvalidPath));
        for method in ["CONNECT h:443", "TRACE /", "trace /"] {
            let verdict = judge(&format!("{method} HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_eq!(verdict.map_err(|refusal| refusal.reason), Err(Reason::MethodDenied));
        }
    }

    #[test]
    fn no_connection_option_takes_a_field_away_or_opens_a_tunnel() {
        with("Connection: close, Authorization\r\n", "not this connection's");
        with("Connection: x-forwarded-for\r\n", "not this connection's");
        with("Connection: clo se\r\n", "list of options");
        with("Upgrade: websocket\r\n", "Upgrade needs");
        with("Connection: Upgrade\r\nUpgrade: web socket\r\n", "list of protocols");
        refused("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "Upgrade needs");
        with("Expect: 200-ok\r\n", "Expect");
    }

    #[test]
    fn a_get_with_a_body_is_the_operators_choice() {
        let chunked = "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        refused(chunked, "has a body");
        refused("head / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n", "has a body");
        assert_eq!(
            check_raw_head(chunked.as_bytes(), &Hygiene { get_body: GetBody::Allow }),
            Ok(chunked.len())
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_raw_head(&raw, &Hygiene::default());
        }

        /// A lenient parser ends a head at any blank line, a strict one at CR LF CR LF: one that passes has one end, and
        /// the quick look at its bytes says what the slow one does.
        #[test]
        fn a_head_that_passes_has_one_end(
            at in 0..120usize,
            byte in proptest::sample::select(&b"\r\n\t :,;\0\x0bA_\xff"[..]),
            insert in any::<bool>(),
        ) {
            let head = b"POST /a HTTP/1.1\r\nHost: h\r\nX: y\r\nContent-Length: 4\r\nConnection: te\r\n\r\n";
            let mut raw = head.to_vec();
            let at = at.min(raw.len() - 1);
            if insert {
                raw.insert(at, byte);
            } else {
                raw[at] = byte;
            }
            let rules = Hygiene::default();
            let verdict = check_raw_head(&raw, &rules);
            prop_assert_eq!(&verdict, &read::<true>(&raw, &rules));
            if let Ok(length) = verdict {
                let head = &raw[..length];
                let ends = |blank: &[u8]| head.windows(blank.len()).position(|bytes| bytes == blank);
                prop_assert_eq!(Some(length), ends(b"\r\n\r\n").map(|at| at + 4));
                prop_assert_eq!((ends(b"\n\n"), ends(b"\n\r\n")), (None, Some(length - 3)));
            }
        }
    }
}
