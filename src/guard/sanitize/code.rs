//! Where a Markdown text is code, and so shown as written.

use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Spans of code, in order.
pub(super) struct Code(Vec<Range<usize>>);

impl Code {
    /// Finds code spans, fences and indented blocks. A table's `|` parts a code span for some renderers and not for
    /// others, and so does the `:` of a definition, so only what is code to all is.
    pub fn of(text: &str) -> Self {
        let renderers = [Options::ENABLE_TABLES, Options::all()].into_iter();
        Self(
            renderers.fold(spans(text, Options::empty()), |code, options| {
                intersection(&code, &spans(text, options))
            }),
        )
    }

    /// Whether a place is inside code.
    pub fn holds(&self, at: usize) -> bool {
        let next = self.0.partition_point(|span| span.end <= at);
        self.0.get(next).is_some_and(|span| span.start <= at)
    }
}

fn spans(text: &str, options: Options) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut block = false;
    for (event, span) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(_)) => block = true,
            Event::End(TagEnd::CodeBlock) => block = false,
            Event::Text(_) if block => spans.push(span),
            Event::Code(_) => spans.push(span),
            _ => {}
        }
    }
    spans
}

fn intersection(left: &[Range<usize>], right: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut both = Vec::new();
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
        let (start, end) = (l.start.max(r.start), l.end.min(r.end));
        if start < end {
            both.push(start..end);
        }
        if l.end < r.end {
            left.next()
        } else {
            right.next()
        };
    }
    both
}
