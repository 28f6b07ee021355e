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

/// Names of HTML's elements, of the current standard (§4) and of those before it, but for the active ones.
const HTML: &str = " a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big blink \
    blockquote body br button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir \
    div dl dt em embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup \
    hr html i iframe image img input ins isindex kbd keygen label legend li link main map mark marquee menu menuitem \
    meta meter nav nobr noembed noframes noscript object ol optgroup option output p param picture plaintext pre \
    progress q rb rbc rp rt rtc ruby s samp script search section select slot small source spacer span strike strong \
    style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul var video \
    wbr xmp ";

/// Whether HTML has an element of this name.
pub(super) fn is_html(name: &[u8]) -> bool {
    let mut lower = [b' '; LONGEST];
    let Some(place) = lower.get_mut(1..=name.len()).filter(|_| name.len() + 2 <= LONGEST) else {
        return false;
    };
    place.copy_from_slice(name);
    place.make_ascii_lowercase();
    // With a blank on each side, so that no part of another name is found.
    !name.contains(&b' ') && memchr::memmem::find(HTML.as_bytes(), &lower[..name.len() + 2]).is_some()
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
