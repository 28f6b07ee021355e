//! Routes: which settings a request runs under. The first route that matches wins.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::api::Api;
use super::fallback::Fallback;
use super::stream::Streams;
use super::timeouts::Timeouts;
use crate::guard::{Guards, Traffic};
use crate::upstream::Upstream;

/// Whether a route's bodies are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Inspect {
    /// What is JSON, or is sent to a known API, is inspected; the rest streams through.
    Auto,
    /// Nothing is: for uploads of JSON files and the like.
    Off,
}

/// A route, as run.
pub struct Route {
    /// Name in the config, for logs and metrics.
    pub name: Box<str>,
    /// What it takes.
    pub matcher: Matcher,
    /// API it speaks, where its path does not tell.
    pub api: Option<Api>,
    /// What its requests count as, where method and path do not tell.
    pub traffic: Option<Traffic>,
    /// Whether bodies are looked into.
    pub inspect: Inspect,
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// What serves in place of the upstream.
    pub fallback: Option<Fallback>,
    /// Its guards.
    pub guards: Guards,
    /// Times that are allowed.
    pub timeouts: Timeouts,
    /// What is done in streams of events.
    pub streams: Streams,
    /// Its place among the routes.
    pub index: usize,
}

/// What a route takes: all that is named must fit; nothing named fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// Host names, lower case.
    pub hosts: Vec<Box<str>>,
    /// Paths.
    pub paths: Vec<PathPattern>,
    /// Methods.
    pub methods: Vec<Method>,
}

/// A path with wildcards: `*` stands for one segment, a `*` at the end for any number of them, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Box<str>>,
    open: bool,
}

/// Why a path pattern is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct BadPattern(&'static str);

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl PathPattern {
    /// Reads a pattern such as `/api/*`.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let path = text.strip_prefix('/').ok_or(BadPattern("a path starts with /"))?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments: Vec<Box<str>> =
            if path.is_empty() { Vec::new() } else { path.split('/').map(Into::into).collect() };
        let open = segments.last().is_some_and(|s| **s == *"*");
        if open {
            segments.pop();
        }
        if segments.iter().any(|s| s.is_empty()) {
            return Err(BadPattern("a path has no empty segments: they are removed before routing"));
        }
        if segments.iter().any(|s| s.contains('*') && **s != *"*") {
            return Err(BadPattern("a * stands for a whole segment, as in /users/*/messages"));
        }
        if segments.iter().any(|s| **s == *"." || **s == *"..") {
            return Err(BadPattern("a path has no dot segments: they are resolved before routing"));
        }
        Ok(Self { segments, open })
    }

    /// Whether a normalised path fits; a trailing slash does not count.
    pub fn matches(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut rest = (!path.is_empty()).then(|| path.split('/')).into_iter().flatten();
        for wanted in &self.segments {
            match rest.next() {
                Some(segment) if **wanted == *"*" || **wanted == *segment => {}
                _ => return false,
            }
        }
        self.open || rest.next().is_none()
    }

    /// Whether every path that fits `other` fits this one.
    fn covers(&self, other: &Self) -> bool {
        let mut pairs = self.segments.iter().zip(&other.segments);
        let prefix = self.segments.len() <= other.segments.len() && pairs.all(|(a, b)| **a == *"*" || a == b);
        prefix && (self.open || (!other.open && self.segments.len() == other.segments.len()))
    }
}

impl Matcher {
    /// Whether a request belongs here. `host` in lower case, without port.
    pub fn matches(&self, host: &str, path: &str, method: &Method) -> bool {
        self.misfit(host, path, method).is_none()
    }

    /// What of a request does not fit, the first of it.
    pub fn misfit(&self, host: &str, path: &str, method: &Method) -> Option<&'static str> {
        if !self.methods.is_empty() && !self.methods.contains(method) {
            Some("method")
        } else if !self.hosts.is_empty() && !self.hosts.iter().any(|h| host_fits(h, host)) {
            Some("host")
        } else if !self.paths.is_empty() && !self.paths.iter().any(|p| p.matches(path)) {
            Some("path")
        } else {
            None
        }
    }

    /// Whether every request that fits `other` fits this one, so that a later `other` is never reached.
    pub fn covers(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty() && other.methods.iter().all(|m| self.methods.contains(m)));
        let hosts = self.hosts.is_empty()
            || (!other.hosts.is_empty()
                && other.hosts.iter().all(|o| self.hosts.iter().any(|h| h == o || host_fits(h, o))));
        let paths = self.paths.is_empty()
            || (!other.paths.is_empty()
                && other.paths.iter().all(|o| self.paths.iter().any(|p| p.covers(o))));
        methods && hosts && paths
    }
}

fn host_fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).expect("pattern")
    }

    /// A request that slips past its route runs under weaker settings.
    #[test]
    fn patterns_match_whole_segments() {
        assert!(pattern("/api/chat").matches("/api/chat/"));
        assert!(!pattern("/api/chat").matches("/api/chats"));
        assert!(!pattern("/api/chat").matches("/api/chat/x"));
        assert!(pattern("/api/*").matches("/api"));
        assert!(pattern("/api/*").matches("/api/a/b"));
        assert!(!pattern("/api/*").matches("/apix"));
        assert!(pattern("/users/*/messages").matches("/users/7/messages"));
        assert!(!pattern("/users/*/messages").matches("/users/7/8/messages"));
        assert!(pattern("/").matches("/"));
        assert!(pattern("/*").matches("/any/thing"));
        for bad in ["api", "/a//b", "/a*b", "/a/../b"] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
    }

    /// A route that can never be reached is an operator's false sense of safety.
    #[test]
    fn shadowed_routes_are_found() {
        let route = |path: &str, methods: &[Method], hosts: &[&str]| Matcher {
            hosts: hosts.iter().map(|h| (*h).into()).collect(),
            paths: vec![pattern(path)],
            methods: methods.to_vec(),
        };
        assert!(route("/api/*", &[], &[]).covers(&route("/api/chat", &[Method::POST], &[])));
        assert!(route("/*/x", &[], &[]).covers(&route("/api/x", &[], &["a"])));
        assert!(!route("/api/*", &[Method::GET], &[]).covers(&route("/api/chat", &[], &[])));
        assert!(!route("/api/chat", &[], &[]).covers(&route("/api/*", &[], &[])));
        assert!(route("/", &[], &["*.example"]).covers(&route("/", &[], &["a.example"])));
        assert!(!route("/", &[], &["a.example"]).covers(&route("/", &[], &[])));
        assert!(Matcher::default().covers(&route("/x", &[], &[])));
    }
}
