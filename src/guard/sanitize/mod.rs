//! Sanitizing a field: what would act is made inert, span by span, and every other byte stays.
//!
//! A chat message is data. `a < b`, `Vec<String>` and `<div class="x">` are data too; what is not is markup that a
//! browser would run, load or follow, and characters that nobody sees. [`Sanitizer::check`] finds both in one pass
//! and answers with edits, so that a body leaves byte for byte as it came around them.

mod breakouts;
#[cfg(test)]
mod browser;
mod bytes;
mod carrier;
mod code;
mod config;
mod css;
mod elements;
mod entity;
mod folding;
mod glance;
mod hidden;
mod kinds;
mod links;
mod marks;
mod markup;
#[cfg(test)]
mod properties;
mod strip;
mod tag;
#[cfg(test)]
mod tests;
mod texts;
mod url;

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

pub use carrier::{Carrier, Splice};
pub use config::{Action, Config, Target};
pub use kinds::{Kind, Kinds};
pub use texts::{Outcome, Parts, Sightings, Texts};

use self::code::Code;
use self::hidden::Visible;
use self::marks::Marks;

/// What a field is for, and so what may stay in it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Sink {
    /// May end up in a page as it is: whatever acts is made inert.
    Html,
    /// Is rendered as Markdown: as `html`, but code spans and code blocks stay as written.
    Markdown,
    /// Holds HTML on purpose: cut down to harmless formatting.
    Rich,
    /// Holds no markup: tags are taken out, their text stays.
    Plain,
    /// Goes to a model: nothing is changed, findings are told.
    Model,
}

impl Sink {
    /// Every sink.
    pub const ALL: [Self; 5] = [Self::Html, Self::Markdown, Self::Rich, Self::Plain, Self::Model];

    /// Its word in the config and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Markdown => "markdown",
            Self::Rich => "rich",
            Self::Plain => "plain",
            Self::Model => "model",
        }
    }
}

/// One replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced, in bytes of the text; empty where something is added.
    pub span: Range<usize>,
    /// What stands there instead.
    pub with: Cow<'static, str>,
}

/// Edits in the order of the text, apart from each other, on character borders.
pub type Edits = SmallVec<[Edit; 4]>;

/// What was found in a text and what is to be done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// How to make the text harmless; empty if it is only observed.
    pub edits: Edits,
    /// What was found.
    pub found: Kinds,
}

impl Cleaned {
    /// The text with the edits made.
    pub fn apply(&self, text: &str) -> String {
        let mut cleaned = String::with_capacity(text.len());
        let mut from = 0;
        for Edit { span, with } in &self.edits {
            cleaned.push_str(&text[from..span.start]);
            cleaned.push_str(with);
            from = span.end;
        }
        cleaned.push_str(&text[from..]);
        cleaned
    }

    fn something(self) -> Option<Self> {
        (!self.found.is_empty()).then_some(self)
    }
}

/// Looks at the texts of fields. Built once.
#[derive(Debug, Default)]
pub struct Sanitizer {
    rich: ammonia::Builder<'static>,
}

impl Sanitizer {
    /// What a text holds that its sink may not get; `None` if nothing, and then nothing was allocated, unless the text
    /// has a `<` beside look-alikes of ASCII. The text that the edits leave has nothing more to change.
    pub fn check(&self, text: &str, sink: Sink) -> Option<Cleaned> {
        match sink {
            Sink::Html => neutralize(text, false),
            Sink::Markdown => neutralize(text, true),
            Sink::Rich => self.clean(text),
            Sink::Plain => self.strip(text),
            Sink::Model => neutralize(text, false).map(|cleaned| Cleaned { edits: Edits::new(), ..cleaned }),
        }
    }

    /// Takes the tags out, scripts and styles with their content, and what is hidden.
    pub fn strip(&self, text: &str) -> Option<Cleaned> {
        let classes = bytes::classes(text);
        let mut cleaned = Cleaned::default();
        let visible = visible(text, classes, &mut cleaned.found);
        if classes & bytes::OPENER != 0 {
            for span in strip::spans(&visible.text) {
                cleaned.found.insert(Kind::Markup);
                cleaned.edits.push(Edit { span, with: Cow::Borrowed("") });
            }
        }
        cleaned.edits = visible.edits(cleaned.edits);
        cleaned.something()
    }

    /// Writes `&`, `<`, `>` and quotes as entities, for a field that is put into HTML as it is, and takes out what is
    /// hidden. Not to be done twice: an entity is escaped like any other text.
    pub fn escape(&self, text: &str) -> Option<Cleaned> {
        let mut cleaned = Cleaned::default();
        let visible = visible(text, bytes::classes(text), &mut cleaned.found);
        for (at, byte) in visible.text.bytes().enumerate() {
            let entity = match byte {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                b'\'' => "&#39;",
                _ => continue,
            };
            cleaned.edits.push(Edit { span: at..at + 1, with: Cow::Borrowed(entity) });
        }
        cleaned.edits = visible.edits(cleaned.edits);
        cleaned.found.extend(neutralize(text, false).unwrap_or_default().found);
        (!cleaned.edits.is_empty()).then_some(cleaned)
    }

    /// Cuts HTML down to ammonia's allowlist: formatting, lists, tables, pictures and links without script.
    pub fn clean(&self, text: &str) -> Option<Cleaned> {
        let classes = bytes::classes(text);
        let mut cleaned = Cleaned::default();
        let visible = visible(text, classes, &mut cleaned.found);
        if classes & bytes::OPENER != 0 {
            let mut allowed = self.rich.clean(&visible.text).to_string();
            // References were decoded, and what is hidden in a scheme now would be live without it.
            let decoded = Visible::of(&allowed, &mut cleaned.found);
            if decoded.text.len() < allowed.len() {
                allowed = self.rich.clean(&decoded.text).to_string();
            }
            if let Some(edit) = difference(&visible.text, allowed) {
                cleaned.found.insert(Kind::Markup);
                cleaned.edits.push(edit);
            }
        }
        cleaned.edits = visible.edits(cleaned.edits);
        cleaned.something()
    }
}

/// The text without what is hidden, which is looked for only where a byte of it was seen.
fn visible<'t>(text: &'t str, classes: u8, found: &mut Kinds) -> Visible<'t> {
    if classes & (bytes::CONTROL | bytes::HIDDEN) == 0 {
        Visible::whole(text)
    } else {
        Visible::of(text, found)
    }
}

/// Makes active openers and script URLs inert, and takes out what is hidden.
fn neutralize(text: &str, markdown: bool) -> Option<Cleaned> {
    let classes = bytes::classes(text);
    let mut cleaned = Cleaned::default();
    let visible = visible(text, classes, &mut cleaned.found);
    let shown = visible.text.as_ref();
    let marks = Marks::of(shown, classes);
    let active = if markdown && !marks.is_empty() { outside_code(shown, marks) } else { marks.into() };
    cleaned.found.extend(active.found);
    cleaned.edits = visible.edits(active.edits);
    cleaned.something()
}

/// Leaves out the marks that are in code. An edit can move where code begins, so that what was code no longer is: if
/// so, nothing counts as code.
fn outside_code(text: &str, marks: Marks) -> Cleaned {
    let outside = Cleaned::from(marks.clone().outside(&Code::of(text)));
    let left = outside.apply(text);
    let again = Marks::of(&left, bytes::classes(&left)).outside(&Code::of(&left));
    if again.is_empty() { outside } else { marks.into() }
}

/// The one edit that makes `new` of `old`: what they share at both ends stays.
fn difference(old: &str, new: String) -> Option<Edit> {
    if old == new {
        return None;
    }
    let same = |(left, right): &(char, char)| left == right;
    let length = |(shared, _): (char, char)| shared.len_utf8();
    let start: usize = old.chars().zip(new.chars()).take_while(same).map(length).sum();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end: usize = old_rest.chars().rev().zip(new_rest.chars().rev()).take_while(same).map(length).sum();
    let span = start..old.len() - end;
    Some(Edit { span, with: Cow::Owned(new_rest[..new_rest.len() - end].to_owned()) })
}
