//! Builds upstreams: each that the settings name, and those that a route names by their servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::file::ServerFile;
use super::resolve::nearest;
use super::{ConfigError, ConfigErrors, Node, from_node_at, merge};
use crate::proxy::timeouts;
use crate::state::Clock;
use crate::upstream::{Failures, Resolver, Server, Settings, Targets, Upstream, UpstreamFile};

/// Keys of an upstream whose defaults stand at the top level, not under `upstream_defaults`.
const OF_THE_TOP: [&str; 3] = ["breaker", "retries", "timeouts"];

/// Every upstream, built once however many routes lead there.
pub(super) struct Upstreams<'a> {
    file: &'a ServerFile,
    clock: &'a Clock,
    /// Those of an upstream whose servers a route names.
    defaults: Settings,
    /// Those of the settings that are in force, if any are.
    running: &'a [Arc<Upstream>],
    built: Vec<Arc<Upstream>>,
    /// Times that some of them allow, as written.
    timeouts: Vec<(Arc<Upstream>, Node)>,
}

impl<'a> Upstreams<'a> {
    /// Reads those that the settings name; `server` holds them as written, `routes` the defaults of routes. What `running`
    /// ones have come to know lives on.
    pub(super) fn read(
        file: &'a ServerFile,
        failures: Failures,
        (server, routes): (&Node, &Node),
        clock: &'a Clock,
        running: &'a [Arc<Upstream>],
    ) -> Result<Self, ConfigErrors> {
        let name_servers = file.name_servers.iter().map(|text| name_server(text)).collect::<Result<_, _>>();
        let resolver = Resolver {
            name_servers: name_servers.map_err(|why: String| fault("", "name_servers", &why, server))?,
        };
        let defaults = file.upstream_defaults.settings(Vec::new(), resolver.clone(), failures);
        let defaults = defaults.map_err(|why| {
            let tree = server.get("upstream_defaults").unwrap_or(server);
            fault("upstream_defaults", &why.key, &why.message, tree)
        })?;
        let mut errors = ConfigErrors::default();
        let (mut built, mut timeouts) = (Vec::new(), Vec::new());
        for (name, _) in file.upstreams.iter() {
            let prefix = format!("upstreams.{name}");
            let Some(own) = server.at(&["upstreams", name]) else { continue };
            let base = server.get("upstream_defaults");
            let merged = over(base, own).without(&["servers"]).without(&OF_THE_TOP);
            let wrong = |key: &str, why: &str| fault(&prefix, key, why, own);
            let servers = || -> Result<Vec<Server>, ConfigErrors> {
                let written = own.get("servers").ok_or_else(|| wrong("servers", "names no server"))?;
                let targets: Targets = from_node_at(&format!("{prefix}.servers"), written)?;
                Ok(servers_of(&targets, file).map_err(|why| wrong("servers", &why))?)
            };
            let upstream = servers().and_then(|servers| {
                let failures = failures_of(&prefix, own, server)?;
                if let Some(own) = own.get("timeouts") {
                    let whole = over(routes.get("timeouts"), own);
                    let read: timeouts::Config = from_node_at(&format!("{prefix}.timeouts"), &whole)?;
                    timeouts::Timeouts::build(&read).map_err(|why| wrong(&why.key, &why.message))?;
                }
                let settings = from_node_at::<UpstreamFile>(&prefix, &merged)?;
                let settings = settings.settings(servers, resolver.clone(), failures);
                let settings = settings.map_err(|why| fault(&prefix, &why.key, &why.message, &merged))?;
                let upstream = Upstream::build(name, settings, clock.clone());
                Ok(upstream.map_err(|why| wrong("tls", &why.to_string()))?)
            });
            match upstream {
                Ok(upstream) => {
                    let upstream = going_on(upstream, running);
                    timeouts.extend(own.get("timeouts").map(|own| (upstream.clone(), own.clone())));
                    built.push(upstream);
                }
                Err(more) => errors.extend(more),
            }
        }
        errors.into_result()?;
        Ok(Self { file, clock, defaults, running, built, timeouts })
    }

    /// The upstream that `targets` name, or one of these servers that is called `name`.
    ///
    /// # Errors
    /// What is wrong with the targets.
    pub(super) fn get(&mut self, targets: &Targets, name: &str) -> Result<Arc<Upstream>, String> {
        if let [only] = targets.0.as_slice()
            && !only.contains(':')
        {
            let named = self.built.iter().find(|upstream| *upstream.name == **only);
            return named.cloned().ok_or_else(|| self.unknown(only));
        }
        let mut settings = self.defaults.clone();
        settings.identity.servers = servers_of(targets, self.file)?;
        // Two routes that lead to one upstream share its connections, whatever they are called.
        let same =
            |known: &&Arc<Upstream>| *known.settings() == settings && self.timeouts_of(known).is_none();
        if let Some(known) = self.built.iter().find(same) {
            return Ok(known.clone());
        }
        if self.built.iter().any(|known| &*known.name == name) {
            return Err(format!("would be a second upstream called {name:?}; give one of them another name"));
        }
        let built = Upstream::build(name, settings, self.clock.clone()).map_err(|why| why.to_string())?;
        let built = going_on(built, self.running);
        self.built.push(built.clone());
        Ok(built)
    }

    /// Times that requests to `upstream` are allowed, where it says so itself.
    pub(super) fn timeouts_of(&self, upstream: &Arc<Upstream>) -> Option<&Node> {
        self.timeouts.iter().find(|(known, _)| Arc::ptr_eq(known, upstream)).map(|(_, node)| node)
    }

    /// All of them.
    pub(super) fn into_built(self) -> Vec<Arc<Upstream>> {
        self.built
    }

    fn unknown(&self, name: &str) -> String {
        let names: Vec<&str> = self.file.upstreams.iter().map(|(name, _)| name).collect();
        let known = match names.as_slice() {
            [] => "none has a name yet".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        format!("{name:?} is neither a server (write http://{name}) nor a name under `upstreams` ({known})")
    }
}

/// What an upstream says of calls that fail, over what the top level does.
fn failures_of(prefix: &str, own: &Node, server: &Node) -> Result<Failures, ConfigErrors> {
    let at = |key: &str| match own.get(key) {
        Some(own) => (format!("{prefix}.{key}"), over(server.get(key), own)),
        None => {
            (key.to_owned(), server.get(key).cloned().unwrap_or_else(|| Node::empty(server.origin.clone())))
        }
    };
    let ((breaker_at, breaker), (retries_at, retries)) = (at("breaker"), at("retries"));
    let failures =
        Failures::build(&from_node_at(&breaker_at, &breaker)?, &from_node_at(&retries_at, &retries)?);
    Ok(failures.map_err(|why| fault(prefix, &why.key, &why.message, own))?)
}

/// `own` over what it overrides, if that is anything.
fn over(base: Option<&Node>, own: &Node) -> Node {
    base.map_or_else(|| own.clone(), |base| merge(base, own))
}

/// The running upstream, if it is set up alike; else the new one, which takes over what it can.
fn going_on(mut built: Upstream, running: &[Arc<Upstream>]) -> Arc<Upstream> {
    if let Some(same) = running.iter().find(|running| running.is_same(&built)) {
        return same.clone();
    }
    running.iter().for_each(|running| built.adopt(running));
    Arc::new(built)
}

fn servers_of(targets: &Targets, file: &ServerFile) -> Result<Vec<Server>, String> {
    let servers = targets.servers()?;
    if servers.iter().any(|server| server.is_at(&file.listen)) {
        return Err("is the address that the gate itself listens on".to_owned());
    }
    Ok(servers)
}

/// A name server's address, with its port or at port 53.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    address.map_err(|_| format!("{text:?} is no address; write 127.0.0.1 or 127.0.0.1:53"))
}

/// An error at `key` below `prefix`, at the line in `tree` where it or what is around it was written.
fn fault(prefix: &str, key: &str, message: &str, tree: &Node) -> ConfigError {
    let origin = nearest(tree, key).unwrap_or(tree).origin.clone();
    let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    ConfigError { path, origin: Some(origin), message: message.into(), remedy: None }
}
