//! Builds each route from its own keys over the defaults.

use std::sync::Arc;

use http::Method;

use super::bodies::{BodyGuards, BodyParts};
use super::file::{ForwardHost, MatchFile, RouteFile, RouteOwn, ServerFile};
use super::resolve::{Fault, header_names, nearest};
use super::upstreams::Upstreams;
use super::{ConfigError, ConfigErrors, Node, from_node_at, merge};
use crate::guard::authority::Authority;
use crate::guard::limits::counted_fields;
use crate::guard::mode::Observed;
use crate::guard::{GuardParts, Guards};
use crate::proxy::Forwarding;
use crate::proxy::fallback::Fallback;
use crate::proxy::path::{NormalPath, PathRules};
use crate::proxy::route::{Inspect, Matcher, PathPattern, Route};
use crate::proxy::stream::Streams;
use crate::proxy::timeouts::{self, Timeouts};
use crate::upstream::Upstream;

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
    pub(super) index: usize,
    pub(super) entry: &'a RouteEntry,
}

impl RouteBuilder<'_> {
    pub(super) fn build(
        &self,
        upstreams: &mut Upstreams<'_>,
        bodies: &mut BodyGuards,
    ) -> Result<Route, ConfigErrors> {
        let prefix = self.entry.path(self.index);
        let own: RouteOwn = from_node_at(&prefix, &self.entry.own)?;
        let file: RouteFile = from_node_at(&prefix, &self.entry.merged)?;
        let upstream = self.upstream(&own, upstreams)?;
        let matcher = matcher(&own.matches, &self.file.paths)
            .map_err(|(key, message)| self.fault(&format!("match.{key}"), message))?;
        let fallback = self.fallback(&own, &file, &upstream, upstreams)?;
        let of_upstream = upstreams.timeouts_of(&upstream).map(|own| self.timeouts_over(own)).transpose()?;
        let timeouts = Timeouts::build(of_upstream.as_ref().unwrap_or(&file.timeouts))
            .map_err(|fault| self.fault(&fault.key, fault.message.into_owned()))?;
        let streams = Streams::build(&file.streams)
            .map_err(|fault| self.fault(&fault.key, fault.message.into_owned()))?;
        let guards = self.guards(&own.name, file, bodies)?;
        Ok(Route {
            index: self.index,
            name: own.name.into(),
            matcher,
            api: own.api,
            traffic: own.traffic,
            inspect: own.inspect.unwrap_or(Inspect::Auto),
            upstream,
            fallback,
            guards,
            timeouts,
            streams,
        })
    }

    fn upstream(&self, own: &RouteOwn, all: &mut Upstreams<'_>) -> Result<Arc<Upstream>, ConfigError> {
        let (targets, name) = match (&own.upstream, &self.file.upstream) {
            (Some(targets), _) => (targets, own.name.as_str()),
            (None, Some(targets)) => (targets, "default"),
            (None, None) => {
                let message = "no upstream is set".to_owned();
                return Err(ConfigError { path: "upstream".into(), origin: None, message, remedy: None }.remedy(
                    "name the app to stand in front of: --upstream http://127.0.0.1:3000, UPSTREAM_URL, or `upstream:` in the file",
                ));
            }
        };
        all.get(targets, name).map_err(|why| self.fault("upstream", why))
    }

    fn fallback(
        &self,
        own: &RouteOwn,
        file: &RouteFile,
        main: &Arc<Upstream>,
        all: &mut Upstreams<'_>,
    ) -> Result<Option<Fallback>, ConfigError> {
        let Some(config) = file.fallback.as_option() else { return Ok(None) };
        // One that is inherited is one for all, and named after the top level's upstream.
        let owner = if self.entry.overrides.get("fallback").is_some() { &own.name } else { "default" };
        let name = format!("{owner}-fallback");
        let upstream = config.upstream.as_ref().map(|targets| all.get(targets, &name)).transpose();
        let upstream = upstream.map_err(|why| self.fault("fallback.upstream", why))?;
        if upstream.as_ref().is_some_and(|upstream| Arc::ptr_eq(upstream, main)) {
            return Err(self.fault("fallback.upstream", "is the upstream itself".to_owned()));
        }
        let built = Fallback::build(config, upstream);
        built.map(Some).map_err(|fault| self.fault(&fault.key, fault.message.into_owned()))
    }

    /// Times that the route allows: what it says itself counts before what its upstream says, and that before the defaults.
    fn timeouts_over(&self, upstream: &Node) -> Result<timeouts::Config, ConfigErrors> {
        let base = self.entry.merged.get("timeouts");
        let whole = base.map_or_else(|| upstream.clone(), |base| merge(base, upstream));
        let own = self.entry.overrides.get("timeouts");
        let whole = own.map_or_else(|| whole.clone(), |own| merge(&whole, own));
        from_node_at(&format!("{}.timeouts", self.entry.path(self.index)), &whole)
    }

    fn guards(&self, name: &str, file: RouteFile, bodies: &mut BodyGuards) -> Result<Guards, ConfigError> {
        let fault = |(key, message): (String, String)| self.fault(&key, message);
        let strip = header_names("forward.strip", &file.forward.strip).map_err(fault)?;
        let forwarding = Forwarding { strip, host_of_upstream: file.forward.host == ForwardHost::Upstream };
        let body = bodies.get(BodyParts {
            json: file.json.clone(),
            text: file.text.clone(),
            sanitize: file.sanitize.as_option().cloned(),
            session_fields: self.file.client.session_fields.clone(),
            message_fields: file.duplicates.as_option().map_or_else(Vec::new, |config| config.fields.clone()),
            counted_fields: counted_fields(&file.limits),
            observed: Observed::new(file.mode, &file.observe),
        });
        let body = body.map_err(|fault| self.fault(&fault.key, fault.message.into_owned()))?;
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
