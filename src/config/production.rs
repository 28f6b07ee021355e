//! `tidegate check --production` (P1): settings that are good, and yet not good enough for strangers.

mod route;
mod secrets;
mod server;

use std::borrow::Cow;

use super::file::{RouteFile, RouteOwn, ServerFile};
use super::resolve::nearest;
use super::routes::RouteEntry;
use super::{Config, ConfigError, ConfigErrors, from_node, from_node_at};

const NO_BREAKER: &str = "is off: a failing app is called on and on";

/// What a check found. Expects settings that [`resolve`](Config::resolve).
#[derive(Debug, Default)]
pub struct Production {
    /// What has to change before strangers may come.
    pub errors: ConfigErrors,
    /// What somebody should have looked at, and may have meant.
    pub warnings: ConfigErrors,
}

impl Config {
    /// What has to change, and what is worth a look: each with its key, the line it was written on, and the remedy.
    ///
    /// # Errors
    /// Settings that can't be read.
    pub fn check_production(&self) -> Result<Production, ConfigErrors> {
        let file: ServerFile = from_node(&self.server)?;
        let mut found = Production::default();
        let mut findings = Findings::default();
        server::check(&file, &mut findings);
        self.check_upstreams(&file, &mut findings);
        secrets::check(self, &file, &mut findings);
        for finding in findings.0 {
            let origin = nearest(&self.server, &finding.key).map(|node| node.origin.clone());
            let path = finding.key.clone();
            found.add(finding, |message, remedy| ConfigError { path, origin, message, remedy });
        }
        for (index, entry) in self.routes.iter().enumerate() {
            let own: RouteOwn = from_node_at(&entry.path(index), &entry.own)?;
            let merged: RouteFile = from_node_at(&entry.path(index), &entry.merged)?;
            let mut findings = Findings::default();
            route::check(&own, &merged, &mut findings);
            for finding in findings.0 {
                let (path, origin) = placed(&finding.key, index, entry);
                found.add(finding, |message, remedy| ConfigError { path, origin, message, remedy });
            }
        }
        Ok(found)
    }

    fn check_upstreams(&self, file: &ServerFile, found: &mut Findings) {
        let unverified = |key: String, found: &mut Findings| {
            found.must(
                key,
                "is false: anyone may pose as the app",
                "remove it; `tls.ca` names authorities of your own",
            );
        };
        if !file.upstream_defaults.tls.verify {
            unverified("upstream_defaults.tls.verify".into(), found);
        }
        for (name, _) in file.upstreams.iter() {
            let written = self.server.at(&["upstreams", name, "tls", "verify"]);
            if written.is_some_and(|node| from_node::<bool>(node).is_ok_and(|verify| !verify)) {
                unverified(format!("upstreams.{name}.tls.verify"), found);
            }
            let breaker = self.server.at(&["upstreams", name, "breaker"]);
            if breaker.is_some_and(|node| node.switch() == Some(false)) {
                found.must(format!("upstreams.{name}.breaker"), NO_BREAKER, "remove it");
            }
        }
    }
}

impl Production {
    /// What a route inherits is told once.
    fn add(&mut self, finding: Finding, place: impl FnOnce(String, Option<String>) -> ConfigError) {
        let list = if finding.grave { &mut self.errors } else { &mut self.warnings };
        let error = place(finding.message.into(), Some(finding.remedy.into()));
        if !list.contains(&error) {
            list.push(error);
        }
    }
}

/// What is wrong with a key's value, and what to write.
struct Finding {
    key: String,
    message: Cow<'static, str>,
    remedy: &'static str,
    grave: bool,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// Strangers may not come before this is changed.
    fn must(&mut self, key: impl Into<String>, message: impl Into<Cow<'static, str>>, remedy: &'static str) {
        self.0.push(Finding { key: key.into(), message: message.into(), remedy, grave: true });
    }

    /// Worth a look.
    fn look(&mut self, key: impl Into<String>, message: impl Into<Cow<'static, str>>, remedy: &'static str) {
        self.0.push(Finding { key: key.into(), message: message.into(), remedy, grave: false });
    }
}

/// Where a route has the key from.
fn placed(key: &str, index: usize, entry: &RouteEntry) -> (String, Option<super::Origin>) {
    let own = nearest(&entry.overrides, key).or_else(|| nearest(&entry.own, key));
    let path = if own.is_some() { format!("{}.{key}", entry.path(index)) } else { key.to_owned() };
    (path, own.or_else(|| nearest(&entry.merged, key)).map(|node| node.origin.clone()))
}
