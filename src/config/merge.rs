//! Merging two trees as written: the defaults of a file and what a route says.

use super::tree::{Key, Node, Value};

/// Lays `over` on `base`, mapping by mapping.
///
/// Texts and lists replace whole. `off` replaces a mapping and a mapping replaces `off`, so a route can disable what
/// the top level sets up and set up what it disables. `on` over a mapping keeps the mapping: it asks for the thing,
/// and says nothing of its settings. Each value keeps its place; one that `over` doesn't name is equal to the base's.
pub fn merge(base: &Node, over: &Node) -> Node {
    match (&base.value, &over.value) {
        (Value::Map(below), Value::Map(above)) => {
            Node { value: Value::Map(merge_entries(below, above)), origin: over.origin.clone() }
        }
        (Value::Map(_), Value::Scalar(_)) if over.switch() == Some(true) => base.clone(),
        _ => over.clone(),
    }
}

fn merge_entries(below: &[(Key, Node)], above: &[(Key, Node)]) -> Vec<(Key, Node)> {
    let find = |entries: &[(Key, Node)], name: &str| entries.iter().position(|(key, _)| &*key.text == name);
    let inherited = below.iter().map(|(key, node)| match find(above, &key.text).and_then(|i| above.get(i)) {
        Some((key, over)) => (key.clone(), merge(node, over)),
        None => (key.clone(), node.clone()),
    });
    let added = above.iter().filter(|(key, _)| find(below, &key.text).is_none()).cloned();
    inherited.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::Origin;
    use super::super::{explain, parse};
    use super::*;

    fn tree(text: &str, file: &str) -> Node {
        parse(text, file, &|_| None).expect("parses")
    }

    fn merged(base: &str, over: &str) -> String {
        let merged = merge(&tree(base, "base"), &tree(over, "over"));
        let shown = explain(&merged, &|_| false).to_string();
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
    }

    /// A route that changes one number must keep the rest, and the operator sees who said what.
    #[test]
    fn mappings_merge_and_origins_survive() {
        let base = "limits:\n  ai: {max: 5, window: 1m}\n  api: 60/min\norigins: [a, b]\n";
        let over = "limits:\n  ai:\n    max: 9\norigins: [c]\nnew: 1\n";
        let expected = "limits.ai.max = 9 # over:3\nlimits.ai.window = 1m # base:2\nlimits.api = 60/min # base:3\n\
                        origins[0] = c # over:4\nnew = 1 # over:5\n";
        assert_eq!(merged(base, over), expected);
    }

    /// Routes switch things off, and on again.
    #[test]
    fn off_and_on() {
        assert_eq!(merged("a: {x: 1}", "a: off"), "a = off # over:1\n");
        assert_eq!(merged("a: off", "a: {x: 1}"), "a.x = 1 # over:1\n");
        assert_eq!(merged("a: {x: 1}", "a: on"), "a.x = 1 # base:1\n");
        assert_eq!(merged("a: off", "a: on"), "a = on # over:1\n");
        assert_eq!(merged("a: [1]", "a: on"), "a = on # over:1\n");
    }

    /// "Inherited unchanged" decides whether a limit is one counter for all routes.
    #[test]
    fn what_is_inherited_is_equal() {
        let base = tree("limits:\n  ai: {max: 5}\n  api: {max: 5}\n", "base");
        let both = merge(&base, &tree("limits:\n  api: {max: 5}\n", "over"));
        assert_eq!(both.at(&["limits", "ai"]), base.at(&["limits", "ai"]));
        assert_ne!(both.at(&["limits", "api"]), base.at(&["limits", "api"]));
    }

    /// Trees of one shape (two levels of mappings with texts below), as files without `on` and `off` are.
    fn shaped(file: &'static str) -> impl Strategy<Value = Node> {
        let level =
            prop::collection::btree_map("[a-d]", prop::collection::btree_map("[a-d]", "[x-z]", 0..4), 0..4);
        level.prop_map(move |entries| {
            let mut tree = Node::empty(Origin::source(file));
            for (outer, inner) in entries {
                for (name, text) in inner {
                    tree = merge(&tree, &Node::overlay(&[&outer, &name], &text, Origin::source(file)));
                }
            }
            tree
        })
    }

    proptest! {
        /// Built-in defaults, file and route come out alike whichever two are merged first.
        #[test]
        fn merging_is_associative(a in shaped("a"), b in shaped("b"), c in shaped("c")) {
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
        }

        /// Merging twice changes nothing, and an empty route says nothing.
        #[test]
        fn merging_is_idempotent(a in shaped("a"), b in shaped("b")) {
            let once = merge(&a, &b);
            prop_assert_eq!(merge(&once, &b), once.clone());
            prop_assert_eq!(merge(&once, &Node::empty(once.origin.clone())), once);
        }
    }
}
