//! The config as written: a tree of mappings, lists and texts, each with the place it came from.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, or the name of another source such as `--listen`.
    pub file: Arc<str>,
    /// Line in the file, from 1; 0 where the source has no lines.
    pub line: u32,
    /// The environment variables that the value was taken from, if any.
    pub env: Option<Arc<str>>,
}

impl Origin {
    /// A source without lines, such as a command line flag or a built-in default.
    pub fn source(name: &str) -> Self {
        Self { file: name.into(), line: 0, env: None }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.env, self.line) {
            (None, 0) => f.write_str(&self.file),
            (None, line) => write!(f, "{}:{line}", self.file),
            (Some(name), 0) => write!(f, "environment {name} ({})", self.file),
            (Some(name), line) => write!(f, "environment {name} ({}:{line})", self.file),
        }
    }
}

/// What the text of a scalar was taken from. Later is stronger: a text put together from several has the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// All of it stands in the file.
    Written,
    /// The default of a variable that is not set.
    Default,
    /// An environment variable.
    Environment,
    /// A file that a `NAME_FILE` variable points at: a secret, never shown.
    SecretFile,
}

/// A single value. It stays text until a type asks for it, so `1.10` can be a version and `5` a name.
#[derive(Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, with variables replaced.
    pub text: Arc<str>,
    /// Whether it was written without quotes or block marks.
    pub plain: bool,
    /// What the text was taken from.
    pub source: Source,
}

impl Scalar {
    /// Whether a variable was replaced in it: then commas make a list where one is wanted.
    pub fn substituted(&self) -> bool {
        self.source > Source::Written
    }

    /// Whether it stands for nothing: `${NAME:-}` with `NAME` unset. An optional key is then absent. A variable that is
    /// set but empty, without `:-`, is a value, or an empty token could switch a check off.
    pub fn absent(&self) -> bool {
        self.source == Source::Default && self.text.is_empty()
    }
}

impl fmt::Debug for Scalar {
    /// Without the text: nothing at this level knows which values are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scalar({} bytes, {:?})", self.text.len(), self.source)
    }
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name.
    pub text: Arc<str>,
    /// Where it was written.
    pub origin: Origin,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order written, each key once.
    Map(Vec<(Key, Node)>),
}

/// A value with its place. Equal nodes have equal places too: after a merge, a node that is equal to the base's
/// was inherited unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it holds.
    pub value: Value,
    /// Where it was written; for mappings and lists under a key, the key's line.
    pub origin: Origin,
}

impl Node {
    /// A single value that comes from elsewhere than a file.
    pub fn text(text: &str, origin: Origin) -> Self {
        let scalar = Scalar { text: text.into(), plain: false, source: Source::Written };
        Self { value: Value::Scalar(scalar), origin }
    }

    /// An empty mapping.
    pub fn empty(origin: Origin) -> Self {
        Self { value: Value::Map(Vec::new()), origin }
    }

    /// A tree with one value at `path`, to be merged over another: how a command line flag sets a key.
    pub fn overlay(path: &[&str], text: &str, origin: Origin) -> Self {
        let leaf = Self::text(text, origin.clone());
        path.iter().rev().fold(leaf, |node, name| {
            let key = Key { text: (*name).into(), origin: origin.clone() };
            Self { value: Value::Map(vec![(key, node)]), origin: origin.clone() }
        })
    }

    /// The value under `key`; `None` if there is none, or this is no mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(k, _)| &*k.text == key).map(|(_, node)| node)
    }

    /// The value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a mapping; empty for anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; empty for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    /// The scalar; `None` for mappings and lists.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// A copy of a mapping without some of its keys: the defaults of a file, without its list of routes.
    pub fn without(&self, keys: &[&str]) -> Self {
        let kept = self.entries().iter().filter(|(key, _)| !keys.contains(&&*key.text));
        Self { value: Value::Map(kept.cloned().collect()), origin: self.origin.clone() }
    }

    /// Whether the scalar switches something on or off; `None` if it says neither.
    pub(super) fn switch(&self) -> Option<bool> {
        self.scalar().and_then(|scalar| switch(&scalar.text))
    }
}

/// What a switch may be called, in any case.
pub(super) const SWITCHES: [(&str, bool); 6] =
    [("on", true), ("true", true), ("yes", true), ("off", false), ("false", false), ("no", false)];

/// `on` or `off`, in the spellings that files and environments use.
pub(super) fn switch(text: &str) -> Option<bool> {
    SWITCHES.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)).map(|(_, on)| *on)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route is read without the list of routes, and a flag reaches a key at any depth.
    #[test]
    fn parts_can_be_cut_and_set() {
        let tree = Node::overlay(&["server", "listen"], "x", Origin::source("--listen"));
        assert_eq!(tree.at(&["server", "listen"]).and_then(Node::scalar).map(|s| &*s.text), Some("x"));
        assert!(tree.without(&["server"]).entries().is_empty());
        assert_eq!(tree.without(&["other"]), tree);
        assert!(tree.at(&["server", "listen", "x"]).is_none());
    }
}
