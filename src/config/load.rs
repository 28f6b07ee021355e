//! Loads the settings: the built-in defaults, the file over them, the command line over both.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor, value::Error as ProbeError};

use super::error::known_names;
use super::file::{RouteFile, RouteOwn, ServerFile};
use super::routes::RouteEntry;
use super::{
    ConfigError, ConfigErrors, Lookup, Node, Origin, Value, explain, merge, parse, schema, secret_paths,
};

/// The defaults: the annotated file that is shipped.
const DEFAULTS: &str = include_str!("../../conf/tidegate.yaml");
const DEFAULTS_NAME: &str = "built-in conf/tidegate.yaml";

/// Name of the route that takes what no other takes.
const DEFAULT_ROUTE: &str = "default";

/// What the command line sets.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--upstream`.
    pub upstream: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin`.
    pub admin: Option<String>,
}

/// The settings as written, merged, before anything was built.
pub struct Config {
    file: Option<PathBuf>,
    /// Where programs keep their state, if the environment says so.
    pub(super) states: Option<PathBuf>,
    whole: Node,
    pub(super) server: Node,
    pub(super) defaults: Node,
    pub(super) routes: Vec<RouteEntry>,
}

impl Config {
    /// Reads a file, if one is named, over the defaults. `env` looks variables up.
    pub fn load(file: Option<&Path>, overrides: &Overrides, env: Lookup<'_>) -> Result<Self, ConfigErrors> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|error| ConfigError {
                path: String::new(),
                origin: Some(Origin::source(&path.display().to_string())),
                message: format!("cannot be read: {error}"),
                remedy: None,
            })?,
        };
        let name = file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
        let mut config = Self::from_text(&text, &name, overrides, env)?;
        config.file = file.map(Path::to_owned);
        Ok(config)
    }

    /// Reads settings from text, as `load` does from a file called `name`.
    pub fn from_text(
        text: &str,
        name: &str,
        overrides: &Overrides,
        env: Lookup<'_>,
    ) -> Result<Self, ConfigErrors> {
        let defaults = parse(DEFAULTS, DEFAULTS_NAME, env)?;
        let written =
            if text.trim().is_empty() { Node::empty(Origin::source(name)) } else { parse(text, name, env)? };
        let mut whole = merge(&defaults, &written);
        let flags = [
            (&["upstream"][..], "--upstream", &overrides.upstream),
            (&["listen"][..], "--listen", &overrides.listen),
            (&["admin", "listen"][..], "--admin", &overrides.admin),
        ];
        for (path, flag, value) in flags {
            if let Some(value) = value {
                whole = merge(&whole, &Node::overlay(path, value, Origin::source(flag)));
            }
        }
        Ok(Self { states: states(env), ..Self::split(whole)? })
    }

    /// The file that was read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Every value with its origin.
    pub fn explain(&self) -> String {
        // Settings that can't be read as such were refused before; of nothing known to be secret, nothing is shown.
        let secrets = secret_paths::<ServerFile>(&self.server);
        explain(&self.whole, &|path| {
            secrets.as_ref().map_or(true, |secrets| secrets.iter().any(|s| s == path))
        })
        .to_string()
    }

    /// Where a route was written.
    pub fn route_place(&self, index: usize) -> Option<String> {
        self.routes.get(index).map(|route| route.own.origin.to_string())
    }

    /// JSON Schema of the settings file.
    pub fn schema() -> String {
        serde_json::to_string_pretty(&schema::<WholeFile>()).unwrap_or_default()
    }

    /// Sorts the keys: the server's, the defaults of routes, the routes.
    fn split(whole: Node) -> Result<Self, ConfigErrors> {
        let (server_keys, route_keys) = (fields_of::<ServerFile>(), fields_of::<RouteFile>());
        let mut errors = ConfigErrors::default();
        for (key, _) in whole.entries() {
            if !server_keys.contains(&&*key.text) && !route_keys.contains(&&*key.text) {
                let known: Vec<&str> = server_keys.iter().chain(route_keys).copied().collect();
                let message = format!("unknown key {:?}", key.text);
                errors
                    .push(ConfigError::new("", &key.origin, message).remedy(known_names(&key.text, &known)));
            }
        }
        errors.into_result()?;
        let defaults = only(&whole, route_keys);
        let server = only(&whole, server_keys).without(&["routes"]);
        let mut routes = Vec::new();
        let written = whole.get("routes");
        if let Some(node) = written.filter(|node| !matches!(node.value, Value::Seq(_))) {
            let error = ConfigError::new("routes", &node.origin, "a list is wanted");
            return Err(error.remedy("write each route as an item: `- name: chat`").into());
        }
        for (index, entry) in written.map(Node::items).unwrap_or_default().iter().enumerate() {
            routes.push(split_route(&defaults, entry, index)?);
        }
        // A last route that takes everything is the default route, whatever it is called.
        let caught = routes.iter().any(|route: &RouteEntry| {
            route.own.get("match").is_none_or(|wanted| wanted.entries().is_empty())
        });
        if !caught {
            let origin = Origin::source(DEFAULTS_NAME);
            let own = Node::overlay(&["name"], DEFAULT_ROUTE, origin.clone());
            routes.push(RouteEntry { own, merged: defaults.clone(), overrides: Node::empty(origin) });
        }
        Ok(Self { file: None, states: None, whole, server, defaults, routes })
    }
}

/// The directory for the state of programs: the one that systemd gave to this one (systemd.exec(5)), or a user's own (XDG
/// Base Directory Specification).
fn states(env: Lookup<'_>) -> Option<PathBuf> {
    let given = |name: &str| env(name).filter(|value| value.starts_with('/'));
    let own = given("STATE_DIRECTORY").and_then(|all| all.split(':').next().map(PathBuf::from));
    own.or_else(|| Some(PathBuf::from(given("XDG_STATE_HOME")?).join("tidegate")))
        .or_else(|| Some(PathBuf::from(given("HOME")?).join(".local/state/tidegate")))
}

/// Tidegate's settings. A key that is left out has its default.
#[derive(schemars::JsonSchema)]
#[schemars(title = "Tidegate", deny_unknown_fields)]
#[allow(dead_code)]
struct WholeFile {
    #[schemars(flatten)]
    server: Option<ServerFile>,
    #[schemars(flatten)]
    routes: Option<RouteFile>,
}

fn split_route(defaults: &Node, entry: &Node, index: usize) -> Result<RouteEntry, ConfigErrors> {
    let (own_keys, route_keys) = (fields_of::<RouteOwn>(), fields_of::<RouteFile>());
    let path = format!("routes[{index}]");
    if !matches!(entry.value, Value::Map(_)) {
        return Err(ConfigError::new(path, &entry.origin, "a mapping is wanted")
            .remedy("write `- name: chat`")
            .into());
    }
    for (key, _) in entry.entries() {
        if !own_keys.contains(&&*key.text) && !route_keys.contains(&&*key.text) {
            let known: Vec<&str> = own_keys.iter().chain(route_keys).copied().collect();
            let message = format!("unknown key {:?}", key.text);
            return Err(ConfigError::new(path, &key.origin, message)
                .remedy(known_names(&key.text, &known))
                .into());
        }
    }
    let overrides = only(entry, route_keys);
    Ok(RouteEntry { own: only(entry, own_keys), merged: merge(defaults, &overrides), overrides })
}

fn only(node: &Node, keys: &[&str]) -> Node {
    let other: Vec<&str> =
        node.entries().iter().map(|(key, _)| &*key.text).filter(|key| !keys.contains(key)).collect();
    node.without(&other)
}

/// The names of a struct's fields, as its `Deserialize` knows them, so that they are listed nowhere twice.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = ProbeError;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeError> {
            Err(serde::de::Error::custom("only structs have fields"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, ProbeError> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    let _ = <T as Deserialize>::deserialize(Probe(&mut fields));
    fields
}
