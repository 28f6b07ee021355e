//! The first look: which classes of byte a text has at all. Most texts end here.

/// `<`
pub(super) const OPENER: u8 = 1;
/// `]`, which ends the text of a Markdown link.
pub(super) const BRACKET: u8 = 1 << 1;
/// A control character in one byte.
pub(super) const CONTROL: u8 = 1 << 2;
/// A byte that can lead a hidden character: U+0080 (C2), U+200B (E2), U+FEFF (EF), U+E0000 (F3).
pub(super) const HIDDEN: u8 = 1 << 3;
/// A byte that can lead a character which folds into ASCII: `ı` (C4), `ſ` (C5), `K` (E2), full-width forms (EF).
pub(super) const FOLDING: u8 = 1 << 4;
/// `=`
pub(super) const EQUALS: u8 = 1 << 5;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        classes[control] = CONTROL;
        control += 1;
    }
    classes[b'\t' as usize] = 0;
    classes[b'\n' as usize] = 0;
    classes[b'\r' as usize] = 0;
    classes[0x7f] = CONTROL;
    classes[b'<' as usize] = OPENER;
    classes[b']' as usize] = BRACKET;
    classes[b'=' as usize] = EQUALS;
    classes[0xc2] = HIDDEN;
    classes[0xc4] = FOLDING;
    classes[0xc5] = FOLDING;
    classes[0xe2] = HIDDEN | FOLDING;
    classes[0xef] = HIDDEN | FOLDING;
    classes[0xf3] = HIDDEN;
    classes
};

/// The class of one byte; 0 if no rule looks at it.
pub(super) fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

/// The classes of all bytes together.
pub(super) fn classes(text: &str) -> u8 {
    text.bytes().fold(0, |seen, byte| seen | class(byte))
}

/// White space by HTML's tokenizer, which reads a carriage return as a line feed.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ')
}
