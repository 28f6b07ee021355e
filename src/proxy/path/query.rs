//! The query string: only what no parser agrees about is touched.

use std::borrow::Cow;
use std::fmt;

use super::octet::percent_encode;
use crate::guard::{Reason, Refusal};

/// Why a query string is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFault {
    /// A raw control byte.
    Control,
    /// A raw `#`: a fragment is never sent (RFC 9112 §3.2).
    Fragment,
}

impl fmt::Display for QueryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for QueryFault {}

impl QueryFault {
    const fn detail(self) -> &'static str {
        match self {
            QueryFault::Control => "The query has a raw control character.",
            QueryFault::Fragment => "The query has a raw # (RFC 9112 §3.2).",
        }
    }
}

impl From<QueryFault> for Refusal {
    fn from(fault: QueryFault) -> Self {
        Refusal::new(Reason::InvalidPath, fault.detail(), "")
    }
}

/// The query string (without its `?`) as it may be forwarded: raw spaces and octets beyond ASCII are
/// percent-encoded; all else, escapes included, stays as it is, since only the upstream knows what its query
/// means.
pub fn clean_query(raw: &[u8]) -> Result<Cow<'_, str>, QueryFault> {
    let mut encode = 0;
    for &byte in raw {
        match byte {
            0x00..=0x1f | 0x7f => return Err(QueryFault::Control),
            b'#' => return Err(QueryFault::Fragment),
            b' ' | 0x80.. => encode += 1,
            _ => {}
        }
    }
    if encode == 0
        && let Ok(text) = str::from_utf8(raw)
    {
        return Ok(Cow::Borrowed(text));
    }
    let mut made = String::with_capacity(raw.len() + 2 * encode);
    for &byte in raw {
        if byte == b' ' || !byte.is_ascii() {
            percent_encode(byte, |byte| made.push(char::from(byte)));
        } else {
            made.push(char::from(byte));
        }
    }
    Ok(Cow::Owned(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reaches_the_upstream_as_it_was_sent() {
        let sent = "q=a%2fb&x=%zz&filter[]={\"k\":1}&r=../..&pipe=a|b&plus=1+1&c='`<>";
        assert!(matches!(clean_query(sent.as_bytes()), Ok(Cow::Borrowed(text)) if text == sent));
    }

    #[test]
    fn octets_that_may_not_travel_raw_are_escaped() {
        assert_eq!(clean_query(b"q=two words").as_deref(), Ok("q=two%20words"));
        assert_eq!(clean_query("q=ü".as_bytes()).as_deref(), Ok("q=%C3%BC"));
        assert_eq!(clean_query(b"q=\xff").as_deref(), Ok("q=%FF"));
    }

    #[test]
    fn nothing_can_split_the_request_line_or_hide_behind_a_fragment() {
        for raw in [&b"q=a\r\nX: y"[..], b"q=\0", b"q=\x7f", b"q=\t"] {
            assert_eq!(clean_query(raw), Err(QueryFault::Control));
        }
        assert_eq!(clean_query(b"q=1#x"), Err(QueryFault::Fragment));
    }
}
