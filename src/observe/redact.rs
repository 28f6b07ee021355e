//! Takes keys and tokens out of any text that is about to be logged, counted or put in an error.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr2_iter, memmem, memrchr};

/// What stands in a log where a secret stood in the request.
pub const MARK: &str = "[redacted]";

/// No shorter text holds a secret with its name or scheme (`token=x`).
const SHORTEST_SECRET: usize = 7;
/// Nothing shorter is taken for a key by its prefix: shorter words are prose ("sk-SK", "hf_hub").
const SHORTEST_KEY: usize = 12;
/// Nothing shorter is taken for a secret by its randomness alone.
const SHORTEST_RANDOM: usize = 32;

/// How the keys of known issuers begin.
const PREFIXES: &[&[u8]] = &[
    b"sk-",
    b"sk_",
    b"rk_live_",
    b"AIza",
    b"eyJ",
    b"AKIA",
    b"ASIA",
    b"ghp_",
    b"gho_",
    b"ghs_",
    b"ghu_",
    b"github_pat_",
    b"glpat-",
    b"gsk_",
    b"xai-",
    b"xoxb-",
    b"xoxp-",
    b"xapp-",
    b"hf_",
    b"r8_",
    b"pplx-",
    b"whsec_",
];

/// Which bytes stand first and second in a prefix, so that hardly any place in a word needs a look at the list.
const FIRST: [bool; 256] = bytes_at(0);
const SECOND: [bool; 256] = bytes_at(1);

const fn bytes_at(place: usize) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < PREFIXES.len() {
        table[PREFIXES[at][place] as usize] = true;
        at += 1;
    }
    table
}

/// Replaces every key, token and long random run by [`MARK`]; borrows when there is none.
pub fn redact(text: &str) -> Cow<'_, str> {
    rewrite(text, spans(text.as_bytes(), true), MARK)
}

/// As [`redact`], but lets random runs without a known mark of a key stand: for request ids, which are random.
pub fn redact_keys(text: &str) -> Cow<'_, str> {
    rewrite(text, spans(text.as_bytes(), false), MARK)
}

/// Redacts a query string (without `?`): values of parameters whose name says secret, and whatever [`redact`] finds.
pub fn redact_query(query: &str) -> Cow<'_, str> {
    let bytes = query.as_bytes();
    let mut found = spans(bytes, true);
    let mut at = 0;
    for pair in bytes.split(|&b| b == b'&' || b == b';') {
        if let Some(equals) = memchr::memchr(b'=', pair)
            && equals + 1 < pair.len()
            && is_secret_parameter(pair.get(..equals).unwrap_or_default())
        {
            found.push(at + equals + 1..at + pair.len());
        }
        at += pair.len() + 1;
    }
    rewrite(query, found, MARK)
}

/// Redacts a URL as it stands in a Referer: its `user:password@`, the query by parameter, and the rest as text.
pub fn redact_url(url: &str) -> Cow<'_, str> {
    match without_credentials(url, MARK) {
        Cow::Borrowed(url) => redact_parts(url),
        Cow::Owned(url) => Cow::Owned(redact_parts(&url).into_owned()),
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

fn redact_parts(url: &str) -> Cow<'_, str> {
    let Some((base, query)) = url.split_once('?') else { return redact(url) };
    match (redact(base), redact_query(query)) {
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

/// All secret spans, in no order, possibly overlapping. Allocates only when there is one. Nothing inside a span is
/// looked at again by the pass that found it: text made to be searched over and over costs no more than its length.
fn spans(text: &[u8], random: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if text.len() < SHORTEST_SECRET {
        return found;
    }
    let (mut done, mut judged) = (0, 0);
    long_runs(text, |run| {
        let fresh = run.start >= done;
        let key = if fresh { known_key(text, &run) } else { None };
        let random = if fresh && random && key.is_none() { random_run(text, run, &mut judged) } else { None };
        if let Some(span) = key.or(random) {
            done = span.end;
            found.push(span);
        }
    });
    done = 0;
    for at in memchr2_iter(b'b', b'B', text) {
        if at >= done
            && let Some(span) = scheme_value(text, at)
        {
            done = span.end;
            found.push(span);
        }
    }
    done = 0;
    for at in memchr2_iter(b'=', b':', text) {
        if at >= done
            && let Some(span) = named_value(text, at)
        {
            done = span.end;
            found.push(span);
        }
    }
    found
}

/// Bytes that keys are made of, whatever their issuer.
const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Calls `each` for every maximal run of key bytes of at least [`SHORTEST_KEY`]. Probes every twelfth byte and walks
/// back from there, so ordinary words cost a fraction of their length.
fn long_runs(text: &[u8], mut each: impl FnMut(Range<usize>)) {
    let key_byte_at = |at: usize| text.get(at).copied().is_some_and(is_key_byte);
    let mut start = 0;
    loop {
        let probe = start + SHORTEST_KEY - 1;
        if probe >= text.len() {
            return;
        }
        let mut first = probe + 1;
        while first > start && key_byte_at(first - 1) {
            first -= 1;
        }
        if first > start {
            // The byte before `first` ends a run, so no long run begins before it.
            start = first;
            continue;
        }
        let mut end = probe + 1;
        while key_byte_at(end) {
            end += 1;
        }
        each(start..end);
        start = end + 1;
    }
}

/// A key by its issuer's prefix inside `run`; a JWT goes on over its dots.
fn known_key(text: &[u8], run: &Range<usize>) -> Option<Range<usize>> {
    let word = text.get(run.clone())?;
    let last = word.len().checked_sub(SHORTEST_KEY)?;
    let mut after_letter = false;
    for (at, pair) in word.array_windows::<2>().enumerate().take(last + 1) {
        let [first, second] = pair.map(usize::from);
        if !after_letter && FIRST[first] && SECOND[second] {
            let rest = word.get(at..)?;
            if PREFIXES.iter().any(|prefix| rest.starts_with(prefix)) {
                return Some(run.start + at..over_dots(text, run.end));
            }
        }
        after_letter = pair[0].is_ascii_alphabetic();
    }
    None
}

/// The end of a token that begins before `end` and may go on behind dots.
fn over_dots(text: &[u8], mut end: usize) -> usize {
    while text.get(end) == Some(&b'.') && text.get(end + 1).copied().is_some_and(is_key_byte) {
        end += 1;
        while text.get(end).copied().is_some_and(is_key_byte) {
            end += 1;
        }
    }
    end
}

/// A run that is long and looks drawn at random: hex, base64url, or standard base64 across `+`, `/` and `=`.
/// `judged` is where the last of these wide runs ended.
fn random_run(text: &[u8], run: Range<usize>, judged: &mut usize) -> Option<Range<usize>> {
    let word = without_uuid(text.get(run.clone())?);
    if word.len() >= SHORTEST_RANDOM && Randomness::of(word).is_key() {
        return Some(run);
    }
    if run.start < *judged {
        return None;
    }
    let base64 = |at: usize| text.get(at).is_some_and(|&b| is_key_byte(b) || matches!(b, b'+' | b'/' | b'='));
    let (mut start, mut end) = (run.start, run.end);
    while start > 0 && base64(start - 1) {
        start -= 1;
    }
    while base64(end) {
        end += 1;
    }
    *judged = end;
    let wide = start..end;
    // A path is such a run as well: only one that changes class at every other byte is a key.
    (wide.len() >= SHORTEST_RANDOM && wide != run && Randomness::of(text.get(wide.clone())?).is_base64())
        .then_some(wide)
}

/// Cuts a UUID off the end: it names a chat or a file in a path, and operators need to see which.
fn without_uuid(word: &[u8]) -> &[u8] {
    let Some(split) = word.len().checked_sub(36) else { return word };
    let (rest, uuid) = word.split_at(split);
    let is_uuid = uuid.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    if is_uuid { rest } else { word }
}

/// How often a run changes between lower case, upper case and digits: words rarely do, random text at every other byte.
struct Randomness {
    symbols: usize,
    changes: usize,
    lower: bool,
    upper: bool,
    digit: bool,
}

impl Randomness {
    fn of(word: &[u8]) -> Self {
        let mut seen = Self { symbols: 0, changes: 0, lower: false, upper: false, digit: false };
        let mut last = 0;
        for &byte in word {
            let class = match byte {
                b'a'..=b'z' => 1,
                b'A'..=b'Z' => 2,
                b'0'..=b'9' => 3,
                _ => continue,
            };
            seen.lower |= class == 1;
            seen.upper |= class == 2;
            seen.digit |= class == 3;
            seen.changes += usize::from(last != 0 && last != class);
            seen.symbols += 1;
            last = class;
        }
        seen
    }

    /// Hex changes at 47 % of its places, base36 at 40 %, base64 at 60 %; `claude-3-5-sonnet-20241022` at 15 %.
    fn is_key(&self) -> bool {
        let letters = self.lower || self.upper;
        (self.digit && letters && self.changes * 5 >= self.symbols)
            || (self.lower && self.upper && self.changes * 5 >= self.symbols * 2)
    }

    fn is_base64(&self) -> bool {
        self.lower && self.upper && self.digit && self.changes * 5 >= self.symbols * 2
    }
}

/// The credential behind `Bearer` or `Basic` at `at`, whatever its shape.
fn scheme_value(text: &[u8], at: usize) -> Option<Range<usize>> {
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
fn named_value(text: &[u8], at: usize) -> Option<Range<usize>> {
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
fn is_secret_parameter(name: &[u8]) -> bool {
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

#[cfg(test)]
mod tests;
