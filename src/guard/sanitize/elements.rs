//! Elements that do something by being there.

/// What an element does in a page without any handler on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Runs or loads something, changes how the rest of the page is read, or swallows what follows it.
    Active,
    /// The same, once an attribute says what: `List<Object>` is Java, `<link to your page>` a gap to fill in,
    /// `<object data=…>` a load.
    ActiveByAttribute,
    /// Formatting, media, or no element at all.
    Inert,
}

/// Longest name in the table.
const LONGEST: usize = 16;

/// Looks an element up by its name as written; a prefix as in XHTML's `<h:script>` is left aside.
pub(super) fn element(name: &[u8]) -> Element {
    let local = memchr::memrchr(b':', name).map_or(name, |colon| &name[colon + 1..]);
    let mut lower = [0; LONGEST];
    let Some(lower) = lower.get_mut(..local.len()) else { return Element::Inert };
    lower.copy_from_slice(local);
    lower.make_ascii_lowercase();
    match &*lower {
        b"script" | b"style" | b"iframe" | b"frame" | b"frameset" | b"svg" | b"math" | b"template"
        | b"noscript" | b"noembed" | b"noframes" | b"textarea" | b"title" | b"xmp" | b"listing"
        | b"plaintext" | b"applet" | b"portal" | b"fencedframe" | b"layer" | b"ilayer" | b"bgsound"
        | b"isindex" => Element::Active,
        b"object" | b"embed" | b"param" | b"link" | b"meta" | b"base" | b"form" | b"xml" | b"import"
        | b"set" | b"animate" | b"animatemotion" | b"animatetransform" | b"use" | b"foreignobject"
        | b"handler" | b"stylesheet" => Element::ActiveByAttribute,
        _ => Element::Inert,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case and prefix are free; a name that merely begins alike is another element.
    #[test]
    fn names_are_looked_up_whole() {
        for (name, element) in [
            ("ScRiPt", Element::Active),
            ("h:script", Element::Active),
            ("Object", Element::ActiveByAttribute),
            ("scripts", Element::Inert),
            ("string,object", Element::Inert),
            ("b", Element::Inert),
            ("", Element::Inert),
            ("a-very-long-custom-element", Element::Inert),
        ] {
            assert_eq!(super::element(name.as_bytes()), element, "{name}");
        }
    }
}
