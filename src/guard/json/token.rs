//! Strings, escapes and numbers as bytes: where each ends, and whether the grammar allows it.

use super::fault::{Fault, FaultKind};

/// The end of a string's content (the offset of the closing quote) and what is escaped in it.
/// `at` is the first byte after the opening quote.
#[inline]
pub(super) fn string(body: &[u8], mut at: usize) -> Result<(usize, Escapes), Fault> {
    let mut escapes = Escapes::None;
    loop {
        let rest = body.get(at..).unwrap_or_default();
        at += plain_run(rest);
        match body.get(at) {
            Some(b'"') => return Ok((at, escapes)),
            Some(b'\\') => {
                let (character, length) =
                    escape(body.get(at..).unwrap_or_default()).map_err(|kind| kind.at(at))?;
                escapes = escapes.max(Escapes::of(character));
                at += length;
            }
            Some(_) => return Err(FaultKind::ControlCharacter.at(at)),
            None => return Err(FaultKind::Syntax("a closing quote").at(at)),
        }
    }
}

/// What is escaped in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Escapes {
    /// Nothing.
    None,
    /// Only what prose has to escape, or often does: quotes, backslashes, slashes, tabs and line ends.
    Prose,
    /// Other characters, too.
    Any,
}

impl Escapes {
    fn of(character: char) -> Self {
        match character {
            '"' | '\\' | '/' | '\t' | '\n' | '\r' => Self::Prose,
            _ => Self::Any,
        }
    }
}

/// How many bytes come before the first quote, backslash or control character (RFC 8259 §7).
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    // A block is judged at once, which is compiled to vector code, and only one with a hit is searched.
    let (blocks, rest) = bytes.as_chunks::<16>();
    for (n, block) in blocks.iter().enumerate() {
        if block.iter().fold(0, |hit, &byte| hit.max(if is_special(byte) { u8::MAX } else { 0 })) != 0 {
            return n * 16 + run_by_words(block);
        }
    }
    bytes.len() - rest.len() + run_by_words(rest)
}

/// The quote is the only character that comes to lie next to the controls when this bit is turned.
const TURNED: u8 = 2;

#[inline]
fn is_special(byte: u8) -> bool {
    (byte ^ TURNED <= b' ') | (byte == b'\\')
}

#[inline]
fn run_by_words(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let hits = special(u64::from_le_bytes(*word));
        if hits != 0 {
            return i * 8 + (hits.trailing_zeros() / 8) as usize;
        }
    }
    let plain = rest.iter().take_while(|byte| !is_special(**byte)).count();
    bytes.len() - rest.len() + plain
}

/// Sets the top bit of each byte that [`is_special`]. Borrows run upwards, so bits above the lowest one set may be wrong;
/// the lowest is right.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const TOPS: u64 = ONES * 0x80;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let turned = word ^ (ONES * u64::from(TURNED));
    (below(turned, 0x21) | below(word ^ (ONES * u64::from(b'\\')), 1)) & TOPS
}

/// Reads the escape that `raw` starts with: the character it stands for and its length in bytes.
pub(in crate::guard) fn escape(raw: &[u8]) -> Result<(char, usize), FaultKind> {
    let character = match raw.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return code_unit_escape(raw),
        _ => return Err(FaultKind::Syntax(r#"one of " \ / b f n r t u after the backslash"#)),
    };
    Ok((character, 2))
}

/// `\uXXXX`, or two of them that make a UTF-16 pair.
fn code_unit_escape(raw: &[u8]) -> Result<(char, usize), FaultKind> {
    let first = hex4(raw, 2)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 6));
    }
    if first >= 0xdc00 || raw.get(6..8) != Some(br"\u") {
        return Err(FaultKind::LoneSurrogate);
    }
    let second = hex4(raw, 8)?;
    if !(0xdc00..=0xdfff).contains(&second) {
        return Err(FaultKind::LoneSurrogate);
    }
    let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    char::from_u32(scalar).map(|character| (character, 12)).ok_or(FaultKind::LoneSurrogate)
}

fn hex4(raw: &[u8], at: usize) -> Result<u32, FaultKind> {
    let digits = raw.get(at..at + 4);
    let unit =
        digits.and_then(|d| d.iter().try_fold(0, |unit, &b| Some(unit << 4 | char::from(b).to_digit(16)?)));
    unit.ok_or(FaultKind::Syntax("an escape of four hex digits"))
}

/// The end of the number that starts at `at` (RFC 8259 §6).
pub(super) fn number(body: &[u8], mut at: usize) -> Result<usize, Fault> {
    if body.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match body.get(at) {
        // No leading zeros: what follows a 0 is judged as the next token.
        Some(b'0') => at + 1,
        _ => digits(body, at)?,
    };
    if body.get(at) == Some(&b'.') {
        at = digits(body, at + 1)?;
    }
    if let Some(b'e' | b'E') = body.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = body.get(at) {
            at += 1;
        }
        at = digits(body, at)?;
    }
    Ok(at)
}

/// The end of one or more digits.
fn digits(body: &[u8], at: usize) -> Result<usize, Fault> {
    let count = body.get(at..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 { Err(FaultKind::Syntax("a digit").at(at)) } else { Ok(at + count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte missed here would let a quote end a string at one place for us and at another for the upstream.
    #[test]
    fn every_byte_at_every_place_ends_a_run_or_not() {
        for length in 0..100 {
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'x'; length];
                    bytes[place] = byte;
                    let ends = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(plain_run(&bytes), if ends { place } else { length }, "{byte:#x} at {place}");
                }
            }
        }
    }

    /// The bytes next to a special one are where a carry between the lanes of a word would show.
    #[test]
    fn the_first_of_two_specials_ends_the_run() {
        for first in [b'"', b'\\', 0x00, 0x1f] {
            for second in 0..=u8::MAX {
                assert_eq!(plain_run(&[b'x', first, second, b'x', b'x', b'x', b'x', b'x', b'x']), 1);
                let ends = second < 0x20 || second == b'"' || second == b'\\';
                let run = plain_run(&[b'x', second, first, b'x', b'x', b'x', b'x', b'x', b'x']);
                assert_eq!(run, if ends { 1 } else { 2 });
            }
        }
    }

    #[test]
    fn escapes_stand_for_what_rfc_8259_says() {
        for (raw, character) in [
            (r#"\""#, '"'),
            (r"\\", '\\'),
            (r"\/", '/'),
            (r"\b", '\u{8}'),
            (r"\f", '\u{c}'),
            (r"\n", '\n'),
            (r"\r", '\r'),
            (r"\t", '\t'),
            (r"\u0041", 'A'),
            (r"\u00eF", 'ï'),
            (r"\uffff", '\u{ffff}'),
            (r"\ud7ff", '\u{d7ff}'),
            (r"\ue000", '\u{e000}'),
            (r"\uD83D\uDE00", '😀'),
            (r"\uDBFF\uDFFF", '\u{10ffff}'),
        ] {
            assert_eq!(escape(raw.as_bytes()), Ok((character, raw.len())), "{raw}");
        }
    }

    #[test]
    fn halves_of_a_pair_are_refused_alone() {
        for raw in [r"\ud83d", r"\ude00", r"\ud83dx", r"\ud83d\n", r"\ud83d\u0041", r"\ude00\ud83d"] {
            assert_eq!(escape(raw.as_bytes()), Err(FaultKind::LoneSurrogate), "{raw}");
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for raw in
            [r"\", r"\x41", r"\u", r"\u12", r"\u12g4", r"\u+123", r"\U0041", r"\'", r"\0", r"\ud83d\u12"]
        {
            assert!(matches!(escape(raw.as_bytes()), Err(FaultKind::Syntax(_))), "{raw}");
        }
    }

    #[test]
    fn numbers_follow_the_grammar() {
        for whole in
            ["0", "-0", "7", "10", "-12.50", "1e5", "1E+05", "0.1e-7", "123456789012345678901234567890"]
        {
            assert_eq!(number(whole.as_bytes(), 0), Ok(whole.len()), "{whole}");
        }
        for broken in ["-", "-a", "1.", "1.e5", "1e", "1e+", "1e-x", ".5", "+1"] {
            assert!(number(broken.as_bytes(), 0).is_err(), "{broken}");
        }
        assert_eq!(number(b"01", 0), Ok(1), "the 1 is left over and refused by the walker");
    }
}
