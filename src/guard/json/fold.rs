//! Letter case of names: what parsers that ignore it take for one name.
//!
//! ASCII letters, and the two characters beyond ASCII whose simple case folding (Unicode `CaseFolding.txt`) is an ASCII
//! letter: U+017F, the long s, and U+212A, the Kelvin sign. Go's `encoding/json` folds both. Other letters beyond ASCII
//! are told apart by case: no field of a chat API has one.

const LONG_S: char = '\u{17f}';
const KELVIN: char = '\u{212a}';

/// The form that all spellings of `name` share.
pub(in crate::guard) fn fold(name: &str) -> String {
    let folded = |c| match c {
        LONG_S => 's',
        KELVIN => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(folded).collect()
}

/// The first letter of a name, folded, and what follows it.
#[inline]
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        [byte, tail @ ..] if byte.is_ascii() => Some((byte.to_ascii_lowercase(), tail)),
        [0xc5, 0xbf, tail @ ..] => Some((b's', tail)),
        [0xe2, 0x84, 0xaa, tail @ ..] => Some((b'k', tail)),
        [byte, tail @ ..] => Some((*byte, tail)),
        [] => None,
    }
}

/// The byte that all spellings of `name`, UTF-8, begin with once they are folded; 0 if it is empty.
#[inline]
pub(super) fn first_letter(name: &[u8]) -> u8 {
    split(name).map_or(0, |(letter, _)| letter)
}

/// Whether `name`, UTF-8, is a spelling of `folded`.
#[inline]
pub(super) fn folds_to(name: &[u8], folded: &str) -> bool {
    let mut rest = name;
    for &wanted in folded.as_bytes() {
        match split(rest) {
            Some((letter, tail)) if letter == wanted => rest = tail,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// Bytes of the longest spelling of `folded`.
pub(super) fn longest_spelling(folded: &str) -> usize {
    let longer = |c| match c {
        's' => LONG_S.len_utf8() - 1,
        'k' => KELVIN.len_utf8() - 1,
        _ => 0,
    };
    folded.len() + folded.chars().map(longer).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spelling that the upstream takes for a field's name and the gate does not carries text past its cap.
    #[test]
    fn every_spelling_folds_to_its_name() {
        for name in ["task", "TASK", "ta\u{17f}k", "TAS\u{212a}", "ta\u{17f}\u{212a}", "Ta\u{17f}K"] {
            assert_eq!(fold(name), "task", "{name}");
            assert!(folds_to(name.as_bytes(), "task"), "{name}");
            assert!(("task".len()..=longest_spelling("task")).contains(&name.len()), "{name}");
            assert_eq!(first_letter(name.as_bytes()), b't', "{name}");
        }
        for other in ["tas", "tasks", "", "tasj", "ta\u{15f}k", "tas\u{ff4b}", "t\u{e4}sk"] {
            assert!(!folds_to(other.as_bytes(), "task"), "{other}");
        }
        assert!(folds_to("Größe".as_bytes(), "größe") && !folds_to("GRÖSSE".as_bytes(), "größe"));
    }
}
