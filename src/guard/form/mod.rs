//! Forms (`application/x-www-form-urlencoded`, WHATWG URL §5) and query strings: the fields that rules name, in one
//! walk. `/message` is the field `message`; `/messages/*/content` is `messages[0][content]`.
//!
//! Parsers of forms differ: in which of two fields of one name counts, in whether `;` parts fields, in what a `%` without
//! two digits is. Where that could hide a field that a rule names, the form is refused.

mod decode;
#[cfg(test)]
mod differential;
mod fault;
mod keys;

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr_iter;
use smallvec::SmallVec;

pub use fault::{Fault, FaultKind};

pub use decode::percent_decoded;

use self::decode::{broken_escape, decode};
use self::keys::{places, spell_as_php};
use super::json::{Caps, FieldRules, Names, fold};

/// What to make of what the encoding does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Refuse it: in a body that is declared a form.
    Strict,
    /// Read it as lenient parsers do: in a query, or in a body that may be something else.
    Lenient,
}

/// One field that a rule names.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<'t> {
    /// The tag of the rule.
    pub tag: u16,
    /// Its value, decoded.
    pub text: &'t str,
    /// Where the value stands, encoded.
    pub span: Range<usize>,
    /// Whether it is one of several, as brackets in its name say.
    pub listed: bool,
}

/// Working memory of a scan; keep one for each thread.
#[derive(Default)]
pub struct Scratch {
    names: Names,
    php: String,
    octets: Vec<u8>,
}

/// What a huge form made the working memory grow to is given back down to this many bytes.
const KEPT: usize = 4096;

/// Walks the pairs of `form` and hands each field that `rules` name to `visit`, in the order of the form.
///
/// Fields found before a fault have been handed out by the time it is answered: act on them only after `Ok`.
///
/// # Errors
/// The first fault. `caps` holds for the number of fields and for the brackets in a name.
pub fn scan(
    form: &[u8],
    strictness: Strictness,
    caps: &Caps,
    rules: &FieldRules,
    scratch: &mut Scratch,
    visit: &mut impl FnMut(Found<'_>),
) -> Result<(), Fault> {
    // At the start, so that a scan that a panic in `visit` cut short leaves nothing behind.
    scratch.names.reset();
    let limit = caps.members;
    let mut walk = Walk { form, strictness, depth: caps.depth, rules, scratch };
    let mut start = 0;
    let mut outcome = Ok(());
    for (count, end) in memchr_iter(b'&', form).chain([form.len()]).enumerate() {
        outcome = if count < limit as usize {
            walk.pair(start, end, visit)
        } else {
            Err(FaultKind::TooManyFields { limit }.at(start))
        };
        if outcome.is_err() {
            break;
        }
        start = end + 1;
    }
    scratch.names.reset();
    scratch.octets.shrink_to(KEPT);
    scratch.php.shrink_to(KEPT);
    outcome
}

struct Walk<'f, 'w> {
    form: &'f [u8],
    strictness: Strictness,
    depth: u32,
    rules: &'w FieldRules,
    scratch: &'w mut Scratch,
}

/// Rules that want a field.
pub type Tags = SmallVec<[u16; 4]>;

impl Walk<'_, '_> {
    /// Reads the pair from `start` to `end`.
    fn pair(&mut self, start: usize, end: usize, visit: &mut impl FnMut(Found<'_>)) -> Result<(), Fault> {
        let pair = &self.form[start..end];
        if self.strictness == Strictness::Strict
            && let Some(at) = broken_escape(pair)
        {
            return Err(FaultKind::BrokenEscape.at(start + at));
        }
        for semicolon in memchr_iter(b';', pair) {
            let (name, _) = split(&pair[semicolon + 1..], b";=");
            if !self.wanting(name, start)?.is_empty() {
                return Err(FaultKind::Semicolon.at(start + semicolon + 1));
            }
        }
        let (name, value) = split(pair, b"=");
        let tags = self.wanting(name, start)?;
        if tags.is_empty() {
            return Ok(());
        }
        // `[]` stands for the next element, so it may come again.
        if !self.scratch.php.contains("[]") {
            let Scratch { names, php, .. } = &mut *self.scratch;
            let name = names.keep(&[], |names| names.push_str(&fold(php)));
            if !names.add(&[], 0, name) {
                return Err(FaultKind::Duplicate.at(start));
            }
        }
        let span = end - value.len()..end;
        let listed = self.scratch.php.contains('[');
        let octets = decode(value, &mut self.scratch.octets);
        let text = str::from_utf8(octets).map_err(|_| FaultKind::NotUtf8.at(span.start))?;
        for tag in tags {
            visit(Found { tag, text, span: span.clone(), listed });
        }
        Ok(())
    }

    /// The rules that want the field whose name is encoded as `name`; leaves its spelling in PHP behind.
    fn wanting(&mut self, name: &[u8], at: usize) -> Result<Tags, Fault> {
        let Scratch { php, octets, .. } = &mut *self.scratch;
        let name = decode(name, octets);
        let name = match str::from_utf8(name) {
            Ok(name) => Cow::Borrowed(name),
            Err(_) if self.strictness == Strictness::Lenient => String::from_utf8_lossy(name),
            Err(_) => return Err(FaultKind::NotUtf8.at(at)),
        };
        let name = name.trim_start_matches(' ');
        if name.contains('\0') {
            return Err(FaultKind::Nul.at(at));
        }
        if name.bytes().filter(|b| *b == b'[').count() > self.depth as usize {
            return Err(FaultKind::TooDeep { limit: self.depth }.at(at));
        }
        php.clear();
        Ok(wanting(self.rules, name, php))
    }
}

/// The rules that want the field `name`, however a framework reads it; appends how PHP spells it.
pub fn wanting(rules: &FieldRules, name: &str, php: &mut String) -> Tags {
    spell_as_php(name, php);
    let mut tags = Tags::new();
    for place in places(rules, name, php) {
        tags.extend(rules.wanting_string(place).filter(|tag| !tags.contains(tag)).collect::<Tags>());
    }
    tags
}

/// What stands before and behind the first of `delimiters`.
fn split<'p>(pair: &'p [u8], delimiters: &[u8]) -> (&'p [u8], &'p [u8]) {
    let at = pair.iter().position(|b| delimiters.contains(b));
    at.map_or((pair, &[]), |at| (&pair[..at], &pair[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::json::Rule;

    fn read(strictness: Strictness, form: &[u8]) -> Result<Vec<(u16, String)>, FaultKind> {
        let rules =
            [Rule::text("/message", 0), Rule::text("/messages/*/content", 1), Rule::value("/session_id", 2)];
        let rules = FieldRules::compile(rules).expect("the patterns are valid");
        let caps = Caps { depth: 4, members: 8 };
        let mut found = Vec::new();
        let mut note = |field: Found<'_>| {
            let written = decode(&form[field.span.clone()], &mut Vec::new()).to_vec();
            assert_eq!(String::from_utf8_lossy(&written), field.text);
            found.push((field.tag, field.text.to_owned()));
        };
        scan(form, strictness, &caps, &rules, &mut Scratch::default(), &mut note).map_err(|fault| {
            assert!(fault.at <= form.len());
            fault.kind
        })?;
        Ok(found)
    }

    fn strict(form: &str) -> Result<Vec<(u16, String)>, FaultKind> {
        read(Strictness::Strict, form.as_bytes())
    }

    fn pairs(fields: &[(u16, &str)]) -> Result<Vec<(u16, String)>, FaultKind> {
        Ok(fields.iter().map(|&(tag, text)| (tag, text.to_owned())).collect())
    }

    /// A field that is not found has no cap.
    #[test]
    fn fields_are_found_decoded() {
        assert_eq!(strict("message=two+words%21&other=x"), pairs(&[(0, "two words!")]));
        assert_eq!(strict("a=1&mess%61ge=x"), pairs(&[(0, "x")]));
        assert_eq!(strict("MESSAGE=x&Session_ID=7"), pairs(&[(0, "x"), (2, "7")]));
        assert_eq!(strict("message=a=b"), pairs(&[(0, "a=b")]));
        assert_eq!(strict("message"), pairs(&[(0, "")]));
        assert_eq!(strict("+message=x"), pairs(&[(0, "x")]));
        assert_eq!(strict("message[]=a&message[]=b"), pairs(&[(0, "a"), (0, "b")]));
        let chat = "messages[0][role]=user&messages[0][content]=a&messages[1][content]=b";
        assert_eq!(strict(chat), pairs(&[(1, "a"), (1, "b")]));
        for form in ["", "&", "&&=&", "=message", "messages=x", "other=message"] {
            assert_eq!(strict(form), pairs(&[]), "{form}");
        }
    }

    /// Of two fields of one name the app would obey one and the gate have judged the other.
    #[test]
    fn a_field_twice_is_refused() {
        for form in [
            "message=a&message=b",
            "message=a&x=1&Message=b",
            "message=a&m%65ssage=b",
            "message[0]=a&message[0]=b",
            "session_id=1&session.id=2",
        ] {
            assert_eq!(strict(form), Err(FaultKind::Duplicate), "{form}");
        }
        assert_eq!(strict("other=1&other=2&message=a"), pairs(&[(0, "a")]));
    }

    /// Rack 2 and old Pythons part fields at semicolons: to them a second message begins there.
    #[test]
    fn a_field_behind_a_semicolon_is_refused() {
        for form in ["a=1;message=x", "a;message", "message=x;y;message=z", "a=1;;+Message=x"] {
            assert_eq!(strict(form), Err(FaultKind::Semicolon), "{form}");
        }
        assert_eq!(strict("message=one;two; three;=;"), pairs(&[(0, "one;two; three;=;")]));
    }

    /// Parsers differ over what the encoding does not allow, and so over which field it is.
    #[test]
    fn what_parsers_differ_about_is_refused_in_a_form_only() {
        for (form, kind) in [
            (&b"other=100%"[..], FaultKind::BrokenEscape),
            (b"mess%6=x", FaultKind::BrokenEscape),
            (b"\xff=x", FaultKind::NotUtf8),
        ] {
            assert_eq!(read(Strictness::Strict, form), Err(kind), "{}", form.escape_ascii());
            assert!(read(Strictness::Lenient, form).is_ok(), "{}", form.escape_ascii());
        }
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            assert_eq!(read(strictness, b"message%00=x"), Err(FaultKind::Nul), "PHP ends the name there");
            assert_eq!(read(strictness, b"message=%ff"), Err(FaultKind::NotUtf8), "a charset is a guess");
        }
        assert_eq!(read(Strictness::Lenient, b"message=100%&x=%"), pairs(&[(0, "100%")]));
        assert_eq!(strict("other=%ff"), pairs(&[]), "what no rule names may be in any charset");
    }

    /// A name of ten thousand brackets or a form of a million fields costs the app more than the client.
    #[test]
    fn caps_hold_to_the_one() {
        assert_eq!(strict("a=1&b&c&d&e&f&g&h"), pairs(&[]));
        assert_eq!(strict("a=1&b&c&d&e&f&g&h&"), Err(FaultKind::TooManyFields { limit: 8 }));
        assert_eq!(strict("a[1][2][3][4]=x"), pairs(&[]));
        assert_eq!(strict("a[1][2][3][4][5]=x"), Err(FaultKind::TooDeep { limit: 4 }));
    }
}
