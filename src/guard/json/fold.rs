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

/// Whether `name`, UTF-8, is a spelling of `folded`.
#[inline]
pub(super) fn folds_to(name: &[u8], folded: &str) -> bool {
    let mut rest = name;
    for &wanted in folded.as_bytes() {
        let (byte, tail) = match rest {
            [0xc5, 0xbf, tail @ ..] => (b's', tail),
            [0xe2, 0x84, 0xaa, tail @ ..] => (b'k', tail),
            [byte, tail @ ..] => (byte.to_ascii_lowercase(), tail),
            [] => return false,
        };
        if byte != wanted {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

/// Every length in bytes that a spelling of `folded` can have.
pub(super) fn folded_lengths(folded: &str) -> impl Iterator<Item = usize> + use<> {
    let count = |letter| folded.chars().filter(|c| *c == letter).count();
    let (length, longs, kelvins) = (folded.len(), count('s'), count('k'));
    (0..=longs).flat_map(move |s| (0..=kelvins).map(move |k| length + s + 2 * k))
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
            assert!(folded_lengths("task").any(|length| length == name.len()), "{name}");
        }
        for other in ["tas", "tasks", "", "tasj", "ta\u{15f}k", "tas\u{ff4b}", "t\u{e4}sk"] {
            assert!(!folds_to(other.as_bytes(), "task"), "{other}");
        }
        assert!(folds_to("Größe".as_bytes(), "größe") && !folds_to("GRÖSSE".as_bytes(), "größe"));
    }
}
