//! Settings that can be switched off.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// The name by which the config's deserializer knows a toggle; not a name that a type could have.
pub(super) const TOGGLE: &str = "$tidegate::Toggle";

/// `off`, or the settings of what is on.
///
/// In a file: `off` (`false` and `no` too) or the form of `T`; where that is a mapping, `on` is an empty one.
/// It is read from a config only, not from other formats, nor inside an untagged type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toggle<T> {
    /// Switched off.
    Off,
    /// Switched on, with its settings.
    On(T),
}

impl<T> Toggle<T> {
    /// Whether it is switched off.
    pub fn is_off(&self) -> bool {
        matches!(self, Toggle::Off)
    }

    /// The settings, if it is on.
    pub fn as_option(&self) -> Option<&T> {
        match self {
            Toggle::Off => None,
            Toggle::On(value) => Some(value),
        }
    }
}

impl<T: Default> Default for Toggle<T> {
    /// On, with the settings' defaults: what protects is on unless somebody says otherwise.
    fn default() -> Self {
        Toggle::On(T::default())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToggleVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ToggleVisitor<T> {
            type Value = Toggle<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off` or settings")
            }

            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(Toggle::Off)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
                T::deserialize(inner).map(Toggle::On)
            }
        }

        deserializer.deserialize_newtype_struct(TOGGLE, ToggleVisitor(PhantomData))
    }
}

impl<T: Serialize> Serialize for Toggle<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Toggle::Off => serializer.serialize_str("off"),
            Toggle::On(value) => value.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Toggle<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Toggle_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<T>();
        let switch = json_schema!({ "type": "boolean", "description": "`off` switches it off." });
        json_schema!({ "anyOf": [switch, settings] })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Rate, Toggle, from_node, parse};

    /// One word must switch a guard off, in any of the spellings that environments use.
    #[test]
    fn off_is_off() {
        let tree = parse("a: off\nb: 'Off'\nc: false\nd: NO\ne: 5/s\n", "t.yaml", &|_| None).expect("parses");
        let toggles: BTreeMap<String, Toggle<Rate>> = from_node(&tree).expect("valid");
        assert_eq!(toggles.values().map(Toggle::is_off).collect::<Vec<_>>(), [true, true, true, true, false]);
        assert_eq!(serde_json::to_value(&toggles).expect("JSON")["a"], "off");
        assert_eq!(serde_json::to_value(&toggles).expect("JSON")["e"], "5/s");
    }
}
