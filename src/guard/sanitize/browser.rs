//! What a browser makes of a text: html5ever's tree, and what in it acts. Written from the HTML standard's own
//! categories of elements, so that a hole in the engine's tables shows here.

use html5ever::tendril::TendrilSink;
use html5ever::tree_builder::TreeBuilderOpts;
use html5ever::{Attribute, ParseOpts, QualName, local_name, ns, parse_fragment};
use markup5ever_rcdom::{Handle, NodeData, RcDom};

/// Script-supporting and metadata elements (§3.2.5.2.1, §3.2.5.2.9) that act by being there.
const METADATA: [&str; 5] = ["script", "style", "template", "noscript", "title"];
/// Metadata that acts through its attributes.
const REFERRING: [&str; 3] = ["base", "link", "meta"];
/// Embedded content (§3.2.5.2.6) that is no picture, sound or film.
const EMBEDDED: [&str; 1] = ["iframe"];
/// The same, through its attributes; and forms, which send what a reader types.
const EMBEDDED_BY_ATTRIBUTE: [&str; 4] = ["embed", "object", "param", "form"];
/// Elements whose content the tokenizer reads as text (§13.2.6.4), frames and plug-ins (§16.2).
const OBSOLETE: [&str; 9] =
    ["textarea", "xmp", "plaintext", "noembed", "noframes", "frame", "frameset", "applet", "listing"];

/// The first thing that acts in what a browser makes of `text` as the content of a `context` element.
pub(super) fn active(text: &str, context: &str) -> Option<String> {
    let name = match context {
        "svg" => QualName::new(None, ns!(svg), local_name!("svg")),
        html => QualName::new(None, ns!(html), html.into()),
    };
    [true, false].into_iter().find_map(|scripting_enabled| {
        let tree_builder = TreeBuilderOpts { scripting_enabled, ..TreeBuilderOpts::default() };
        let options = ParseOpts { tree_builder, ..ParseOpts::default() };
        let parser = parse_fragment(RcDom::default(), options, name.clone(), vec![], scripting_enabled);
        let dom = parser.one(text);
        active_in(&dom.document)
    })
}

fn active_in(node: &Handle) -> Option<String> {
    let own = match &node.data {
        NodeData::Element { name, attrs, .. } => element(name, &attrs.borrow()),
        _ => None,
    };
    own.or_else(|| node.children.borrow().iter().find_map(active_in))
}

fn element(name: &QualName, attributes: &[Attribute]) -> Option<String> {
    let local = &*name.local;
    let told = attributes.iter().any(|attribute| !attribute.value.is_empty());
    let acts = if name.ns == ns!(html) {
        METADATA.contains(&local)
            || EMBEDDED.contains(&local)
            || OBSOLETE.contains(&local)
            || told && (REFERRING.contains(&local) || EMBEDDED_BY_ATTRIBUTE.contains(&local))
    } else {
        ["svg", "math", "script", "style"].contains(&local)
    };
    if acts {
        return Some(format!("<{local}>"));
    }
    let acting = |attribute: &&Attribute| {
        let name = &*attribute.name.local;
        let handler = name.strip_prefix("on").is_some_and(|event| {
            event.len() > 2
                && event.bytes().all(|byte| byte.is_ascii_lowercase())
                && !attribute.value.is_empty()
        });
        handler || name == "srcdoc" || is_script(&attribute.value)
    };
    let attribute = attributes.iter().find(acting)?;
    Some(format!("<{local} {}={}>", &*attribute.name.local, &*attribute.value))
}

/// Whether the URL parser (URL §4.4) gives a URL that runs script.
fn is_script(value: &str) -> bool {
    let url: String =
        value.trim_start_matches(|c: char| c <= ' ').replace(['\t', '\n', '\r'], "").to_lowercase();
    let document = |media: &str| ["html", "xml", "script"].iter().any(|part| media.contains(part));
    url.starts_with("javascript:")
        || url.starts_with("vbscript:")
        || url.strip_prefix("data:").and_then(|data| data.split(',').next()).is_some_and(document)
}

/// A judge that calls nothing active would let every other test pass.
#[test]
fn the_judge_knows_what_acts() {
    for text in [
        "<script>x</script>",
        "<ScRiPt/x",
        "<img src=x onerror=x>",
        "<img src=x onerror=x",
        "<a href=' java\nscript:x'>",
        "<a href=&#106;avascript:x>",
        "<svg>",
        "<table><tr><td><iframe>",
        "<form action=x>",
        "<a href='data:text/html,x'>",
    ] {
        let closed = format!("{text}>");
        assert!(active(&closed, "div").is_some(), "{text}");
    }
    for text in [
        "a < b",
        "<T>",
        "<b>x</b>",
        "<object>",
        "<link to x>",
        "&lt;script&gt;",
        "<!-- <script> -->",
        "<a href=x>",
    ] {
        assert_eq!(active(text, "div"), None, "{text}");
    }
}
