//! What a body looks like from its beginning: JSON, or something that only begins as JSON does.

use super::{Caps, Fault, FaultKind, FieldRules, Scratch, scan};

/// Whether a body is JSON to some parser, whatever its type says: it opens an object or array after white space, a
/// byte order mark, or in UTF-16 or UTF-32 (which common libraries detect by themselves).
pub fn opens(start: &[u8]) -> bool {
    matches!(opener(start), Some(b'{' | b'['))
}

/// The first byte that is neither white space nor part of a byte order mark or of a wider character's padding.
pub fn opener(start: &[u8]) -> Option<u8> {
    visible(start).next()
}

/// Whether more than its first bracket says that it is JSON: a member, or an array of strings or objects.
pub fn begins(start: &[u8]) -> bool {
    let mut visible = visible(start);
    matches!((visible.next(), visible.next()), (Some(b'{'), Some(b'"')) | (Some(b'['), Some(b'"' | b'{')))
}

fn visible(start: &[u8]) -> impl Iterator<Item = u8> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    start.iter().copied().filter(move |b| !blank(b))
}

/// Whether the beginning of a body shows that the whole is no JSON, nor begins with a JSON value, whatever follows.
pub fn refuted(start: &[u8]) -> bool {
    /// A token that the end cuts is a fault there; the longest that is one at its start is a pair of `\u` escapes.
    const CUT: usize = 16;
    // Some apps pass over a byte order mark.
    let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start);
    let Ok(rules) = FieldRules::compile([]) else { return false };
    let caps = Caps { depth: u32::MAX, members: u32::MAX };
    match scan(start, &caps, &rules, &mut Scratch::default(), &mut |_| {}) {
        Err(Fault { at, kind: FaultKind::Syntax(_) | FaultKind::ControlCharacter | FaultKind::NotUtf8 }) => {
            at + CUT < start.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong Content-Type must not carry JSON past the JSON guards.
    #[test]
    fn json_is_seen_whatever_it_is_called() {
        let json: &[&[u8]] = &[
            b"{}",
            b" \r\n[1]",
            b"\xef\xbb\xbf{\"a\":1}",
            b"{\0\"\0",
            b"\0{\0\"",
            b"\xff\xfe{\0",
            b"\xfe\xff\0{",
            b"\0\0\0{",
        ];
        for start in json {
            assert!(opens(start), "{start:?}");
        }
        for start in [&b""[..], b"hello {", b"--boundary", b"\x89PNG", b"a=1"] {
            assert!(!opens(start), "{start:?}");
        }
    }

    /// A large file that is no JSON has to stream; a large JSON body must not, wherever its first piece is cut.
    #[test]
    fn only_what_can_not_be_json_is_refuted() {
        let body =
            r#"[{"a":"\ud83d\ude00 é","b":-1.5e10,"c":[true,null]},{"long":"0123456789abcdef0123456789"}]"#;
        for end in 0..=body.len() {
            assert!(!refuted(&body.as_bytes()[..end]), "{end}");
        }
        for other in
            ["[12:30] hello, how are you", "{\\rtf1 Hello, this is a document}", "[TODO] buy milk and bread."]
        {
            assert!(refuted(other.as_bytes()), "{other}");
        }
        assert!(refuted(b"[\xff\xfe\x00\x01 and more of some binary format"));
        assert!(!refuted(b"[1] see below {\"a\":1}"));
    }

    /// Plain text that an app would read as JSON must not pass for prose.
    #[test]
    fn what_begins_json_is_told_from_prose() {
        for json in ["{\"a", "[\"a", " [ {", "\u{feff}{ \n\"", "{\0\"\0"] {
            assert!(begins(json.as_bytes()), "{json}");
        }
        for prose in ["", "{", "{name}, hello", "[12:30] hello", "[x](y)", "\"{"] {
            assert!(!begins(prose.as_bytes()), "{prose}");
        }
    }
}
