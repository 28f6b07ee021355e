//! A string inside the body as it is written there, and the way back in for a replacement.

use std::borrow::Cow;
use std::ops::Range;

use super::token::{Escapes, escape, plain_run};

/// A string's content between its quotes, escapes as written. Only the scanner makes one, so every escape is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawStr<'b> {
    raw: &'b str,
    escapes: Escapes,
}

impl<'b> RawStr<'b> {
    pub(super) fn new(raw: &'b str, escapes: Escapes) -> Self {
        Self { raw, escapes }
    }

    /// The content as written.
    pub fn raw(&self) -> &'b str {
        self.raw
    }

    /// Whether anything in it is escaped; if not, [`raw`](Self::raw) is the text.
    pub fn has_escapes(&self) -> bool {
        self.escapes != Escapes::None
    }

    /// Whether nothing is escaped but what is common in prose: quotes, backslashes, slashes, tabs and line ends.
    pub fn is_prose(&self) -> bool {
        self.escapes <= Escapes::Prose
    }

    /// Unicode code points of the text: an escape counts as the one character it stands for.
    pub fn chars(&self) -> usize {
        if !self.has_escapes() {
            return self.raw.chars().count();
        }
        self.pieces().map(|(plain, escaped)| plain.chars().count() + usize::from(escaped.is_some())).sum()
    }

    /// The text; allocates only if something is escaped.
    pub fn decode(&self) -> Cow<'b, str> {
        if !self.has_escapes() {
            return Cow::Borrowed(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        self.decode_into(&mut text);
        Cow::Owned(text)
    }

    /// Appends the text.
    pub fn decode_into(&self, text: &mut String) {
        for (plain, escaped) in self.pieces() {
            text.push_str(plain);
            text.extend(escaped);
        }
    }

    /// The characters of the text.
    pub fn characters(&self) -> impl Iterator<Item = char> + use<'b> {
        self.pieces().flat_map(|(plain, escaped)| plain.chars().chain(escaped))
    }

    /// Those that are written with an escape.
    pub fn escaped_characters(&self) -> impl Iterator<Item = char> + use<'b> {
        self.pieces().filter_map(|(_, escaped)| escaped)
    }

    /// The text in pieces: a run without escapes, then the character that was escaped behind it, if any.
    fn pieces(&self) -> impl Iterator<Item = (&'b str, Option<char>)> + use<'b> {
        let (mut rest, escaped) = (self.raw, self.has_escapes());
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let run = if escaped { plain_run(rest.as_bytes()) } else { rest.len() };
            let (plain, tail) = rest.split_at(run);
            // The scanner let only whole escapes in, so an error means that there is none.
            let (escaped, length) = match escape(tail.as_bytes()) {
                Ok((character, length)) => (Some(character), length),
                Err(_) => (None, tail.len()),
            };
            rest = tail.get(length..).unwrap_or_default();
            Some((plain, escaped))
        })
    }
}

/// Appends `text` as the content of a JSON string, escaping only what RFC 8259 §7 demands; no quotes around it.
pub fn escape_into(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len());
    loop {
        let (plain, tail) = rest.split_at(plain_run(rest));
        out.extend_from_slice(plain);
        let Some((&byte, tail)) = tail.split_first() else { return };
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => b'u',
        };
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
            out.extend_from_slice(&[b'0', b'0', digit(byte >> 4), digit(byte & 0xf)]);
        }
        rest = tail;
    }
}

/// The body with each span replaced, every other byte as it was. `None` unless the spans are in order, apart
/// from each other and inside the body.
pub fn splice(body: &[u8], edits: &[(Range<usize>, impl AsRef<[u8]>)]) -> Option<Vec<u8>> {
    let added: usize = edits.iter().map(|(_, bytes)| bytes.as_ref().len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut copied = 0;
    for (span, bytes) in edits {
        out.extend_from_slice(body.get(copied..span.start)?);
        out.extend_from_slice(bytes.as_ref());
        copied = span.end.max(span.start);
    }
    out.extend_from_slice(body.get(copied..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::token::string;
    use super::*;

    fn read(raw: &str) -> RawStr<'_> {
        let (end, escapes) = string(format!("{raw}\"").as_bytes(), 0).expect("a string");
        RawStr::new(&raw[..end], escapes)
    }

    /// Whoever takes a text for prose does not look at what is escaped in it.
    #[test]
    fn prose_escapes_only_what_it_must() {
        for raw in ["", "plain", r#"\"a\"\n\r\t\\\/"#, r"\u000a\u0022"] {
            assert!(read(raw).is_prose(), "{raw}");
        }
        for raw in [r"\b", r"\f", r"\n\u0000\n", r"\u003c", r"\ud83d\ude00"] {
            assert!(!read(raw).is_prose(), "{raw}");
        }
    }

    /// A limit of 500 characters must mean 500, or escaping would halve it or let twice as much through.
    #[test]
    fn characters_are_counted_after_unescaping() {
        for (raw, chars) in [
            ("", 0),
            ("plain", 5),
            ("日本語", 3),
            (r"a\nb", 3),
            (r"\uD83D\uDE00", 1),
            (r"é\u00e9", 2),
            (r"\\\\", 2),
            (r"\\n", 2),
            (r"x\/", 2),
        ] {
            let text = read(raw);
            assert_eq!(text.chars(), chars, "{raw}");
            assert_eq!(text.decode().chars().count(), chars, "{raw}");
        }
    }

    #[test]
    fn a_string_without_escapes_is_borrowed() {
        assert!(matches!(read("plain").decode(), Cow::Borrowed("plain")));
        assert_eq!(read(r"a\u0062\tc").decode(), "ab\tc");
    }

    #[test]
    fn escaped_text_comes_back_as_it_was() {
        let text: String = (0..0x300).filter_map(char::from_u32).chain("😀\u{2028}".chars()).collect();
        let mut out = Vec::new();
        escape_into(&text, &mut out);
        let raw = String::from_utf8(out).unwrap();
        assert_eq!(serde_json::from_str::<String>(&format!("\"{raw}\"")).unwrap(), text);
        assert_eq!(read(&raw).decode(), text);
        assert!(raw.starts_with(r"\u0000\u0001") && raw.contains(r"\b\t\n\u000b\f\r"), "{raw}");
    }

    #[test]
    fn splice_touches_nothing_else() {
        let body = br#"{"a" : 1E5, "b":"x"}"#;
        let edited = splice(body, &[(7..10, "2"), (17..18, "yz")]).unwrap();
        assert_eq!(edited, br#"{"a" : 2, "b":"yz"}"#);
        assert_eq!(splice(body, &[] as &[(Range<usize>, &str)]).unwrap(), body);
    }

    #[test]
    fn edits_that_make_no_sense_are_refused() {
        assert_eq!(splice(b"abcdef", &[(3..4, "x"), (1..2, "y")]), None, "out of order");
        assert_eq!(splice(b"abcdef", &[(1..4, "x"), (3..5, "y")]), None, "overlapping");
        assert_eq!(splice(b"abcdef", &[(5..9, "x")]), None, "past the end");
    }
}
