//! Secrets by what stands before them: a scheme (`Bearer x`) or a name (`token=x`).

use std::ops::Range;

use super::keys::is_key_byte;

/// The credential behind `Bearer` or `Basic` at `at`, whatever its shape.
pub(super) fn scheme_value(text: &[u8], at: usize) -> Option<Range<usize>> {
    /// What follows the word in prose and in challenges.
    const PROSE: &[&[u8]] = &[
        b"token",
        b"tokens",
        b"auth",
        b"authentication",
        b"authorization",
        b"scheme",
        b"realm",
        b"credentials",
        b"is",
        b"or",
        b"and",
        b"was",
        b"plan",
    ];
    /// Longer words are not in the list.
    const PROSE_BYTES: usize = 16;
    let rest = text.get(at..)?;
    let word = [&b"bearer"[..], b"basic"]
        .into_iter()
        .find(|word| rest.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word)))?;
    let mut start = at + word.len();
    let behind = start;
    loop {
        match text.get(start)? {
            b' ' | b'\t' | b':' | b'+' | b'"' | b'=' => start += 1,
            b'%' if matches!(text.get(start + 1..start + 3), Some(b"20" | b"09" | b"3A" | b"3a")) => {
                start += 3
            }
            _ => break,
        }
    }
    let rest = text.get(start..).filter(|_| start > behind)?;
    let word = rest.iter().take_while(|b| is_key_byte(**b)).take(PROSE_BYTES).count();
    if PROSE.iter().any(|prose| rest.get(..word).is_some_and(|word| word.eq_ignore_ascii_case(prose))) {
        return None;
    }
    let length = rest.iter().take_while(|b| is_key_byte(**b) || b"._~+/=%".contains(b)).count();
    (length > 0).then_some(start..start + length)
}

/// The value behind a `name=` or `"name":` whose name says secret; `at` is the `=` or `:`.
pub(super) fn named_value(text: &[u8], at: usize) -> Option<Range<usize>> {
    let head = text.get(..at)?;
    let end = head.len() - head.iter().rev().take_while(|b| matches!(b, b'"' | b'\'' | b'\\' | b' ')).count();
    let length = head.get(..end)?.iter().rev().take_while(|b| is_key_byte(**b)).take(64).count();
    if !is_secret_name(head.get(end - length..end)?) {
        return None;
    }
    let lead = text.get(at + 1..)?.iter().take_while(|b| matches!(b, b'"' | b'\'' | b'\\' | b' ')).count();
    let start = at + 1 + lead;
    let ends = |b: &u8| b.is_ascii_whitespace() || b"\"'\\&;,<>(){}[]".contains(b);
    let length = text.get(start..)?.iter().take_while(|b| !ends(b)).count();
    (length > 0).then_some(start..start + length)
}

/// Whether a field's name says that its value is a secret, in any text: `xi-api-key`, `access_token`, `Set-Cookie`.
fn is_secret_name(name: &[u8]) -> bool {
    const ENDINGS: &[&[u8]] = &[
        b"token",
        b"secret",
        b"password",
        b"passwd",
        b"apikey",
        b"accesskey",
        b"secretkey",
        b"privatekey",
        b"authorization",
        b"credential",
        b"credentials",
        b"signature",
        b"cookie",
    ];
    // Plural names ("max_tokens") are counts.
    name.len() >= 5 && with_plain_name(name, |plain| ENDINGS.iter().any(|ending| plain.ends_with(ending)))
}

/// Whether a query parameter's value is a secret: also the short names that only mean one thing in a URL.
pub(super) fn is_secret_parameter(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"auth",
        b"code",
        b"jwt",
        b"otp",
        b"pass",
        b"pin",
        b"pwd",
        b"sid",
        b"sig",
        b"session",
        b"sessionid",
        b"ticket",
        b"assertion",
        b"samlresponse",
        b"nonce",
        b"state",
        b"hmac",
        b"accesscode",
        b"authcode",
    ];
    is_secret_name(name)
        || with_plain_name(name, |plain| {
            plain.ends_with(b"key")
                || plain.ends_with(b"token")
                || NAMES.contains(&plain)
                || is_secret_name(plain)
        })
}

/// Names of query parameters that carry a key because the operator says so, whatever they sound like.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyNames<'n>(&'n [Box<str>]);

impl<'n> KeyNames<'n> {
    /// These, in any letter case and encoding.
    pub const fn of(names: &'n [Box<str>]) -> Self {
        Self(names)
    }

    /// Whether a parameter, named as written in a query, is one of them.
    pub(super) fn hold(self, name: &[u8]) -> bool {
        let same = |known: &[u8]| {
            name == known
                || with_plain_name(known, |known| {
                    !known.is_empty() && with_plain_name(name, |plain| plain == known)
                })
        };
        self.0.iter().any(|known| same(known.as_bytes()))
    }
}

/// Hands on the name in lower case, percent-decoded and without separators; its last 64 bytes if it is longer.
fn with_plain_name(name: &[u8], decide: impl FnOnce(&[u8]) -> bool) -> bool {
    let name = name.get(name.len().saturating_sub(64)..).unwrap_or_default();
    let mut plain = [0u8; 64];
    let mut length = 0;
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let mut byte = *first;
        rest = tail;
        if let (b'%', [high, low, tail @ ..]) = (byte, tail)
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            byte = (high * 16 + low) as u8;
            rest = tail;
        }
        if byte.is_ascii_alphanumeric()
            && let Some(slot) = plain.get_mut(length)
        {
            *slot = byte.to_ascii_lowercase();
            length += 1;
        }
    }
    decide(plain.get(..length).unwrap_or_default())
}
