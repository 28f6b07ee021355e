//! One address of a server: its connections, how busy it is, and whether it seems well.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::pool::Pool;
use super::server::Server;
use super::tls::Tls;
use crate::state::Timestamp;

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port.
    Inet(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// When a server that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After so many failures in a row; 0: never.
    pub max_fails: u32,
    /// The failures count if they lie within this time of each other, and for so long the server is left alone.
    pub fail_timeout: Duration,
}

/// One address of a server.
pub struct Endpoint {
    /// The server that it belongs to.
    pub server: Arc<Member>,
    /// Where it is.
    pub address: Address,
    /// Whether it is asked only when no other can be: the second address family of a name. It is most often the same
    /// machine, and small apps listen on one family only.
    pub spare: bool,
    /// Its hash among those of subjects: alike in every process, so that replicas of the gate agree.
    pub hash: u64,
    /// Tells it from every other endpoint that there is or was.
    pub id: u64,
    /// Its connections that are not in use.
    pub(super) pool: Pool,
    /// Requests that it serves.
    pub(super) busy: AtomicUsize,
    pub(super) health: Health,
}

/// A server of an upstream, as run.
pub struct Member {
    /// As written.
    pub server: Server,
    /// How TLS is opened, if it speaks TLS.
    pub tls: Option<Tls>,
    /// Whether its name could not be looked up the last time.
    pub(super) lost: AtomicBool,
}

/// Whether an endpoint seems well: as its requests tell, and as health checks tell.
#[derive(Default)]
pub struct Health {
    fails: AtomicU32,
    /// When it failed last, in microseconds.
    failed: AtomicU64,
    /// Until when it is left alone, in microseconds; 0: it is not.
    rests_until: AtomicU64,
    /// Whether health checks have taken it out.
    out: AtomicBool,
    /// Checks in a row that contradict `out`.
    contrary: AtomicU32,
}

impl Endpoint {
    pub(super) fn new(server: Arc<Member>, address: Address, spare: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut hasher = SipHasher13::new();
        hasher.write(address.to_string().as_bytes());
        let hash = hasher.finish();
        Self {
            server,
            address,
            spare,
            hash,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            pool: Pool::default(),
            busy: AtomicUsize::new(0),
            health: Health::default(),
        }
    }

    /// The addresses of a name as endpoints, those that are in `known` already kept. `addresses` has the preferred family
    /// first.
    pub(super) fn of_name(
        server: &Arc<Member>,
        port: u16,
        addresses: &[IpAddr],
        known: &[Arc<Endpoint>],
    ) -> Vec<Arc<Endpoint>> {
        let preferred = addresses.first().map(IpAddr::is_ipv4);
        let endpoint = |ip: &IpAddr| {
            let address = Address::Inet(SocketAddr::new(*ip, port));
            let spare = Some(ip.is_ipv4()) != preferred;
            let same = |known: &&Arc<Endpoint>| {
                Arc::ptr_eq(&known.server, server) && known.address == address && known.spare == spare
            };
            let kept = known.iter().find(same).cloned();
            kept.unwrap_or_else(|| Arc::new(Endpoint::new(server.clone(), address, spare)))
        };
        addresses.iter().map(endpoint).collect()
    }

    /// Requests that it serves.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }
}

impl Health {
    /// Whether requests should go here.
    pub fn is_well(&self, now: impl FnOnce() -> Timestamp) -> bool {
        if self.out.load(Ordering::Relaxed) {
            return false;
        }
        let until = self.rests_until.load(Ordering::Relaxed);
        until == 0 || until <= now().as_micros()
    }

    /// Whether nothing speaks against it: one that is due to be tried after a rest has yet to answer.
    pub(super) fn is_trusted(&self) -> bool {
        !self.out.load(Ordering::Relaxed) && self.rests_until.load(Ordering::Relaxed) == 0
    }

    /// A request is sent here. If that ends a rest, the rest begins anew for all others: one request tries first.
    pub(super) fn tried(&self, patience: &Patience, now: impl FnOnce() -> Timestamp) {
        let until = self.rests_until.load(Ordering::Relaxed);
        if until != 0 {
            let again = now().after(patience.fail_timeout).as_micros();
            let _ = self.rests_until.compare_exchange(until, again, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// It answered. Whether that is news.
    pub(super) fn answered(&self) -> bool {
        if self.fails.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.rests_until.store(0, Ordering::Relaxed);
        self.fails.swap(0, Ordering::Relaxed) != 0
    }

    /// It could not be reached, or broke off before it answered. Whether that is news.
    pub(super) fn failed(&self, patience: &Patience, now: Timestamp) -> bool {
        let last = Timestamp::from_micros(self.failed.swap(now.as_micros(), Ordering::Relaxed));
        let resting = self.rests_until.load(Ordering::Relaxed) != 0;
        let in_a_row = resting || now.since(last) <= patience.fail_timeout;
        let before = match in_a_row {
            true => self.fails.fetch_add(1, Ordering::Relaxed),
            false => self.fails.swap(1, Ordering::Relaxed),
        };
        let fails = if in_a_row { before.saturating_add(1) } else { 1 };
        if patience.max_fails != 0 && fails >= patience.max_fails {
            self.rests_until.store(now.after(patience.fail_timeout).as_micros(), Ordering::Relaxed);
        }
        before == 0
    }

    /// A health check was passed, or not: after `rise` or `fall` in a row that contradict what was believed, it is
    /// believed. Whether that is so now.
    pub(super) fn checked(&self, passed: bool, rise: u32, fall: u32) -> bool {
        let out = self.out.load(Ordering::Relaxed);
        if passed != out {
            self.contrary.store(0, Ordering::Relaxed);
            return false;
        }
        let contrary = self.contrary.fetch_add(1, Ordering::Relaxed) + 1;
        if contrary < if passed { rise } else { fall } {
            return false;
        }
        self.contrary.store(0, Ordering::Relaxed);
        self.out.store(!passed, Ordering::Relaxed);
        true
    }

    /// Nobody checks any more: only requests tell.
    pub(super) fn unchecked(&self) {
        self.out.store(false, Ordering::Relaxed);
        self.contrary.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { max_fails: 3, fail_timeout: Duration::from_secs(10) };

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn is_well(health: &Health, second: u64) -> bool {
        health.is_well(|| at(second))
    }

    /// A dead server must not cost every request a try, and one that stumbled once must not be left alone.
    #[test]
    fn failures_in_a_row_make_it_rest() {
        let health = Health::default();
        assert_eq!([0, 1, 2].map(|second| health.failed(&PATIENCE, at(second))), [true, false, false]);
        assert_eq!([2, 11, 12].map(|second| is_well(&health, second)), [false, false, true]);
        let health = Health::default();
        for second in [0, 1, 12, 23, 34] {
            health.failed(&PATIENCE, at(second));
            assert!(is_well(&health, second), "too far apart to be in a row");
        }
        let health = Health::default();
        for second in 0..9 {
            health.failed(&PATIENCE, at(second));
            health.failed(&PATIENCE, at(second));
            assert!(health.answered(), "it had failed");
            assert!(is_well(&health, second));
        }
        let never = Patience { max_fails: 0, ..PATIENCE };
        assert!((0..99).all(|_| health.failed(&never, at(9)) || is_well(&health, 9)));
    }

    /// After the rest one request finds out whether it is back, not all at once.
    #[test]
    fn one_request_tries_after_a_rest() {
        let health = Health::default();
        for second in 0..3 {
            health.failed(&PATIENCE, at(second));
        }
        health.tried(&PATIENCE, || at(12));
        assert!(!is_well(&health, 12) && is_well(&health, 22));
        health.failed(&PATIENCE, at(13));
        assert!(!is_well(&health, 22) && is_well(&health, 23));
        health.tried(&PATIENCE, || at(23));
        health.answered();
        assert!(is_well(&health, 23));
    }

    /// One lost probe must not take a server out, nor one lucky one bring it back.
    #[test]
    fn checks_have_to_agree_in_a_row() {
        let health = Health::default();
        let checks = [false, false, true, false, false, false, true, false, true, true];
        let news = checks.map(|passed| health.checked(passed, 2, 3));
        assert_eq!(news, [false, false, false, false, false, true, false, false, false, true]);
        assert!(is_well(&health, 0));
    }
}
