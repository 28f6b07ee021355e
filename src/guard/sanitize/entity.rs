//! Character references as an HTML tokenizer decodes them in an attribute's value (HTML §13.2.5.72 and after).

/// One character of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The character if it is ASCII, else [`OTHER`].
    pub byte: u8,
    /// Where it is written, in bytes of the text.
    pub start: usize,
    /// Where that ends.
    pub end: usize,
}

/// Stands for any character beyond ASCII: no rule tells them apart.
pub(super) const OTHER: u8 = 0xff;

/// Names that decode to what URLs and styles are written with. No name decodes to a letter of a scheme.
const NAMES: [(&[u8], u8); 17] = [
    (b"Tab;", b'\t'),
    (b"NewLine;", b'\n'),
    (b"colon;", b':'),
    (b"sol;", b'/'),
    (b"semi;", b';'),
    (b"comma;", b','),
    (b"plus;", b'+'),
    (b"lpar;", b'('),
    (b"equals;", b'='),
    (b"period;", b'.'),
    (b"bsol;", b'\\'),
    (b"ast;", b'*'),
    (b"commat;", b'@'),
    (b"quot", b'"'),
    (b"apos;", b'\''),
    (b"lt", b'<'),
    (b"amp", b'&'),
];

/// Decodes a value byte by byte; a character beyond ASCII comes as several [`OTHER`].
#[derive(Clone)]
pub(super) struct Characters<'t> {
    text: &'t [u8],
    at: usize,
    /// Whether `\` before punctuation is dropped, as in a Markdown link (CommonMark §2.4).
    backslashes: bool,
}

/// The characters of `text[at..]`.
pub(super) fn characters(text: &[u8], at: usize) -> Characters<'_> {
    Characters { text, at, backslashes: false }
}

/// The same in Markdown.
pub(super) fn markdown_characters(text: &[u8], at: usize) -> Characters<'_> {
    Characters { text, at, backslashes: true }
}

impl Iterator for Characters<'_> {
    type Item = Decoded;

    fn next(&mut self) -> Option<Decoded> {
        let start = self.at;
        let rest = self.text.get(start..)?;
        let (byte, length) = match rest {
            [] => return None,
            [b'&', tail @ ..] => reference(tail).map_or((b'&', 1), |(byte, length)| (byte, length + 1)),
            [b'\\', byte, ..] if self.backslashes && byte.is_ascii_punctuation() => (*byte, 2),
            [byte, ..] if byte.is_ascii() => (*byte, 1),
            _ => (OTHER, 1),
        };
        self.at += length;
        Some(Decoded { byte, start, end: self.at })
    }
}

/// The character that a reference stands for, and how many bytes it takes behind the `&`.
fn reference(tail: &[u8]) -> Option<(u8, usize)> {
    let (digits, radix, prefix) = match tail {
        [b'#', b'x' | b'X', digits @ ..] => (digits, 16, 2),
        [b'#', digits @ ..] => (digits, 10, 1),
        _ => {
            let (name, byte) = NAMES.iter().find(|(name, _)| tail.starts_with(name))?;
            let ended = usize::from(!name.ends_with(b";") && tail.get(name.len()) == Some(&b';'));
            return Some((*byte, name.len() + ended));
        }
    };
    let mut code = 0_u32;
    let mut length = 0;
    while let Some(digit) = digits.get(length).and_then(|byte| (*byte as char).to_digit(radix)) {
        code = code.saturating_mul(radix).saturating_add(digit);
        length += 1;
    }
    if length == 0 {
        return None;
    }
    let ended = usize::from(digits.get(length) == Some(&b';'));
    // Zero decodes to U+FFFD.
    let byte = u8::try_from(code).ok().filter(|byte| (1..0x80).contains(byte)).unwrap_or(OTHER);
    Some((byte, prefix + length + ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(value: &str) -> Vec<u8> {
        characters(value.as_bytes(), 0).map(|character| character.byte).collect()
    }

    /// A scheme is as live in references as it is in letters.
    #[test]
    fn references_are_read_as_a_browser_reads_them() {
        for (value, text) in [
            ("&#106;&#x61;&#X76&#97", "java"),
            ("&#00000000000000000106;", "j"),
            ("&Tab;&NewLine;&colon;", "\t\n:"),
            ("&tab;&colon", "&tab;&colon"),
            ("&#;&#x;&;&", "&#;&#x;&;&"),
            ("&lt&quot;", "<\""),
        ] {
            assert_eq!(decoded(value), text.as_bytes(), "{value}");
        }
        assert_eq!(decoded("&#0;&#99999999999;é"), [OTHER; 4]);
        let spans: Vec<_> = characters(b"a&#98;c", 0).map(|c| c.start..c.end).collect();
        assert_eq!(spans, [0..1, 1..6, 6..7]);
    }
}
