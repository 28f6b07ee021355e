//! A request's way through the servers of an upstream: the one it is to go to, and the next if that can't be reached.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pingora::upstreams::peer::HttpPeer;
use smallvec::SmallVec;
use tracing::{debug, info, warn};

use super::Upstream;
use super::balance::choose;
use super::endpoint::{Address, Endpoint};
use super::server::Server;

/// The servers that a request may try, each once, within the time that there is to connect.
pub struct Rotation {
    upstream: Arc<Upstream>,
    endpoints: Arc<Vec<Arc<Endpoint>>>,
    tried: SmallVec<[usize; 4]>,
    /// Its number among the requests to this upstream.
    number: usize,
    subject: u64,
    began: Instant,
}

/// A request at a server, counted there until dropped.
pub struct Turn {
    pub(super) upstream: Arc<Upstream>,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Rotation {
    pub(super) fn new(upstream: Arc<Upstream>, subject: u64) -> Self {
        let endpoints = upstream.fleet.endpoints.load_full();
        let number = upstream.fleet.turn.fetch_add(1, Ordering::Relaxed);
        Self { upstream, endpoints, tried: SmallVec::new(), number, subject, began: Instant::now() }
    }

    /// The next server; `None` when all were tried, or the time to connect is over.
    pub fn next_turn(&mut self) -> Option<Turn> {
        if self.is_over() {
            return None;
        }
        let Self { upstream, endpoints, tried, .. } = self;
        let now = || upstream.clock.now();
        let among = |open: &dyn Fn(&Endpoint) -> bool| {
            let open = |index: usize, endpoint: &Endpoint| !tried.contains(&index) && open(endpoint);
            choose(upstream.settings.balance, endpoints, self.number, self.subject, open)
        };
        let (index, endpoint) = among(&|endpoint| !endpoint.spare && endpoint.health.is_well(now))
            .or_else(|| among(&|endpoint| endpoint.health.is_well(now)))
            // All that seem well have failed, or none does: better a try than a refusal.
            .or_else(|| among(&|_| true))?;
        endpoint.health.tried(&upstream.settings.patience, now);
        endpoint.busy.fetch_add(1, Ordering::Relaxed);
        let turn = Turn { upstream: upstream.clone(), endpoint: endpoint.clone() };
        tried.push(index);
        Some(turn)
    }

    /// Whether there is no next server.
    pub fn is_over(&self) -> bool {
        self.tried.len() >= self.endpoints.len()
            || (!self.tried.is_empty() && self.began.elapsed() >= self.upstream.settings.timeouts.connect)
    }

    /// How long the server whose turn it is may take to be connected to: it and those to come have equal shares of the
    /// time that is left.
    pub fn share(&self) -> Duration {
        let left = self.upstream.settings.timeouts.connect.saturating_sub(self.began.elapsed());
        let tries = self.endpoints.len().saturating_sub(self.tried.len()) + 1;
        left / u32::try_from(tries).unwrap_or(u32::MAX)
    }
}

impl Turn {
    /// The server.
    pub fn server(&self) -> &Server {
        &self.endpoint.server.server
    }

    /// It answered, whatever it said.
    pub fn answered(&self) {
        if self.endpoint.health.answered() {
            info!(upstream = %self.upstream.name, server = %self.server().name, "the server answers again");
        }
    }

    /// It could not be reached, or broke off before it answered. Told once until it answers again.
    pub fn failed(&self, why: &dyn fmt::Display) {
        let (upstream, server) = (&self.upstream, &self.server().name);
        let address = &self.endpoint.address;
        if self.endpoint.health.failed(&upstream.settings.patience, upstream.clock.now()) {
            warn!(upstream = %upstream.name, %server, %address, %why, "the server can't be reached");
        } else {
            debug!(upstream = %upstream.name, %server, %address, %why, "the server still can't be reached");
        }
    }

    /// The server as Pingora's passthrough wants it, to be connected to within `share`; `None` if its socket's path can't
    /// be one.
    pub fn peer(&self, share: Duration) -> Option<HttpPeer> {
        let tls = self.endpoint.server.tls.as_ref();
        let name = tls.map_or_else(String::new, |tls| tls.server_name().to_owned());
        let mut peer = match &self.endpoint.address {
            Address::Inet(address) => HttpPeer::new(*address, tls.is_some(), name),
            Address::Unix(path) => HttpPeer::new_uds(path.to_str()?, false, name).ok()?,
        };
        if let Some(tls) = tls {
            tls.apply(&mut peer.options);
        }
        // Pingora takes two peers at one address for the same whatever CA each is verified by.
        peer.group_key = self.endpoint.id;
        let options = &mut peer.options;
        options.connection_timeout = Some(share);
        options.total_connection_timeout = Some(share);
        options.idle_timeout = Some(self.upstream.settings.timeouts.idle);
        Some(peer)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.endpoint.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
