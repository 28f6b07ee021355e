//! Edits of a text as edits of the bytes that carry it: a body of JSON, a form, a query, a path.

use std::ops::Range;

use super::Edit;
use crate::guard::json::{escape, escape_into};

/// How a text is written where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// As the content of a JSON string (RFC 8259 §7).
    Json,
    /// As it is.
    Plain,
    /// Percent-encoded; in a form `+` is a space, which takes one byte as well.
    Percent,
}

/// A span of a body, and the bytes that stand there instead.
pub type Splice = (Range<usize>, Vec<u8>);

impl Carrier {
    /// Turns `edits` of the text that stands at `span` of `body` into edits of `body`.
    pub(super) fn place(self, body: &[u8], span: Range<usize>, edits: &[Edit], splices: &mut Vec<Splice>) {
        let Some(raw) = body.get(span.clone()) else { return };
        let (mut read, mut at) = (0, 0);
        let mut locate = |offset: usize| {
            while read < offset && at < raw.len() {
                let (text, bytes) = self.step(&raw[at..]);
                read += text;
                at += bytes;
            }
            span.start + at
        };
        for Edit { span, with } in edits {
            let start = locate(span.start);
            let mut written = Vec::with_capacity(3 * with.len());
            self.write(with, &mut written);
            splices.push((start..locate(span.end), written));
        }
    }

    /// How many bytes of the text the first character of `raw` stands for, and how many it takes there.
    fn step(self, raw: &[u8]) -> (usize, usize) {
        match (self, raw) {
            (Carrier::Json, [b'\\', ..]) => {
                // The scanner let only whole escapes in.
                escape(raw).map_or((1, 1), |(character, length)| (character.len_utf8(), length))
            }
            (Carrier::Percent, [b'%', a, b, ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => (1, 3),
            _ => (1, 1),
        }
    }

    fn write(self, text: &str, out: &mut Vec<u8>) {
        match self {
            Carrier::Json => escape_into(text, out),
            Carrier::Plain => out.extend_from_slice(text.as_bytes()),
            Carrier::Percent => text.bytes().for_each(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
                _ => out.extend(format!("%{byte:02X}").bytes()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::json::splice;

    fn edited(
        carrier: Carrier,
        body: &str,
        span: Range<usize>,
        edits: &[(Range<usize>, &'static str)],
    ) -> String {
        let edits: Vec<_> =
            edits.iter().map(|(span, with)| Edit { span: span.clone(), with: (*with).into() }).collect();
        let mut splices = Vec::new();
        carrier.place(body.as_bytes(), span, &edits, &mut splices);
        String::from_utf8(splice(body.as_bytes(), &splices).expect("in order")).expect("text")
    }

    /// An edit that lands one byte beside its place breaks the body, or leaves the attack.
    #[test]
    fn edits_land_where_the_character_is_written() {
        let json = r#"{"a":"é\u00e9\ud83d\ude00\n\u003cb>","k":1}"#;
        let at = "éé😀\n".len();
        assert_eq!(
            edited(Carrier::Json, json, 6..38, &[(at..at + 1, "&lt;")]),
            r#"{"a":"é\u00e9\ud83d\ude00\n&lt;b>","k":1}"#
        );
        let plain = "ü\\u0041%41+<";
        assert_eq!(
            edited(Carrier::Plain, plain, 0..13, &[(1 + 1..3, ""), (12..13, "&lt;")]),
            "üu0041%41+&lt;"
        );
        assert_eq!(edited(Carrier::Json, r#""ab""#, 1..3, &[(0..1, "\"\n"), (2..2, "c")]), r#""\"\nbc""#);
        let form = "a=1&m=%C3%A9+%3Cb%3e&k";
        assert_eq!(
            edited(Carrier::Percent, form, 6..20, &[(3..4, "&lt;"), (5..6, "")]),
            "a=1&m=%C3%A9+%26lt%3Bb&k"
        );
    }
}
