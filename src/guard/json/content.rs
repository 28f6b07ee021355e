//! What a body says, whatever its spelling: a digest that is the same for two bodies with the same content.
//!
//! The order of members, white space, escapes and the spelling of numbers do not count; the order of elements does. The
//! digest is computed in one walk with a stack of its own: members are added up, since a sum has no order.

use std::borrow::Cow;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::fields::{FieldRules, NodeId};
use super::text::RawStr;
use super::token;

/// An open object or array.
enum Frame {
    /// `members` is the sum of the digests of those that count.
    Object {
        node: NodeId,
        members: u128,
        name: u128,
        counts: bool,
    },
    Array {
        node: NodeId,
        index: u32,
        elements: SipHasher24,
    },
}

/// The kinds of values, so that none has the digest of another with the same bytes.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Word,
    Member,
    Object,
    Array,
}

/// Digests `body`, keyed by `key`. Members at the places that `ignored` names by a value rule do not count.
///
/// `None` if the body is not JSON that [`scan`](fn@super::scan) has passed.
pub fn content(body: &[u8], ignored: &FieldRules, key: &SipHasher24) -> Option<u128> {
    Walk { text: str::from_utf8(body).ok()?, at: 0, ignored, key, frames: Vec::new() }.run()
}

struct Walk<'b> {
    text: &'b str,
    at: usize,
    ignored: &'b FieldRules,
    key: &'b SipHasher24,
    frames: Vec<Frame>,
}

impl<'b> Walk<'b> {
    fn run(mut self) -> Option<u128> {
        let mut node = self.ignored.root();
        loop {
            let whole = self.value(node)?;
            let next = match whole {
                Some(digest) => self.close_all(digest)?,
                None => Next::Inside,
            };
            node = match next {
                Next::Inside => self.inside()?,
                Next::Place(node) => node,
                Next::End(digest) => return Some(digest),
            };
        }
    }

    /// Reads a value: its digest, or `None` if it is an object or array with something in it, which is open now.
    fn value(&mut self, node: NodeId) -> Option<Option<u128>> {
        let start = self.skip_space();
        let bytes = self.text.as_bytes();
        Some(Some(match bytes.get(start)? {
            b'"' => {
                let text = self.string()?;
                self.digest(Kind::Text, text.as_bytes())
            }
            b'{' | b'[' => {
                let object = bytes.get(start) == Some(&b'{');
                self.at += 1;
                let closes = self.skip_space();
                if matches!(bytes.get(closes)?, b'}' | b']') {
                    self.at += 1;
                    let empty = if object { Kind::Object } else { Kind::Array };
                    return Some(Some(self.digest(empty, &[])));
                }
                self.frames.push(match object {
                    true => Frame::Object { node, members: 0, name: 0, counts: true },
                    false => Frame::Array { node, index: 0, elements: self.hasher(Kind::Array) },
                });
                return Some(None);
            }
            b'-' | b'0'..=b'9' => {
                self.at = token::number(bytes, start).ok()?;
                self.digest(Kind::Number, canonical(&self.text[start..self.at]).as_bytes())
            }
            _ => {
                let word =
                    ["true", "false", "null"].into_iter().find(|w| self.text[start..].starts_with(w))?;
                self.at += word.len();
                self.digest(Kind::Word, word.as_bytes())
            }
        }))
    }

    /// The place of the first value in what was just opened.
    fn inside(&mut self) -> Option<NodeId> {
        match self.frames.last()? {
            Frame::Array { node, .. } => Some(self.ignored.element(*node, 0)),
            Frame::Object { .. } => self.member(),
        }
    }

    /// Reads a member's name and colon.
    fn member(&mut self) -> Option<NodeId> {
        self.skip_space();
        let written = self.string()?;
        let digest = self.digest(Kind::Member, written.as_bytes());
        self.skip_space();
        self.at += 1;
        let ignored = self.ignored;
        let Some(Frame::Object { node, name, counts, .. }) = self.frames.last_mut() else { return None };
        let (place, _) = ignored.member(*node, written.as_bytes());
        (*name, *counts) = (digest, ignored.wanting_scalar(place).next().is_none());
        Some(place)
    }

    /// Gives a value's digest to what it stands in, and closes all that ends with it.
    fn close_all(&mut self, mut digest: u128) -> Option<Next> {
        loop {
            let Some(mut frame) = self.frames.pop() else { return Some(Next::End(digest)) };
            let at = self.skip_space();
            let more = *self.text.as_bytes().get(at)? == b',';
            self.at += 1;
            match &mut frame {
                Frame::Object { members, name, counts, .. } => {
                    if *counts {
                        let mut member = self.hasher(Kind::Member);
                        member.write_u128(*name);
                        member.write_u128(digest);
                        *members = members.wrapping_add(member.finish128().as_u128());
                    }
                    if !more {
                        digest = self.digest(Kind::Object, &members.to_le_bytes());
                        continue;
                    }
                    self.frames.push(frame);
                    return self.member().map(Next::Place);
                }
                Frame::Array { node, index, elements } => {
                    elements.write_u128(digest);
                    if !more {
                        digest = elements.finish128().as_u128();
                        continue;
                    }
                    *index = index.saturating_add(1);
                    let place = self.ignored.element(*node, *index);
                    self.frames.push(frame);
                    return Some(Next::Place(place));
                }
            }
        }
    }

    /// The text of the string that begins here.
    fn string(&mut self) -> Option<Cow<'b, str>> {
        let start = self.at + 1;
        let (end, escaped) = token::string(self.text.as_bytes(), start).ok()?;
        self.at = end + 1;
        Some(RawStr::new(self.text.get(start..end)?, escaped).decode())
    }

    fn skip_space(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.at
    }

    fn hasher(&self, kind: Kind) -> SipHasher24 {
        let mut hasher = *self.key;
        hasher.write_u8(kind as u8);
        hasher
    }

    fn digest(&self, kind: Kind, bytes: &[u8]) -> u128 {
        let mut hasher = self.hasher(kind);
        hasher.write(bytes);
        hasher.finish128().as_u128()
    }
}

/// Where a walk goes on.
enum Next {
    Inside,
    Place(NodeId),
    End(u128),
}

/// One spelling of a number: 1, 1.0 and 1e0 are one. An integer that a double can't hold stays as it is written.
fn canonical(written: &str) -> String {
    let digits = written.strip_prefix('-').unwrap_or(written);
    if digits == "0" {
        return "0".into();
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return written.into();
    }
    match written.parse::<f64>() {
        Ok(0.0) => "0".into(),
        Ok(number) if number.is_finite() => number.to_string(),
        _ => written.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::json::{Caps, Rule, Scratch, scan};

    fn digest_without(body: &str, ignored: &[&str]) -> u128 {
        let rules = FieldRules::compile(ignored.iter().map(|pattern| Rule::value(pattern, 0))).unwrap();
        let sound = scan(body.as_bytes(), &Caps::default(), &rules, &mut Scratch::default(), &mut |_| {});
        assert_eq!(sound, Ok(()), "{body}");
        content(body.as_bytes(), &rules, &SipHasher24::new()).unwrap_or_else(|| panic!("{body}"))
    }

    fn digest(body: &str) -> u128 {
        digest_without(body, &[])
    }

    /// A sender that spells its retry another way would have it run twice.
    #[test]
    fn spelling_does_not_count() {
        for (a, b) in [
            (r#"{"a":1,"b":[true,null]}"#, " {\n\"b\" : [ true , null ] , \"a\" : 1.0 } "),
            (r#""é\n/""#, r#""\u00e9\u000a\/""#),
            (r#"{"\u0061":{}}"#, r#"{"a": { } }"#),
            ("[0, -0, 1e2, 2.50]", "[0.0,0e9,100,25e-1]"),
            (r#"{"a":{"x":1,"y":2},"b":{"y":2,"x":1}}"#, r#"{"b":{"x":1,"y":2},"a":{"y":2,"x":1}}"#),
        ] {
            assert_eq!(digest(a), digest(b), "{a} {b}");
        }
    }

    /// Two messages taken for one: the second would be lost.
    #[test]
    fn content_counts() {
        let bodies = [
            "{}",
            "[]",
            "null",
            "\"\"",
            "0",
            "\"0\"",
            "[0]",
            "[[0]]",
            "[0,0]",
            "[[],0]",
            "[0,[]]",
            "{\"0\":0}",
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":[1]}"#,
            r#"{"a":"1"}"#,
            r#"{"a":{"x":1},"b":{"y":1}}"#,
            r#"{"a":{"y":1},"b":{"x":1}}"#,
            r#"["a",1]"#,
            r#"["a","1"]"#,
            "[1,2]",
            "[2,1]",
            "true",
            "\"true\"",
            "123456789012345678901",
            "123456789012345678902",
            "-1",
            "1",
            "1.5",
            "-1.5",
            "1e999",
            "[{}]",
            "[[]]",
        ];
        let digests: std::collections::HashSet<_> = bodies.iter().map(|body| digest(body)).collect();
        assert_eq!(digests.len(), bodies.len());
    }

    /// A retry that says when it was sent is a retry all the same.
    #[test]
    fn what_is_ignored_does_not_count_wherever_it_holds() {
        let ignored = ["/ts", "/items/*/at", "/meta"];
        let without = |body| digest_without(body, &ignored);
        assert_eq!(without(r#"{"text":"hi","ts":1}"#), without(r#"{"ts":{"sec":2},"text":"hi"}"#));
        assert_eq!(without(r#"{"text":"hi","meta":[1,[2]]}"#), without(r#"{"text":"hi"}"#));
        assert_eq!(without(r#"{"items":[{"at":1,"n":1}]}"#), without(r#"{"items":[{"n":1,"at":2}]}"#));
        assert_ne!(without(r#"{"items":[{"at":1,"n":1}]}"#), without(r#"{"items":[{"at":1,"n":2}]}"#));
        assert_ne!(without(r#"{"a":{"ts":1}}"#), without(r#"{"a":{"ts":2}}"#));
    }
}
