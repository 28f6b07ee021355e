//! What the rules mark in a text, and the edits that come of it.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::code::Code;
use super::folding::Folded;
use super::kinds::{Kind, Kinds};
use super::{Cleaned, Edit, breakouts, bytes, links, markup, url};

/// One place to change, and why.
#[derive(Clone, Debug)]
struct Mark {
    span: Range<usize>,
    with: &'static str,
    kind: Kind,
}

/// The places to change.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(SmallVec<[Mark; 4]>);

impl Marks {
    /// Everything active in a text that hides nothing.
    pub fn of(text: &str, classes: u8) -> Self {
        let mut marks = Self::default();
        if classes & bytes::OPENER != 0 {
            markup::mark(text, &mut marks);
        }
        if classes & bytes::BRACKET != 0 {
            links::mark(text, &mut marks);
        }
        if classes & bytes::EQUALS != 0 {
            breakouts::mark(text, &mut marks);
        }
        links::mark_whole(text, &mut marks);
        if classes & bytes::FOLDING != 0
            && let Some(folded) = Folded::of(text)
        {
            marks.mark_folded(&folded);
        }
        marks.settle();
        marks
    }

    /// Marks what a text becomes once its look-alikes are folded.
    fn mark_folded(&mut self, folded: &Folded) {
        let mut marks = Self::default();
        markup::mark(&folded.text, &mut marks);
        marks.settle();
        let mut back = folded.back();
        self.0.extend(marks.0.into_iter().map(|Mark { span, with, kind }| {
            let start = back(span.start);
            Mark { span: start..back(span.end), with, kind }
        }));
    }

    /// Brings the marks in order. One tag read in two ways marks a place twice; the first holds.
    fn settle(&mut self) {
        self.0.sort_by_key(|mark| mark.span.start);
        let mut end = 0;
        self.0.retain(|mark| {
            let apart = mark.span.start >= end;
            end = end.max(mark.span.end);
            apart
        });
    }

    /// Marks a `<` that opens something active.
    pub fn escape_opener(&mut self, span: Range<usize>, kind: Kind) {
        self.0.push(Mark { span, with: "&lt;", kind });
    }

    /// Marks the `=` of a handler outside any tag.
    pub fn escape_equals(&mut self, span: Range<usize>) {
        self.0.push(Mark { span, with: "&#61;", kind: Kind::Handler });
    }

    /// Marks a scheme that runs script.
    pub fn blank_scheme(&mut self, span: Range<usize>) {
        self.0.push(Mark { span, with: url::BLANK, kind: Kind::Url });
    }

    /// How many are marked.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes back all but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The marks that are not in code.
    pub fn outside(mut self, code: &Code) -> Self {
        self.0.retain(|mark| !code.holds(mark.span.start));
        self
    }
}

impl From<Marks> for Cleaned {
    fn from(marks: Marks) -> Self {
        let found: Kinds = marks.0.iter().map(|mark| mark.kind).collect();
        let edits =
            marks.0.into_iter().map(|Mark { span, with, .. }| Edit { span, with: Cow::Borrowed(with) });
        Self { edits: edits.collect(), found }
    }
}
