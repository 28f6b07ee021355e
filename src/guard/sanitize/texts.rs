//! The texts of one body on their way through the sanitizer, and what comes of it.
//!
//! A message may come in parts, and an app may put them together: `<scr` and `ipt>` are harmless each. So parts are also
//! read as one text, joined as they are and by line breaks.

use std::ops::Range;

use smallvec::SmallVec;

use super::carrier::{Carrier, Splice};
use super::glance::is_harmless;
use super::{Action, Cleaned, Edit, Edits, Kinds, Sanitizer, Sink, Target};
use crate::guard::json::RawStr;

/// What was found in the texts of one request, by where they were to end up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings(SmallVec<[(Target, Kinds); 1]>);

impl Sightings {
    /// Adds what was found in one text.
    pub fn add(&mut self, target: Target, found: Kinds) {
        match self.0.iter_mut().find(|(known, _)| *known == target) {
            Some((_, kinds)) => kinds.extend(found),
            None => self.0.push((target, found)),
        }
    }

    /// Adds all of another's.
    pub fn extend(&mut self, others: Self) {
        others.0.into_iter().for_each(|(target, found)| self.add(target, found));
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Targets, and what was found on its way to each.
    pub fn iter(&self) -> impl Iterator<Item = (Target, Kinds)> {
        self.0.iter().copied()
    }
}

/// What a body turned out to hold.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Edits of the body, in order and apart from each other.
    pub splices: Vec<Splice>,
    /// What was found.
    pub seen: Sightings,
    /// Whether the request is to be refused.
    pub refused: bool,
}

/// What a huge body made the working memory grow to is given back down to this many parts and bytes.
const KEPT_PARTS: usize = 16;
const KEPT_BYTES: usize = 64 * 1024;

/// Working memory; keep one for each thread.
#[derive(Default)]
pub struct Parts {
    list: Vec<Part>,
    /// Their texts, one after the other.
    text: String,
}

/// One of the parts that make a text.
struct Part {
    /// Parts of one group belong together.
    group: usize,
    target: Target,
    /// Where it stands in the body.
    span: Range<usize>,
    /// Where it stands in [`Parts::text`].
    text: Range<usize>,
    edits: Edits,
}

/// The texts of one body.
pub struct Texts<'w> {
    sanitizer: &'w Sanitizer,
    carrier: Carrier,
    body: &'w [u8],
    parts: &'w mut Parts,
    outcome: Outcome,
}

impl<'w> Texts<'w> {
    /// The texts of `body`.
    pub fn of(sanitizer: &'w Sanitizer, carrier: Carrier, body: &'w [u8], parts: &'w mut Parts) -> Self {
        parts.list.clear();
        parts.text.clear();
        Self { sanitizer, carrier, body, parts, outcome: Outcome::default() }
    }

    /// Takes in a text of JSON, as [`Self::add`] does, which it gives what has to be `decoded`.
    pub fn add_written(
        &mut self,
        target: Target,
        group: Option<usize>,
        span: Range<usize>,
        text: RawStr<'_>,
        decoded: &mut String,
    ) {
        // Alone, this can't come to anything; with others it may be half of a scheme.
        if group.is_none() && target.action != Action::Escape && is_harmless(text) {
            return;
        }
        if text.has_escapes() {
            decoded.clear();
            text.decode_into(decoded);
            self.add(target, group, span, decoded);
        } else {
            self.add(target, group, span, text.raw());
        }
    }

    /// Takes in a text that stands at `span`; `group` is the same for all parts of one message.
    pub fn add(&mut self, target: Target, group: Option<usize>, span: Range<usize>, text: &str) {
        let found = target.look(self.sanitizer, text).map(|cleaned| self.note(target, cleaned));
        let edits = found.unwrap_or_default();
        // A model is told everything anyhow: what its parts make together is not worth a copy of them.
        match group.filter(|_| target.sink != Sink::Model) {
            None => self.carrier.place(self.body, span, &edits, &mut self.outcome.splices),
            Some(group) => {
                let start = self.parts.text.len();
                self.parts.text.push_str(text);
                let text = start..self.parts.text.len();
                self.parts.list.push(Part { group, target, span, text, edits });
            }
        }
    }

    /// What came of them.
    pub fn finish(mut self) -> Outcome {
        let mut parts = std::mem::take(&mut self.parts.list);
        parts.sort_by_key(|part| part.group);
        for group in parts.chunk_by_mut(|a, b| a.group == b.group) {
            self.join(group);
            for part in group {
                self.carrier.place(self.body, part.span.clone(), &part.edits, &mut self.outcome.splices);
            }
        }
        parts.clear();
        parts.shrink_to(KEPT_PARTS);
        self.parts.list = parts;
        self.parts.text.shrink_to(KEPT_BYTES);
        self.outcome.splices.sort_by_key(|(span, _)| span.start);
        self.outcome
    }

    fn note(&mut self, target: Target, cleaned: Cleaned) -> Edits {
        self.outcome.seen.add(target, cleaned.found);
        self.outcome.refused |= target.action == Action::Reject && cleaned.found.is_active();
        cleaned.edits
    }

    /// Adds the edits that parts need as one text. What even these don't make inert is an attack made for this place.
    fn join(&mut self, parts: &mut [Part]) {
        let Some(target) = parts.first().map(|part| part.target) else { return };
        // What is escaped says nothing to HTML, however it is joined; HTML that is wanted is cleaned part by part.
        if parts.len() < 2 || target.action == Action::Escape {
            return;
        }
        let sink = if target.sink == Sink::Rich { Sink::Html } else { target.sink };
        let target = Target { sink, ..target };
        for separator in ["", "\n"] {
            let joined = joined(parts, separator, |part| self.parts.text[part.text.clone()].to_owned());
            if let Some(cleaned) = target.look(self.sanitizer, &joined) {
                distribute(&self.note(target, cleaned), parts, separator.len());
            }
        }
        if parts.iter().any(|part| !part.edits.is_empty()) {
            let left = |part: &Part| {
                let edits = part.edits.clone();
                Cleaned { edits, found: Kinds::default() }.apply(&self.parts.text[part.text.clone()])
            };
            let still = |text: &str| self.sanitizer.check(text, sink).is_some_and(|c| !c.edits.is_empty());
            self.outcome.refused |= ["", "\n"].into_iter().any(|by| still(&joined(parts, by, left)))
                || parts.iter().any(|part| still(&left(part)));
        }
    }
}

fn joined(parts: &[Part], separator: &str, text: impl Fn(&Part) -> String) -> String {
    parts.iter().map(text).collect::<Vec<_>>().join(separator)
}

/// Gives each part its share of the edits of their joined text: of each, the first part takes what is put in. What meets an
/// edit that a part has already is left to that.
fn distribute(edits: &[Edit], parts: &mut [Part], separator: usize) {
    // Both are in order, so no part is looked at again once the edits are past it.
    let (mut first, mut begin) = (0, 0);
    for edit in edits {
        while let Some(part) = parts.get(first)
            && begin + part.text.len() <= edit.span.start
        {
            begin += part.text.len() + separator;
            first += 1;
        }
        let mut start = begin;
        let mut with = edit.with.clone();
        for part in parts.iter_mut().skip(first) {
            if start >= edit.span.end {
                break;
            }
            let end = start + part.text.len();
            let span = edit.span.start.max(start)..edit.span.end.min(end);
            if span.start < span.end {
                let span = span.start - start..span.end - start;
                let place = part.edits.partition_point(|known| known.span.end <= span.start);
                if part.edits.get(place).is_none_or(|next| span.end <= next.span.start) {
                    part.edits.insert(place, Edit { span, with: std::mem::take(&mut with) });
                }
            }
            start = end + separator;
        }
    }
}
