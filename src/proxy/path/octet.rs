//! Octets of a path: what each one is, how it is escaped, and whether they add up to UTF-8.

use super::PathFault;

/// What a raw byte of a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Stands for itself.
    Plain,
    Slash,
    Percent,
    Semicolon,
    Backslash,
    /// Must be percent-encoded.
    Encoded,
    Control,
    /// `?` or `#`.
    Delimiter,
}

const CLASS: [Class; 256] = {
    let mut table = [Class::Encoded; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => {
                Class::Plain
            }
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b';' => Class::Semicolon,
            b'\\' => Class::Backslash,
            b'?' | b'#' => Class::Delimiter,
            0x00..=0x1f | 0x7f => Class::Control,
            _ => Class::Encoded,
        };
        byte += 1;
    }
    table
};

pub(super) fn class(byte: u8) -> Class {
    CLASS[usize::from(byte)]
}

/// Checks UTF-8 octet by octet (RFC 3629 §4), so that no overlong form of `.` or `/` gets through to a
/// lenient decoder.
pub(super) struct Utf8 {
    missing: u8,
    low: u8,
    high: u8,
}

impl Default for Utf8 {
    fn default() -> Self {
        Self { missing: 0, low: 0x80, high: 0xbf }
    }
}

impl Utf8 {
    pub(super) fn push(&mut self, octet: u8) -> Result<(), PathFault> {
        if self.missing == 0 {
            (self.missing, self.low, self.high) = match octet {
                0x00..=0x7f => (0, 0x80, 0xbf),
                0xc2..=0xdf => (1, 0x80, 0xbf),
                0xe0 => (2, 0xa0, 0xbf),
                0xed => (2, 0x80, 0x9f),
                0xe1..=0xef => (2, 0x80, 0xbf),
                0xf0 => (3, 0x90, 0xbf),
                0xf1..=0xf3 => (3, 0x80, 0xbf),
                0xf4 => (3, 0x80, 0x8f),
                _ => return Err(PathFault::NotUtf8),
            };
        } else if (self.low..=self.high).contains(&octet) {
            *self = Self { missing: self.missing - 1, ..Self::default() };
        } else {
            return Err(PathFault::NotUtf8);
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), PathFault> {
        if self.missing == 0 { Ok(()) } else { Err(PathFault::NotUtf8) }
    }
}

/// The octet that two leading hexadecimal digits stand for.
pub(super) fn escaped(digits: &[u8]) -> Option<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    match digits {
        [high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

pub(super) fn percent_encode(octet: u8, mut push: impl FnMut(u8)) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' + value - 10 };
    push(b'%');
    push(digit(octet >> 4));
    push(digit(octet & 15));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_judged_as_the_standard_library_does() {
        let judged = |octets: &[u8]| {
            let mut utf8 = Utf8::default();
            octets.iter().try_for_each(|octet| utf8.push(*octet)).and_then(|()| utf8.end()).is_ok()
        };
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                // Two continuation octets complete any lead whose second octet was acceptable.
                for text in
                    [&[first][..], &[first, second], &[first, second, 0x80], &[first, second, 0x80, 0x80]]
                {
                    assert_eq!(judged(text), str::from_utf8(text).is_ok(), "{text:x?}");
                }
            }
        }
    }

    #[test]
    fn an_escape_reads_back_as_its_octet() {
        for octet in 0..=255u8 {
            let mut made = Vec::new();
            percent_encode(octet, |byte| made.push(byte));
            assert_eq!(escaped(&made[1..]), Some(octet));
            assert_eq!(escaped(&made[1..].to_ascii_lowercase()), Some(octet));
        }
        assert_eq!((escaped(b""), escaped(b"4"), escaped(b"4g"), escaped(b"+4")), (None, None, None, None));
    }
}
