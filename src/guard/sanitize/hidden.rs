//! Characters that nobody sees: controls, zero-width characters, bidirectional overrides, Unicode tags.
//!
//! They hide words from a reader and from a filter, so they go, and what stays is what is judged. Kept are
//! those that a script or an emoji is written with: see [`is_spelling`] and [`flag`].

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::bytes::{CONTROL, HIDDEN, class};
use super::kinds::{Kind, Kinds};
use super::{Edit, Edits};

/// A text without its hidden characters, and the way back to where things stood.
pub(super) struct Visible<'t> {
    /// What is left.
    pub text: Cow<'t, str>,
    /// What was hidden, in bytes of the whole text: in order and apart from each other.
    removed: SmallVec<[Range<usize>; 4]>,
}

impl<'t> Visible<'t> {
    /// A text in which nothing is hidden.
    pub fn whole(text: &'t str) -> Self {
        Self { text: Cow::Borrowed(text), removed: SmallVec::new() }
    }

    /// Takes the hidden characters out and adds their kinds to `found`.
    pub fn of(text: &'t str, found: &mut Kinds) -> Self {
        let removed = hidden(text, found);
        let mut visible = Self::whole(text);
        if !removed.is_empty() {
            let mut kept = String::with_capacity(text.len());
            let mut from = 0;
            for span in &removed {
                kept.push_str(&text[from..span.start]);
                from = span.end;
            }
            kept.push_str(&text[from..]);
            visible = Self { text: Cow::Owned(kept), removed };
        }
        visible
    }

    /// Turns edits of the visible text into edits of the whole one, the removals among them. What is hidden
    /// inside an edit goes with it.
    pub fn edits(&self, edits: Edits) -> Edits {
        if self.removed.is_empty() {
            return edits;
        }
        let mut all = Edits::new();
        let mut removed = self.removed.iter().peekable();
        let mut gone = 0;
        let removal = |span: &Range<usize>| Edit { span: span.clone(), with: Cow::Borrowed("") };
        for Edit { span, with } in edits {
            while let Some(before) = removed.next_if(|hidden| hidden.start - gone <= span.start) {
                gone += before.len();
                all.push(removal(before));
            }
            let start = span.start + gone;
            while let Some(inside) = removed.next_if(|hidden| hidden.start - gone < span.end) {
                gone += inside.len();
            }
            all.push(Edit { span: start..span.end + gone, with });
        }
        all.extend(removed.map(removal));
        all
    }
}

/// The spans of hidden characters, neighbours joined.
fn hidden(text: &str, found: &mut Kinds) -> SmallVec<[Range<usize>; 4]> {
    let mut spans: SmallVec<[Range<usize>; 4]> = SmallVec::new();
    let mut at = 0;
    while let Some(step) =
        text.as_bytes()[at..].iter().position(|&byte| class(byte) & (CONTROL | HIDDEN) != 0)
    {
        at += step;
        // A byte of these classes begins a character.
        let Some(character) = text[at..].chars().next() else { break };
        let end = at + character.len_utf8();
        // Where the visible text before it ends.
        let seen = spans.last().filter(|span| span.end == at).map_or(at, |span| span.start);
        let kind = match character {
            '\u{e0000}'..='\u{e007f}' if seen == at && text[..at].ends_with('🏴') => {
                match flag(&text[at..]) {
                    Some(length) => {
                        at += length;
                        continue;
                    }
                    None => Some(Kind::Tag),
                }
            }
            '\u{200b}'..='\u{200d}' if is_spelling(&text[..seen], &text[end..]) => None,
            other => kind(other),
        };
        if let Some(kind) = kind {
            found.insert(kind);
            match spans.last_mut() {
                Some(span) if span.end == at => span.end = end,
                _ => spans.push(at..end),
            }
        }
        at = end;
    }
    spans
}

/// What a character hides, wherever it stands.
pub(super) fn kind(character: char) -> Option<Kind> {
    match character {
        '\t' | '\n' | '\r' => None,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Some(Kind::Control),
        '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => Some(Kind::ZeroWidth),
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some(Kind::Bidi),
        '\u{e0000}'..='\u{e007f}' => Some(Kind::Tag),
        _ => None,
    }
}

/// Whether a zero-width space, joiner or non-joiner belongs to what is written around it: Persian, the Indic scripts and
/// emoji are written with them, Thai and Khmer part words by them, and each of these also beside a foreign word or a
/// number (`LaTeX`, U+200C, `ها`). One is enough: the second of two is no spelling.
fn is_spelling(before: &str, after: &str) -> bool {
    let Some(before) = before.chars().next_back() else { return false };
    let letter = |character: char| character.is_alphabetic() && joins(character);
    joins(before) || before.is_alphanumeric() && after.chars().next().is_some_and(letter)
}

fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200d}')
}

/// Whether this is a character of a script that joiners are written beside. Markup is ASCII, and so are the full-width
/// forms to whoever folds them, so none can be hidden in it.
fn joins(character: char) -> bool {
    character >= '\u{590}'
        && !is_joiner(character)
        && !matches!(character, '\u{ff00}'..='\u{ffef}' | '\u{fe50}'..='\u{fe6f}' | '\u{212a}')
}

/// Bytes of the tags that make a waving black flag a region's (UTS #51, emoji tag sequences): an ISO 3166-2 code
/// and the cancel tag. Longer ones are no flag that anybody draws, and would be room for a message.
fn flag(tags: &str) -> Option<usize> {
    let code =
        tags.chars().take_while(|tag| matches!(tag, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}'));
    let length = code.count();
    let ended = tags.chars().nth(length) == Some('\u{e007f}');
    ((3..=6).contains(&length) && ended).then_some((length + 1) * '\u{e007f}'.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> (String, Vec<&'static str>) {
        let mut found = Kinds::default();
        let visible = Visible::of(text, &mut found);
        (visible.text.into_owned(), found.names().collect())
    }

    /// A reader would see another text than the app gets.
    #[test]
    fn what_nobody_sees_is_removed() {
        for (text, left, kind) in [
            ("a\0b\u{1b}[1mc", "ab[1mc", "control"),
            ("a\u{7f}b\u{85}c\u{9f}", "abc", "control"),
            ("pass\u{200b}word", "password", "zero_width"),
            ("\u{feff}a\u{2060}b\u{200d}c\u{200c}", "abc", "zero_width"),
            ("＜\u{200d}ｓ", "＜ｓ", "zero_width"),
            ("<\u{200c}ｓ <lin\u{200d}\u{212a}\u{200d}>", "<ｓ <lin\u{212a}>", "zero_width"),
            ("\u{200c}ها LaTeX\u{200c}", "ها LaTeX", "zero_width"),
            ("<b>\u{200c}ها (\u{200b}ไทย)", "<b>ها (ไทย)", "zero_width"),
            ("LaTeX\u{200c} ها a\u{200c}。b", "LaTeX ها a。b", "zero_width"),
            ("\u{202e}gpj.exe\u{202c}", "gpj.exe", "bidi"),
            ("\u{2067}if\u{2069} \u{202a}x", "if x", "bidi"),
            ("hi\u{e0068}\u{e0069}\u{e007f}", "hi", "tag"),
            ("🏴\u{e0001}\u{e0067}", "🏴", "tag"),
            ("🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e0067}\u{e0067}\u{e007f}", "🏴", "tag"),
        ] {
            assert_eq!(shown(text), (left.to_owned(), vec![kind]), "{text:?}");
        }
    }

    /// Without these a language is misspelt, or an emoji falls apart.
    #[test]
    fn scripts_and_emoji_keep_what_they_are_written_with() {
        for text in [
            "tab\tline\r\nend",
            "می\u{200c}خواهم",
            "LaTeX\u{200c}ها، 2\u{200c}تایی، فایل\u{200c}PDF، سال\u{200c}1400",
            "Facebook\u{200b}ไทย क्\u{200d}A",
            "❤\u{fe0f} 1\u{fe0f}\u{20e3} 🇺🇳 葛\u{e0100} 🏳\u{fe0f}\u{200d}🌈 👩🏽\u{200d}💻",
            "న్\u{200c}లు",
            "क्\u{200d}ष",
            "ភាសា\u{200b}ខ្មែរ",
            "👩\u{200d}👩\u{200d}👧 ❤\u{fe0f}\u{200d}🔥",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "שלום \u{200f}(a)\u{200e} \u{61c}",
            "„So“ – naïve £5 co\u{ad}operate、＜题＞",
        ] {
            assert_eq!(shown(text), (text.to_owned(), vec![]), "{text:?}");
        }
    }

    /// One joiner is spelling, a row of them is a message written in bits.
    #[test]
    fn joiners_in_a_row_keep_one() {
        assert_eq!(shown("क\u{200d}\u{200c}\u{200b}ष").0, "क\u{200d}ष");
        assert_eq!(shown("क\u{202e}\u{200d}\u{202e}\u{200d}ष").0, "क\u{200d}ष");
        assert_eq!(shown("X\u{200c}\u{200b}\u{200d}ه").0, "X\u{200d}ه");
        assert_eq!(shown("م\u{200c}\u{200b}\u{200c}X").0, "م\u{200c}X");
    }

    /// An edit must hit the bytes that it was found in, however much was hidden before and in them.
    #[test]
    fn edits_find_their_way_back() {
        let text = "\0a\0bc\0d\0";
        let visible = Visible::of(text, &mut Kinds::default());
        assert_eq!(visible.text, "abcd");
        let edits = visible.edits(Edits::from_iter([
            Edit { span: 1..3, with: Cow::Borrowed("X") },
            Edit { span: 3..4, with: Cow::Borrowed("Y") },
        ]));
        let spans: Vec<_> = edits.iter().map(|edit| (edit.span.clone(), edit.with.as_ref())).collect();
        assert_eq!(spans, [(0..1, ""), (2..3, ""), (3..5, "X"), (5..6, ""), (6..7, "Y"), (7..8, "")]);
    }
}
