//! Key paths as people read them: `routes[2].limits.ai.windows`.

use std::fmt;

/// A place in the tree, linked to its parent so that walking costs no allocation.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root(&'p str),
    Key(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(prefix) => f.write_str(prefix),
            Path::Key(Path::Root(""), name) if is_bare(name) => f.write_str(name),
            Path::Key(parent, name) if is_bare(name) => write!(f, "{parent}.{name}"),
            Path::Key(parent, name) => write!(f, "{parent}[{name:?}]"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Names that could be mistaken for a path are quoted, so that no two places look the same.
fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether `inner` is `outer` or lies below it.
pub(super) fn lies_within(inner: &str, outer: &str) -> bool {
    match inner.strip_prefix(outer) {
        Some(rest) => outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No two places look the same, or leaving one out would leave out the other.
    #[test]
    fn paths_are_unambiguous() {
        let root = Path::Root("");
        let routes = Path::Key(&root, "routes");
        let second = Path::Item(&routes, 2);
        assert_eq!(Path::Key(&second, "limits").to_string(), "routes[2].limits");
        assert_eq!(Path::Key(&second, "a.b").to_string(), "routes[2][\"a.b\"]");
        assert_eq!(Path::Key(&root, "/a").to_string(), "[\"/a\"]");
        assert_eq!(Path::Key(&Path::Root("routes[0]"), "x").to_string(), "routes[0].x");
    }

    /// An error in `limits.ai` does not follow from one in `limits.air`.
    #[test]
    fn places_lie_within_their_parents_only() {
        assert!(
            lies_within("limits.ai.max", "limits.ai") && lies_within("a[1]", "a") && lies_within("a", "a")
        );
        assert!(lies_within("a", "") && !lies_within("limits.air", "limits.ai") && !lies_within("a", "a.b"));
    }
}
