//! A head that the parser gave up: why it is refused, and what can still be told of it, from its bytes alone.

use memchr::memchr;

use super::values::is_token;
use super::{Hygiene, check_raw_head, malformed};
use crate::guard::caps::READABLE_FIELDS;
use crate::guard::{Reason, Refusal};

/// `http::Uri`, which the parser fills, holds no longer target.
const READABLE_TARGET: usize = u16::MAX as usize - 1;

/// What is known of a head that can't be read. Whatever could not be made out is `None`.
#[derive(Debug)]
pub struct Unreadable<'a> {
    /// Why it is refused.
    pub refusal: Refusal,
    /// Method, a token.
    pub method: Option<&'a [u8]>,
    /// Request target, possibly cut short.
    pub target: Option<&'a [u8]>,
    lines: &'a [u8],
}

impl<'a> Unreadable<'a> {
    /// Judges `raw`, all that came of the head; `overlong` if no more of it was read because there was too much.
    pub fn judge(raw: &'a [u8], overlong: bool, rules: &Hygiene) -> Self {
        let start = raw.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(raw.len());
        let raw = raw.get(start..).unwrap_or_default();
        let end = memchr(b'\n', raw);
        let (line, lines) = raw.split_at(end.map_or(raw.len(), |end| end + 1));
        let mut parts = line.trim_ascii_end().split(|b| *b == b' ');
        let method = parts.next().filter(|method| is_token(method));
        let target = method.and_then(|_| parts.next()).filter(|target| !target.is_empty());
        let refusal = match target {
            Some(target) if target.len() > READABLE_TARGET || (overlong && end.is_none()) => {
                let detail = "The request target is longer than any that can be read.";
                Refusal::new(Reason::UriTooLong, detail, "caps.uri")
            }
            _ if overlong => {
                let detail = "The request head is longer than any that can be read.";
                Refusal::new(Reason::HeadersTooLarge, detail, "caps.header_bytes")
            }
            _ => fault(raw, lines, target.unwrap_or_default(), rules),
        };
        Self { refusal, method, target, lines }
    }

    /// The value of the first field line with this name.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.lines.split(|b| *b == b'\n').find_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }
}

/// What is wrong with a head of bearable length.
fn fault(raw: &[u8], lines: &[u8], target: &[u8], rules: &Hygiene) -> Refusal {
    let fields = lines.split(|b| *b == b'\n').take_while(|line| !line.trim_ascii().is_empty()).count();
    if fields > READABLE_FIELDS {
        let detail = format!("There are more than {READABLE_FIELDS} header fields.");
        return Refusal::new(Reason::HeadersTooLarge, detail, "caps.header_count");
    }
    // The parser may have stopped before the end: what came is judged as if it were all.
    let whole = [raw, b"\r\n\r\n"].concat();
    let unfit =
        |b: &u8| matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') || *b > 0x7e;
    match check_raw_head(&whole, rules) {
        Err(refusal) => refusal,
        Ok(_) if target.iter().any(unfit) => {
            malformed("The request target has a character that has to be percent-encoded (RFC 3986 §2).")
        }
        Ok(_) => malformed("The request head is not HTTP (RFC 9112)."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(raw: &str, overlong: bool) -> (Reason, String) {
        let refusal = Unreadable::judge(raw.as_bytes(), overlong, &Hygiene::default()).refusal;
        (refusal.reason, refusal.detail.into_owned())
    }

    /// Somebody whose URL or cookies grew too long must be told so, and not that this is no HTTP.
    #[test]
    fn what_is_too_long_is_told_from_what_is_wrong() {
        let long = "a".repeat(READABLE_TARGET);
        let fields = "X-A: 1\r\n".repeat(READABLE_FIELDS + 1);
        for (raw, overlong, reason, part) in [
            (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), false, Reason::UriTooLong, "target"),
            ("GET /aaa".into(), true, Reason::UriTooLong, "target"),
            ("GET / HTTP/1.1\r\nCookie: aaa".into(), true, Reason::HeadersTooLarge, "head is longer"),
            ("aaaa".into(), true, Reason::HeadersTooLarge, "head is longer"),
            (format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}"), false, Reason::HeadersTooLarge, "256"),
            ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n".into(), false, Reason::MethodDenied, "CONNECT"),
            ("\0\0\0".into(), false, Reason::MalformedRequest, "request line"),
            ("GET / HTTP/1.1\r\nX A".into(), false, Reason::MalformedRequest, "not a token"),
            ("GET /?q=\"x\" HTTP/1.1\r\nHost: h\r\n\r\n".into(), false, Reason::MalformedRequest, "percent"),
            ("".into(), false, Reason::MalformedRequest, "empty line"),
        ] {
            let (got, detail) = judge(&raw, overlong);
            assert!(got == reason && detail.contains(part), "{:.60}: {got:?} {detail}", raw);
        }
    }

    /// An attack that can't be laid at anybody's door is not worth logging.
    #[test]
    fn what_can_be_made_out_is_told() {
        let raw = b"\r\nPOST /a?k=1 HTTP/1.1\r\nHost: h\r\nuser-agent:  bad \r\nX A: 1\r\n\r\n";
        let head = Unreadable::judge(raw, false, &Hygiene::default());
        assert_eq!((head.method, head.target), (Some(&b"POST"[..]), Some(&b"/a?k=1"[..])));
        assert_eq!(head.field("User-Agent"), Some(&b"bad"[..]));
        assert_eq!(head.field("referer"), None);
        let head = Unreadable::judge(b"\x16\x03\x01 x", false, &Hygiene::default());
        assert_eq!((head.method, head.target), (None, None));
    }
}
