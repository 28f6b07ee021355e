//! Keys by their shape: an issuer's prefix, or a long run that looks drawn at random.

use std::ops::Range;

/// Nothing shorter is taken for a key by its prefix: shorter words are prose ("sk-SK", "hf_hub").
pub(super) const SHORTEST_KEY: usize = 12;
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

/// Bytes that keys are made of, whatever their issuer.
pub(super) const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A key by its issuer's prefix inside `run`; a JWT goes on over its dots.
pub(super) fn known_key(text: &[u8], run: &Range<usize>) -> Option<Range<usize>> {
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
pub(super) fn random_run(text: &[u8], run: Range<usize>, judged: &mut usize) -> Option<Range<usize>> {
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
