//! One server of an upstream, as the settings name it: `http://host:port`, `https://host:port` or `unix:/path`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use http::{HeaderValue, Uri};

/// Why a server can't be used as written.
#[derive(Debug, PartialEq, Eq)]
pub struct BadUpstream(pub String);

impl fmt::Display for BadUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUpstream {}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name that has to be looked up, and a port.
    Name(Box<str>, u16),
    /// An address.
    Address(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

/// A server, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What it is called in logs and metrics: `host:port` as written, or the socket's path.
    pub name: Box<str>,
    /// Where it is.
    pub place: Place,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Its own `Host` (RFC 9110 §7.2).
    pub host: HeaderValue,
}

impl Server {
    /// Reads a server.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it.
    pub fn parse(text: &str) -> Result<Self, BadUpstream> {
        let bad = |why: &str| {
            let form = "http://127.0.0.1:3000, https://host or unix:/run/app.sock";
            BadUpstream(format!("{why}; write it like {form}"))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
                return Err(bad("has no path that a socket could have"));
            }
            let (place, host) = (Place::Unix(path.into()), HeaderValue::from_static("localhost"));
            return Ok(Self { name: path.into(), place, tls: false, host });
        }
        let uri: Uri = text.parse().map_err(|_| bad("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("has no http:// or https:// in front")),
        };
        let given = uri.authority().ok_or_else(|| bad("names no host"))?;
        if given.as_str().contains('@') {
            return Err(bad("must not hold a user name or password"));
        }
        if uri.path_and_query().is_some_and(|p| p.as_str() != "/") {
            return Err(bad("must not have a path"));
        }
        let written = given.as_str().rsplit(']').next().unwrap_or_default().contains(':');
        if written && given.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("has no sound port"));
        }
        let port = given.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = given.host().trim_start_matches('[').trim_end_matches(']');
        let place = match host.parse::<IpAddr>() {
            Ok(address) => Place::Address(SocketAddr::new(address, port)),
            Err(_) => Place::Name(host.into(), port),
        };
        let host = HeaderValue::from_str(given.as_str()).map_err(|_| bad("has an odd host name"))?;
        Ok(Self { name: given.as_str().into(), place, tls, host })
    }

    /// The name or address alone, as certificates have it; empty for a socket.
    pub fn host_name(&self) -> String {
        match &self.place {
            Place::Name(name, _) => name.to_string(),
            Place::Address(address) => address.ip().to_string(),
            Place::Unix(_) => String::new(),
        }
    }

    /// Whether `listen` is this very server.
    pub fn is_at(&self, listen: &str) -> bool {
        matches!(&self.place, Place::Address(address) if listen.parse() == Ok(*address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong server must be told at start, not by a 502 for each request.
    #[test]
    fn bad_servers_are_named() {
        for text in [
            "127.0.0.1:3000",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x/path",
            "http://x:99999",
            "http://x:0",
            "nonsense",
            "unix:app.sock",
            "unix:",
        ] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
    }

    /// Each notation leads where it says.
    #[test]
    fn good_servers_are_understood() {
        let place = |text| Server::parse(text).expect(text).place;
        assert_eq!(place("http://[::1]:3000"), Place::Address("[::1]:3000".parse().expect("address")));
        assert_eq!(place("http://app"), Place::Name("app".into(), 80));
        assert_eq!(place("https://app"), Place::Name("app".into(), 443));
        assert_eq!(place("unix:/run/app.sock"), Place::Unix("/run/app.sock".into()));
        let server = Server::parse("https://[::1]").expect("a server");
        assert_eq!((&*server.name, server.host_name().as_str(), server.tls), ("[::1]", "::1", true));
    }
}
