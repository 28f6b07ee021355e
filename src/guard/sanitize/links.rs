//! Links in Markdown: `[text](javascript:…)`, images, and definitions `[name]: javascript:…`.

use super::bytes::is_space;
use super::entity::{characters, markdown_characters};
use super::marks::Marks;
use super::url;

/// Blanks the scheme of every link that runs script. Chat pages render Markdown whatever the field is said to hold.
pub(super) fn mark(text: &str, marks: &mut Marks) {
    let bytes = text.as_bytes();
    for bracket in memchr::memchr_iter(b']', bytes) {
        let Some(b'(' | b':') = bytes.get(bracket + 1) else { continue };
        let rest = &bytes[bracket + 2..];
        let spaces = rest.iter().take_while(|byte| is_space(**byte)).count();
        let angle = usize::from(rest.get(spaces) == Some(&b'<'));
        let destination = bracket + 2 + spaces + angle;
        if let Some(scheme) = url::leading_script(&mut markdown_characters(bytes, destination)) {
            marks.blank_scheme(scheme);
        }
    }
}

/// Blanks the scheme of a text that is itself such a URL, as in a field for a link. "JavaScript: how do I …" is talk.
pub(super) fn mark_whole(text: &str, marks: &mut Marks) {
    if let Some(scheme) = url::leading_script(&mut characters(text.as_bytes(), 0))
        && text.as_bytes().get(scheme.end).is_some_and(|byte| !is_space(*byte))
    {
        marks.blank_scheme(scheme);
    }
}
