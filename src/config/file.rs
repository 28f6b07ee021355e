//! The settings as written: one struct for the server, one for what each route may override.
//!
//! There are no defaults here: conf/tidegate.yaml is built in and holds them all.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

pub use super::level::Level;
use super::{ByteSize, Named, Secret, Span, Toggle};
use crate::guard::Traffic;
use crate::guard::mode::{Guard, Mode};
use crate::guard::{
    auth, bans, body, caps, cidr, concurrency, cors, duplicates, host, hygiene, jwt, leaks, limits, loops,
    origin, reputation, sanitize, security_headers, text, uploads,
};
use crate::observe::{AccessFormat, LogTarget, watch};
use crate::proxy::api::Api;
use crate::proxy::fallback;
use crate::proxy::path::PathRules;
use crate::proxy::route::Inspect;
use crate::proxy::{stream, timeouts};
use crate::state::RedisFile;
use crate::state::config::StoreFile;
use crate::upstream::{NamedUpstream, Targets, UpstreamFile, breaker, retry};

/// Keys that stand at the top level only.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    /// The app in front of which the gate stands: its servers, or the name of an upstream.
    pub upstream: Option<Targets>,
    /// Address for traffic.
    pub listen: String,
    /// Worker threads; 0: one for each processor.
    pub threads: usize,
    /// Directory for keys and counters.
    pub state_dir: Option<PathBuf>,
    /// What is counted, and where.
    pub store: StoreFile,
    /// The store that several gates share.
    pub redis: RedisFile,
    /// Directory for what a running process leaves for others to find it.
    pub runtime_dir: Option<PathBuf>,
    /// How long requests in flight may take after SIGTERM.
    pub drain: Span,
    /// Development: all messages are shown, and health says so.
    pub debug: bool,
    /// Memory that bodies may hold, all together, while they are inspected.
    pub body_memory: ByteSize,
    /// The admin endpoints.
    pub admin: AdminFile,
    /// Caps on connections.
    pub connections: ConnectionsFile,
    /// How clients are recognised.
    pub client: ClientFile,
    /// Signed tokens.
    pub jwt: jwt::Config,
    /// Logs.
    pub log: LogFile,
    /// What operators do.
    pub audit: AuditFile,
    /// What is out of the ordinary.
    pub watch: Toggle<watch::Config>,
    /// Who is banned, and for how long.
    pub bans: Toggle<bans::Config>,
    /// When limits are tightened.
    pub reputation: Toggle<reputation::Config>,
    /// How paths are normalised.
    pub paths: PathRules,
    /// What of HTTP is refused although it could be read.
    pub hygiene: hygiene::Hygiene,
    /// Path at which callers ask for their own limits.
    pub rate_limit_status: Toggle<String>,
    /// Upstreams that keep failing.
    pub breaker: Toggle<breaker::Config>,
    /// Calls that are tried again.
    pub retries: Toggle<retry::Config>,
    /// How upstreams are used.
    pub upstream_defaults: UpstreamFile,
    // Read one by one, since each is merged with the defaults first.
    /// Upstreams by name.
    #[schemars(with = "Named<NamedUpstream>")]
    pub upstreams: Named<IgnoredAny>,
    /// Name servers that are asked for names of upstreams.
    pub name_servers: Vec<String>,
    // Read one by one, since each is merged with the defaults first.
    /// Routes; the first that matches wins.
    #[serde(default)]
    #[schemars(with = "Vec<RouteSchema>")]
    pub routes: Absent,
}

/// Stands for what is read elsewhere.
#[derive(Debug, Default, Deserialize)]
pub struct Absent;

/// A route: its own keys, and those of the top level that it overrides.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)]
struct RouteSchema {
    #[schemars(flatten)]
    own: RouteOwn,
    #[schemars(flatten)]
    overrides: Option<RouteFile>,
}

/// Admin endpoints, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminFile {
    /// Address.
    pub listen: String,
    /// Bearer token.
    pub token: Option<Secret>,
}

/// The audit, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditFile {
    /// How long a row is kept.
    pub keep: Span,
}

/// Caps on connections, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsFile {
    /// At once.
    pub max: u32,
    /// At once from one address.
    pub per_address: u32,
    /// Requests on one HTTP/1 connection.
    pub requests: u32,
    /// For a whole request head.
    pub head_timeout: Span,
    /// Between two requests.
    pub idle_timeout: Span,
    /// HTTP/2 in plain text.
    pub h2c: bool,
    /// Streams at once on one HTTP/2 connection.
    pub h2_streams: u32,
}

/// Logs, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// The program's own messages: from which level.
    pub level: Level,
    /// One line a request.
    pub access: AccessFile,
    /// Security events.
    pub events: EventsFile,
}

/// Access log, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessFile {
    /// Where it goes.
    pub to: LogTarget,
    /// How a line looks.
    pub format: AccessFormat,
}

/// Security events, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsFile {
    /// Where they go.
    pub to: LogTarget,
}

/// How clients are recognised, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// Proxies that are believed.
    pub trusted_proxies: Vec<String>,
    /// Header fields that carry a key.
    pub key_headers: Vec<String>,
    /// Query parameters that carry a key.
    pub key_parameters: Vec<String>,
    /// Cookies that carry a session id.
    pub session_cookies: Vec<String>,
    /// Header fields that carry a session id.
    pub session_headers: Vec<String>,
    /// Fields of JSON and forms that carry a session id.
    pub session_fields: Vec<String>,
    /// Header field that carries a device id.
    pub device_header: String,
    /// Keys the digests of users, sessions and devices.
    pub secret: Option<Secret>,
}

/// Keys that a route may override.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// Whether guards refuse.
    pub mode: Mode,
    /// Guards that only tell what they would have refused.
    pub observe: Vec<Guard>,
    /// Hosts that are served.
    pub hosts: host::Config,
    /// Client addresses.
    pub addresses: cidr::Config,
    /// Security headers.
    pub security_headers: Toggle<security_headers::Config>,
    /// CORS.
    pub cors: cors::Config,
    /// Origin and referer.
    pub origin: Toggle<origin::Config>,
    /// Who has to prove who they are.
    pub auth: Toggle<auth::Config>,
    /// Response headers that tell too much.
    pub leaks: Toggle<leaks::Config>,
    /// Caps on heads and bodies.
    pub caps: caps::Config,
    /// Files that are sent.
    pub uploads: Toggle<uploads::Config>,
    /// Caps on the shape of JSON and forms.
    pub json: body::JsonConfig,
    /// Caps on the length of texts.
    pub text: text::Config,
    /// What texts may hold.
    pub sanitize: Toggle<sanitize::Config>,
    /// Messages that come twice.
    pub duplicates: Toggle<duplicates::Config>,
    /// Calls that are repeated under one key.
    pub idempotency: Toggle<duplicates::IdempotencyConfig>,
    /// Calls that come again and again.
    pub loops: Toggle<loops::Config>,
    /// Rate limits by name.
    pub limits: Named<Toggle<limits::Config>>,
    /// Requests in flight.
    pub concurrency: concurrency::Config,
    /// What serves when the upstream can't.
    pub fallback: Toggle<fallback::Config>,
    /// Forwarding.
    pub forward: ForwardFile,
    /// Times that are allowed.
    pub timeouts: timeouts::Config,
    /// Streams of events.
    pub streams: stream::Config,
}

/// Forwarding, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardFile {
    /// Further request headers that only trusted proxies may send.
    pub strip: Vec<String>,
    /// What the upstream sees in `Host`.
    pub host: ForwardHost,
}

/// What the upstream sees in `Host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForwardHost {
    /// What the client asked for.
    Client,
    /// The upstream's own.
    Upstream,
}

/// A route's own keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteOwn {
    /// Name in logs and metrics.
    pub name: String,
    /// What it takes.
    #[serde(default, rename = "match")]
    pub matches: MatchFile,
    /// Another upstream than the top level's.
    pub upstream: Option<Targets>,
    /// The API it speaks, where its path does not tell.
    pub api: Option<Api>,
    /// What its requests count as, where method and path do not tell.
    pub traffic: Option<Traffic>,
    /// Whether its bodies are looked into.
    pub inspect: Option<Inspect>,
}

/// What a route takes, as written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchFile {
    /// Host names.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Paths.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Methods.
    #[serde(default)]
    pub methods: Vec<String>,
}
