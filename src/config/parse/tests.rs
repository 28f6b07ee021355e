use proptest::prelude::*;

use super::super::{Source, explain};
use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "ORIGINS" => Some("https://a.example, https://b.example".into()),
        "EVIL" => Some("x\nadmin: {token: open}\n- [a, b]: &c *c".into()),
        "NULL" => Some("null".into()),
        _ => None,
    }
}

fn tree(text: &str) -> Node {
    parse(text, "t.yaml", &env).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    parse(text, "t.yaml", &env).expect_err("refused").to_string()
}

/// Every value can say where it was written.
#[test]
fn places_are_known() {
    let tree = tree(
        "# c\nlimits:\n  ai:\n    max: 5\n    who:\n      - a\n      - ${ORIGINS}\ntext: |\n  one\n  two\n",
    );
    let place = |path: &[&str]| tree.at(path).map(|node| node.origin.to_string()).unwrap_or_default();
    assert_eq!(place(&["limits"]), "t.yaml:2");
    assert_eq!(place(&["limits", "ai"]), "t.yaml:3");
    assert_eq!(place(&["limits", "ai", "max"]), "t.yaml:4");
    let items = tree.at(&["limits", "ai", "who"]).map(Node::items).unwrap_or_default();
    assert_eq!(items.get(1).map(|i| i.origin.to_string()).as_deref(), Some("environment ORIGINS (t.yaml:7)"));
    assert_eq!(tree.get("text").and_then(Node::scalar).map(|s| &*s.text), Some("one\ntwo\n"));
}

/// Nothing at all is a valid config: flags and environment may say the rest.
#[test]
fn an_empty_file_is_an_empty_mapping() {
    for text in ["", "\n", "# only a comment\n", "---\n", "{}", "\u{feff}"] {
        assert!(tree(text).entries().is_empty(), "{text:?}");
    }
}

/// The second of two equal keys would win in silence.
#[test]
fn duplicate_keys_name_both_lines() {
    assert_eq!(
        errors("a: 1\nlimits:\n  ai: 1\n  api: 2\n  ai: 3\n"),
        "t.yaml:5: limits.ai: duplicate key, on line 5 and before on line 3 — keep one of them"
    );
}

/// `key:` with everything below commented out looks harmless and is not.
#[test]
fn null_is_refused() {
    let wanted = "t.yaml:1: cors: no value (null) — write `off` to disable it, or remove the key";
    for text in ["cors:\n", "cors: ~\n", "cors: null\n", "cors:\n#  a: 1\nb: 1\n"] {
        assert_eq!(errors(text), wanted);
    }
    assert!(errors("a: [1, ~]\n").starts_with("t.yaml:1: a[1]: no value"));
    assert_eq!(tree("a: \"\"").get("a").and_then(Node::scalar).map(|s| &*s.text), Some(""));
    assert_eq!(tree("a: ${NULL}").get("a").and_then(Node::scalar).map(|s| &*s.text), Some("null"));
}

/// YAML's darker corners are refused in words that say what to do.
#[test]
fn the_subset_is_strict() {
    for (text, wanted) in [
        (
            "a: 1\n---\nb: 2\n",
            "t.yaml:2: a second YAML document starts here — keep one document: remove the `---`",
        ),
        ("a: !!str 1\n", "t.yaml:1: a: YAML tags (`!…`) are not supported"),
        ("a: !secret {b: 1}\n", "t.yaml:1: a: YAML tags"),
        ("a:\n  1: x\n", "t.yaml:2: a: the key 1 is not a name — put it in quotes if it is meant: \"1\""),
        ("true: x\n", "t.yaml:1: the key true is not a name"),
        ("? [a]\n: x\n", "t.yaml:1: a key must be a name, not a list or a mapping"),
        ("a: &x b\n*x : c\n", "t.yaml:2: a key must be a name, not an alias"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "t.yaml:3: c: merge keys (`<<`) are not supported"),
        ("${ORIGINS}: 1\n", "t.yaml:1: variables are replaced in values, not in keys"),
        ("- a\n", "t.yaml:1: a config is a mapping of keys to values"),
        ("just text", "t.yaml:1: a config is a mapping of keys to values"),
    ] {
        let errors = errors(text);
        assert!(errors.starts_with(wanted), "{text:?}: {errors}");
    }
}

/// The commonest slips get more than a grammarian's answer.
#[test]
fn broken_yaml_says_where_and_often_why() {
    for (text, wanted) in [
        ("a:\n\tb: 1\n", "indent with spaces, not tabs"),
        ("a: [${ORIGINS}, b]\n", "put the value that holds ${…} in double quotes"),
        ("a: {b: ${ORIGINS}}\n", "put the value that holds ${…} in double quotes"),
        ("a: [1, 2\nb: 3\n", "t.yaml:2: not valid YAML"),
        ("a: 'x\n", "not valid YAML"),
    ] {
        let errors = errors(text);
        assert!(errors.starts_with("t.yaml:") && errors.contains(wanted), "{text:?}: {errors}");
    }
}

/// One run of `tidegate check` shows all there is to mend.
#[test]
fn errors_are_collected() {
    let errors = parse("a: ${NONE}\nb: ~\nc: 1\nc: 2\nd: !x y\n", "t.yaml", &env).expect_err("refused");
    assert_eq!(errors.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert!(
        errors
            .to_string()
            .starts_with("t.yaml:1: a: environment variable NONE is not set — set NONE, or NONE_FILE")
    );
}

/// Anchors are fine in moderation; nine lines of them could fill the memory.
#[test]
fn aliases_are_bounded() {
    let ok = tree("a: &x {m: 1}\nb: *x\n");
    assert_eq!(ok.at(&["b", "m"]), ok.at(&["a", "m"]));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let item = format!("*a{}, ", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", item.repeat(10));
    }
    assert!(errors(&bomb).contains("more than 100000 values"));
    assert!(errors("a: &x [*x]\n").contains("not complete yet"));
}

/// Trees are walked by recursion: depth is bounded before that.
#[test]
fn depth_is_bounded() {
    assert!(errors(&format!("a: {}{}", "[".repeat(100), "]".repeat(100))).contains("more than 64 levels"));
    assert!(parse(&"[".repeat(100_000), "t.yaml", &env).is_err());
    assert!(parse(&"- ".repeat(100_000), "t.yaml", &env).is_err());
}

/// Whatever a variable holds, it is the text of one value.
#[test]
fn values_do_not_inject_yaml() {
    for text in ["a: ${EVIL}\n", "a: \"${EVIL}\"\n", "a: '${EVIL}'\n", "a: >-\n  ${EVIL}\n"] {
        let tree = tree(text);
        let scalar = tree.get("a").and_then(Node::scalar).expect("one text");
        assert_eq!((Some(&*scalar.text), scalar.source), (env("EVIL").as_deref(), Source::Environment));
        assert_eq!(tree.entries().len(), 1);
    }
}

/// A debug print of a tree must not give secrets away.
#[test]
fn debug_hides_texts() {
    assert!(!format!("{:?}", tree("token: hunter2")).contains("hunter2"));
}

/// The keys and lists of a tree, without its texts.
fn structure(node: &Node) -> String {
    explain(node, &|_| true)
        .to_string()
        .lines()
        .map(|l| l.split('#').next().unwrap_or(l).trim_end().to_owned() + "\n")
        .collect()
}

proptest! {
    /// A start must not end in a panic, whatever the file holds.
    #[test]
    fn nothing_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&String::from_utf8_lossy(&bytes), "t.yaml", &env);
    }

    /// The same for what looks like YAML.
    #[test]
    fn nothing_panics_on_yaml(text in "([-?:,\\[\\]{}#&*!|>'\"%@`~$ab01]|\n|  |\t|: |- |\\$\\{A:-|é){0,80}") {
        if let Ok(tree) = parse(&text, "t.yaml", &env) {
            let _ = explain(&tree, &|_| false).to_string();
        }
    }

    /// No value of a variable changes which keys there are.
    #[test]
    fn interpolation_keeps_the_structure(value in "[^\u{0}]{0,60}", quote in "['\"]?") {
        let text = format!("a: {quote}${{V}}{quote}\nb:\n  - {quote}x${{V}}{quote}\n  - c: 1\n");
        let with = |value: String| parse(&text, "t.yaml", &move |_| Some(value.clone())).expect("parses");
        let tree = with(value.clone());
        prop_assert_eq!(structure(&tree), structure(&with("plain".into())));
        prop_assert_eq!(tree.get("a").and_then(Node::scalar).map(|s| s.text.to_string()), Some(value));
    }
}
