//! The walk over a body: RFC 8259 with an explicit stack, so that no nesting can overflow ours.

use super::fault::{Fault, FaultKind};
use super::fields::{FieldRules, NodeId};
use super::names::Names;
use super::text::RawStr;
use super::{Caps, Found, Value, token};

/// Working memory of a scan. Keep one for each thread: once warm, an ordinary body allocates nothing. What a
/// huge body made it grow to is given back.
#[derive(Default)]
pub struct Scratch {
    frames: Vec<Frame>,
    names: Names,
}

/// An open object or array and its place in the rules.
#[derive(Clone, Copy)]
enum Frame {
    /// `names` is the height of the stack of names at which the object opened.
    Object { node: NodeId, names: usize },
    /// `index` is that of the element being read; the array begins at `start`.
    Array { node: NodeId, index: u32, start: usize },
}

/// Walks `body` once, checks it whole and hands each field that `rules` name to `visit`, in the order of the body.
///
/// Fields found before a fault have been handed out by the time it is answered: act on them only after `Ok`.
///
/// # Errors
/// The first fault; invalid UTF-8 comes before all others.
pub fn scan<'b>(
    body: &'b [u8],
    caps: &Caps,
    rules: &FieldRules,
    scratch: &mut Scratch,
    visit: &mut impl FnMut(Found<'b>),
) -> Result<(), Fault> {
    // In one go: plain ASCII passes at many bytes a cycle, and every slice from here on is known to be text.
    let text = str::from_utf8(body).map_err(|error| FaultKind::NotUtf8.at(error.valid_up_to()))?;
    // At the start, so that a scan that a panic in `visit` cut short leaves nothing behind.
    scratch.frames.clear();
    scratch.names.reset();
    let outcome = Walk { text, body, at: 0, members: 0, in_text: false, caps, rules, scratch, visit }.run();
    scratch.frames.shrink_to(64);
    scratch.names.reset();
    outcome
}

struct Walk<'b, 'w, V> {
    text: &'b str,
    /// The bytes of `text`.
    body: &'b [u8],
    at: usize,
    members: u32,
    /// Whether the member read last is named `text`.
    in_text: bool,
    caps: &'w Caps,
    rules: &'w FieldRules,
    scratch: &'w mut Scratch,
    visit: &'w mut V,
}

impl<'b, V: FnMut(Found<'b>)> Walk<'b, '_, V> {
    fn run(mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.at == self.body.len() {
            return Err(FaultKind::Empty.at(self.at));
        }
        let mut node = self.rules.root();
        loop {
            let opened = self.value(node)?;
            node = match if opened { self.first()? } else { self.next()? } {
                Some(node) => node,
                None => break,
            };
        }
        if self.at == self.body.len() { Ok(()) } else { Err(FaultKind::TrailingData.at(self.at)) }
    }

    /// Reads a scalar, or opens an object or array and answers true.
    #[inline]
    fn value(&mut self, node: NodeId) -> Result<bool, Fault> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                let (end, escapes) = token::string(self.body, start + 1)?;
                self.at = end + 1;
                let span = start + 1..end;
                for tag in self.rules.wanting_string(node) {
                    let value = Value::Text(RawStr::new(&self.text[span.clone()], escapes));
                    let part_of = self.part_of();
                    (self.visit)(Found { tag, value, span: span.clone(), part_of });
                }
            }
            Some(b'{') => {
                let names = self.scratch.names.height();
                self.open(Frame::Object { node, names })?;
                return Ok(true);
            }
            Some(b'[') => {
                self.open(Frame::Array { node, index: 0, start })?;
                return Ok(true);
            }
            Some(b'-' | b'0'..=b'9') => {
                self.at = token::number(self.body, start)?;
                self.found(node, Value::Number(&self.text[start..self.at]), start);
            }
            Some(b't') => self.word("true", Value::Bool(true), node)?,
            Some(b'f') => self.word("false", Value::Bool(false), node)?,
            Some(b'n') => self.word("null", Value::Null, node)?,
            _ if start == 0 && self.text.starts_with('\u{feff}') => {
                return Err(FaultKind::Syntax("a value without a byte order mark").at(0));
            }
            _ => return Err(self.expected("a value")),
        }
        Ok(false)
    }

    fn word(&mut self, word: &str, value: Value<'b>, node: NodeId) -> Result<(), Fault> {
        let start = self.at;
        if !self.body[start..].starts_with(word.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        self.found(node, value, start);
        Ok(())
    }

    fn found(&mut self, node: NodeId, value: Value<'b>, start: usize) {
        for tag in self.rules.wanting_scalar(node) {
            (self.visit)(Found { tag, value, span: start..self.at, part_of: None });
        }
    }

    /// Where the array begins of which the string just read is a part.
    fn part_of(&self) -> Option<usize> {
        match self.scratch.frames.as_slice() {
            [.., Frame::Array { start, .. }] => Some(*start),
            [.., Frame::Array { start, .. }, Frame::Object { .. }] if self.in_text => Some(*start),
            _ => None,
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), Fault> {
        let limit = self.caps.depth;
        if self.scratch.frames.len() >= limit as usize {
            return Err(FaultKind::TooDeep { limit }.at(self.at));
        }
        self.scratch.frames.push(frame);
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// The place of the first value in what has just been opened; if it is empty, of the next value after it.
    #[inline]
    fn first(&mut self) -> Result<Option<NodeId>, Fault> {
        match (self.scratch.frames.last(), self.peek()) {
            (Some(Frame::Object { .. }), Some(b'}')) | (Some(Frame::Array { .. }), Some(b']')) => self.next(),
            (Some(&Frame::Object { node, names }), _) => self.member(node, names).map(Some),
            (Some(&Frame::Array { node, index, .. }), _) => Ok(Some(self.rules.element(node, index))),
            (None, _) => Ok(None),
        }
    }

    /// Goes on after a value: closes all that ends here and answers the place of the next value, if there is one.
    #[inline]
    fn next(&mut self) -> Result<Option<NodeId>, Fault> {
        loop {
            self.skip_space();
            let next = self.peek();
            match self.scratch.frames.last_mut() {
                None => return Ok(None),
                Some(&mut Frame::Object { node, names }) => match next {
                    Some(b',') => {
                        self.at += 1;
                        self.skip_space();
                        return self.member(node, names).map(Some);
                    }
                    Some(b'}') => self.scratch.names.close(names),
                    _ => return Err(self.expected("`,` or `}`")),
                },
                Some(Frame::Array { node, index, .. }) => match next {
                    Some(b',') => {
                        *index = index.saturating_add(1);
                        let place = self.rules.element(*node, *index);
                        self.at += 1;
                        self.skip_space();
                        return Ok(Some(place));
                    }
                    Some(b']') => {}
                    _ => return Err(self.expected("`,` or `]`")),
                },
            }
            self.scratch.frames.pop();
            self.at += 1;
        }
    }

    /// Reads a member's name and colon and answers the place of its value.
    #[inline]
    fn member(&mut self, node: NodeId, names: usize) -> Result<NodeId, Fault> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.expected("a member name in double quotes"));
        }
        let (end, escapes) = token::string(self.body, start + 1)?;
        let limit = self.caps.members;
        if self.members >= limit {
            return Err(FaultKind::TooManyMembers { limit }.at(start));
        }
        self.members += 1;
        let raw = RawStr::new(&self.text[start + 1..end], escapes);
        let known = &mut self.scratch.names;
        let mut name = known.read(self.body, raw, start + 1);
        let written = known.bytes(self.body, name);
        let (place, folded) = self.rules.member(node, written);
        self.in_text = folded == Some("text");
        if let Some(folded) = folded.filter(|folded| folded.as_bytes() != written) {
            name = known.keep(self.body, |names| names.push_str(folded));
        }
        if !known.add(self.body, names, name) {
            return Err(FaultKind::DuplicateKey.at(start));
        }
        self.at = end + 1;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        self.skip_space();
        Ok(place)
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn expected(&self, what: &'static str) -> Fault {
        FaultKind::Syntax(what).at(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::json::Rule;

    fn rules(texts: &[&str], values: &[&str]) -> FieldRules {
        let texts = texts.iter().zip(0..).map(|(pattern, tag)| Rule::text(pattern, tag));
        let values = values.iter().zip(100..).map(|(pattern, tag)| Rule::value(pattern, tag));
        FieldRules::compile(texts.chain(values)).unwrap()
    }

    fn fault_within(caps: Caps, body: impl AsRef<[u8]>) -> Option<Fault> {
        scan(body.as_ref(), &caps, &rules(&[], &[]), &mut Scratch::default(), &mut |_| {}).err()
    }

    fn fault(body: impl AsRef<[u8]>) -> Option<Fault> {
        fault_within(Caps::default(), body)
    }

    /// Tag and decoded text, or tag and token, of each field in `body`.
    fn found(rules: &FieldRules, body: &str) -> Vec<(u16, String)> {
        let mut fields = Vec::new();
        let mut note = |found: Found<'_>| {
            let value = match found.value {
                Value::Text(text) => text.decode().into_owned(),
                _ => body[found.span.clone()].to_owned(),
            };
            fields.push((found.tag, value));
        };
        scan(body.as_bytes(), &Caps::default(), rules, &mut Scratch::default(), &mut note).unwrap();
        fields
    }

    fn pairs(fields: &[(u16, &str)]) -> Vec<(u16, String)> {
        fields.iter().map(|&(tag, value)| (tag, value.to_owned())).collect()
    }

    #[test]
    fn every_kind_of_value_passes() {
        for body in [
            "{}",
            "[]",
            "[[],{}]",
            " null ",
            "\r\n\ttrue",
            "false",
            "\"\"",
            "-0.5e-3",
            r#"{"":{"":""}}"#,
            r#"[1, "2" ,{"a" : [ ]}]"#,
            r#"{"a":1,"A":2}"#,
            r#"[{"a":1},{"a":2}]"#,
            r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#,
            "\"\u{7f}\u{fffe}😀\"",
        ] {
            assert_eq!(fault(body), None, "{body}");
        }
    }

    #[test]
    fn broken_grammar_is_refused_where_it_breaks() {
        for (body, at) in [
            ("{", 1),
            ("[", 1),
            ("[1", 2),
            ("[1,]", 3),
            ("[,1]", 1),
            ("[1 2]", 3),
            (r#"{"a"}"#, 4),
            (r#"{"a":}"#, 5),
            (r#"{"a":1,}"#, 7),
            (r#"{"a":1 "b":2}"#, 7),
            ("{a:1}", 1),
            ("{'a':1}", 1),
            ("{1:1}", 1),
            ("[}", 1),
            ("{]", 1),
            ("[1}", 2),
            (r#"{"a":1]"#, 6),
            ("tru", 0),
            ("True", 0),
            ("nul", 0),
            ("NaN", 0),
            ("Infinity", 0),
            ("[01]", 2),
            ("[+1]", 1),
            ("[1.]", 3),
            ("[.5]", 1),
            ("[-]", 2),
            ("\"abc", 4),
            (r#""\x""#, 1),
            (r#""\u12"#, 1),
            (r#""abc\"#, 4),
            ("// c\n1", 0),
            ("[/**/]", 1),
            ("\u{a0}1", 0),
            ("\u{c}1", 0),
            ("\u{feff}{}", 0),
            ("[1\u{b}]", 2),
        ] {
            let fault = fault(body).unwrap();
            assert!(matches!(fault.kind, FaultKind::Syntax(_)) && fault.at == at, "{body:?}: {fault}");
        }
    }

    #[test]
    fn each_other_fault_names_its_place() {
        for (body, at, kind) in [
            (&b""[..], 0, FaultKind::Empty),
            (b" \r\n ", 4, FaultKind::Empty),
            (b"\"a\xff\"", 2, FaultKind::NotUtf8),
            (b"\"\xed\xa0\x80\"", 1, FaultKind::NotUtf8),
            (b"\"\xc0\xaf\"", 1, FaultKind::NotUtf8),
            (b"{}\xff", 2, FaultKind::NotUtf8),
            (b"\"a\nb\"", 2, FaultKind::ControlCharacter),
            (b"{\"a\0\":1}", 3, FaultKind::ControlCharacter),
            (br#""ab\ud83d""#, 3, FaultKind::LoneSurrogate),
            (br#"{"\ude00":1}"#, 2, FaultKind::LoneSurrogate),
            (br#"{"a":1} {}"#, 8, FaultKind::TrailingData),
            (b"1,", 1, FaultKind::TrailingData),
            (b"01", 1, FaultKind::TrailingData),
            (b"{}\0", 2, FaultKind::TrailingData),
        ] {
            assert_eq!(fault(body), Some(kind.at(at)), "{}", body.escape_ascii());
        }
    }

    /// Parsers differ in which of two members wins, so one of them would be inspected and the other obeyed.
    #[test]
    fn a_name_twice_is_refused_however_it_is_written() {
        for (body, at) in [
            (r#"{"a":1,"a":2}"#, 7),
            (r#"{"a":1,"\u0061":2}"#, 7),
            (r#"{"\u0061":1,"a":2}"#, 12),
            (r#"{"\u0061":1,"\u0061":2}"#, 12),
            (r#"{"\/":1,"/":2}"#, 8),
            (r#"{"":1,"b":{"":1},"":2}"#, 17),
            (r#"[{"a":{"b":1,"c":{},"b":1}}]"#, 20),
        ] {
            assert_eq!(fault(body), Some(FaultKind::DuplicateKey.at(at)), "{body}");
        }
    }

    /// Recursion would end the process here, and every other client's request with it.
    #[test]
    fn a_megabyte_of_brackets_is_only_too_deep() {
        for body in ["[".repeat(1 << 20), r#"{"a":"#.repeat(200_000)] {
            let kind = fault(&body).unwrap().kind;
            assert_eq!(kind, FaultKind::TooDeep { limit: 64 });
            let endless = Caps { depth: u32::MAX, members: u32::MAX };
            assert!(matches!(fault_within(endless, &body).unwrap().kind, FaultKind::Syntax(_)));
        }
    }

    #[test]
    fn caps_hold_to_the_one() {
        let caps = Caps { depth: 2, members: 3 };
        assert_eq!(fault_within(caps, r#"[{"a":1,"b":2},{"c":3}]"#), None);
        assert_eq!(fault_within(caps, "[[[]]]"), Some(FaultKind::TooDeep { limit: 2 }.at(2)));
        let many = r#"[{"a":1,"b":2},{"c":3,"d":4}]"#;
        assert_eq!(fault_within(caps, many), Some(FaultKind::TooManyMembers { limit: 3 }.at(22)));
        assert_eq!(fault_within(Caps { depth: 0, members: 0 }, "1"), None);
        assert_eq!(
            fault_within(Caps { depth: 0, members: 0 }, "[]"),
            Some(FaultKind::TooDeep { limit: 0 }.at(0))
        );
    }

    #[test]
    fn chat_bodies_give_up_their_text_in_every_shape() {
        let rules = rules(&["/messages/*/content", "/system", "/input"], &[]);
        let body = r#"{"system": [{"type": "text", "text": "s"}], "messages": [
            {"role": "user", "content": "plain"},
            {"role": "user", "content": ["bare", {"type": "text", "text": "part"}, {"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "tool"}]}]},
            {"role": "user", "content": {"text": "one part without its array"}},
            {"role": "user", "content": null}, {"role": "user", "name": "content"}]}"#;
        let text = [
            (1, "s"),
            (0, "plain"),
            (0, "bare"),
            (0, "part"),
            (0, "tool"),
            (0, "one part without its array"),
        ];
        assert_eq!(found(&rules, body), pairs(&text));
        assert_eq!(found(&rules, r#"{"input": "x"}"#), pairs(&[(2, "x")]));
        let body = r#"{"input": [{"role": "user", "content": "x"}, {"content": [{"type": "input_text", "text": "y"}]}]}"#;
        assert_eq!(found(&rules, body), pairs(&[(2, "x"), (2, "y")]));
    }

    #[test]
    fn scalars_are_captured_as_written() {
        let rules = rules(&[], &["/model", "/stream", "/max_tokens", "/sessionId"]);
        let body =
            r#"{"model": "gpt\u002d4o", "stream": true, "max_tokens": 1E3, "sessionId": null, "n": 1}"#;
        assert_eq!(
            found(&rules, body),
            pairs(&[(100, "gpt-4o"), (101, "true"), (102, "1E3"), (103, "null")])
        );
        assert_eq!(found(&rules, r#"{"model": {"model": "x"}, "stream": [true]}"#), []);
    }

    /// An escaped name, or one in capitals, reads the same to the upstream; here it must not hide the field.
    #[test]
    fn names_match_unescaped_in_any_case() {
        let rules = rules(&["/message", "/a~1b/~0", "/~01", "/chatInput"], &[]);
        assert_eq!(found(&rules, r#"{"m\u0065ssage": "x"}"#), pairs(&[(0, "x")]));
        for name in ["Message", "MESSAGE", "me\u{17f}\u{17f}age", r"me\u017f\u017fag\u0045"] {
            assert_eq!(found(&rules, &format!(r#"{{"{name}": "x"}}"#)), pairs(&[(0, "x")]), "{name}");
        }
        assert_eq!(found(&rules, r#"{"CHATINPUT": [{"TEXT": "x"}]}"#), pairs(&[(3, "x")]));
        assert_eq!(found(&rules, r#"{"message ": "y", "messages": "z"}"#), []);
        assert_eq!(found(&rules, r#"{"a\/b": {"~": "x"}}"#), pairs(&[(1, "x")]));
        assert_eq!(found(&rules, r#"{"~1": "x", "/": "y"}"#), pairs(&[(2, "x")]));
        let long = "n".repeat(100);
        let body = format!(r#"{{"{long}": "x", "{}": "y"}}"#, "n".repeat(36));
        assert_eq!(found(&self::rules(&[&format!("/{long}")], &[]), &body), pairs(&[(0, "x")]));
    }

    #[test]
    fn patterns_reach_elements_members_and_the_whole() {
        let rules = rules(&["/contents/*/parts/*/text", "/messages/1", "/x/*", "/*/0"], &["/*/*"]);
        assert_eq!(
            found(&rules, r#"{"contents": [{"parts": [{"text": "a"}, {"text": "b"}]}]}"#),
            pairs(&[(0, "a"), (0, "b")])
        );
        let body = r#"{"messages": ["m0", "m1", "m2"]}"#;
        assert_eq!(
            found(&rules, body),
            pairs(&[(3, "m0"), (100, "m0"), (1, "m1"), (100, "m1"), (100, "m2")])
        );
        assert_eq!(found(&rules, r#"{"x": {"0": "y"}}"#), pairs(&[(2, "y"), (3, "y"), (100, "y")]));
        assert_eq!(found(&rules, r#"{"x": {"0": 5}}"#), pairs(&[(100, "5")]));
        assert_eq!(found(&self::rules(&["/x/01", "/x/+1"], &[]), r#"{"x": ["a", "b"]}"#), []);
        let whole = FieldRules::compile([Rule::text("", 7)]).unwrap();
        assert_eq!(found(&whole, r#""x""#), pairs(&[(7, "x")]));
        assert_eq!(found(&whole, r#"["x", {"text": "y"}]"#), pairs(&[(7, "x"), (7, "y")]));
    }

    #[test]
    fn a_scratch_carries_nothing_over() {
        let mut scratch = Scratch::default();
        let rules = rules(&[], &[]);
        let many: Vec<String> = (0..2_000).map(|i| format!("\"k{i}\":{{\"\\u0061\":[")).collect();
        for cut in [1, 9, 50, 2_000] {
            let caps = Caps { depth: 10_000, members: 10_000 };
            let body = many[..cut].concat();
            assert!(scan(body.as_bytes(), &caps, &rules, &mut scratch, &mut |_| {}).is_err());
            let after = scan(br#"{"k0":{"a":[]},"k1":2}"#, &caps, &rules, &mut scratch, &mut |_| {});
            assert_eq!(after, Ok(()), "after {cut} objects left open");
        }
    }
}
