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
        if bare { text.into_owned() } else { format!("{text:?}") }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Node, Origin, merge, parse};
    use super::*;

    /// "Where does this value come from?" is what people ask first.
    #[test]
    fn every_value_has_its_place() {
        let env = |name: &str| (name == "MAX").then(|| "5".to_owned());
        let text = "limits:\n  ai: {max: \"${MAX}\", \"/a/b\": x}\nlist: [a, ' b']\n\
                    none: {}\nempty: []\nport: ${PORT:-1}\n";
        let tree = parse(text, "t.yaml", &env).expect("parses");
        let flag = Node::overlay(&["listen"], "[::1]:80", Origin::source("--listen"));
        let expected = "\
limits.ai.max = 5        # environment MAX (t.yaml:2)
limits.ai[\"/a/b\"] = x    # t.yaml:2
list[0] = a              # t.yaml:3
list[1] = \" b\"           # t.yaml:3
none = {}                # t.yaml:4
empty = []               # t.yaml:5
port = 1                 # t.yaml:6
listen = [::1]:80        # --listen
";
        assert_eq!(explain(&merge(&tree, &flag), &|_| false).to_string(), expected);
    }

    /// People paste this output into issues: no secret, nor the default of one, may be in it.
    #[test]
    fn secrets_are_hidden() {
        let text =
            "token: hunter2\nkey: ${NONE:-hunter2}\nredis: redis://:hunter2@h:1/0\nlist:\n  - hunter2\n";
        let tree = parse(text, "t.yaml", &|_| None).expect("parses");
        let shown = explain(&tree, &|path| ["token", "key", "list[0]"].contains(&path)).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("redis = redis://(hidden)@h:1/0"));

        let file = std::env::temp_dir().join(format!("tidegate-explain-{}", std::process::id()));
        std::fs::write(&file, "hunter2").expect("file");
        let env = |name: &str| (name == "KEY_FILE").then(|| file.to_string_lossy().into_owned());
        let shown =
            parse("key: a ${KEY}\n", "t.yaml", &env).map(|tree| explain(&tree, &|_| false).to_string());
        std::fs::remove_file(&file).expect("clean up");
        assert_eq!(shown.as_deref(), Ok("key = (hidden)    # environment KEY_FILE (t.yaml:1)\n"));
    }
}
