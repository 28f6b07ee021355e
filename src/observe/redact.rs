//! Takes keys and tokens out of any text that is about to be logged, counted or put in an error.

mod keys;
mod named;

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memmem, memrchr};

use keys::{SHORTEST_KEY, is_key_byte, known_key, random_run};
pub use named::KeyNames;
use named::{is_secret_parameter, named_value, scheme_value};

/// What stands in a log where a secret stood in the request.
pub const MARK: &str = "[redacted]";

/// No shorter text holds a secret with its name or scheme (`token=x`).
const SHORTEST_SECRET: usize = 7;
/// Replaces every key, token and long random run by [`MARK`]; borrows when there is none.
pub fn redact(text: &str) -> Cow<'_, str> {
    rewrite(text, spans(text.as_bytes(), true), MARK)
}

/// As [`redact`], but lets random runs without a known mark of a key stand: for request ids, which are random.
pub fn redact_keys(text: &str) -> Cow<'_, str> {
    rewrite(text, spans(text.as_bytes(), false), MARK)
}

/// Redacts a query string (without `?`): values of parameters whose name says secret, or is one of `keys`, and whatever
/// [`redact`] finds.
pub fn redact_query<'t>(query: &'t str, keys: KeyNames<'_>) -> Cow<'t, str> {
    let bytes = query.as_bytes();
    let mut found = spans(bytes, true);
    let mut at = 0;
    for pair in bytes.split(|&b| b == b'&' || b == b';') {
        if let Some(equals) = memchr::memchr(b'=', pair)
            && equals + 1 < pair.len()
            && let name = pair.get(..equals).unwrap_or_default()
            && (is_secret_parameter(name) || keys.hold(name))
        {
            found.push(at + equals + 1..at + pair.len());
        }
        at += pair.len() + 1;
    }
    rewrite(query, found, MARK)
}

/// Redacts a URL as it stands in a Referer: its `user:password@`, the query by parameter, and the rest as text.
pub fn redact_url<'t>(url: &'t str, keys: KeyNames<'_>) -> Cow<'t, str> {
    match without_credentials(url, MARK) {
        Cow::Borrowed(url) => redact_parts(url, keys),
        Cow::Owned(url) => Cow::Owned(redact_parts(&url, keys).into_owned()),
    }
}

/// The text with `mark` for what stands before the `@` of every URL in it (RFC 3986 §3.2.1).
pub fn without_credentials<'t>(text: &'t str, mark: &str) -> Cow<'t, str> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    for colon in memmem::find_iter(bytes, b"://") {
        let start = colon + 3;
        let rest = bytes.get(start..).unwrap_or_default();
        let ends = |b: &u8| matches!(b, b'/' | b'?' | b'#') || b.is_ascii_whitespace();
        let authority = rest.iter().position(ends).and_then(|end| rest.get(..end)).unwrap_or(rest);
        // Some parsers take everything up to the last `@` for the credentials.
        if let Some(length) = memrchr(b'@', authority) {
            found.push(start..start + length);
        }
    }
    rewrite(text, found, mark)
}

fn redact_parts<'t>(url: &'t str, keys: KeyNames<'_>) -> Cow<'t, str> {
    let Some((base, query)) = url.split_once('?') else { return redact(url) };
    match (redact(base), redact_query(query, keys)) {
        (Cow::Borrowed(_), Cow::Borrowed(_)) => Cow::Borrowed(url),
        (base, query) => Cow::Owned(format!("{base}?{query}")),
    }
}

fn rewrite<'t>(text: &'t str, mut found: Vec<Range<usize>>, mark: &str) -> Cow<'t, str> {
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable_by_key(|span| span.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for span in found {
        if span.start >= done {
            // Spans start and end beside ASCII, so each is on a character boundary.
            out.push_str(text.get(done..span.start).unwrap_or_default());
            out.push_str(mark);
        }
        done = done.max(span.end);
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

/// A byte that keys are made of.
const KEY: u8 = 1;
/// A byte that `Bearer` and `Basic` begin with.
const SCHEME: u8 = 2;
/// A byte between a name and its value.
const BETWEEN: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let key = if is_key_byte(byte as u8) { KEY } else { 0 };
        classes[byte] = match byte as u8 {
            b'b' | b'B' => key | SCHEME,
            b'=' | b':' => key | BETWEEN,
            _ => key,
        };
        byte += 1;
    }
    classes
};

/// All secret spans, in no order, possibly overlapping. Allocates only when there is one. Nothing inside a span is
/// looked at again by the search that found it: text made to be searched over and over costs no more than its length.
fn spans(text: &[u8], random: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if text.len() < SHORTEST_SECRET {
        return found;
    }
    let mut keys = Keys { random, done: 0, judged: 0 };
    let (mut schemes, mut names, mut run) = (0, 0, 0);
    let classes = text.iter().map(|byte| CLASSES[usize::from(*byte)]);
    for (at, class) in classes.enumerate().filter(|(_, class)| *class != KEY) {
        if class & KEY == 0 {
            // Most words are too short to be looked at.
            if at - run >= SHORTEST_KEY {
                found.extend(keys.within(text, run..at));
            }
            run = at + 1;
        }
        if class & SCHEME != 0
            && at >= schemes
            && let Some(span) = scheme_value(text, at)
        {
            schemes = span.end;
            found.push(span);
        }
        if class & BETWEEN != 0
            && at >= names
            && let Some(span) = named_value(text, at)
        {
            names = span.end;
            found.push(span);
        }
    }
    found.extend(keys.within(text, run..text.len()));
    found
}

/// The search for keys by their shape.
struct Keys {
    random: bool,
    /// Where the last key ended.
    done: usize,
    /// Where the last run that was judged for randomness ended.
    judged: usize,
}

impl Keys {
    /// The key in a whole run of key bytes.
    fn within(&mut self, text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
        if run.len() < SHORTEST_KEY || run.start < self.done {
            return None;
        }
        let key = known_key(text, &run);
        let random = || if self.random { random_run(text, run, &mut self.judged) } else { None };
        let span = key.or_else(random)?;
        self.done = span.end;
        Some(span)
    }
}

#[cfg(test)]
mod tests;
