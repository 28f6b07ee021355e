//! The field lines of an HTTP/1 head (RFC 9112 §5), and what they say together about the request's framing.

use super::values::{
    IMITATION, connection, content_length, expect, host, imitates_framing, is_field_content, is_token_byte,
};
use super::{malformed, values};
use crate::guard::{Refusal, Verdict};

/// What the field lines read so far amount to.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) host: Option<&'a [u8]>,
    /// Whether Content-Length announces a body, if there is one.
    pub(super) content_length: Option<bool>,
    pub(super) chunked: bool,
    /// An `Upgrade` field is there.
    pub(super) upgrade: bool,
    /// `Connection` has the option `upgrade`.
    pub(super) connection_upgrade: bool,
    content_type: bool,
    authorization: bool,
    origin: bool,
}

impl<'a> Fields<'a> {
    /// Takes one field line without its line end; looks for control characters in its value only if `STRICT`.
    pub(super) fn take<const STRICT: bool>(&mut self, line: &'a [u8]) -> Verdict {
        let (name, rest) = line.split_at(line.iter().position(|b| !is_token_byte(*b)).unwrap_or(line.len()));
        let [b':', value @ ..] = rest else { return Err(bad_name(name, rest)) };
        if name.is_empty() {
            return Err(malformed("A field line has no name (RFC 9112 §5)."));
        }
        if STRICT && !is_field_content(value) {
            return Err(bad_value(value));
        }
        self.judge(name, value.trim_ascii())
    }

    fn judge(&mut self, name: &[u8], value: &'a [u8]) -> Verdict {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        // The length decides most fields without a comparison.
        match name.len() {
            4 if is(b"host") => {
                host(value)?;
                match self.host.replace(value) {
                    None => Ok(()),
                    Some(_) => Err(malformed("There is more than one Host field (RFC 9112 §3.2).")),
                }
            }
            6 if is(b"expect") => expect(value),
            6 if is(b"origin") => {
                once(&mut self.origin, "There is more than one Origin field (RFC 9110 §5.3).")
            }
            7 if is(b"upgrade") => {
                self.upgrade = true;
                values::upgrade(value)
            }
            10 if is(b"connection") => {
                self.connection_upgrade |= connection(value)?;
                Ok(())
            }
            12 if is(b"content-type") => {
                once(&mut self.content_type, "There is more than one Content-Type field (RFC 9110 §5.3).")
            }
            13 if is(b"authorization") => {
                once(&mut self.authorization, "There is more than one Authorization field (RFC 9110 §5.3).")
            }
            14 if is(b"content-length") => match self.content_length.replace(content_length(value)?) {
                None => Ok(()),
                Some(_) => Err(malformed("There is more than one Content-Length field (RFC 9112 §6.3).")),
            },
            17 if is(b"transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(malformed(
                        "Transfer-Encoding is something else than chunked (RFC 9112 §6.1).",
                    ));
                }
                once(&mut self.chunked, "There is more than one Transfer-Encoding field (RFC 9112 §6.1).")
            }
            14 | 17 if imitates_framing(name) => Err(malformed(IMITATION)),
            _ => Ok(()),
        }
    }
}

/// Two parsers may each take another one of two fields.
fn once(seen: &mut bool, detail: &'static str) -> Verdict {
    if std::mem::replace(seen, true) { Err(malformed(detail)) } else { Ok(()) }
}

#[cold]
fn bad_name(name: &[u8], rest: &[u8]) -> Refusal {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let space_first = rest.iter().find(|b| !blank(b)) == Some(&b':') && rest.first().is_some_and(blank);
    malformed(match rest {
        [b' ' | b'\t', ..] if name.is_empty() => "A field line starts with white space (RFC 9112 §5.2).",
        [b'\r', ..] => "There is a bare carriage return in the head (RFC 9112 §2.2).",
        [] => "A field line has no colon (RFC 9112 §5).",
        _ if space_first => "There is white space between a field name and its colon (RFC 9112 §5.1).",
        _ => "A field name is not a token (RFC 9110 §5.1).",
    })
}

#[cold]
fn bad_value(value: &[u8]) -> Refusal {
    malformed(match value.contains(&b'\r') {
        true => "There is a bare carriage return in the head (RFC 9112 §2.2).",
        false => "A field value has a control character (RFC 9110 §5.5).",
    })
}
