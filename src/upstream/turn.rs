//! A request's way through the servers of an upstream: the one it is to go to, and the next if that can't be reached.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// What a caller and the servers of its call tell each other.
#[derive(Debug, Default)]
pub struct Wait {
    overdue: AtomicBool,
    contained: AtomicBool,
}

impl Wait {
    /// The caller gives the server up that it waits for: it takes too long. A caller that merely leaves says nothing.
    pub fn give_up(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// The caller begins to wait, and nothing is known yet.
    pub(super) fn begin(&self) {
        self.contained.store(false, Ordering::Relaxed);
    }

    /// Whether the call failed at a server that is left alone now, while others are well: a failure of that server's, and
    /// none of the upstream's.
    pub fn is_contained(&self) -> bool {
        self.contained.load(Ordering::Relaxed)
    }
}

/// The server whose turn it is, and who waits for it. A wait that is given up ends here, wherever it was.
pub(super) struct Asked<'a> {
    pub(super) rotation: &'a Rotation,
    pub(super) wait: &'a Wait,
}

impl Asked<'_> {
    /// It failed, which was told to it already.
    pub(super) fn failed(&self) {
        self.wait.contained.store(self.rotation.is_contained(), Ordering::Relaxed);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.wait.overdue.load(Ordering::Relaxed) {
            if let Some(endpoint) = self.rotation.current() {
                note_failure(&self.rotation.upstream, endpoint, &"no answer in time");
            }
            self.failed();
        }
    }
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

    /// The server whose turn it is.
    fn current(&self) -> Option<&Endpoint> {
        self.tried.last().and_then(|index| self.endpoints.get(*index)).map(|endpoint| &**endpoint)
    }

    /// Whether the server whose turn it is is left alone now, while nothing speaks against another. A name's second family
    /// is none: it is most often the same machine.
    pub fn is_contained(&self) -> bool {
        let left_alone = |endpoint: &Endpoint| !endpoint.health.is_well(|| self.upstream.clock.now());
        self.current().is_some_and(left_alone)
            && self.endpoints.iter().any(|endpoint| !endpoint.spare && endpoint.health.is_trusted())
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

    /// It could not be reached, or broke off or took too long before it answered.
    pub fn failed(&self, why: &dyn fmt::Display) {
        note_failure(&self.upstream, &self.endpoint, why);
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

/// A server did not answer. Told once until it answers again.
fn note_failure(upstream: &Upstream, endpoint: &Endpoint, why: &dyn fmt::Display) {
    let (server, address) = (&endpoint.server.server.name, &endpoint.address);
    if endpoint.health.failed(&upstream.settings.patience, upstream.clock.now()) {
        warn!(upstream = %upstream.name, %server, %address, %why, "the server does not answer");
    } else {
        debug!(upstream = %upstream.name, %server, %address, %why, "the server still does not answer");
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.endpoint.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
