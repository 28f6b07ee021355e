//! Markup that does something, wherever a browser could begin to read it.
//!
//! Every `<` is judged as an HTML tokenizer in its data state reads it (HTML §13.2.5.1 and §13.2.5.6), also one inside a
//! comment, a value or another tag: whatever context the text is put into, each tag that a browser makes of it
//! begins at one of these, with the name and attributes that were judged.

use super::css;
use super::elements::{Element, element};
use super::entity::characters;
use super::kinds::Kind;
use super::marks::Marks;
use super::tag::{Attribute, Attributes, End, name_end};
use super::url;

/// Marks every active opener and every script URL in a tag that stays.
pub(super) fn mark(text: &str, marks: &mut Marks) {
    let bytes = text.as_bytes();
    for at in memchr::memchr_iter(b'<', bytes) {
        let active = match &bytes[at + 1..] {
            [b'!', ..] => Some(Kind::Markup),
            // A bogus comment to HTML; live to XML. PHP is common in questions, and runs in no browser.
            [b'?', name @ ..] => {
                (starts_with(name, b"xml") || starts_with(name, b"import")).then_some(Kind::Markup)
            }
            [b'/', letter, ..] if letter.is_ascii_alphabetic() => end_tag(bytes, at + 2),
            [letter, ..] if letter.is_ascii_alphabetic() => start_tag(bytes, at + 1, marks),
            _ => None,
        };
        if let Some(kind) = active {
            marks.escape_opener(at..at + 1, kind);
        }
    }
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// An end tag does harm where its element is open: `</script>` in a script's string, `</textarea>` in a form.
fn end_tag(text: &[u8], name: usize) -> Option<Kind> {
    let active = name_end(text, name).is_none_or(|end| element(&text[name..end]) == Element::Active);
    active.then_some(Kind::Markup)
}

/// Judges the tag whose name begins at `name`; if it stays, its script URLs are marked.
fn start_tag(text: &[u8], name: usize, marks: &mut Marks) -> Option<Kind> {
    let Some(end) = name_end(text, name) else { return Some(Kind::Markup) };
    let element = element(&text[name..end]);
    if element == Element::Active {
        return Some(Kind::Markup);
    }
    // A link in Markdown's angle brackets.
    if url::leading_script(&mut characters(text, name)).is_some() {
        return Some(Kind::Url);
    }
    let kept = marks.len();
    let mut attributes = Attributes::new(text, end);
    let mut active = attributes.by_ref().find_map(|attribute| judge(text, element, &attribute, marks));
    if active.is_none() && matches!(attributes.finish(), End::OpenQuote | End::Crowded) {
        active = Some(Kind::Markup);
    }
    if active.is_some() {
        marks.truncate(kept);
    }
    active
}

/// Whether the tag whose name begins at `name` does something, be it by a script URL alone.
pub(super) fn acts(text: &[u8], name: usize) -> bool {
    let mut marks = Marks::default();
    start_tag(text, name, &mut marks).is_some() || !marks.is_empty()
}

/// What makes a whole tag active; script URLs alone don't, and are marked.
fn judge(text: &[u8], element: Element, attribute: &Attribute, marks: &mut Marks) -> Option<Kind> {
    let value = attribute.value.clone()?;
    let name = &text[attribute.name.clone()];
    // A quote in front of it is part of its name, but whoever breaks out of an attribute has to write one: its `=` is
    // made harmless wherever it stands, and what is a value now would be attributes then.
    let quote = name.iter().rposition(|byte| matches!(byte, b'"' | b'\''));
    if is_handler(quote.map_or(name, |quote| &name[quote + 1..])) {
        return Some(Kind::Handler);
    }
    let mut characters = characters(&text[..value.end], value.start);
    if element == Element::ActiveByAttribute
        || name.eq_ignore_ascii_case(b"srcdoc")
        || name.eq_ignore_ascii_case(b"style") && css::runs_script(characters.clone())
    {
        return Some(Kind::Markup);
    }
    while let Some(scheme) = url::script(&mut characters) {
        marks.blank_scheme(scheme);
    }
    None
}

/// Whether a browser may take an attribute for an event handler: `on` and letters. Known names would be a list
/// that each new event makes wrong.
pub(super) fn is_handler(name: &[u8]) -> bool {
    name.len() > 4 && starts_with(name, b"on") && name.iter().all(u8::is_ascii_alphabetic)
}
