//! Values that must not be seen.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use super::shown::HIDDEN;

/// The name by which the config's deserializer knows a secret; not a name that a type could have.
pub(super) const SECRET: &str = "$tidegate::Secret";

/// A secret text, never empty: printed, logged and serialised as `(hidden)`, wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The secret itself. Every use of this is a place where it could leak.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;

        impl<'de> Visitor<'de> for SecretVisitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Secret, D::Error> {
                let text = String::deserialize(inner)?;
                // An empty key would sign and verify like any other.
                let empty =
                    || D::Error::invalid_value(Unexpected::Other("nothing"), &"a secret that is not empty");
                if text.is_empty() { Err(empty()) } else { Ok(text.into()) }
            }
        }

        deserializer.deserialize_newtype_struct(SECRET, SecretVisitor)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "writeOnly": true,
            "description": "A secret; best written as `${NAME}`: NAME, or the file that NAME_FILE names."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings are printed and logged as a whole; the secret in them must not be.
    #[test]
    fn nothing_prints_it() {
        let secret = Secret::from("hunter2".to_owned());
        let json = serde_json::to_string(&secret).expect("JSON");
        let printed = format!("{secret} {secret:?} {:#?} {json}", Some(secret.clone()));
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(secret.expose(), "hunter2");
    }
}
