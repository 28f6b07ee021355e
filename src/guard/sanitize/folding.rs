//! Look-alikes that an app turns into markup by normalising (NFKC) or by changing case: `＜ｓｃｒｉｐｔ＞`, `<ſcript>`.

/// A text with its look-alikes replaced by the ASCII that they fold into.
pub(super) struct Folded {
    /// What an app would make of the text.
    pub text: String,
    /// Where a folded character ends in it, and how many bytes it was longer.
    shrunk: Vec<(usize, usize)>,
}

impl Folded {
    /// Folds a text; `None` if nothing in it folds, or nothing of it then could open a tag.
    pub fn of(text: &str) -> Option<Self> {
        let opens = ["<", "＜", "﹤"]
            .iter()
            .any(|opener| memchr::memmem::find(text.as_bytes(), opener.as_bytes()).is_some());
        if !opens || !text.chars().any(|character| fold(character).is_some()) {
            return None;
        }
        let mut folded = Self { text: String::with_capacity(text.len()), shrunk: Vec::new() };
        for character in text.chars() {
            folded.text.push(fold(character).unwrap_or(character));
            if fold(character).is_some() {
                folded.shrunk.push((folded.text.len(), character.len_utf8() - 1));
            }
        }
        Some(folded)
    }

    /// The way back from places in the folded text, which must be asked for in ascending order.
    pub fn back(&self) -> impl FnMut(usize) -> usize {
        let mut shrunk = self.shrunk.iter().peekable();
        let mut gone = 0;
        move |at| {
            while let Some((_, longer)) = shrunk.next_if(|(end, _)| *end <= at) {
                gone += longer;
            }
            at + gone
        }
    }
}

/// The ASCII character that NFKC, or upper and lower case, makes of another one.
fn fold(character: char) -> Option<char> {
    match character {
        // The full-width forms stand in ASCII's order.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(character as u32 - 0xff01 + 0x21),
        '﹤' => Some('<'),
        '﹥' => Some('>'),
        'ı' => Some('i'),
        'ſ' => Some('s'),
        '\u{212a}' => Some('k'),
        _ => None,
    }
}
