//! The first look at a text as it is written in JSON. Most hold nothing that any rule looks at: they are not even decoded.

use super::{bytes, hidden, url};
use crate::guard::json::RawStr;

/// Whether no rule can find anything in a text, whatever its sink; `false` if it takes a closer look to say.
pub(super) fn is_harmless(text: RawStr<'_>) -> bool {
    !may_begin_with_scheme(text)
        && are_harmless(text.raw())
        && (text.is_prose() || text.escaped_characters().all(|character| !is_notable(character)))
}

/// Whether a text that is itself a URL could begin like this: with a word, and what ends a scheme or may stand for part of
/// one.
fn may_begin_with_scheme(text: RawStr<'_>) -> bool {
    let trimmed = text.characters().skip_while(|character| *character <= ' ');
    let written = trimmed.filter(|character| !matches!(character, '\t' | '\n' | '\r'));
    let behind = written.take(url::LONGEST + 1).find(|character| !character.is_ascii_alphabetic());
    matches!(behind, Some(':' | '&'))
}

/// Whether none of the characters written as themselves is notable.
fn are_harmless(raw: &str) -> bool {
    let mut rest = raw;
    loop {
        rest = &rest[quiet_run(rest.as_bytes())..];
        match rest.chars().next() {
            None => return true,
            Some(character) if is_notable(character) => return false,
            Some(character) => rest = &rest[character.len_utf8()..],
        }
    }
}

/// How many bytes come before the first that a notable character begins with.
fn quiet_run(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks();
    let quiet = BLOCK * blocks.iter().take_while(|block| !is_loud_block(block)).count();
    let rest = &bytes[quiet..];
    quiet + rest.iter().position(|byte| is_loud(*byte)).unwrap_or(rest.len())
}

const BLOCK: usize = 32;

/// Whether notable characters begin with this byte. What folds needs an opener beside it.
fn is_loud(byte: u8) -> bool {
    bytes::class(byte) & !bytes::FOLDING != 0
}

/// Whether one of these is among the bytes, all judged at once: without a branch, this is compiled to vector code.
fn is_loud_block(block: &[u8; BLOCK]) -> bool {
    /// Bits that tell loud bytes apart, and what they are with these set.
    const LOUD: [(u8, u8); 6] = [(1, b'='), (0, b']'), (0, 0x7f), (0x20, 0xe2), (0, 0xef), (0, 0xf3)];
    let distance = |byte| LOUD.iter().fold(u8::MAX, |least, (apart, loud)| least.min((byte | apart) ^ loud));
    block.iter().fold(false, |loud, &byte| loud | (distance(byte) == 0))
}

/// Whether a rule looks for this character, or for one that it folds into.
fn is_notable(character: char) -> bool {
    matches!(character, '<' | ']' | '=' | '＜' | '﹤') || hidden::kind(character).is_some()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::guard::json::{Caps, FieldRules, Found, Rule, Scratch, Value, scan};

    /// The same of what stands between the quotes of a JSON string.
    pub(in super::super) fn harmless(written: &str) -> bool {
        let body = format!("\"{written}\"");
        let rules = FieldRules::compile([Rule::text("", 0)]).expect("a rule");
        let mut harmless = None;
        let mut visit = |found: Found<'_>| {
            if let Value::Text(text) = found.value {
                harmless = Some(is_harmless(text));
            }
        };
        scan(body.as_bytes(), &Caps::default(), &rules, &mut Scratch::default(), &mut visit).expect("JSON");
        harmless.expect("a text")
    }

    /// A notable character that the vector code runs past is never looked at.
    #[test]
    fn every_notable_character_ends_a_run() {
        for character in (' '..=char::MAX).filter(|character| is_notable(*character)) {
            let first = character.encode_utf8(&mut [0; 4]).as_bytes()[0];
            assert!(is_loud(first), "{character:?}");
        }
        // JSON has no others.
        for byte in b' '..=u8::MAX {
            for place in [0, 17, 31, 32, 63, 64, 70] {
                let mut text = vec![b'x'; 71];
                text[place] = byte;
                let quiet = if is_loud(byte) { place } else { text.len() };
                assert_eq!(quiet_run(&text), quiet, "{byte:#x} at {place}");
            }
        }
    }

    /// Messages that are decoded for nothing cost five times as much.
    #[test]
    fn what_people_write_is_seen_through_at_once() {
        for text in [
            "",
            "Hello!",
            r#"He said \"no\",\nthen left: 3 > 2 & more."#,
            "“So” – it’s naïve… £5, 20 °C «là»",
            "请帮我看一下，谢谢！",
            r"Gr\u00fc\u00dfe \ud83d\ude00",
            "Привет 😀👍🏽",
        ] {
            assert!(harmless(text), "{text}");
        }
    }

    /// What is written with an escape, or could be a scheme, is not waved through.
    #[test]
    fn what_could_be_something_is_looked_at() {
        for text in [
            "a<b",
            r"a\u003cb",
            "[x](y)",
            r"\u005d(javascript:x)",
            "x=1",
            r"\u0000",
            r"\b",
            "\u{7f}",
            "a\u{200b}b",
            r"a\u200bb",
            "\u{85}",
            "＜b",
            r"\udb40\udc61",
            "javascript:x",
            "  javascript:x",
            r"java\nscript:x",
            r"\njavascript:x",
            "java&Tab;script:x",
            "&#106;avascript:x",
            r"\u006aavascript:x",
        ] {
            assert!(!harmless(text), "{text}");
        }
    }
}
