//! The config as it stands, each value with the place it came from.

use std::fmt;

use super::path::Path;
use super::shown::{HIDDEN, without_credentials};
use super::tree::{Node, Scalar, Source, Value};

/// Values longer than this don't push the places of all others to the right, in characters.
const ALIGNED: usize = 60;

/// Shows every value of a tree and its origin, one a line: `limits.ai.max = 5    # tidegate.yaml:12`.
///
/// Values whose key path `is_secret` holds for are hidden, as is all that was read from a file named by a `NAME_FILE`
/// variable, and the credentials in URLs.
pub fn explain<'a>(node: &'a Node, is_secret: &'a dyn Fn(&str) -> bool) -> Explain<'a> {
    Explain { node, is_secret }
}

/// The printable form of a tree; see [`explain`].
pub struct Explain<'a> {
    node: &'a Node,
    is_secret: &'a dyn Fn(&str) -> bool,
}

impl fmt::Display for Explain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        self.leaves(self.node, &Path::Root(""), &mut lines);
        let width =
            lines.iter().map(|(text, _)| text.chars().count()).filter(|w| *w <= ALIGNED).max().unwrap_or(0);
        lines.iter().try_for_each(|(text, node)| writeln!(f, "{text:width$}    # {}", node.origin))
    }
}

impl<'a> Explain<'a> {
    fn leaves(&self, node: &'a Node, path: &Path<'_>, lines: &mut Vec<(String, &'a Node)>) {
        match &node.value {
            Value::Seq(items) if !items.is_empty() => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(index, item)| self.leaves(item, &Path::Item(path, index), lines));
            }
            Value::Map(entries) if !entries.is_empty() => {
                entries
                    .iter()
                    .for_each(|(key, value)| self.leaves(value, &Path::Key(path, &key.text), lines));
            }
            Value::Seq(_) => lines.push((format!("{path} = []"), node)),
            Value::Map(_) => lines.push((format!("{path} = {{}}"), node)),
            Value::Scalar(scalar) => {
                let path = path.to_string();
                let value = self.value(&path, scalar);
                lines.push((format!("{path} = {value}"), node));
            }
        }
    }

    fn value(&self, path: &str, scalar: &Scalar) -> String {
        if scalar.source == Source::SecretFile || (self.is_secret)(path) {
            return HIDDEN.to_owned();
        }
        let text = without_credentials(&scalar.text);
        let bare = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
        if bare { text } else { format!("{text:?}") }
    }
}
