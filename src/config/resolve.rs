//! From settings as written to settings as run: everything that can be wrong is found here, once, at start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::HeaderName;

use secrecy::SecretString;

use super::bodies::BodyGuards;
use super::file::{Level, RouteFile, ServerFile};
use super::routes::RouteBuilder;
use super::upstreams::Upstreams;
use super::{Config, ConfigError, ConfigErrors, KeptError, Node, Secret, from_node};
use crate::admin::AdminToken;
use crate::guard::hygiene::Hygiene;
use crate::guard::jwt::{Issuer, Verifier};
use crate::guard::{self, Guards, bans, reputation};
use crate::observe::{DefaultLimits, ObserverConfig, watch};
use crate::proxy::client::{ClientRules, DigestKey, KeyOrigin};
use crate::proxy::path::{NormalPath, PathRules};
use crate::proxy::route::Route;
use crate::proxy::timeouts::Timeouts;
use crate::server::HeadCaps;
use crate::server::door::ConnectionCaps;
use crate::state::config::StateDir;
use crate::state::{AnyStore, Clock};
use crate::upstream::{Failures, Upstream};

/// No more of a head is read; up to it, `caps` decides.
const HEAD_BYTES: usize = 256 * 1024;

/// The settings, as run. A request keeps the ones that it began under.
pub struct Settings {
    /// Sockets, threads and caps on connections.
    pub server: ServerSettings,
    /// How clients are recognised.
    pub client: ClientRules,
    /// How paths are normalised.
    pub paths: PathRules,
    /// Which odd HTTP is refused.
    pub hygiene: Hygiene,
    /// Times that are allowed to a request of which no route is known.
    pub timeouts: Timeouts,
    /// Routes in order; the last takes everything.
    pub routes: Vec<Arc<Route>>,
    /// Every upstream once.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Kinds of signed tokens that have a key.
    pub tokens: Vec<Arc<Verifier>>,
    /// Who is banned; `None`: only by hand.
    pub bans: Option<Arc<bans::Policy>>,
    /// When limits are tightened; `None`: never.
    pub reputation: Option<reputation::Policy>,
    /// Path of the status endpoint.
    pub status_path: Option<Box<str>>,
    /// Logs.
    pub observe: ObserverConfig,
    /// How long rows of the audit are kept.
    pub audit_keep: Duration,
    /// What is out of the ordinary.
    pub watch: Option<watch::Config>,
    /// Level of the program's own messages.
    pub level: Level,
    /// Store of counters.
    pub store: Arc<AnyStore>,
    /// Body guards, for the settings that follow.
    bodies: BodyGuards,
    /// Path on which a guard panics.
    #[cfg(debug_assertions)]
    panic_on: Option<Box<str>>,
}

/// The server itself; of these, only the admin token may change while it runs.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Address for traffic.
    pub listen: String,
    /// Address of the admin endpoints.
    pub admin_listen: String,
    /// Bearer token of the admin endpoints, if one was set.
    pub admin_token: Option<Secret>,
    /// Directory for keys and counters.
    pub state_dir: Option<PathBuf>,
    /// Nobody chose that directory: if it can't be used, it is done without.
    pub state_dir_implied: bool,
    /// Directory for the process's id and for handing sockets over.
    pub runtime_dir: Option<PathBuf>,
    /// Worker threads.
    pub threads: usize,
    /// Whether this is a development set-up.
    pub debug: bool,
    /// Drain deadline.
    pub drain: Duration,
    /// Bytes that bodies may hold, all together, while they are inspected.
    pub body_memory: u64,
    /// Caps on connections.
    pub connections: ConnectionCaps,
}

impl ServerSettings {
    /// Caps for the admin listener: few connections, and none of them worth many.
    pub fn admin_connections(&self) -> ConnectionCaps {
        ConnectionCaps { total: 256, per_address: 64, h2c: false, ..self.connections.clone() }
    }
}

impl Settings {
    /// Makes a guard panic on `path`, for the test that a panic costs one request only. Debug builds alone have it.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn inject_panic_on_path(&mut self, path: &str) {
        self.panic_on = Some(path.into());
    }

    /// Panics if a test asked for it.
    #[cfg(debug_assertions)]
    pub(crate) fn panic_if_asked(&self, path: &str) {
        assert!(self.panic_on.as_deref() != Some(path), "a panic that a test asked for");
    }

    /// The route of a request. `host` in lower case, without port.
    pub fn route(&self, host: &str, path: &str, method: &Method) -> Option<Arc<Route>> {
        self.routes.iter().find(|route| route.matcher.matches(host, path, method)).cloned()
    }

    /// The guards that dress answers to requests that found no route.
    pub fn fallback(&self) -> Option<&Guards> {
        self.routes.last().map(|route| &route.guards)
    }

    /// Maxima of the shipped limits as they stand at the top level, for the stats.
    pub fn default_limits(&self) -> DefaultLimits {
        const MINUTE: Duration = Duration::from_secs(60);
        const HOUR: Duration = Duration::from_secs(3600);
        let max = |name, window| self.fallback()?.limits.max(name, window);
        DefaultLimits {
            per_minute: max("api", MINUTE),
            per_hour: max("api", HOUR),
            ai_per_minute: max("ai", MINUTE),
            ai_per_hour: max("ai", HOUR),
        }
    }

    /// Takes the key of digests from the state directory, where none is set: limits and bans of users, sessions and
    /// devices would end with the process otherwise. It is made there at the first start.
    ///
    /// # Errors
    /// When it can't be read or kept, or can be read by others.
    pub fn keep_digest_key(&mut self) -> Result<(), KeptError> {
        if let (KeyOrigin::Made, Some(directory)) = (self.client.secret.origin(), &self.server.state_dir) {
            self.client.secret = DigestKey::kept(directory)?;
        }
        Ok(())
    }

    /// Issuers that publish the keys of their tokens.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.tokens.iter().filter_map(|token| token.issuer())
    }

    /// Whether a request asks for the caller's own limits.
    pub fn is_status_path(&self, path: &str, method: &Method) -> bool {
        method.is_safe() && self.status_path.as_deref() == Some(path)
    }
}

impl Config {
    /// Builds everything that a server needs, or says all that is wrong.
    pub fn resolve(&self, clock: &Clock) -> Result<Settings, ConfigErrors> {
        self.build(clock, None)
    }

    /// As `resolve`, for a server that runs: its counters, the key of its digests if it made one, and the upstreams that
    /// are the same live on.
    pub fn resolve_over(&self, running: &Settings, clock: &Clock) -> Result<Settings, ConfigErrors> {
        self.build(clock, Some(running))
    }

    /// The server's own settings, whatever is wrong with the rest.
    pub fn server_settings(&self) -> Result<ServerSettings, ConfigErrors> {
        from_node(&self.server).map(|file| self.server_settings_of(&file))
    }

    fn server_settings_of(&self, file: &ServerFile) -> ServerSettings {
        let mut settings = server_settings(file);
        if settings.state_dir.is_none() {
            // By the address, so that two gates of one user don't meet.
            settings.state_dir = self.states.as_ref().map(|states| states.join(&file.listen));
            settings.state_dir_implied = settings.state_dir.is_some();
        }
        settings
    }

    fn build(&self, clock: &Clock, running: Option<&Settings>) -> Result<Settings, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let file: ServerFile = from_node(&self.server)?;
        let problem = |key: &str, message: String| self.problem(key, message);
        let listen = file.listen.clone();
        let loopback = is_loopback(&listen).map_err(|m| problem("listen", m))?;
        is_loopback(&file.admin.listen).map_err(|m| problem("admin.listen", m))?;
        if file.admin.listen == listen && !listen.ends_with(":0") {
            let message = format!("is {listen}, where traffic is accepted; give it another port");
            return Err(problem("admin.listen", message).into());
        }
        no_zeros(&file).map_err(|(key, message)| problem(key, message))?;
        if let Some(path) = file.rate_limit_status.as_option()
            && !NormalPath::parse(path.as_bytes(), &file.paths).is_ok_and(|normal| normal.as_str() == path)
        {
            let message =
                format!("{path:?} is no path in its normal form; write it like /auth/rate-limit-status");
            return Err(problem("rate_limit_status", message).into());
        }
        if let Some(token) = &file.admin.token {
            let token = AdminToken::given(&SecretString::from(token.expose()));
            token.map_err(|why| problem("admin.token", why.to_string()))?;
        }
        let made = running.map(|running| &running.client.secret).filter(|key| key.origin() != KeyOrigin::Set);
        let client = client_rules(&file, made).map_err(|(key, message)| problem(&key, message))?;
        let misset = |fault: guard::Fault| problem(&fault.key, fault.message.into_owned());
        let bans = file.bans.as_option().map(bans::Policy::build).transpose().map_err(misset)?;
        let reputation =
            file.reputation.as_option().map(reputation::Policy::build).transpose().map_err(misset)?;
        let failures = Failures::build(&file.breaker, &file.retries).map_err(misset)?;

        // Read by itself first, so that what is wrong at the top level is told once, and as such.
        let defaults: RouteFile = from_node(&self.defaults)?;
        let timeouts = Timeouts::build(&defaults.timeouts)
            .map_err(|fault| self.problem(&fault.key, fault.message.into_owned()))?;
        let known = running.map_or(&[][..], |running| &running.upstreams);
        let mut upstreams = Upstreams::read(&file, failures, (&self.server, &self.defaults), clock, known)?;
        let resolver = &upstreams.resolver();
        let known = running.map_or(&[][..], |running| &running.tokens);
        let tokens = file.jwt.verifiers(resolver, known).map_err(misset)?;
        let minter = file.jwt.minter().map_err(misset)?;
        let mut bodies = BodyGuards::over(running.map(|running| &running.bodies));
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for (index, entry) in self.routes.iter().enumerate() {
            let (file, server, tokens, minter) = (&file, &self.server, &*tokens, minter.as_ref());
            let built = RouteBuilder { file, server, tokens, minter, loopback, index, entry }
                .build(&mut upstreams, &mut bodies);
            match built {
                Ok(route) => {
                    if let Some(earlier) =
                        routes.iter().find(|earlier| earlier.matcher.covers(&route.matcher))
                    {
                        let message =
                            format!("this route is never reached: {:?} takes all its requests", earlier.name);
                        errors.push(
                            ConfigError::new(entry.path(index), &entry.own.origin, message)
                                .remedy("put the narrower route first, or remove one"),
                        );
                    }
                    if routes.iter().any(|earlier| earlier.name == route.name) {
                        let message = format!("two routes are named {:?}", route.name);
                        errors.push(ConfigError::new(entry.path(index), &entry.own.origin, message));
                    }
                    routes.push(Arc::new(route));
                }
                Err(more) => errors.extend(more),
            }
        }
        errors.into_result()?;
        let upstreams = upstreams.into_built();
        let mut server = self.server_settings_of(&file);
        let store = match running {
            Some(running) => {
                // It may have turned out that it is done without.
                server.state_dir.clone_from(&running.server.state_dir);
                running.store.clone()
            }
            None => {
                let implied = server.state_dir_implied;
                let directory = server.state_dir.as_deref().map(|path| StateDir { path, implied });
                Arc::new(file.store.build(directory, &file.redis, clock).map_err(misset)?)
            }
        };
        Ok(Settings {
            server,
            client,
            paths: file.paths,
            hygiene: file.hygiene,
            timeouts,
            bans: bans.map(Arc::new),
            reputation,
            status_path: file.rate_limit_status.as_option().map(|path| path.as_str().into()),
            observe: ObserverConfig {
                access: file.log.access.to,
                access_format: file.log.access.format,
                events: file.log.events.to,
            },
            audit_keep: file.audit.keep.0,
            watch: file.watch.as_option().copied(),
            level: if file.debug { Level::Debug } else { file.log.level },
            routes,
            upstreams,
            tokens,
            store,
            bodies: bodies.built(),
            #[cfg(debug_assertions)]
            panic_on: None,
        })
    }

    fn problem(&self, key: &str, message: String) -> ConfigError {
        let written = nearest(&self.server, key).or_else(|| nearest(&self.defaults, key));
        let origin = written.map(|node| node.origin.clone());
        ConfigError { path: key.into(), origin, message, remedy: None }
    }
}

/// The value at `key`, such as `cors.allowed_origins[1]`, or the innermost one around it that was written.
pub(super) fn nearest<'a>(tree: &'a Node, key: &str) -> Option<&'a Node> {
    let mut found = None;
    let mut node = tree;
    for step in key.split(['.', '[']) {
        let index = step.strip_suffix(']').and_then(|index| index.parse::<usize>().ok());
        let next = match index {
            Some(index) => node.items().get(index),
            None => node.get(step),
        };
        match next {
            Some(next) => (node, found) = (next, Some(next)),
            None => break,
        }
    }
    found
}

/// A key, and what is wrong with its value.
pub(super) type Fault = (String, String);

fn is_loopback(listen: &str) -> Result<bool, String> {
    let address: SocketAddr = listen
        .parse()
        .map_err(|_| format!("{listen:?} is not an address; write it like 127.0.0.1:8080 or [::]:8080"))?;
    Ok(address.ip().to_canonical().is_loopback())
}

fn server_settings(file: &ServerFile) -> ServerSettings {
    let processors = || std::thread::available_parallelism().map_or(2, usize::from);
    let connections = &file.connections;
    ServerSettings {
        listen: file.listen.clone(),
        admin_listen: file.admin.listen.clone(),
        admin_token: file.admin.token.clone(),
        state_dir: file.state_dir.clone(),
        state_dir_implied: false,
        runtime_dir: file.runtime_dir.clone(),
        threads: if file.threads == 0 { processors() } else { file.threads },
        drain: file.drain.0,
        debug: file.debug,
        body_memory: file.body_memory.0,
        connections: ConnectionCaps {
            total: connections.max,
            per_address: connections.per_address,
            requests: connections.requests,
            idle: connections.idle_timeout.0,
            head: HeadCaps { deadline: connections.head_timeout.0, bytes: HEAD_BYTES },
            h2c: connections.h2c,
            h2_streams: connections.h2_streams,
            h2_header_list: 64 * 1024,
        },
    }
}

/// A zero here would refuse or cut everything, which nobody means.
fn no_zeros(file: &ServerFile) -> Result<(), (&'static str, String)> {
    let connections = &file.connections;
    let counts = [
        ("connections.max", connections.max),
        ("connections.per_address", connections.per_address),
        ("connections.requests", connections.requests),
        ("connections.h2_streams", connections.h2_streams),
    ];
    let times = [
        ("connections.head_timeout", connections.head_timeout),
        ("connections.idle_timeout", connections.idle_timeout),
    ];
    let zero = counts.iter().filter(|(_, count)| *count == 0).map(|(key, _)| *key);
    let zero = zero.chain(times.iter().filter(|(_, time)| time.0.is_zero()).map(|(key, _)| *key)).next();
    if let Some(key) = zero {
        return Err((key, "is 0, which would let nothing through; write 1 or more".to_owned()));
    }
    if file.audit.keep.0 < Duration::from_secs(24 * 60 * 60) {
        return Err((
            "audit.keep",
            "is less than a day, which would leave nothing to look at; write 1d or more".to_owned(),
        ));
    }
    if file.threads > 1024 {
        return Err(("threads", "is more than 1024; 0 takes one for each processor".to_owned()));
    }
    Ok(())
}

fn client_rules(file: &ServerFile, made: Option<&DigestKey>) -> Result<ClientRules, Fault> {
    let client = &file.client;
    let network = |text: &String| {
        let single = text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from);
        single.or_else(|| text.parse().ok()).ok_or_else(|| {
            (
                "client.trusted_proxies".to_owned(),
                format!("{text:?} is no address or network; write 10.0.0.1 or 10.0.0.0/8"),
            )
        })
    };
    let boxed = |list: &[String]| list.iter().map(|s| s.as_str().into()).collect();
    let device = header_names("client.device_header", std::slice::from_ref(&client.device_header))?;
    Ok(ClientRules {
        trusted_proxies: client.trusted_proxies.iter().map(network).collect::<Result<_, _>>()?,
        key_headers: key_headers(&client.key_headers)?,
        key_parameters: boxed(&client.key_parameters),
        session_cookies: boxed(&client.session_cookies),
        session_headers: header_names("client.session_headers", &client.session_headers)?,
        device_header: device.into_iter().next().unwrap_or(HeaderName::from_static("x-device-id")),
        secret: digest_key(client.secret.as_ref(), made)?,
    })
}

/// The key that is set, or else the one `made` before, or a new one.
fn digest_key(secret: Option<&Secret>, made: Option<&DigestKey>) -> Result<DigestKey, Fault> {
    match (secret, made) {
        (Some(secret), _) => Ok(DigestKey::new(secret.expose().as_bytes())),
        (None, Some(made)) => Ok(made.clone()),
        (None, None) => DigestKey::make().ok_or_else(|| {
            ("client.secret".to_owned(), "the system has no randomness; set a secret".to_owned())
        }),
    }
}

/// Header fields whose values are logged: a key that stands in one would be, too.
pub(crate) const LOGGED: [HeaderName; 4] = [
    http::header::HOST,
    http::header::USER_AGENT,
    http::header::REFERER,
    HeaderName::from_static("x-request-id"),
];

fn key_headers(names: &[String]) -> Result<Vec<HeaderName>, Fault> {
    let key = "client.key_headers";
    let names = header_names(key, names)?;
    match names.iter().find(|name| LOGGED.contains(name)) {
        Some(name) => Err((
            key.to_owned(),
            format!("{name} can't carry a key: its value is logged; choose another field"),
        )),
        None => Ok(names),
    }
}

pub(super) fn header_names(key: &str, names: &[String]) -> Result<Vec<HeaderName>, Fault> {
    let parse = |name: &String| {
        name.parse().map_err(|_| (key.to_owned(), format!("{name:?} is not the name of a header field")))
    };
    names.iter().map(parse).collect()
}
