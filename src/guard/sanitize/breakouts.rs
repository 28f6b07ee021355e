//! Text that ends the attribute it is put into and adds a handler: `" onfocus=alert(1) autofocus x="`.

use super::bytes::is_space;
use super::marks::Marks;
use super::markup::is_handler;

/// Marks the `=` of each handler that follows a quote. As an entity it reads the same in text and in a value, and
/// gives an attribute no value; the quote itself may be one that rightly begins a value.
pub(super) fn mark(text: &str, marks: &mut Marks) {
    let bytes = text.as_bytes();
    for equals in memchr::memchr_iter(b'=', bytes) {
        let (before, _) = split_end(&bytes[..equals], is_space);
        let (before, name) = split_end(before, |byte| byte.is_ascii_alphabetic());
        let (before, _) = split_end(before, |byte| is_space(byte) || byte == b'/');
        if is_handler(name) && matches!(before, [.., b'"' | b'\'']) {
            marks.escape_equals(equals..equals + 1);
        }
    }
}

/// Parts off the bytes at the end for which `belongs` holds.
fn split_end(text: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let length = text.iter().rev().take_while(|byte| belongs(**byte)).count();
    text.split_at(text.len() - length)
}
