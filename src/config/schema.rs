//! The JSON schema of the config, for editors.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::Value;

/// The schema of `T` as it is written in a file: wherever it asks for a number, a switch, a list or a text of some
/// form, `${NAME}` will do too.
pub fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().with_transform(OrVariable).into_generator().into_root_schema_for::<T>()
}

#[derive(Clone)]
struct OrVariable;

impl Transform for OrVariable {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if is_constrained(schema) {
            let mut own = std::mem::take(schema);
            let description = own.remove("description");
            let default = own.remove("default");
            *schema = json_schema!({ "anyOf": [own, { "type": "string", "pattern": r"\$\{\w+(:-.*)?\}" }] });
            for (name, value) in [("description", description), ("default", default)] {
                if let Some(value) = value {
                    schema.insert(name.to_owned(), value);
                }
            }
        }
    }
}

/// Whether a schema refuses some text.
fn is_constrained(schema: &Schema) -> bool {
    let refuses = |name: &Value| matches!(name.as_str(), Some("integer" | "number" | "boolean" | "array"));
    let of_type = match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(refuses),
        Some(name) => refuses(name),
        None => false,
    };
    of_type || ["enum", "const", "pattern", "format"].iter().any(|word| schema.get(*word).is_some())
}

#[cfg(test)]
mod tests {
    use super::super::{ByteSize, Named, Rate, Secret, Span, Toggle};
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct File {
        /// Port to listen on.
        port: u16,
        name: String,
        timeout: Option<Span>,
        body: Toggle<ByteSize>,
        limits: Named<Rate>,
        token: Secret,
        list: Vec<u8>,
    }

    /// An editor that marks `port: ${PORT}` as wrong teaches people to switch it off.
    #[test]
    fn variables_are_valid_where_numbers_are() {
        let schema = schema::<File>().to_value();
        let port = &schema["properties"]["port"];
        assert_eq!(port["description"], "Port to listen on.");
        assert_eq!(port["anyOf"][0]["type"], "integer");
        assert_eq!(port["anyOf"][1]["type"], "string");
        assert_eq!(schema["properties"]["name"], serde_json::json!({ "type": "string" }));
        assert_eq!(schema["properties"]["list"]["anyOf"][0]["items"]["anyOf"][0]["type"], "integer");
        assert_eq!(schema["properties"]["limits"]["additionalProperties"]["$ref"], "#/$defs/Rate");
        assert!(schema["$defs"]["Rate"]["anyOf"][0]["pattern"].is_string());
        assert_eq!(schema["properties"]["token"]["$ref"], "#/$defs/Secret");
    }
}
