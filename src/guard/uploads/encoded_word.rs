//! Encoded words (RFC 2047): `=?utf-8?B?w7wucG5n?=`, as some clients write what is not ASCII in a header of a part.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The padding may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a text of encoded words, parted by blanks. `None`: it begins with none. `Err`: it is not of these alone, not in
/// UTF-8 or a part of it, or broken.
pub fn decode(text: &str) -> Option<Result<String, Broken>> {
    Word::parse(text)?;
    let mut bytes = Vec::with_capacity(text.len());
    let decoded = text
        .split(' ')
        .filter(|word| !word.is_empty())
        .try_for_each(|word| Word::parse(word).ok_or(Broken)?.decode_into(&mut bytes).ok_or(Broken));
    Some(decoded.and_then(|()| String::from_utf8(bytes).map_err(|_| Broken)))
}

/// Two readers could make different things of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

struct Word<'t> {
    charset: &'t str,
    encoding: &'t str,
    text: &'t str,
}

impl<'t> Word<'t> {
    /// The word that a text is or begins with.
    fn parse(text: &'t str) -> Option<Self> {
        let text = text.split(' ').next()?.strip_prefix("=?")?.strip_suffix("?=")?;
        let mut pieces = text.split('?');
        let (charset, encoding, text) = (pieces.next()?, pieces.next()?, pieces.next()?);
        // A language may follow the charset (RFC 2231 §5).
        let charset = charset.split('*').next()?;
        pieces.next().is_none().then_some(Self { charset, encoding, text })
    }

    fn decode_into(&self, bytes: &mut Vec<u8>) -> Option<()> {
        if !["utf-8", "us-ascii"].iter().any(|known| self.charset.eq_ignore_ascii_case(known)) {
            return None;
        }
        match self.encoding {
            "B" | "b" => BASE64.decode_vec(self.text, bytes).ok(),
            "Q" | "q" => quoted(self.text, bytes),
            _ => None,
        }
    }
}

/// RFC 2047 §4.2.
fn quoted(text: &str, bytes: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match first {
            b'_' => b' ',
            b'=' => {
                let [high, low, tail @ ..] = tail else { return None };
                rest = tail;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?
            }
            byte => *byte,
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2047 §8 and RFC 4648 §10: what is decoded otherwise than by the app is judged otherwise than it is read.
    #[test]
    fn words_are_decoded() {
        let decoded = |text: &str| decode(text).map(|decoded| decoded.ok());
        for (text, wanted) in [
            ("=?utf-8?B?Zm9vYmFy?=", "foobar"),
            ("=?UTF-8?b?Zm9vYg==?=", "foob"),
            ("=?utf-8?B?Zm9vYg?=", "foob"),
            ("=?us-ascii?Q?a_b=20c?=", "a b c"),
            ("=?utf-8*en?q?=e2=82=AC?=", "€"),
            ("=?utf-8?Q?a?=  =?utf-8?B?Yg==?=", "ab"),
            ("=?utf-8?B??=", ""),
        ] {
            assert_eq!(decoded(text), Some(Some(wanted.to_owned())), "{text}");
        }
        for broken in [
            "=?utf-8?B?Z?=",
            "=?utf-8?B?Zh==?=",
            "=?utf-8?B?Zg===?=",
            "=?utf-8?X?a?=",
            "=?utf-8?Q?=4?=",
            "=?utf-8?Q?=ff?=",
        ] {
            assert_eq!(decoded(broken), Some(None), "{broken}");
        }
        for plain in ["", "a.png", "=?utf-8?B?Zg==", "=?a?=", "=?a?b?c?d?=", "x=?utf-8?B?Zg==?="] {
            assert_eq!(decoded(plain), None, "{plain}");
        }
    }
}
