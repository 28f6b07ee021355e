//! Names of form fields, and the place that each means: frameworks make a tree of `messages[0][content]`.

use crate::guard::json::{FieldRules, NodeId};

/// The places that `name` means: to those who split at brackets and dots (`qs`, Rack, Spring, .NET), and to PHP. `php` is
/// how PHP spells it.
pub(super) fn places(rules: &FieldRules, name: &str, php: &str) -> [NodeId; 2] {
    let split = name.split(['[', '.']).map(|key| key.strip_suffix(']').unwrap_or(key));
    let nested = nested(php);
    [walk(rules, split), walk(rules, nested)]
}

/// Appends `name` as PHP spells it: in the first part, what its variables can't hold is `_`, an open bracket without its
/// other half included.
pub(super) fn spell_as_php(name: &str, out: &mut String) {
    let first = match name.split_once('[') {
        Some((first, rest)) if rest.contains(']') => first,
        _ => name,
    };
    out.extend(first.chars().map(|c| if matches!(c, ' ' | '.' | '[') { '_' } else { c }));
    out.push_str(&name[first.len()..]);
}

/// The keys of a name in PHP's spelling: the first part, then each `[key]`; what stands behind the last is not read.
fn nested(name: &str) -> impl Iterator<Item = &str> {
    let (first, mut rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    let brackets = std::iter::from_fn(move || {
        let (key, tail) = rest.strip_prefix('[')?.split_once(']')?;
        rest = tail;
        Some(key)
    });
    std::iter::once(first).chain(brackets)
}

fn walk<'n>(rules: &FieldRules, keys: impl Iterator<Item = &'n str>) -> NodeId {
    keys.enumerate().fold(rules.root(), |node, (i, key)| match index(key) {
        Some(index) if i > 0 => rules.element(node, index),
        _ => rules.member(node, key.as_bytes()).0,
    })
}

/// Which element a key means; an empty one is the next, whichever that is.
fn index(key: &str) -> Option<u32> {
    match key {
        "" => Some(u32::MAX),
        key if key.bytes().all(|b| b.is_ascii_digit()) => Some(key.parse().unwrap_or(u32::MAX)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::json::Rule;

    fn found(pattern: &str, name: &str) -> bool {
        let rules = FieldRules::compile([Rule::text(pattern, 0)]).expect("a pattern");
        let mut php = String::new();
        spell_as_php(name, &mut php);
        places(&rules, name, &php).into_iter().any(|place| rules.wanting_string(place).next().is_some())
    }

    /// A field that the framework finds and the gate does not carries text past its cap.
    #[test]
    fn every_framework_finds_its_field() {
        for (pattern, names) in [
            (
                "/message",
                &["message", "Message", "message[]", "message[0]", "message[text]", "message[0][content]"][..],
            ),
            ("/messages/*/content", &["messages[0][content]", "Messages[0].Content", "messages[][content]"]),
            (
                "/messages/*/content",
                &["messages.0.content", "messages[7][content][0][text]", "messages[a][content]b"],
            ),
            ("/user_input", &["user_input", "user.input", "user input", "user[input", "User.Input"]),
            ("/data/text", &["data[text]", "data.text", "DATA[TEXT]", "data[text]x", "data[text][x"]),
        ] {
            for name in names {
                assert!(found(pattern, name), "{pattern}: {name}");
            }
        }
    }

    /// What is not the field must not be held to its cap.
    #[test]
    fn other_names_are_not_it() {
        for name in
            ["messages", "mess", "", "[message]", "x[message]", "message[other]", "xmessage", "message_"]
        {
            assert!(!found("/message", name), "{name}");
        }
        assert!(!found("/messages/*/content", "messages[0][role]"));
    }
}
