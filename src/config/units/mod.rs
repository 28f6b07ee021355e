//! Quantities as people write them: `1h30m`, `64KiB`, `60/min`.

mod byte_size;
mod rate;
mod span;

pub use byte_size::ByteSize;
pub use rate::Rate;
pub use span::Span;

/// Reads a quantity from its text in the config and writes it back as text; the schema is of the types
/// that YAML gives it, with a pattern for strings.
macro_rules! text_form {
    ($type:ident, $expected:expr, $types:tt, $pattern:expr, $examples:tt) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextVisitor;

                impl serde::de::Visitor<'_> for TextVisitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(TextVisitor)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": $types,
                    "description": $expected,
                    "pattern": $pattern,
                    "minimum": 0,
                    "examples": $examples,
                })
            }
        }
    };
}

use text_form;

/// Splits `30min` into 30, `min` and what follows. `None` if no digits come first, or too many.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    digits.parse().ok().map(|number| (number, rest))
}

#[cfg(test)]
mod tests;
