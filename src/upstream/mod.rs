//! Upstreams: where they are, how they are reached, and the one peer builder for both carriages.

mod body;
mod connect;
mod pool;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::uri::Authority;
use http::{HeaderValue, Uri};
use pingora::upstreams::peer::HttpPeer;

pub use body::{Piece, RequestBody};
pub use pool::{Answer, CallError, Pool};

/// Timeouts of an upstream's connections, as run (K3); a request's own are its route's.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// One upstream.
pub struct Upstream {
    /// Name in the config.
    pub name: Box<str>,
    /// `host:port` as configured.
    pub authority: Authority,
    /// The same as a `Host` value.
    pub host: HeaderValue,
    timeouts: Timeouts,
    endpoints: Arc<Endpoints>,
    pool: Pool,
}

/// The addresses behind a name, and which of them answered last.
pub struct Endpoints {
    host: Box<str>,
    port: u16,
    addresses: ArcSwap<Vec<SocketAddr>>,
    preferred: AtomicUsize,
}

/// Why an upstream URL can't be used.
#[derive(Debug, PartialEq, Eq)]
pub struct BadUpstream(String);

impl fmt::Display for BadUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUpstream {}

impl Endpoints {
    /// Asks the resolver, off the request path; keeps the last good answer when it fails.
    pub async fn resolve(&self) -> std::io::Result<()> {
        let mut found: Vec<SocketAddr> = tokio::net::lookup_host((&*self.host, self.port)).await?.collect();
        if found.is_empty() {
            return Err(std::io::Error::other("the name has no address"));
        }
        // `localhost` is often both, and most small apps listen on IPv4 only.
        found.sort_by_key(|a| a.is_ipv6());
        found.dedup();
        if **self.addresses.load() != found {
            self.addresses.store(Arc::new(found));
        }
        Ok(())
    }

    /// The addresses, the one that answered last first.
    fn in_order(&self) -> Vec<SocketAddr> {
        let mut all = self.addresses.load().to_vec();
        if !all.is_empty() {
            let preferred = self.preferred.load(Ordering::Relaxed) % all.len();
            all.rotate_left(preferred);
        }
        all
    }

    /// Notes that `address` could be reached.
    fn prefer(&self, address: SocketAddr) {
        if let Some(index) = self.addresses.load().iter().position(|a| *a == address) {
            self.preferred.store(index, Ordering::Relaxed);
        }
    }

    /// Notes that `address` could not be reached, so that the next try goes elsewhere.
    fn avoid(&self, address: SocketAddr) {
        let all = self.addresses.load();
        if let Some(index) = all.iter().position(|a| *a == address) {
            let next = (index + 1) % all.len();
            let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether the name needs no resolver.
    pub fn is_literal(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).field("authority", &self.authority).finish()
    }
}

impl Upstream {
    /// Builds an upstream from its URL (`http://host[:port]`, no path).
    pub fn build(name: &str, url: &str, timeouts: Timeouts) -> Result<Self, BadUpstream> {
        let bad = |why: &str| BadUpstream(format!("{why}; write it like http://127.0.0.1:3000"));
        let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("https upstreams are not supported yet")),
            _ => return Err(bad("has no http:// in front")),
        }
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
        let port = given.port_u16().unwrap_or(80);
        let host = given.host().trim_start_matches('[').trim_end_matches(']');
        let literal = host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port));
        let endpoints = Arc::new(Endpoints {
            host: host.into(),
            port,
            addresses: ArcSwap::from_pointee(literal.into_iter().collect()),
            preferred: AtomicUsize::new(0),
        });
        let pool = Pool::new(endpoints.clone(), timeouts.connect, timeouts.idle);
        let host = HeaderValue::from_str(given.as_str()).map_err(|_| bad("has an odd host name"))?;
        Ok(Self { name: name.into(), authority: given.clone(), host, timeouts, endpoints, pool })
    }

    /// The addresses behind this upstream.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// The exchange's connections.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The passthrough's peer, which has yet to be told how long a request may take; `None` while the name has no address.
    pub fn peer(&self) -> Option<HttpPeer> {
        let address = *self.endpoints.in_order().first()?;
        let mut peer = HttpPeer::new(address, false, String::new());
        let options = &mut peer.options;
        options.connection_timeout = Some(self.timeouts.connect);
        options.total_connection_timeout = Some(self.timeouts.connect);
        options.idle_timeout = Some(self.timeouts.idle);
        Some(peer)
    }

    /// The passthrough could not reach `address`.
    pub fn unreachable(&self, address: SocketAddr) {
        self.endpoints.avoid(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    pub(super) const TIMEOUTS: Timeouts = Timeouts { connect: SECOND, idle: SECOND };

    /// A wrong URL must be told at start, not by a 502 for each request.
    #[test]
    fn bad_urls_are_named() {
        for url in [
            "127.0.0.1:3000",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x/path",
            "http://x:99999",
            "http://x:0",
            "nonsense",
        ] {
            assert!(Upstream::build("a", url, TIMEOUTS).is_err(), "{url}");
        }
        let good = Upstream::build("a", "http://[::1]:3000", TIMEOUTS).expect("good");
        assert!(good.peer().expect("peer").to_string().contains("[::1]:3000"));
    }

    /// `localhost` may resolve to an address that nobody listens on: the next try must go to the other one.
    #[test]
    fn failed_address_is_left() {
        let upstream = Upstream::build("a", "http://localhost:1", TIMEOUTS).expect("good");
        let (a, b): (SocketAddr, SocketAddr) =
            ("127.0.0.1:1".parse().expect("a"), "[::1]:1".parse().expect("b"));
        upstream.endpoints.addresses.store(Arc::new(vec![a, b]));
        assert_eq!(upstream.endpoints.in_order(), [a, b]);
        upstream.unreachable(a);
        assert_eq!(upstream.endpoints.in_order(), [b, a]);
        upstream.endpoints.prefer(a);
        assert_eq!(upstream.endpoints.in_order(), [a, b]);
    }
}
