//! Tags taken out, text kept: for what is read aloud or shown as it is.

use std::ops::Range;

use super::tag::{Attributes, End, name_end};

/// Elements whose content is no text for a reader.
const SILENT: [&str; 2] = ["script", "style"];

/// The spans to remove: tags, comments and declarations, scripts and styles with their content. Of a tag that is not
/// closed, only the `<`, so that no text is lost.
pub(super) fn spans(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut spans: Vec<Range<usize>> = Vec::new();
    // Looked for once: a text of openers without ends would else be searched from each.
    let ends = Ends {
        tag: memchr::memrchr(b'>', bytes).unwrap_or(0),
        comment: memchr::memmem::rfind(bytes, b"-->").unwrap_or(0),
    };
    let mut from = 0;
    while let Some(step) = memchr::memchr(b'<', &bytes[from..]) {
        let at = from + step;
        let Some(end) = end(bytes, at, &ends) else {
            from = at + 1;
            continue;
        };
        let start = joined(&bytes[..at]);
        match spans.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => spans.push(start..end),
        }
        from = end;
    }
    spans
}

/// Where the text ends before a span to remove: not with `<` or `</`, which what follows would make a tag again.
fn joined(mut before: &[u8]) -> usize {
    while let Some(shorter) = before.strip_suffix(b"<").or_else(|| before.strip_suffix(b"</")) {
        before = shorter;
    }
    before.len()
}

/// Where the last tag and the last comment end, if any does.
struct Ends {
    tag: usize,
    comment: usize,
}

/// Where what begins with the `<` at `at` ends; `None` if it begins nothing.
fn end(text: &[u8], at: usize, ends: &Ends) -> Option<usize> {
    let closed = match &text[at + 1..] {
        [b'!', b'-', b'-', ..] if at >= ends.comment => None,
        [b'!', b'-', b'-', ..] => memchr::memmem::find(&text[at..], b"-->").map(|length| at + length + 3),
        [b'!' | b'?', ..] if at >= ends.tag => None,
        [b'!' | b'?', ..] => memchr::memchr(b'>', &text[at..]).map(|length| at + length + 1),
        [b'/', letter, ..] if letter.is_ascii_alphabetic() => tag_end(text, at + 2),
        [letter, ..] if letter.is_ascii_alphabetic() => {
            let silent = SILENT.iter().find(|silent| is_named(text, at + 1, silent));
            tag_end(text, at + 1).map(|end| silent.map_or(end, |silent| content_end(text, end, silent)))
        }
        _ => return None,
    };
    Some(closed.unwrap_or(at + 1))
}

/// Behind the `>` of the tag whose name begins at `name`.
fn tag_end(text: &[u8], name: usize) -> Option<usize> {
    match Attributes::new(text, name_end(text, name)?).finish() {
        End::Closed(end) => Some(end),
        End::Open | End::OpenQuote | End::Crowded => None,
    }
}

fn is_named(text: &[u8], name: usize, element: &str) -> bool {
    name_end(text, name).is_some_and(|end| text[name..end].eq_ignore_ascii_case(element.as_bytes()))
}

/// Behind the end tag of a silent element whose start tag ends at `from`; the end of the text if there is none.
fn content_end(text: &[u8], from: usize, element: &str) -> usize {
    let mut ends = memchr::memmem::find_iter(&text[from..], b"</").map(|at| from + at + 2);
    ends.find(|name| is_named(text, *name, element))
        .and_then(|name| tag_end(text, name))
        .unwrap_or(text.len())
}
