//! Styles that run script in the engines that still have it: Internet Explorer's `expression()`, behaviours and script
//! URLs, XBL bindings.

use super::entity::{Characters, OTHER};

const SCRIPTS: [&[u8]; 6] =
    [b"expression(", b"javascript:", b"vbscript:", b"behavior:url(", b"-moz-binding:", b"@import"];

/// Whether the value of a `style` attribute runs script, however it is commented, escaped and spaced.
pub(super) fn runs_script(value: Characters<'_>) -> bool {
    let folded = folded(value);
    SCRIPTS.iter().any(|script| memchr::memmem::find(&folded, script).is_some())
}

/// The style in lower case without comments, escapes (CSS Syntax §4.3.7), white space and controls.
fn folded(value: Characters<'_>) -> Vec<u8> {
    let written: Vec<u8> = value.map(|character| character.byte).collect();
    let mut folded = Vec::with_capacity(written.len());
    let mut rest = written.as_slice();
    loop {
        let (byte, tail) = match rest {
            [] => return folded,
            [b'/', b'*', comment @ ..] => {
                let length = memchr::memmem::find(comment, b"*/").map_or(comment.len(), |at| at + 2);
                rest = &comment[length..];
                continue;
            }
            [b'\\', escaped @ ..] => unescape(escaped),
            [byte, tail @ ..] => (*byte, tail),
        };
        if byte > b' ' {
            folded.push(byte.to_ascii_lowercase());
        }
        rest = tail;
    }
}

/// The character that an escape stands for, and what follows it.
fn unescape(escaped: &[u8]) -> (u8, &[u8]) {
    let digits = escaped.iter().take(6).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 {
        return escaped.split_first().map_or((b' ', escaped), |(byte, tail)| (*byte, tail));
    }
    let code = escaped[..digits]
        .iter()
        .filter_map(|byte| (*byte as char).to_digit(16))
        .fold(0, |n, digit| n * 16 + digit);
    let tail = &escaped[digits..];
    let tail = tail.strip_prefix(b" ").unwrap_or(tail);
    (u8::try_from(code).unwrap_or(OTHER), tail)
}

#[cfg(test)]
mod tests {
    use super::super::entity::characters;
    use super::*;

    /// Styles have more ways to be misspelt than markup has.
    #[test]
    fn script_in_styles_is_found_in_every_spelling() {
        for (style, runs) in [
            ("width: expression(alert(1))", true),
            ("xss:expr/*x*/ession (alert(1))", true),
            (r"xss:\65 xp\000072ession(1)", true),
            ("&#x65;xpression&lpar;1)", true),
            ("background:url('java\nscript:x')", true),
            ("behavior: url(#default#time2)", true),
            ("-moz-binding:url(x#y)", true),
            ("scroll-behavior: smooth; color: red", false),
            ("content: 'regular expression'", false),
            ("background:url(https://example.com/a.png)", false),
            ("/* open", false),
            ("\\", false),
        ] {
            assert_eq!(runs_script(characters(style.as_bytes(), 0)), runs, "{style:?}");
        }
    }
}
