//! Upstreams as written in the settings, and what is made of them.

use std::fmt;
use std::path::PathBuf;

use http::Uri;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::{
    Balance, Check, Identity, Patience, Resolver, Server, Settings, Timeouts, Trust, breaker, retry,
};
use crate::config::shown::short;
use crate::config::{Span, Toggle};
use crate::guard::Fault;
use crate::proxy::timeouts;

/// Where requests go: servers, or the name of an upstream. One as a text, several as a list or with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets(pub Vec<String>);

/// How an upstream is used, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamFile {
    /// Which server a request goes to.
    pub balance: Balance,
    /// For a connection to be opened, to whichever server.
    pub connect_timeout: Span,
    /// For which an unused connection is kept.
    pub idle_timeout: Span,
    /// Failures in a row after which a server is left alone; 0: never.
    pub max_fails: u32,
    /// For how long; and within which time of each other failures are in a row.
    pub fail_timeout: Span,
    /// Health checks.
    pub health: HealthFile,
    /// TLS to its servers.
    pub tls: TlsFile,
}

/// An upstream that has a name, as written.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used: its parts are read one by one")]
pub struct NamedUpstream {
    /// Its servers.
    servers: Targets,
    /// When it is left alone, where that differs from the top level.
    breaker: Option<Toggle<breaker::Config>>,
    /// When calls are tried again, where that differs from the top level.
    retries: Option<Toggle<retry::Config>>,
    /// Times that are allowed to requests that go there, where they differ from the top level.
    timeouts: Option<timeouts::Config>,
    #[schemars(flatten)]
    overrides: Option<UpstreamFile>,
}

/// What becomes of calls that fail, as run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failures {
    /// When the upstream is left alone; `None`: only by hand.
    pub breaker: Option<breaker::Policy>,
    /// When calls are tried again; `None`: never.
    pub retries: Option<retry::Policy>,
}

impl Failures {
    /// Builds both.
    ///
    /// # Errors
    /// The key whose value can't be used.
    pub fn build(breaker: &Toggle<breaker::Config>, retries: &Toggle<retry::Config>) -> Result<Self, Fault> {
        Ok(Self {
            breaker: breaker.as_option().map(breaker::Policy::build).transpose()?,
            retries: retries.as_option().map(retry::Policy::build).transpose()?,
        })
    }
}

/// Health checks, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthFile {
    /// What is asked for.
    pub path: Toggle<String>,
    /// How often.
    pub every: Span,
    /// For one check.
    pub timeout: Span,
    /// Checks passed in a row that bring a server back.
    pub rise: u32,
    /// Checks failed in a row that take it out.
    pub fall: u32,
}

/// TLS to servers, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// Whether certificates are verified.
    pub verify: bool,
    /// Name that they have to be for, if it is not the server's.
    pub server_name: Option<String>,
    /// PEM file of the authorities that are believed instead of the system's.
    pub ca: Option<PathBuf>,
}

impl Targets {
    /// The servers that they are, if they are servers.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn servers(&self) -> Result<Vec<Server>, String> {
        let mut servers: Vec<Server> = Vec::with_capacity(self.0.len());
        for text in &self.0 {
            let server = Server::parse(text).map_err(|why| format!("{} {why}", short(text)))?;
            if servers.contains(&server) {
                return Err(format!("names {} twice", short(text)));
            }
            servers.push(server);
        }
        if servers.is_empty() { Err("names no server".to_owned()) } else { Ok(servers) }
    }
}

impl UpstreamFile {
    /// Settings of an upstream with these servers.
    ///
    /// # Errors
    /// The key whose value can't be used, below the upstream's own.
    pub fn settings(
        &self,
        servers: Vec<Server>,
        resolver: Resolver,
        failures: Failures,
    ) -> Result<Settings, Fault> {
        let health = &self.health;
        let zero = |key: &'static str| Fault::new(key, "is 0, which would let nothing through; write more");
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("fail_timeout", self.fail_timeout),
            ("health.every", health.every),
            ("health.timeout", health.timeout),
        ];
        if let Some((key, _)) = times.iter().find(|(_, time)| time.0.is_zero()) {
            return Err(zero(key));
        }
        let counts = [("health.rise", health.rise), ("health.fall", health.fall)];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(zero(key));
        }
        let trust = Trust::read(self.tls.verify, self.tls.ca.as_deref());
        Ok(Settings {
            identity: Identity {
                servers,
                trust: trust.map_err(|why| Fault::new("tls.ca", why))?,
                server_name: self.tls.server_name.as_deref().map(Into::into),
                resolver,
            },
            balance: self.balance,
            patience: Patience { max_fails: self.max_fails, fail_timeout: self.fail_timeout.0 },
            check: health.path.as_option().map(|path| check(path, health)).transpose()?,
            timeouts: Timeouts { connect: self.connect_timeout.0, idle: self.idle_timeout.0 },
            failures,
        })
    }
}

fn check(path: &str, file: &HealthFile) -> Result<Check, Fault> {
    let uri: Option<Uri> = path.parse().ok().filter(|_| path.starts_with('/'));
    let message = || format!("{path:?} is no path; write it like /healthz");
    Ok(Check {
        path: uri.ok_or_else(|| Fault::new("health.path", message()))?,
        every: file.every.0,
        timeout: file.timeout.0,
        rise: file.rise,
        fall: file.fall,
    })
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TargetsVisitor;

        impl<'de> Visitor<'de> for TargetsVisitor {
            type Value = Targets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a server such as http://127.0.0.1:3000, or a list of servers")
            }

            fn visit_str<E>(self, text: &str) -> Result<Targets, E> {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Targets(parts.map(str::to_owned).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Targets, A::Error> {
                let mut targets = Vec::new();
                while let Some(target) = items.next_element()? {
                    targets.push(target);
                }
                Ok(Targets(targets))
            }
        }

        deserializer.deserialize_any(TargetsVisitor)
    }
}

impl JsonSchema for Targets {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where requests go: servers (http://, https://, unix:), or the name of an upstream.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        })
    }
}
