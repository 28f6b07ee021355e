//! URLs that run script: `javascript:` and its kin, and `data:` documents.
//!
//! Read as the URL standard reads them: case, leading white space and controls, tabs and line breaks anywhere do
//! not matter. A URL counts at the start of a value and behind what parts URLs in one
//! (`values="a;javascript:…"`, `url(javascript:…)`, `feed:javascript:…`), not in the middle of a path.

use std::ops::Range;

use super::entity::Characters;

/// What stands in place of a scheme: what follows becomes a fragment, which leads nowhere.
pub(super) const BLANK: &str = "#";

const SCRIPTS: [&[u8]; 5] = [b"javascript", b"vbscript", b"livescript", b"jscript", b"mocha"];
/// Letters of the longest of them.
pub(super) const LONGEST: usize = 10;
/// Longer media types are not looked at; browsers know none.
const MEDIA: usize = 96;

/// The next script scheme in a value: its span with the colon, ready to be replaced by [`BLANK`].
pub(super) fn script(value: &mut Characters<'_>) -> Option<Range<usize>> {
    next(value, false)
}

/// The scheme that a value begins with, if it is one that runs script.
pub(super) fn leading_script(value: &mut Characters<'_>) -> Option<Range<usize>> {
    next(value, true)
}

fn next(value: &mut Characters<'_>, leading: bool) -> Option<Range<usize>> {
    let mut word = Word::new();
    while let Some(character) = value.next() {
        match character.byte {
            b'\t' | b'\n' | b'\r' => {}
            b':' if word.is_script() || word.is(b"data") && is_document(value.clone()) => {
                return Some(word.start..character.end);
            }
            b':' | b';' | b',' | b'(' | b'=' | b'\'' | b'"' | b'`' if !leading => word = Word::new(),
            // Leading ones are trimmed; one inside ends the word.
            0..=b' ' => word.off |= word.length > 0,
            byte => word.push(byte, character.start),
        }
        if leading && word.off {
            return None;
        }
    }
    None
}

/// A scheme as it is being read.
struct Word {
    letters: [u8; LONGEST],
    length: usize,
    start: usize,
    /// No scheme can come of it any more.
    off: bool,
}

impl Word {
    fn new() -> Self {
        Self { letters: [0; LONGEST], length: 0, start: 0, off: false }
    }

    fn push(&mut self, byte: u8, at: usize) {
        if self.off || self.length == LONGEST || !byte.is_ascii_alphabetic() {
            self.off = true;
            return;
        }
        if self.length == 0 {
            self.start = at;
        }
        self.letters[self.length] = byte.to_ascii_lowercase();
        self.length += 1;
    }

    fn is(&self, scheme: &[u8]) -> bool {
        !self.off && &self.letters[..self.length] == scheme
    }

    fn is_script(&self) -> bool {
        SCRIPTS.iter().any(|scheme| self.is(scheme))
    }
}

/// Whether the rest of a `data:` URL is a document that can hold script; pictures, sound, text and fonts are not.
fn is_document(rest: Characters<'_>) -> bool {
    let mut media = [0; MEDIA];
    let mut length = 0;
    let written = rest.map(|character| character.byte).filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r'));
    for (place, byte) in media.iter_mut().zip(written.take_while(|byte| *byte != b',')) {
        *place = byte.to_ascii_lowercase();
        length += 1;
    }
    let media = &media[..length];
    ["html", "xml", "script"].iter().any(|part| memchr::memmem::find(media, part.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::super::entity::{characters, markdown_characters};
    use super::*;

    fn found(value: &str) -> Option<&str> {
        script(&mut characters(value.as_bytes(), 0)).map(|span| &value[span])
    }

    /// Each runs script when it is followed, in some browser of the last twenty years.
    #[test]
    fn script_schemes_are_found_in_every_spelling() {
        for (value, scheme) in [
            ("javascript:alert(1)", "javascript:"),
            (" \u{1}\t JaVaScRiPt:x", "JaVaScRiPt:"),
            ("java\nscr\tipt\r:x", "java\nscr\tipt\r:"),
            ("&#106;ava&Tab;script&colon;x", "&#106;ava&Tab;script&colon;"),
            ("&#1;javascript:x", "javascript:"),
            ("vbscript:x", "vbscript:"),
            ("feed:javascript:x", "javascript:"),
            ("http://a;javascript:x", "javascript:"),
            ("url('javascript:x')", "javascript:"),
            ("`javascript:x`", "javascript:"),
            ("0;url=javascript:x", "javascript:"),
            ("data:text/html,x", "data:"),
            ("data:text/html;base64,x", "data:"),
            ("data:image/svg+xml,x", "data:"),
            ("DATA: application/x&#104;tml+xml,x", "DATA:"),
        ] {
            assert_eq!(found(value), Some(scheme), "{value:?}");
        }
        let escaped = br"javascript\:alert(1)";
        assert_eq!(leading_script(&mut markdown_characters(escaped, 0)), Some(0..12));
    }

    /// Links, pictures and talk are not attacks.
    #[test]
    fn other_values_pass() {
        for value in [
            "https://example.com/javascript:void",
            "/wiki/JavaScript:_The_Good_Parts",
            "learn javascript: basics",
            "java script:x",
            "data:image/png;base64,iVBORw0KGgo=",
            "data:text/plain,<b>",
            "data:,html",
            "xjavascript:x",
            "mailto:a@b.c",
            "javascript",
            "",
        ] {
            assert_eq!(found(value), None, "{value:?}");
        }
    }
}
