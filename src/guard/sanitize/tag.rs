//! The parts of a tag, by the states of HTML's tokenizer (§13.2.5.8, §13.2.5.32 to §13.2.5.40).

use std::ops::Range;

use super::bytes::is_space;

/// One attribute, in bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    /// Its name as written.
    pub name: Range<usize>,
    /// Its value without quotes; `None` if there is no `=`.
    pub value: Option<Range<usize>>,
}

/// Tags that may begin inside one tag. Prose and code have none; without a limit, `<a <a <a …` would be read once
/// for each of its openers.
const NESTED: usize = 16;

/// Where a tag's name ends that begins at `start`; `None` if more tags begin inside it than may.
pub(super) fn name_end(text: &[u8], start: usize) -> Option<usize> {
    let rest = &text[start..];
    let mut nested = 0;
    let length = rest.iter().position(|&byte| {
        nested += usize::from(byte == b'<');
        nested > NESTED || is_space(byte) || matches!(byte, b'/' | b'>')
    });
    (nested <= NESTED).then_some(start + length.unwrap_or(rest.len()))
}

/// How a tag ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Behind its `>`.
    Closed(usize),
    /// The text ends first.
    Open,
    /// The text ends first, inside a quoted value: whatever page follows becomes part of it.
    OpenQuote,
    /// Not within the limit of tags that may begin inside it.
    Crowded,
}

/// Reads the attributes of a tag whose name ends at `at`.
pub(super) struct Attributes<'t> {
    text: &'t [u8],
    at: usize,
    nested: usize,
    /// Set once there are no more.
    end: Option<End>,
}

impl<'t> Attributes<'t> {
    pub fn new(text: &'t [u8], at: usize) -> Self {
        Self { text, at, nested: 0, end: None }
    }

    /// Reads what is left of the tag.
    pub fn finish(mut self) -> End {
        self.by_ref().for_each(drop);
        self.end.unwrap_or(End::Open)
    }

    /// Skips to the first byte from `from` on for which `stop` holds, or to the end.
    fn until(&self, from: usize, stop: impl Fn(u8) -> bool) -> usize {
        let rest = &self.text[from..];
        from + rest.iter().position(|&byte| stop(byte)).unwrap_or(rest.len())
    }

    /// The value behind a `=` at `equals`.
    fn value(&mut self, equals: usize) -> Range<usize> {
        let start = self.until(equals + 1, |byte| !is_space(byte));
        let Some(quote @ (b'"' | b'\'')) = self.text.get(start).copied() else {
            self.at = self.until(start, |byte| is_space(byte) || byte == b'>');
            return start..self.at;
        };
        let length = memchr::memchr(quote, &self.text[start + 1..]);
        let end = length.map_or(self.text.len(), |length| start + 1 + length);
        self.at = end + usize::from(length.is_some());
        if length.is_none() {
            self.end = Some(End::OpenQuote);
        }
        start + 1..end
    }
}

impl Iterator for Attributes<'_> {
    type Item = Attribute;

    fn next(&mut self) -> Option<Attribute> {
        if self.end.is_some() {
            return None;
        }
        let start = self.until(self.at, |byte| !is_space(byte) && byte != b'/');
        self.at = start;
        match self.text.get(start) {
            None => self.end = Some(End::Open),
            Some(b'>') => self.end = Some(End::Closed(start + 1)),
            Some(_) => {}
        }
        if self.end.is_some() {
            return None;
        }
        // A `=` that leads is part of the name.
        let end = self.until(start + 1, |byte| is_space(byte) || matches!(byte, b'/' | b'>' | b'='));
        self.at = end;
        let next = self.until(end, |byte| !is_space(byte));
        let value = (self.text.get(next) == Some(&b'=')).then(|| self.value(next));
        self.nested += memchr::memchr_iter(b'<', &self.text[start..self.at]).count();
        if self.nested > NESTED {
            self.end = Some(End::Crowded);
        }
        Some(Attribute { name: start..end, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attributes of a tag named `x`, and the bytes behind it.
    fn read(tag: &str) -> (Vec<(&str, Option<&str>)>, End) {
        let mut attributes = Attributes::new(tag.as_bytes(), "<x".len());
        let read = attributes.by_ref().map(|a| (&tag[a.name], a.value.map(|value| &tag[value]))).collect();
        (read, attributes.finish())
    }

    /// Every way to part attributes that a browser accepts, and none that it does not.
    #[test]
    fn attributes_are_parted_as_a_browser_parts_them() {
        for (tag, expected) in [
            ("<x>", vec![]),
            ("<x/>", vec![]),
            ("<x a>", vec![("a", None)]),
            ("<x a=b c>", vec![("a", Some("b")), ("c", None)]),
            ("<x/a=b/c=d>", vec![("a", Some("b/c=d"))]),
            ("<x a='b'c=\"d\"e>", vec![("a", Some("b")), ("c", Some("d")), ("e", None)]),
            ("<x a \r\n=\t'b\n>'/ /c>", vec![("a", Some("b\n>")), ("c", None)]),
            ("<x a=`b c=d`>", vec![("a", Some("`b")), ("c", Some("d`"))]),
            ("<x =a=b>", vec![("=a", Some("b"))]),
            ("<x \"a=b>", vec![("\"a", Some("b"))]),
            ("<x a=>", vec![("a", Some(""))]),
            ("<x a=\"\"b=''>", vec![("a", Some("")), ("b", Some(""))]),
            ("<x a<b=c\x0cd>", vec![("a<b", Some("c")), ("d", None)]),
        ] {
            assert_eq!(read(tag), (expected, End::Closed(tag.len())), "{tag}");
        }
    }

    /// One hostile message may not hold a worker: no tag is read further than its limit, so the time taken goes by the
    /// text's length, not by its square.
    #[test]
    fn a_tag_full_of_tags_is_given_up_early() {
        for unit in ["<a ", "<a/", "<a x=y ", "<a x='' "] {
            let text = unit.repeat(1_000);
            let mut attributes = Attributes::new(text.as_bytes(), 2);
            assert!(attributes.by_ref().count() <= 2 * NESTED + 2, "{unit}");
            assert_eq!(attributes.finish(), End::Crowded, "{unit}");
        }
        assert_eq!(name_end("a<".repeat(NESTED + 1).as_bytes(), 0), None);
        assert_eq!(name_end("a<".repeat(NESTED).as_bytes(), 0), Some(2 * NESTED));
    }

    /// Text that stops inside a tag is completed by the page that it is put into.
    #[test]
    fn an_unclosed_tag_still_has_its_attributes() {
        assert_eq!(read("<x a=b"), (vec![("a", Some("b"))], End::Open));
        assert_eq!(read("<x a="), (vec![("a", Some(""))], End::Open));
        assert_eq!(read("<x "), (vec![], End::Open));
        assert_eq!(read("<x a='b>"), (vec![("a", Some("b>"))], End::OpenQuote));
    }
}
