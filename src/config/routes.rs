//! Builds each route from its own keys over the defaults.

use std::sync::Arc;

use http::Method;

use super::file::{ForwardHost, MatchFile, RouteFile, RouteOwn, ServerFile};
use super::resolve::{Fault, header_names, nearest};
use super::{ConfigError, ConfigErrors, Node, from_node_at};
use crate::guard::authority::Authority;
use crate::guard::body::BodyGuard;
use crate::guard::{GuardParts, Guards};
use crate::proxy::Forwarding;
use crate::proxy::path::{NormalPath, PathRules};
use crate::proxy::route::{Inspect, Matcher, PathPattern, Route};
use crate::proxy::timeouts::Timeouts;
use crate::upstream::{self, Upstream};

/// A route as merged: its own keys, its overrides over the defaults, and the overrides alone.
pub(super) struct RouteEntry {
    /// `name`, `match`, and so on.
    pub own: Node,
    /// Defaults and overrides merged.
    pub merged: Node,
    /// What the route itself says.
    pub overrides: Node,
}

impl RouteEntry {
    pub(super) fn path(&self, index: usize) -> String {
        format!("routes[{index}]")
    }
}

/// What a route is built from.
pub(super) struct RouteBuilder<'a> {
    pub(super) file: &'a ServerFile,
    pub(super) server: &'a Node,
    pub(super) loopback: bool,
    pub(super) upstream_timeouts: upstream::Timeouts,
    pub(super) index: usize,
    pub(super) entry: &'a RouteEntry,
}

impl RouteBuilder<'_> {
    pub(super) fn build(&self, upstreams: &mut Vec<Arc<Upstream>>) -> Result<Route, ConfigErrors> {
        let prefix = self.entry.path(self.index);
        let own: RouteOwn = from_node_at(&prefix, &self.entry.own)?;
        let file: RouteFile = from_node_at(&prefix, &self.entry.merged)?;
        let upstream = self.upstream(&own, upstreams)?;
        let matcher = matcher(&own.matches, &self.file.paths)
            .map_err(|(key, message)| self.fault(&format!("match.{key}"), message))?;
        let timeouts = Timeouts::build(&file.timeouts)
            .map_err(|fault| self.fault(&fault.key, fault.message.into_owned()))?;
        let guards = self.guards(&own.name, file)?;
        Ok(Route {
            index: self.index,
            name: own.name.into(),
            matcher,
            api: own.api,
            traffic: own.traffic,
            inspect: own.inspect.unwrap_or(Inspect::Auto),
            upstream,
            guards,
            timeouts,
        })
    }

    fn upstream(&self, own: &RouteOwn, all: &mut Vec<Arc<Upstream>>) -> Result<Arc<Upstream>, ConfigError> {
        let (url, name) = match (&own.upstream, &self.file.upstream) {
            (Some(url), _) => (url, own.name.as_str()),
            (None, Some(url)) => (url, "default"),
            (None, None) => {
                let message = "no upstream is set".to_owned();
                return Err(ConfigError { path: "upstream".into(), origin: None, message, remedy: None }.remedy(
                    "name the app to stand in front of: --upstream http://127.0.0.1:3000, UPSTREAM_URL, or `upstream:` in the file",
                ));
            }
        };
        let built = Upstream::build(name, url, self.upstream_timeouts);
        let built = built.map_err(|why| self.fault("upstream", why.to_string()))?;
        if built.authority.as_str() == self.file.listen {
            return Err(self.fault("upstream", "is the address that the gate itself listens on".to_owned()));
        }
        // Two routes that name one upstream share its connections, whatever they are called.
        if let Some(known) = all.iter().find(|known| known.authority == built.authority) {
            return Ok(known.clone());
        }
        let built = Arc::new(built);
        all.push(built.clone());
        Ok(built)
    }

    fn guards(&self, name: &str, file: RouteFile) -> Result<Guards, ConfigError> {
        let fault = |(key, message): (String, String)| self.fault(&key, message);
        let strip = header_names("forward.strip", &file.forward.strip).map_err(fault)?;
        let forwarding = Forwarding { strip, host_of_upstream: file.forward.host == ForwardHost::Upstream };
        let body = BodyGuard::build(
            &file.json,
            &file.text,
            file.sanitize.as_option(),
            &self.file.client.session_fields,
        )
        .map_err(|fault| self.fault(&fault.key, fault.message.into_owned()))?;
        // A limit that a route repeats is its own; one that it inherits is shared by all.
        let owner = |limit: &str| self.entry.overrides.at(&["limits", limit]).map(|_| name);
        let parts = GuardParts { file, body, forwarding, loopback: self.loopback };
        Guards::build(parts, owner).map_err(|fault| self.fault(&fault.key, fault.message.into_owned()))
    }

    /// An error at a key of this route, wherever that key was written.
    fn fault(&self, key: &str, message: String) -> ConfigError {
        let own = nearest(&self.entry.overrides, key).or_else(|| nearest(&self.entry.own, key));
        let inherited = || nearest(&self.entry.merged, key).or_else(|| nearest(self.server, key));
        let path = match own {
            Some(_) => format!("{}.{key}", self.entry.path(self.index)),
            None => key.to_owned(),
        };
        let origin = own.or_else(inherited).map(|node| node.origin.clone());
        ConfigError { path, origin, message, remedy: None }
    }
}

fn matcher(file: &MatchFile, rules: &PathRules) -> Result<Matcher, Fault> {
    let path = |text: &String| {
        let fault = |why: String| ("paths".to_owned(), format!("{text:?}: {why}"));
        // Requests are routed by their normal form, so a pattern in another would never match.
        let normal = NormalPath::parse(text.as_bytes(), rules).map_err(|why| fault(why.to_string()))?;
        if normal.as_str() != text {
            return Err(fault(format!(
                "never matches: paths are normalised first; write {:?}",
                normal.as_str()
            )));
        }
        PathPattern::parse(text).map_err(|why| fault(why.to_string()))
    };
    let host = |text: &String| {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let sound = Authority::parse(name).is_some_and(|authority| authority.port.is_none());
        let message = || format!("{text:?} is no host; write a name, an address or *.suffix, without a port");
        if sound { Ok(text.to_ascii_lowercase().into()) } else { Err(("hosts".to_owned(), message())) }
    };
    let method = |text: &String| {
        let sound =
            text.parse::<Method>().ok().filter(|m| m.as_str().bytes().all(|b| b.is_ascii_uppercase()));
        sound.ok_or_else(|| ("methods".to_owned(), format!("{text:?} is not a method; write it like POST")))
    };
    Ok(Matcher {
        hosts: file.hosts.iter().map(host).collect::<Result<_, _>>()?,
        paths: file.paths.iter().map(path).collect::<Result<_, _>>()?,
        methods: file.methods.iter().map(method).collect::<Result<_, _>>()?,
    })
}
