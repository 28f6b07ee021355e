//! What serde_json reads, and a slow and obvious walk over it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Simple case folding as far as it ends in ASCII.
fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('\u{17f}', "s").replace('\u{212a}', "k")
}

/// What serde_json reads, with members that come twice kept.
#[derive(Debug, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Build;
        impl<'de> Visitor<'de> for Build {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Tree, E> {
                Ok(Tree::Number(v as f64))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Tree, E> {
                Ok(Tree::Number(v as f64))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Tree, E> {
                Ok(Tree::Number(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Tree, E> {
                Ok(Tree::Text(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Tree::Object(members))
            }
        }
        deserializer.deserialize_any(Build)
    }
}

impl Tree {
    fn children(&self) -> Vec<&Tree> {
        match self {
            Tree::Array(elements) => elements.iter().collect(),
            Tree::Object(members) => members.iter().map(|(_, value)| value).collect(),
            _ => Vec::new(),
        }
    }

    pub fn depth(&self) -> usize {
        let inner = self.children().into_iter().map(Tree::depth).max().unwrap_or(0);
        inner + usize::from(matches!(self, Tree::Array(_) | Tree::Object(_)))
    }

    pub fn members(&self) -> usize {
        let own = if let Tree::Object(members) = self { members.len() } else { 0 };
        own + self.children().into_iter().map(Tree::members).sum::<usize>()
    }

    pub fn repeats_a_name(&self) -> bool {
        let own = match self {
            Tree::Object(members) => {
                members.iter().map(|(name, _)| name).collect::<HashSet<_>>().len() < members.len()
            }
            _ => false,
        };
        own || self.children().into_iter().any(Tree::repeats_a_name)
    }

    /// All that a pattern leads to, by the plain reading of RFC 6901 with `*`.
    pub fn at<'t>(&'t self, segments: &[&str], places: &mut Vec<&'t Tree>) {
        let Some((segment, rest)) = segments.split_first() else {
            places.push(self);
            return;
        };
        let name = segment.replace("~1", "/").replace("~0", "~");
        match self {
            Tree::Array(elements) => {
                for (i, element) in elements.iter().enumerate() {
                    if *segment == "*" || *segment == i.to_string() {
                        element.at(rest, places);
                    }
                }
            }
            Tree::Object(members) => {
                for (member, value) in members {
                    if *segment == "*" || fold(member) == fold(&name) {
                        value.at(rest, places);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether an object on the way of a pattern has the name that leads on in two letter cases; below a text, `text`
    /// and `content`.
    pub fn is_ambiguous(&self, segments: &[&str], text: bool) -> bool {
        let Tree::Object(members) = self else {
            let rest = segments.split_first().map_or(segments, |(_, rest)| rest);
            let leads = |i: usize| segments.first().is_none_or(|s| *s == "*" || *s == i.to_string());
            let mut children = self.children().into_iter().enumerate();
            return (text || !segments.is_empty())
                && children.any(|(i, child)| leads(i) && child.is_ambiguous(rest, text));
        };
        let (names, rest) = match segments.split_first() {
            Some((segment, rest)) => (vec![segment.replace("~1", "/").replace("~0", "~")], rest),
            None if text => (vec!["text".into(), "content".into()], segments),
            None => return false,
        };
        names.iter().any(|name| {
            let leading: Vec<_> = members
                .iter()
                .filter(|(m, _)| *name == "*" || fold(m) == fold(name))
                .map(|(_, v)| v)
                .collect();
            (*name != "*" && leading.len() > 1) || leading.iter().any(|v| v.is_ambiguous(rest, text))
        })
    }

    /// All strings of a text in any of its shapes.
    pub fn texts<'t>(&'t self, texts: &mut Vec<&'t Tree>) {
        match self {
            Tree::Text(_) => texts.push(self),
            Tree::Array(elements) => elements.iter().for_each(|element| element.texts(texts)),
            Tree::Object(members) => {
                let parts = members.iter().filter(|(name, _)| ["text", "content"].contains(&&*fold(name)));
                parts.for_each(|(_, value)| value.texts(texts));
            }
            _ => {}
        }
    }
}
