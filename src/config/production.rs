//! `tidegate check --production` (P1): settings that are good, and yet not good enough for strangers.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::file::{RouteFile, ServerFile};
use super::resolve::nearest;
use super::routes::RouteEntry;
use super::{Config, ConfigError, ConfigErrors, Secret, Toggle, from_node, from_node_at};
use crate::guard::mode::Mode;

/// Characters of a secret that nobody guesses: 128 bits in hex.
const SECRET_LENGTH: usize = 32;
/// A random text of that length has more different characters than this.
const SECRET_VARIETY: usize = 8;
/// What stands in secrets that were copied from an example.
const PLACEHOLDERS: [&str; 6] = ["change", "example", "password", "placeholder", "secret", "your"];

/// A key, what is wrong with its value, and what to write.
type Finding = (String, String, &'static str);

impl Config {
    /// What has to change before strangers may come: nothing, if `Ok`. Expects settings that [`resolve`](Self::resolve).
    ///
    /// # Errors
    /// All findings, each with its key, the line it was written on, and the remedy.
    pub fn check_production(&self) -> Result<(), ConfigErrors> {
        let file: ServerFile = from_node(&self.server)?;
        let mut findings = ConfigErrors::default();
        findings.extend(server(&file).into_iter().map(|(key, message, remedy)| ConfigError {
            origin: nearest(&self.server, &key).map(|node| node.origin.clone()),
            path: key,
            message,
            remedy: Some(remedy.into()),
        }));
        for (index, entry) in self.routes.iter().enumerate() {
            let merged: RouteFile = from_node_at(&entry.path(index), &entry.merged)?;
            for finding in route(&merged) {
                let finding = placed(finding, index, entry);
                // What a route inherits is told once.
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
        findings.into_result()
    }
}

/// Where a route has the key from.
fn placed((key, message, remedy): Finding, index: usize, entry: &RouteEntry) -> ConfigError {
    let own = nearest(&entry.overrides, &key);
    let path = if own.is_some() { format!("{}.{key}", entry.path(index)) } else { key.clone() };
    let origin = own.or_else(|| nearest(&entry.merged, &key)).map(|node| node.origin.clone());
    ConfigError { path, origin, message, remedy: Some(remedy.into()) }
}

fn server(file: &ServerFile) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |key: &str, message: &str, remedy| found.push((key.to_owned(), message.to_owned(), remedy));
    if file.debug {
        add("debug", "is on", "write debug: false, or unset DEBUG");
    }
    if file.client.trusted_proxies.is_empty() {
        let remedy = "put a proxy that ends TLS in front, and list its address, such as 127.0.0.1";
        add("client.trusted_proxies", "is empty, so no TLS stands in front of the gate", remedy);
    }
    if file.client.trusted_proxies.iter().any(|net| net.ends_with("/0")) {
        let message = "trusts everyone: any stranger may choose the address that limits count";
        add("client.trusted_proxies", message, "list the proxy's own address, such as 127.0.0.1");
    }
    if file.breaker.is_off() {
        add("breaker", "is off: a failing app is called on and on", "remove it");
    }
    match file.client.secret.as_ref().map(weakness) {
        None if file.state_dir.is_some() => {}
        None => {
            let message = "is not set, nor is state_dir: digests of users and sessions change at each start";
            add("client.secret", message, "set SESSION_SECRET_KEY, such as from openssl rand -hex 32");
        }
        Some(Some(weak)) => add("client.secret", weak, "make one with openssl rand -hex 32"),
        Some(None) => {}
    }
    if let Some(weak) = file.admin.token.as_ref().and_then(weakness) {
        add(
            "admin.token",
            weak,
            "make one with openssl rand -hex 32, or leave it out and one is made in state_dir",
        );
    }
    if let (Some(token), Some(secret)) = (&file.admin.token, &file.client.secret)
        && token.expose() == secret.expose()
    {
        add("admin.token", "is the same as client.secret", "use each secret for one thing");
    }
    tokens(file, &mut add);
    match &file.state_dir {
        None => add(
            "state_dir",
            "is not set: nothing outlives a restart",
            "set STATE_DIR, such as /var/lib/tidegate",
        ),
        Some(directory) if is_open(directory) => {
            add("state_dir", "can be entered by others than its owner", "chmod 700 the directory");
        }
        Some(_) => {}
    }
    found
}

/// Signed tokens that others could make, or that were made for others.
fn tokens(file: &ServerFile, add: &mut impl FnMut(&str, &str, &'static str)) {
    const MAKE: &str = "make one with openssl rand -hex 32";
    let mut secrets: Vec<(String, &Secret)> = Vec::new();
    for (name, token) in file.jwt.tokens.iter() {
        let key = |below: &str| format!("jwt.tokens.{name}.{below}");
        secrets.extend(token.secret.as_ref().map(|secret| (key("secret"), secret)));
        if token.jwks.url.is_off() {
            continue;
        }
        if token.issuers.is_empty() && token.audiences.is_empty() {
            let message =
                "is empty, as is audiences: tokens that the issuer made for other apps are good here";
            add(&key("issuers"), message, "name the issuer and, in audiences, this app");
        }
        if !token.jwks.verify {
            add(
                &key("jwks.verify"),
                "is false: anyone may pose as the issuer",
                "remove it, or name a CA in ca",
            );
        }
        if token.jwks.plain_http {
            add(
                &key("jwks.plain_http"),
                "lets keys come in plain text",
                "write https:// in url and remove it",
            );
        }
    }
    secrets.extend(file.jwt.mint.secret.as_ref().map(|secret| ("jwt.mint.secret".to_owned(), secret)));
    let others = [("admin.token", &file.admin.token), ("client.secret", &file.client.secret)];
    for (at, (key, secret)) in secrets.iter().enumerate() {
        if let Some(weak) = weakness(secret) {
            add(key, weak, MAKE);
        }
        let same = |other: &Secret| other.expose() == secret.expose();
        let twin = others.iter().find(|(_, other)| other.as_ref().is_some_and(same)).map(|(key, _)| *key);
        let twin = twin
            .or_else(|| secrets.iter().take(at).find(|(_, other)| same(other)).map(|(key, _)| key.as_str()));
        if let Some(twin) = twin {
            add(key, &format!("is the same as {twin}"), "use each secret for one thing");
        }
    }
}

fn route(file: &RouteFile) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |key: &str, message: &str, remedy| found.push((key.to_owned(), message.to_owned(), remedy));
    if file.mode == Mode::Observe {
        add("mode", "is observe: guards refuse nothing", "write mode: enforce");
    } else if !file.observe.is_empty() {
        add("observe", "names guards that refuse nothing", "write observe: []");
    }
    if file.hosts.0.is_empty() {
        add(
            "hosts",
            "is empty: any name leads here",
            "list the names that people use, such as [chat.example.com]",
        );
    } else if file.hosts.0.iter().any(|host| host == "*") {
        add("hosts", "serves any name", "list the names that people use, such as [chat.example.com]");
    }
    if file.security_headers.is_off() {
        add("security_headers", "is off", "write security_headers: on, or unset SECURE_HEADERS");
    }
    if file.sanitize.is_off() {
        add("sanitize", "is off: what runs in a page reaches the app as it is", "remove it");
    }
    if file.uploads.is_off() {
        add("uploads", "is off: files of any name and type reach the app", "remove it");
    }
    if file.origin.is_off() {
        add(
            "origin",
            "is off: pages of other sites may act in a visitor's name",
            "remove it, or list those sites in origin.trusted_origins",
        );
    }
    if file.cors.allowed_origins.iter().any(|origin| origin == "*") {
        add(
            "cors.allowed_origins",
            "lets the pages of any site read answers",
            "list the sites that may (ALLOWED_ORIGINS)",
        );
    }
    for (name, limit) in file.limits.iter() {
        let off = match limit {
            Toggle::Off => true,
            Toggle::On(limit) => !limit.enabled,
        };
        if off {
            add(&format!("limits.{name}"), "is off", "switch it on; a higher limit is better than none");
        }
    }
    found
}

/// Why a secret can be guessed.
fn weakness(secret: &Secret) -> Option<&'static str> {
    let text = secret.expose();
    let lower = text.to_ascii_lowercase();
    if text.len() < SECRET_LENGTH {
        Some("has fewer than 32 characters")
    } else if text.chars().collect::<BTreeSet<_>>().len() <= SECRET_VARIETY {
        Some("is made of few different characters")
    } else if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        Some("looks like an example that was never replaced")
    } else {
        None
    }
}

/// Whether others than the owner may enter. One that is not there yet is made with the right permissions.
fn is_open(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}
