//! The JSON schema of the config, for editors.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

use super::tree::SWITCHES;

/// The only key for which there is no default: what a route is called.
const NEEDED: &str = "name";

/// The schema of `T` as it is written in a file: all keys but a route's name may be left out, no value is null, and
/// wherever a number, a switch, a list or a text of some form is asked for, `${NAME}` will do too.
pub fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with_transform(AsWritten);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    let words: Vec<&str> = SWITCHES.iter().map(|(word, _)| *word).collect();
    let defs = schema.ensure_object().entry("$defs").or_insert_with(|| json!({}));
    if let Value::Object(defs) = defs {
        defs.insert(
            "Switch".to_owned(),
            json!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": any_case(&words) }] }),
        );
        defs.insert(
            "Variable".to_owned(),
            json!({
                "description": "A value from the environment: `${NAME}` or `${NAME:-default}`.",
                "type": "string",
                "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-.*)?\}",
            }),
        );
    }
    schema
}

/// A pattern for any of the words in any case: JSON Schema's dialect (ECMA 262) has no flag for it.
pub(super) fn any_case(words: &[&str]) -> String {
    let word = |word: &&str| -> String {
        word.chars().map(|c| format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase())).collect()
    };
    format!("^({})$", words.iter().map(word).collect::<Vec<_>>().join("|"))
}

fn variable() -> Value {
    json!({ "$ref": "#/$defs/Variable" })
}

/// Turns the schema of a value as read into that of a value as written.
#[derive(Clone)]
struct AsWritten;

impl Transform for AsWritten {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if let Some(Value::Array(keys)) = schema.get_mut("required") {
            keys.retain(|key| key == NEEDED);
            if keys.is_empty() {
                schema.remove("required");
            }
        }
        without_null(schema);
        // A variable fits every branch, and then not exactly one.
        if let Some(branches) = schema.remove("oneOf") {
            schema.insert("anyOf".to_owned(), branches);
        }
        if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
            // Once for all branches, or editors offer it as often.
            let mut fits = false;
            for branch in branches.iter_mut() {
                fits |= take_variable(branch);
            }
            if fits {
                branches.push(variable());
            }
        } else if is_constrained(schema) {
            let mut own = std::mem::take(schema);
            let notes = ["description", "default"].map(|name| (name, own.remove(name)));
            if own.get("type").is_some_and(|name| name == "boolean") {
                own = json_schema!({ "$ref": "#/$defs/Switch" });
            }
            *schema = json_schema!({ "anyOf": [own, variable()] });
            for (name, value) in notes {
                if let Some(value) = value {
                    schema.insert(name.to_owned(), value);
                }
            }
        }
    }
}

/// Takes out what stands for an `Option` without a value: in a file, its key is left out.
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(names)) = schema.get_mut("type") {
        names.retain(|name| name != "null");
        if let [name] = names.as_slice() {
            let name = name.clone();
            schema.insert("type".to_owned(), name);
        }
    }
    if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if branches.len() == 1
            && let Some(Value::Object(only)) = branches.pop()
        {
            schema.remove("anyOf");
            merge_missing(schema.ensure_object(), only);
        }
    }
}

/// Takes the variable out of a branch that was given one; says whether there was one.
fn take_variable(branch: &mut Value) -> bool {
    let Some(Value::Array(inner)) = branch.get_mut("anyOf") else { return false };
    if inner.pop_if(|last| *last == variable()).is_none() {
        return false;
    }
    if inner.len() == 1
        && let Some(Value::Object(only)) = inner.pop()
        && let Value::Object(branch) = branch
    {
        branch.remove("anyOf");
        merge_missing(branch, only);
    }
    true
}

/// Adds what is not there yet: a description beside a value says more than that of its type.
fn merge_missing(schema: &mut Map<String, Value>, other: Map<String, Value>) {
    for (name, value) in other {
        schema.entry(name).or_insert(value);
    }
}

/// Whether a schema refuses some text.
fn is_constrained(schema: &Schema) -> bool {
    let refuses = |name: &Value| matches!(name.as_str(), Some("integer" | "number" | "boolean" | "array"));
    let of_type = match schema.get("type") {
        Some(Value::Array(names)) => !names.iter().any(|name| name == "string"),
        Some(name) => refuses(name),
        None => false,
    };
    of_type || ["enum", "const", "pattern", "format"].iter().any(|word| schema.get(*word).is_some())
}

#[cfg(test)]
mod tests;
