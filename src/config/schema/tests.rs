use std::sync::LazyLock;

use regex::Regex;

use super::super::{ByteSize, Config, Named, Node, Overrides, Rate, Secret, Span, Toggle, parse, tree};
use super::*;
use crate::state::{ManualClock, Timestamp};

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
    assert_eq!(port["anyOf"][1], variable());
    assert_eq!(schema["properties"]["name"], json!({ "type": "string" }));
    assert_eq!(schema["properties"]["list"]["anyOf"][0]["items"]["anyOf"][0]["type"], "integer");
    assert_eq!(schema["properties"]["limits"]["additionalProperties"]["$ref"], "#/$defs/Rate");
    assert!(schema["$defs"]["Rate"]["anyOf"][0]["pattern"].is_string());
    assert_eq!(schema["properties"]["token"]["$ref"], "#/$defs/Secret");
    let body = &schema["properties"]["body"]["anyOf"];
    assert_eq!((&body[0]["$ref"], &body[1]["$ref"]), (&json!("#/$defs/Switch"), &json!("#/$defs/ByteSize")));
    assert_eq!(schema["required"], json!(["name"]));
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&Config::schema()).expect("JSON"));

/// Where `value` does not fit `schema`: the keywords of JSON Schema 2020-12 that ours uses, and no others.
fn misfit(schema: &Value, value: &Value) -> Option<String> {
    let Value::Object(words) = schema else {
        return (*schema != Value::Bool(true)).then(|| format!("{value} may not be here"));
    };
    words.iter().find_map(|(word, rule)| misfit_of_word(words, word, rule, value))
}

fn misfit_of_word(words: &Map<String, Value>, word: &str, rule: &Value, value: &Value) -> Option<String> {
    let fits = match word {
        "$schema" | "$defs" | "title" | "description" | "examples" | "default" | "format" | "writeOnly" => {
            true
        }
        "$ref" => return misfit(SCHEMA.pointer(&rule.as_str()?[1..]).expect("a definition"), value),
        "type" => match rule {
            Value::Array(names) => names.iter().any(|name| is_of_type(value, name)),
            name => is_of_type(value, name),
        },
        "anyOf" => rule.as_array()?.iter().any(|branch| misfit(branch, value).is_none()),
        "enum" => rule.as_array()?.contains(value),
        "const" => rule == value,
        "pattern" => {
            let pattern = Regex::new(rule.as_str()?).expect("a pattern");
            value.as_str().is_none_or(|text| pattern.is_match(text))
        }
        "minLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap_or(0))
        }
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap_or(f64::MAX)),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap_or(f64::MIN)),
        "required" => value.as_object().is_none_or(|keys| {
            rule.as_array()
                .into_iter()
                .flatten()
                .all(|key| keys.contains_key(key.as_str().unwrap_or_default()))
        }),
        "items" => return value.as_array()?.iter().find_map(|item| misfit(rule, item)),
        "properties" => {
            let known = |(key, value): (&String, &Value)| {
                rule.get(key).and_then(|rule| misfit(rule, value)).map(|why| format!("{key}: {why}"))
            };
            return value.as_object()?.iter().find_map(known);
        }
        "propertyNames" => {
            return value.as_object()?.keys().find_map(|key| misfit(rule, &json!(key)));
        }
        "additionalProperties" => {
            let known = |key: &str| words.get("properties").is_some_and(|known| known.get(key).is_some());
            let other = |(key, value): (&String, &Value)| {
                (!known(key)).then(|| misfit(rule, value).map(|why| format!("{key}: {why}")))?
            };
            return value.as_object()?.iter().find_map(other);
        }
        _ => panic!("the schema uses {word}, of which this test knows nothing"),
    };
    (!fits).then(|| format!("{value} against {word} {rule}"))
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a name") {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the schema has the type {other}, of which this test knows nothing"),
    }
}

/// What an editor makes of a file: plain scalars by YAML's core schema, variables as they are written.
fn as_edited(text: &str) -> Value {
    to_json(&parse(&text.replace("${", "$${"), "t.yaml", &|_| None).expect("YAML"))
}

fn to_json(node: &Node) -> Value {
    match &node.value {
        tree::Value::Map(entries) => {
            entries.iter().map(|(key, value)| (key.text.to_string(), to_json(value))).collect()
        }
        tree::Value::Seq(items) => items.iter().map(to_json).collect(),
        tree::Value::Scalar(scalar) => match &*scalar.text {
            text if !scalar.plain => json!(text),
            "true" | "True" | "TRUE" => json!(true),
            "false" | "False" | "FALSE" => json!(false),
            text => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => json!(number),
                (_, Ok(number)) if number.is_finite() => json!(number),
                _ => json!(text),
            },
        },
    }
}

/// What the program makes of it; `N` is the only variable.
fn as_read(text: &str) -> Result<(), String> {
    let env = |name: &str| (name == "N").then(|| "1".to_owned());
    let flags = Overrides { upstream: Some("http://127.0.0.1:1".to_owned()), ..Overrides::default() };
    let clock = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000));
    let config = Config::from_text(text, "t.yaml", &flags, &env).map_err(|errors| errors.to_string())?;
    config.resolve(&clock.clock()).map(drop).map_err(|errors| errors.to_string())
}

/// The first example in YAML of the README.
fn readme() -> &'static str {
    let whole = include_str!("../../../README.md");
    let (_, example) = whole.split_once("```yaml\n").expect("an example");
    example.split_once("```").expect("its end").0
}

/// Files that run must not be marked as wrong, or nobody heeds the marks.
#[test]
fn files_that_run_fit() {
    let files = [
        include_str!("../../../conf/tidegate.yaml"),
        readme(),
        "upstream: http://127.0.0.1:1\n",
        "threads: ${N}\ndebug: ${N}\nhosts: ${HOSTS:-a.example,b.example}\ncaps: {uri: '${URI:-8KiB}'}\n",
        "uploads: {part: 20MiB, types: [png, zip]}\nroutes:\n- {name: a, match: {paths: [/a]}, uploads: {types: off}}\n\
         - {name: b, match: {paths: [/b]}, uploads: off}\n",
        "caps: {uri: 8192, body: {json: 2m}}\ntimeouts: {first_byte: 1m30s, write: 5 minutes}\n",
        "log: {level: DEBUG, access: {to: /tmp/access.log, format: '${FORMAT:-combined}'}}\n",
        "log: {level: Warning, events: {to: off}}\n",
        "origin: off\nleaks: No\nsecurity_headers: false\nrate_limit_status: off\nlimits: {ai: off, api: on}\n",
        "origin: '${ORIGIN:-off}'\nconnections: {h2c: no}\ncors: {allow_credentials: 'off'}\n",
        "security_headers: {csp: strict, headers: {X-Frame-Options: SAMEORIGIN, X-XSS-Protection: 0}}\n",
        "limits:\n  ai: {windows: ['${N}/min', 3/10s, 9/1h30m], classes: {keyed: [50/min]}}\n  \
         mine: {counts: all, by: [address, 'header:x-team'], windows: [5/s]}\n",
        "routes:\n- name: chat\n  match: {paths: [/api/chat, '/rooms/*/messages'], methods: [POST]}\n  \
         upstream: http://127.0.0.1:3001\n  api: open-ai\n  traffic: ai\n  inspect: off\n  origin: off\n  \
         limits: {ai: {windows: [20/min]}, pages: off, session: {enabled: false}}\n  timeouts: {first_byte: 120s}\n",
    ];
    for file in files {
        assert_eq!(as_read(file), Ok(()), "{file}");
        assert_eq!(misfit(&SCHEMA, &as_edited(file)), None, "{file}");
    }
}

/// What is not marked is found only when the gate does not start.
#[test]
fn slips_do_not_fit() {
    let slips = [
        "upstrem: http://127.0.0.1:1",
        "limits: {ai: {window: [5/min]}}",
        "limits: {ai: {windows: 5/min}}",
        "limits: {ai: {windows: [5/fortnight]}}",
        "limits: {ai: {windows: [0/min]}}",
        "limits: {ai: {counts: bots}}",
        "limits: {ai: {by: [adress]}}",
        "limits: {ai: {classes: {key: [5/min]}}}",
        "limits: [ai]",
        "cors: {allowed_origin: []}",
        "cors: {allowed_origins: 'https://a.example,https://b.example'}",
        "cors: off",
        "caps: {body: {jsn: 1MiB}}",
        "caps: {uri: 8 hands}",
        "caps: {uri: -1}",
        "caps: {uri: 0.5}",
        "caps: 8KiB",
        "log: {access: {fmt: json}}",
        "log: {access: {to: sdtout}}",
        "log: {level: warm}",
        "timeouts: {write: 5}",
        "uploads: {types: [exe]}",
        "uploads: {types: png.jpg}",
        "timeouts: {write: 5 parsecs}",
        "threads: -1",
        "threads: many",
        "debug: maybe",
        "listen: 8080",
        "security_headers: {csp: loose}",
        "routes: [{nme: a}]",
        "routes: [{match: {paths: [/a]}}]",
        "routes: [{name: a, matches: {}}]",
        "routes: [{name: a, match: {path: [/a]}}]",
        "routes: [{name: a, match: {paths: [/a]}, api: openai}]",
        "routes: [{name: a, match: {paths: [/a]}, listen: 127.0.0.1:1}]",
        "routes: {a: {}}",
    ];
    for slip in slips {
        assert!(misfit(&SCHEMA, &as_edited(slip)).is_some(), "fits: {slip}");
        assert!(as_read(slip).is_err(), "runs: {slip}");
    }
    for path in
        ["/upstream", "/drain", "/origin", "/admin", "/limits/ai", "/caps/uri", "/client/secret", "/routes"]
    {
        let mut file = Value::Null;
        for key in path.rsplit('/').filter(|key| !key.is_empty()) {
            file = json!({ key: file });
        }
        assert!(misfit(&SCHEMA, &file).is_some(), "null fits: {path}");
    }
}
