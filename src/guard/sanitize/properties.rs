//! What must hold of every text, tried on random ones made of the pieces that matter.

use proptest::prelude::*;

use super::browser::active;
use super::glance::tests::harmless;
use super::*;
use crate::guard::json::escape_into;

/// Pieces of markup, Markdown and what hides them; joined at random they make openers by accident.
const PIECES: &[&str] = &[
    "<",
    ">",
    "/",
    "</",
    "<!",
    "<!--",
    "-->",
    "<?",
    "=",
    "\"",
    "'",
    "`",
    "```",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\x0c",
    "\0",
    "&",
    "&lt;",
    "&#",
    "&#106;",
    "&colon;",
    "&Tab;",
    ";",
    ":",
    "(",
    ")",
    "[",
    "]",
    "](",
    "]:",
    "|",
    "    ",
    "- ",
    "> ",
    "\\",
    "#",
    "~~~",
    "a",
    "b",
    "x",
    "on",
    "src",
    "script",
    "style",
    "svg",
    "img",
    "iframe",
    "title",
    "template",
    "textarea",
    "table",
    "select",
    "object",
    "math",
    "mtext",
    "p",
    "<a ",
    "<b ",
    "<img ",
    "<svg ",
    "<script>",
    "</script>",
    "onerror=",
    "onclick",
    "href=",
    "srcdoc=",
    "style=",
    "javascript:",
    "java",
    "data:text/html,",
    "vbscript:",
    "expression(",
    "1",
    "é",
    "中",
    "ｓ",
    "＜",
    "＞",
    "ſ",
    "ı",
    "😀",
    "क",
    "\u{200b}",
    "\u{200d}",
    "\u{feff}",
    "\u{202e}",
    "\u{2069}",
    "\u{e0067}",
    "\u{e007f}",
    "🏴",
    "\u{85}",
    "\u{7f}",
];

/// Texts of few pieces, in which often nothing is found.
fn glimpsed() -> impl Strategy<Value = String> {
    let piece = prop_oneof![3 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from), 3 => "[a-z :&]{1,3}"];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![9 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// A text as the content of a JSON string: some characters with an escape that need none, by the bits of `escaped`.
fn written(text: &str, escaped: u64) -> String {
    let mut written = Vec::new();
    for (i, c) in text.chars().enumerate() {
        if escaped >> (i % 64) & 1 == 1 {
            let units =
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            written.extend(units.bytes());
        } else {
            escape_into(c.encode_utf8(&mut [0; 4]), &mut written);
        }
    }
    String::from_utf8(written).expect("UTF-8")
}

const SINKS: [Sink; 5] = [Sink::Html, Sink::Markdown, Sink::Rich, Sink::Plain, Sink::Model];

/// 1,000 cases; `SANITIZER_CASES` sets another number.
fn cases() -> ProptestConfig {
    let cases =
        std::env::var("SANITIZER_CASES").map_or(1_000, |cases| cases.parse().expect("a number of cases"));
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(cases())]

    /// The edits must fit the text, or the body that they are made in is destroyed.
    #[test]
    fn edits_are_in_order_and_on_character_borders(text in texts()) {
        let sanitizer = Sanitizer::default();
        let checks = SINKS.map(|sink| sanitizer.check(&text, sink));
        for cleaned in checks.into_iter().chain([sanitizer.escape(&text)]).flatten() {
            let mut end = 0;
            for Edit { span, with } in &cleaned.edits {
                prop_assert!(span.start >= end && span.end >= span.start, "{:?}", cleaned.edits);
                prop_assert!(text.get(span.clone()).is_some_and(|old| old != with), "{:?}", cleaned.edits);
                end = span.end;
            }
        }
    }

    /// What the first look waves through is not looked at again.
    #[test]
    fn what_passes_at_a_glance_has_nothing_in_it(text in glimpsed(), escaped in any::<u64>(), sparse in any::<u64>()) {
        if harmless(&written(&text, escaped & sparse)) {
            for sink in SINKS {
                prop_assert_eq!(Sanitizer::default().check(&text, sink), None, "{:?}", text);
            }
        }
    }

    /// Neutralising replaces brackets, equals signs and schemes and removes what is hidden; it writes nothing else.
    #[test]
    fn neutralizing_writes_only_its_three_replacements(text in texts()) {
        for sink in [Sink::Html, Sink::Markdown] {
            for Edit { span, with } in Sanitizer::default().check(&text, sink).unwrap_or_default().edits {
                let old = &text[span];
                match &*with {
                    "&lt;" => prop_assert!(["<", "＜", "﹤"].contains(&old), "{old:?}"),
                    "&#61;" => prop_assert_eq!(old, "="),
                    "#" => prop_assert!(old.ends_with([':', ';', '：']), "{old:?}"),
                    other => prop_assert_eq!(other, ""),
                }
            }
        }
    }

    /// A message edited and sent again, or that passes two gates, must not change again.
    #[test]
    fn once_is_enough(text in texts()) {
        let sanitizer = Sanitizer::default();
        for sink in [Sink::Html, Sink::Markdown, Sink::Rich, Sink::Plain] {
            if let Some(cleaned) = sanitizer.check(&text, sink) {
                let once = cleaned.apply(&text);
                let again = sanitizer.check(&once, sink).map(|cleaned| cleaned.apply(&once));
                prop_assert_eq!(again, None, "{:?} left {:?}", sink, once);
            }
        }
    }

    /// The promise of the sink `html`: whatever element the page puts the text into, nothing in it acts.
    #[test]
    fn nothing_acts_in_what_a_browser_makes_of_it(text in texts()) {
        let left = Sanitizer::default().check(&text, Sink::Html).unwrap_or_default().apply(&text);
        for context in ["div", "select", "table", "svg", "template"] {
            prop_assert_eq!(active(&left, context), None, "in {}: {:?}", context, left);
        }
    }

    /// The same for `markdown`, with a renderer that lets HTML through.
    #[test]
    fn nothing_acts_in_what_a_renderer_makes_of_it(text in texts()) {
        let left = Sanitizer::default().check(&text, Sink::Markdown).unwrap_or_default().apply(&text);
        for options in [pulldown_cmark::Options::empty(), pulldown_cmark::Options::all()] {
            let mut page = String::new();
            pulldown_cmark::html::push_html(&mut page, pulldown_cmark::Parser::new_ext(&left, options));
            prop_assert_eq!(active(&page, "div"), None, "{:?} rendered {:?}", left, page);
        }
    }

    /// And for `plain` and `rich`.
    #[test]
    fn nothing_acts_in_what_is_stripped_or_allowed(text in texts()) {
        for sink in [Sink::Plain, Sink::Rich] {
            let left = Sanitizer::default().check(&text, sink).unwrap_or_default().apply(&text);
            prop_assert_eq!(active(&left, "div"), None, "{:?}: {:?}", sink, left);
        }
    }
}
