//! The request line of HTTP/1 (RFC 9112 §3): method, one space, target, one space, version; nothing looser.

use super::values::{host, is_token};
use super::{check_method, malformed};
use crate::guard::{Reason, Refusal};
use crate::proxy::path::after_scheme;

/// A request line that was found in order.
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    /// The authority of a target in absolute form.
    pub(super) authority: Option<&'a [u8]>,
    /// Whether the version is 1.0 and not 1.1.
    pub(super) old: bool,
}

impl<'a> RequestLine<'a> {
    /// `line` is without its line end.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let shape =
            || malformed("The request line is not method, space, target, space, version (RFC 9112 §3).");
        let mut parts = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(shape());
        };
        if !is_token(method) {
            return Err(malformed("The method is not a token (RFC 9110 §9.1)."));
        }
        check_method(method)?;
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(malformed("The version is not HTTP/1.0 or HTTP/1.1 (RFC 9112 §2.3).")),
        };
        let authority = authority_of(target, method)?;
        Ok(Self { method, authority, old })
    }
}

/// Checks the form of the target (RFC 9112 §3.2). What stands in its path is judged where paths are
/// normalised.
fn authority_of<'a>(target: &'a [u8], method: &[u8]) -> Result<Option<&'a [u8]>, Refusal> {
    if target.iter().fold(false, |bad, &b| bad | (b <= b' ') | (b == 0x7f)) {
        return Err(malformed("The request target has a control character (RFC 9112 §3.2)."));
    }
    if target.contains(&b'#') {
        let detail = "The request target has a raw # (RFC 9112 §3.2): a fragment is never sent.";
        return Err(Refusal::new(Reason::InvalidPath, detail, ""));
    }
    match target {
        [b'/', ..] => Ok(None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ => {
            let rest = after_scheme(target).ok_or_else(|| {
                malformed(
                    "The request target is not a path, an http(s) URI or the * of OPTIONS (RFC 9112 §3.2).",
                )
            })?;
            let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
            let authority = rest.get(..end).unwrap_or_default();
            host(authority)?;
            Ok(Some(authority))
        }
    }
}
