//! The level of the program's own messages.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::schema::any_case;

/// Level of the program's own messages.
///
/// Read in any case, and by the names that other programs have for it: `LOG_LEVEL` is often set for several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What needs somebody.
    Error,
    /// What may need somebody.
    Warn,
    /// What happens.
    Info,
    /// All there is.
    Debug,
}

/// The names that are told to people.
const NAMES: [&str; 4] = ["error", "warn", "info", "debug"];

/// The names that will do.
const READ: [(&str, Level); 7] = [
    ("error", Level::Error),
    ("critical", Level::Error),
    ("warn", Level::Warn),
    ("warning", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Debug),
];

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LevelVisitor;

        impl Visitor<'_> for LevelVisitor {
            type Value = Level;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "one of {}", NAMES.join(", "))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Level, E> {
                let read = READ.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
                read.map(|(_, level)| *level).ok_or_else(|| E::unknown_variant(text, &NAMES))
            }
        }

        deserializer.deserialize_str(LevelVisitor)
    }
}

impl JsonSchema for Level {
    fn schema_name() -> Cow<'static, str> {
        "Level".into()
    }

    /// The names that editors offer, and all that will do.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let read = READ.map(|(name, _)| name);
        json_schema!({
            "description": "Level of the program's own messages.",
            "anyOf": [{ "enum": NAMES }, { "type": "string", "pattern": any_case(&read) }],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{from_node, parse};
    use super::*;

    fn levels(text: &str) -> Result<Vec<&'static str>, String> {
        let tree = parse(text, "t.yaml", &|_| None).expect("parses");
        let levels: BTreeMap<String, Level> = from_node(&tree).map_err(|errors| errors.to_string())?;
        Ok(levels.into_values().map(Level::name).collect())
    }

    /// A gate that will not start over `LOG_LEVEL=Info`, set for its neighbours, is down for nothing.
    #[test]
    fn levels_are_read_in_any_case_and_by_any_usual_name() {
        assert_eq!(levels("a: DEBUG\nb: Info\nc: Warning\nd: CRITICAL\ne: Trace\nf: error"), {
            Ok(vec!["debug", "info", "warn", "error", "debug", "error"])
        });
        let error = levels("a: warm").expect_err("no level");
        assert!(
            error.contains("t.yaml:1: a: ")
                && error.contains("did you mean \"warn\"?")
                && !error.contains("critical"),
            "{error}"
        );
    }
}
