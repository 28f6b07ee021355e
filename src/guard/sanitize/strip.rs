//! Tags taken out, text kept: for what is read aloud or shown as it is.
//!
//! A tag is what a browser would take for one of HTML's elements, and whatever acts. Other angle brackets are text, or
//! mean something to who speaks it: `List<String>`, `<link to follow>`, and SSML (`<break time="1s"/>`, `<prosody>`),
//! which speech engines read and whose names are none of HTML's.

use std::ops::Range;

use super::elements::is_html;
use super::markup::acts;
use super::tag::{Attributes, End, name_end};

/// Elements whose content is no text for a reader.
const SILENT: [&str; 2] = ["script", "style"];

/// SSML's elements that HTML has, too (SSML 1.1 §3): they stay in a text that says it is SSML.
const SPOKEN: [&str; 5] = ["audio", "mark", "p", "s", "sub"];

/// Rounds in which tags are looked for that taking others out has made. No text needs two that was not made to.
const ROUNDS: usize = 4;

/// The spans to remove: tags, comments and declarations, scripts and styles with their content. Of a tag that is not
/// closed and acts, only the `<`, so that no text is lost. What they leave has nothing more to remove.
pub(super) fn spans(text: &str) -> Vec<Range<usize>> {
    let mut spans = round(text);
    for rounds in 1.. {
        if spans.is_empty() {
            break;
        }
        let left = without(text, &spans);
        let more = match rounds {
            ROUNDS => memchr::memchr_iter(b'<', left.as_bytes()).map(|at| at..at + 1).collect(),
            _ => round(&left),
        };
        if more.is_empty() {
            break;
        }
        spans = united(spans, more);
    }
    spans
}

/// The spans that can be seen at once.
fn round(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut spans: Vec<Range<usize>> = Vec::new();
    // Looked for once: a text of openers without ends would else be searched from each.
    let reader = Reader {
        text: bytes,
        last_tag: memchr::memrchr(b'>', bytes).unwrap_or(0),
        last_comment: memchr::memmem::rfind(bytes, b"-->").unwrap_or(0),
        ssml: is_ssml(text),
    };
    let mut from = 0;
    while let Some(step) = memchr::memchr(b'<', &bytes[from..]) {
        let at = from + step;
        let Some(end) = reader.end(at) else {
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

/// Whether a text is a document of SSML (§2.1), behind its XML declaration if it has one.
fn is_ssml(text: &str) -> bool {
    let text = text.trim_start();
    let declared = text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>"));
    let root = declared.map_or(text, |(_, document)| document.trim_start());
    root.strip_prefix("<speak").is_some_and(|rest| rest.starts_with(['>', ' ', '\t', '\r', '\n']))
}

/// Where the text ends before a span to remove: not with `<` or `</`, which what follows would make a tag again.
fn joined(mut before: &[u8]) -> usize {
    while let Some(shorter) = before.strip_suffix(b"<").or_else(|| before.strip_suffix(b"</")) {
        before = shorter;
    }
    before.len()
}

fn without(text: &str, spans: &[Range<usize>]) -> String {
    let mut left = String::with_capacity(text.len());
    let mut from = 0;
    for span in spans {
        left.push_str(&text[from..span.start]);
        from = span.end;
    }
    left.push_str(&text[from..]);
    left
}

/// The spans of a text, and those of what they leave of it, as spans of the text.
fn united(spans: Vec<Range<usize>>, more: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::with_capacity(spans.len() + more.len());
    let mut removed = spans.iter().peekable();
    let mut gone = 0;
    for left in more {
        while let Some(span) = removed.next_if(|span| span.start - gone <= left.start) {
            gone += span.len();
        }
        let start = left.start + gone;
        while let Some(span) = removed.next_if(|span| span.start - gone < left.end) {
            gone += span.len();
        }
        all.push(start..left.end + gone);
    }
    all.extend(spans);
    all.sort_by_key(|span| span.start);
    all.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    all
}

struct Reader<'t> {
    text: &'t [u8],
    /// Where the last tag and the last comment end, if any does.
    last_tag: usize,
    last_comment: usize,
    ssml: bool,
}

impl Reader<'_> {
    /// Where what is to be removed ends that begins with the `<` at `at`; `None` if nothing does.
    fn end(&self, at: usize) -> Option<usize> {
        let text = self.text;
        let closed = match &text[at + 1..] {
            [b'!', b'-', b'-', ..] if at >= self.last_comment => None,
            [b'!', b'-', b'-', ..] => memchr::memmem::find(&text[at..], b"-->").map(|length| at + length + 3),
            [b'!' | b'?', ..] if at >= self.last_tag => None,
            [b'!' | b'?', ..] => memchr::memchr(b'>', &text[at..]).map(|length| at + length + 1),
            [b'/', letter, ..] if letter.is_ascii_alphabetic() => {
                if self.stays(at, at + 2) {
                    return None;
                }
                tag_end(text, at + 2)
            }
            [letter, ..] if letter.is_ascii_alphabetic() => {
                let closed = tag_end(text, at + 1);
                // What never closes is no tag, `a <b` in prose: it goes only if it acts once a page closes it.
                if (closed.is_none() || self.stays(at, at + 1)) && !acts(text, at + 1) {
                    return None;
                }
                let silent = SILENT.iter().find(|silent| is_named(text, at + 1, silent));
                closed.map(|end| silent.map_or(end, |silent| content_end(text, end, silent)))
            }
            _ => return None,
        };
        Some(closed.unwrap_or(at + 1))
    }

    /// Whether the tag of the `<` at `opener`, whose name begins at `name`, is none of HTML's.
    fn stays(&self, opener: usize, name: usize) -> bool {
        let Some(end) = name_end(self.text, name) else { return false };
        let element = &self.text[name..end];
        !is_html(element)
            || self.ssml && SPOKEN.iter().any(|spoken| element == spoken.as_bytes())
            || self.is_parameter(opener, element, end)
    }

    /// Whether this is a type's parameter, as in `List<Object>` and `Option<A>`: right behind a word, with a capital.
    fn is_parameter(&self, opener: usize, element: &[u8], end: usize) -> bool {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let [first, rest @ ..] = element else { return false };
        self.text[..opener].last().is_some_and(word)
            && first.is_ascii_uppercase()
            && (rest.is_empty() || rest.iter().any(u8::is_ascii_lowercase))
            && self.text.get(end) == Some(&b'>')
    }
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
