//! One log line being built: JSON or text, with every value made safe to stand on one line.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::proxy::client::SubjectId;
use crate::state::clock::Timestamp;

use super::stamp;

/// A JSON object on one line.
pub struct JsonLine<'a> {
    out: &'a mut Vec<u8>,
    next: u8,
}

impl<'a> JsonLine<'a> {
    /// Opens the object with its time.
    pub fn begin(out: &'a mut Vec<u8>, at: Timestamp) -> Self {
        let mut line = Self { out, next: b'{' };
        line.key("ts");
        line.out.push(b'"');
        stamp::push_rfc3339(line.out, at);
        line.out.push(b'"');
        line
    }

    /// A string, escaped.
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.out.push(b'"');
        push_json(self.out, value);
        self.out.push(b'"');
    }

    /// A word of our own, which needs no escaping.
    pub fn word(&mut self, key: &'static str, value: &'static str) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    /// A list of words of our own.
    pub fn words(&mut self, key: &'static str, values: impl Iterator<Item = &'static str>) {
        self.key(key);
        self.out.push(b'[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        }
        self.out.push(b']');
    }

    /// A string, or nothing at all when there is none.
    pub fn maybe(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// A digest, as it displays.
    pub fn subject(&mut self, key: &'static str, value: SubjectId) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(&value.shown());
        self.out.push(b'"');
    }

    /// An IP address.
    pub fn address(&mut self, key: &'static str, value: IpAddr) {
        self.key(key);
        self.out.push(b'"');
        push_address(self.out, value);
        self.out.push(b'"');
    }

    /// An integer.
    pub fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        push_number(self.out, value);
    }

    /// A value of any shape; its texts are the gate's own, not a client's.
    pub fn value(&mut self, key: &'static str, value: &serde_json::Value) {
        self.key(key);
        // Writing to a vector can't fail.
        let _ = write!(self.out, "{value}");
    }

    /// A duration in milliseconds with three decimals.
    pub fn millis(&mut self, key: &'static str, value: Duration) {
        self.key(key);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        push_number(self.out, micros / 1_000);
        let digit = |value: u64| b'0' + (value % 10) as u8;
        self.out.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
    }

    /// Closes the object and the line.
    pub fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(&[self.next, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.next = b',';
    }
}

/// Bytes as text; borrows where they are text.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Appends an integer.
pub fn push_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an IP address.
pub fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                if octet > 99 {
                    out.push(b'0' + octet / 100);
                }
                if octet > 9 {
                    out.push(b'0' + octet / 10 % 10);
                }
                out.push(b'0' + octet % 10);
            }
        }
        // Writing to a vector can't fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Appends the inside of a JSON string (RFC 8259 §7) that also can't move a terminal's cursor or turn text around.
pub fn push_json(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        return out.extend_from_slice(text.as_bytes());
    }
    for symbol in text.chars() {
        match symbol {
            '"' | '\\' => out.extend_from_slice(&[b'\\', symbol as u8]),
            _ if is_invisible(symbol) => {
                for unit in symbol.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends text for a quoted field of the combined format: as nginx, all but printable ASCII becomes `\xHH`.
pub fn push_quoted(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(byte),
        }
    }
}

/// The start of `text` that fits in `limit` bytes, so that no caller decides how long a line gets.
pub fn shortened(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// Printable ASCII without quote and backslash. Without an early exit, so that it becomes vector code.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, b| plain & matches!(b, 0x20..=0x7e) & (b != b'"') & (b != b'\\'))
}

/// Controls, line and paragraph separators, bidirectional and zero-width marks, and Unicode tags.
fn is_invisible(symbol: char) -> bool {
    symbol.is_control()
        || matches!(symbol, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}
