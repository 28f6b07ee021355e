//! The server that is shared, as written in the settings, and what is made of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::shown::short;
use crate::config::{Secret, Span};
use crate::guard::Fault;

/// The shared store, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisFile {
    /// Where it is.
    pub url: Option<Secret>,
    /// PEM file of the authorities that are believed instead of the system's.
    pub ca: Option<PathBuf>,
    /// Sentinels that know where it is.
    pub sentinels: Vec<String>,
    /// What they call it.
    pub master: String,
    /// Password of the Sentinels.
    pub sentinel_password: Option<Secret>,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// For an answer.
    pub timeout: Span,
    /// Gates that share it; 0: as many as are heard of.
    pub replicas: u32,
    /// What all gates together may spend of each budget while it is away, in percent of the budget.
    pub outage_reserve: u32,
}

/// The shared store, as run.
#[derive(Clone)]
pub struct RedisConfig {
    pub(super) target: Target,
    pub(super) prefix: Box<str>,
    pub(super) timeout: Duration,
    /// How many gates share it, if they are not to be counted.
    pub(super) replicas: Option<u32>,
    /// Percent.
    pub(super) outage_reserve: u32,
}

/// Where the server is.
#[derive(Clone)]
pub(super) struct Target {
    /// The server, or how to speak to the one that the Sentinels name.
    pub(super) server: ConnectionInfo,
    pub(super) sentinels: Vec<ConnectionInfo>,
    pub(super) master: Box<str>,
}

impl RedisFile {
    /// Whether it says where a server is.
    pub fn is_set(&self) -> bool {
        self.url.is_some() || !self.sentinels.is_empty()
    }

    /// Makes of it what runs.
    ///
    /// # Errors
    /// The key whose value can't be used, below `redis`. The URL is never shown: a password may stand in it.
    pub fn build(&self) -> Result<RedisConfig, Fault> {
        let server = self.server()?;
        let sentinels = self.sentinels.iter().map(|sentinel| self.sentinel(sentinel, &server));
        let sentinels = sentinels.collect::<Result<_, _>>()?;
        let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.chars().all(harmless) {
            let message = "is no prefix: write letters, digits, '-', '_' and '.', 64 at most";
            return Err(Fault::new("prefix", message));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&self.timeout.0) {
            return Err(Fault::new("timeout", "is not between 1ms and 10s; requests wait for it"));
        }
        if self.outage_reserve > 100 {
            return Err(Fault::new("outage_reserve", "is more than 100 percent; write 0 to 100"));
        }
        Ok(RedisConfig {
            target: Target { server, sentinels, master: self.master.as_str().into() },
            prefix: self.prefix.as_str().into(),
            timeout: self.timeout.0,
            replicas: (self.replicas > 0).then_some(self.replicas),
            outage_reserve: self.outage_reserve,
        })
    }

    fn server(&self) -> Result<ConnectionInfo, Fault> {
        let unusable = || {
            let message = "is no address of a Redis or Valkey server; write redis://host:6379, \
                           redis://:password@host:6379/1, or rediss:// for TLS";
            Fault::new("url", message)
        };
        let url = match &self.url {
            Some(url) => url.expose(),
            None if self.sentinels.is_empty() => {
                return Err(Fault::new(
                    "url",
                    "is missing: it says where the shared store is; set REDIS_URL",
                ));
            }
            None => "redis://sentinel",
        };
        let info = url.into_connection_info().map_err(|_| unusable())?;
        let is_tls = match info.addr() {
            ConnectionAddr::Tcp(..) => false,
            ConnectionAddr::TcpTls { insecure: false, .. } => true,
            ConnectionAddr::TcpTls { .. } => {
                let message = "ends in #insecure, with which anyone may pose as the server; \
                               name its authority in redis.ca instead";
                return Err(Fault::new("url", message));
            }
            _ => return Err(unusable()),
        };
        match &self.ca {
            None => Ok(info),
            Some(_) if !is_tls => {
                Err(Fault::new("ca", "is of no use without TLS; write rediss:// in redis.url"))
            }
            Some(path) => believing(info, path).map_err(|why| Fault::new("ca", why)),
        }
    }

    /// A Sentinel is spoken to as the server is: with TLS or without.
    fn sentinel(&self, text: &str, server: &ConnectionInfo) -> Result<ConnectionInfo, Fault> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            (!host.is_empty() && !host.contains(['/', '@'])).then_some((host, port.parse().ok()?))
        });
        let (host, port) = parsed.ok_or_else(|| {
            Fault::new("sentinels", format!("{} is no Sentinel; write it like 10.0.0.1:26379", short(text)))
        })?;
        let mut settings = redis::RedisConnectionInfo::default();
        if let Some(password) = &self.sentinel_password {
            settings = settings.set_password(password.expose());
        }
        Ok(moved(server, host.to_owned(), port).set_redis_settings(settings))
    }
}

impl Target {
    /// The server at another address.
    pub(super) fn at(&self, host: String, port: u16) -> ConnectionInfo {
        moved(&self.server, host, port)
    }
}

fn moved(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

/// `info`, with the authorities of a PEM file believed.
fn believing(info: ConnectionInfo, path: &Path) -> Result<ConnectionInfo, String> {
    let pem = std::fs::read(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    if !pem.windows(27).any(|bytes| bytes == b"-----BEGIN CERTIFICATE-----") {
        return Err(format!("{} holds no certificate in PEM", path.display()));
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    let client = Client::build_with_tls(info, certificates);
    let client = client.map_err(|_| format!("{} holds a certificate that can't be used", path.display()))?;
    Ok(client.get_connection_info().clone())
}
