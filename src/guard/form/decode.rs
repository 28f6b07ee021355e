//! Percent-encoding of forms (WHATWG URL §5.1): `+` is a space, `%` and two hexadecimal digits an octet.

use memchr::{memchr, memchr2};

/// The octets that `raw` stands for; a `%` without two digits stands for itself. `buffer` is used if anything is encoded.
pub(super) fn decode<'t>(raw: &'t [u8], buffer: &'t mut Vec<u8>) -> &'t [u8] {
    if memchr2(b'%', b'+', raw).is_none() {
        return raw;
    }
    buffer.clear();
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        let octet = escaped(rest);
        buffer.push(octet.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        rest = if octet.is_some() { &tail[2..] } else { tail };
    }
    buffer
}

/// The text of a percent-encoded path, in which `+` is itself; `None` if it is not UTF-8.
pub fn percent_decoded(path: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octet = escaped(rest);
        octets.push(octet.unwrap_or(byte));
        rest = if octet.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(octets).ok()
}

/// Where the first `%` without two hexadecimal digits stands.
pub(super) fn broken_escape(raw: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr(b'%', &raw[at..])?;
        if escaped(&raw[at..]).is_none() {
            return Some(at);
        }
        at += 3;
    }
}

/// The octet of the escape that `raw` starts with.
fn escaped(raw: &[u8]) -> Option<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    match raw {
        [b'%', high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that is decoded otherwise than by the upstream is judged otherwise than it is read.
    #[test]
    fn octets_are_what_forms_say() {
        for (raw, text) in [
            ("", ""),
            ("plain", "plain"),
            ("a+b%20c", "a b c"),
            ("%2b%2B", "++"),
            ("%c3%A9", "é"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("%2541", "%41"),
        ] {
            assert_eq!(decode(raw.as_bytes(), &mut Vec::new()), text.as_bytes(), "{raw}");
        }
    }

    /// Parsers differ in what they make of a broken escape: some drop it, some keep it, some refuse.
    #[test]
    fn broken_escapes_are_found() {
        for (raw, at) in
            [("a%4", Some(1)), ("%41%", Some(3)), ("%4g", Some(0)), ("%%41", Some(0)), ("%41%5a", None)]
        {
            assert_eq!(broken_escape(raw.as_bytes()), at, "{raw}");
        }
    }
}
