//! The texts of a body one by one, for `tidegate explain`: found by the same rules and changed by the same edits as when
//! the body is checked.

use super::super::form::{self, Strictness};
use super::super::json::{self, Value};
use super::super::sanitize::{Carrier, Parts, Splice, Target, Texts};
use super::super::text::FieldSet;
use super::{BodyGuard, Syntax};
use crate::proxy::api::Api;

/// A text that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSeen {
    /// Where it stands: `json`, `form`, `query` or `path`.
    pub part: &'static str,
    /// The path of the rule; of a path, none.
    pub field: Box<str>,
    /// The key that lists the path.
    pub setting: &'static str,
    /// Characters that it has.
    pub characters: u64,
    /// Characters that it may have; `None`: any number.
    pub most: Option<u64>,
    /// Where it ends up and what is done; `None`: it is not looked into.
    pub target: Option<Target>,
    /// The text as it came.
    pub before: String,
    /// The text as it is forwarded, if it is changed.
    pub after: Option<String>,
}

impl BodyGuard {
    /// The texts of `body`; those of a part that can't be read are left out.
    pub(in crate::guard) fn texts(&self, body: &[u8], syntax: Syntax, api: Option<Api>) -> Vec<TextSeen> {
        let mut seen = Vec::new();
        if syntax.json {
            seen.extend(self.json_texts(body, api));
        }
        if syntax.form {
            let strictness = if syntax.json { Strictness::Lenient } else { Strictness::Strict };
            seen.extend(self.pair_texts(body, strictness, "form", api));
        }
        seen
    }

    /// The path, if it holds what is changed or refused.
    pub(in crate::guard) fn path_text(&self, path: &str) -> Option<TextSeen> {
        let outcome = self.check_path(path)?;
        let changed = json::splice(path.as_bytes(), &outcome.splices).filter(|_| !outcome.splices.is_empty());
        let decode = |raw: Vec<u8>| form::percent_decoded(str::from_utf8(&raw).ok()?);
        let before = decode(path.into())?;
        Some(TextSeen {
            part: "path",
            field: "".into(),
            setting: "sanitize.path",
            characters: before.chars().count() as u64,
            most: None,
            target: self.path,
            before,
            after: changed.and_then(decode),
        })
    }

    /// The texts of a query.
    pub(in crate::guard) fn query_texts(&self, query: &str, api: Option<Api>) -> Vec<TextSeen> {
        self.pair_texts(query.as_bytes(), Strictness::Lenient, "query", api)
    }

    fn json_texts(&self, body: &[u8], api: Option<Api>) -> Vec<TextSeen> {
        let (set, mut parts, mut seen) = (self.fields.of(api), Parts::default(), Vec::new());
        let mut texts = Texts::of(&self.sanitizer, Carrier::Json, body, &mut parts);
        let scanned =
            json::scan(body, &self.caps, set.rules(), &mut json::Scratch::default(), &mut |found| {
                let Value::Text(text) = found.value else { return };
                let text = text.decode();
                let Some(new) = first_seen(&mut seen, set, found.tag, found.span.clone(), "json", &text)
                else {
                    return;
                };
                if let Some(target) = new.target {
                    texts.add(target, found.part_of, found.span, &text);
                }
            });
        let splices = texts.finish().splices;
        // As it stands between quotes.
        let decode = |raw: &[u8]| serde_json::from_slice([b"\"", raw, b"\""].concat().as_slice()).ok();
        scanned.map(|_| changed(seen, body, &splices, decode)).unwrap_or_default()
    }

    fn pair_texts(
        &self,
        pairs: &[u8],
        strictness: Strictness,
        part: &'static str,
        api: Option<Api>,
    ) -> Vec<TextSeen> {
        let (set, mut parts, mut seen) = (self.fields.of(api), Parts::default(), Vec::new());
        let mut texts = Texts::of(&self.sanitizer, Carrier::Percent, pairs, &mut parts);
        let mut scratch = form::Scratch::default();
        let scanned = form::scan(pairs, strictness, &self.caps, set.rules(), &mut scratch, &mut |found| {
            let Some(new) = first_seen(&mut seen, set, found.tag, found.span.clone(), part, found.text)
            else {
                return;
            };
            if let Some(target) = new.target {
                texts.add(target, found.listed.then_some(usize::from(found.tag)), found.span, found.text);
            }
        });
        let splices = texts.finish().splices;
        let decode = |raw: &[u8]| form::percent_decoded(&str::from_utf8(raw).ok()?.replace('+', " "));
        scanned.map(|_| changed(seen, pairs, &splices, decode)).unwrap_or_default()
    }
}

type Spanned = (std::ops::Range<usize>, TextSeen);

/// Takes in a text, unless it is a session's id, or another rule with a target has named the same text.
fn first_seen<'s>(
    seen: &'s mut Vec<Spanned>,
    set: &FieldSet,
    tag: u16,
    span: std::ops::Range<usize>,
    part: &'static str,
    text: &str,
) -> Option<&'s TextSeen> {
    let (field, setting, most, target) = set.rule(tag)?;
    if let Some((_, known)) = seen.last().filter(|(known, _)| known.start == span.start) {
        if known.target.is_some() || target.is_none() {
            return None;
        }
        seen.pop();
    }
    let characters = text.chars().count() as u64;
    let before = text.to_owned();
    let new = TextSeen { part, field: field.into(), setting, characters, most, target, before, after: None };
    seen.push((span, new));
    seen.last().map(|(_, new)| new)
}

/// Puts in what became of each text.
fn changed(
    seen: Vec<Spanned>,
    body: &[u8],
    splices: &[Splice],
    decode: impl Fn(&[u8]) -> Option<String>,
) -> Vec<TextSeen> {
    let with_end = |(span, mut text): Spanned| {
        let inside = |(at, _): &&Splice| span.start <= at.start && at.end <= span.end;
        let own = splices.iter().filter(inside);
        let own: Vec<Splice> =
            own.map(|(at, new)| (at.start - span.start..at.end - span.start, new.clone())).collect();
        if !own.is_empty() {
            text.after = json::splice(&body[span], &own).and_then(|raw| decode(&raw));
        }
        text
    };
    seen.into_iter().map(with_end).collect()
}
