//! Upstreams: where they are, how they are reached, and the one peer builder for both carriages.
//!
//! An upstream is a name for one or more servers. `fleet` is its living part, `turn` leads a request through it, and two
//! kinds of tasks keep it up to date: names are looked up again when their time to live is over, servers are checked.

mod balance;
mod body;
pub mod breaker;
mod check;
mod config;
mod connect;
mod dns;
mod endpoint;
mod fleet;
mod pool;
pub mod retry;
mod server;
mod stream;
mod tender;
#[cfg(test)]
mod testing;
mod tls;
mod turn;

use std::fmt;
use std::hash::Hasher;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::header::HOST;
use http::{HeaderValue, Request, response};
use siphasher::sip::SipHasher13;
use tokio::time::sleep;

pub use balance::{Balance, HashBy};
pub use body::{Piece, RequestBody};
pub use check::Check;
pub use config::{Failures, NamedUpstream, Targets, UpstreamFile};
pub use dns::Resolver;
pub use endpoint::Patience;
pub use fleet::Identity;
pub use pool::{Answer, CallError};
pub use server::{BadUpstream, Server};
pub use tls::Trust;
pub use turn::{Rotation, Turn, Wait};

use crate::proxy::client::Client;
use crate::state::Clock;
use endpoint::Member;
use fleet::Fleet;
use pool::Unanswered;
use tender::Tender;
use turn::Asked;

/// Timeouts on the way to an upstream, as run (K3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, to whichever server.
    pub connect: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// What the settings say of an upstream, as run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its servers, and whom to believe about them.
    pub identity: Identity,
    /// Which server a request goes to.
    pub balance: Balance,
    /// When a server that fails is left alone.
    pub patience: Patience,
    /// How servers are checked, if they are.
    pub check: Option<Check>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// What becomes of calls that fail.
    pub failures: Failures,
}

/// One upstream.
pub struct Upstream {
    /// Name in the config.
    pub name: Box<str>,
    settings: Settings,
    fleet: Arc<Fleet>,
    clock: Clock,
    /// Its number among those who tended its servers; 0: it never did.
    tending: AtomicU64,
}

/// A server as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Its upstream's name in the config.
    pub upstream: Box<str>,
    /// Its own, as written there.
    pub server: Box<str>,
    /// Whether any of its addresses seems well.
    pub up: bool,
    /// Requests that it serves.
    pub in_use: usize,
    /// Whether its name could not be looked up the last time.
    pub lost: bool,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).field("settings", &self.settings).finish()
    }
}

impl Upstream {
    /// Builds an upstream; its names are not looked up yet.
    ///
    /// # Errors
    /// What is wrong with a server, or with what its certificate is to be verified by.
    pub fn build(name: &str, settings: Settings, clock: Clock) -> Result<Self, BadUpstream> {
        let fleet = Arc::new(Fleet::build(settings.identity.clone())?);
        Ok(Self { name: name.into(), settings, fleet, clock, tending: AtomicU64::new(0) })
    }

    /// Whether `other` is called alike and set up alike: then it can go on in this one's place.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.settings == other.settings
    }

    /// Takes over the connections, addresses and health of an upstream that runs, if it has the same servers.
    pub fn adopt(&mut self, running: &Self) {
        if self.fleet.identity == running.fleet.identity {
            self.fleet = running.fleet.clone();
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its servers, in the order written; at least one.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.settings.identity.servers.iter()
    }

    /// Whether anyone could pose as one of its servers that are written with `https://`.
    pub fn is_unverified(&self) -> bool {
        !self.settings.identity.trust.verify && self.servers().any(|server| server.tls)
    }

    /// The first server's own `Host`.
    pub fn host(&self) -> &HeaderValue {
        static NONE: HeaderValue = HeaderValue::from_static("localhost");
        self.servers().next().map_or(&NONE, |server| &server.host)
    }

    /// The servers in the order in which a request by `client` may try them.
    pub fn rotation(self: &Arc<Self>, client: &Client) -> Rotation {
        Rotation::new(self.clone(), self.subject(client))
    }

    /// Sends `request`, whose target must be in origin form, to a server, and waits for the head of the answer. What
    /// provably never left is sent to the next server, within the time to connect; whatever else is sent once. With
    /// `own_host` each server sees its own name in `Host`. Dropped after `wait` was given up, the server has failed.
    ///
    /// # Errors
    /// See [`CallError`]; of several servers that could not be reached the last one's. With it the request comes back if
    /// it provably never left.
    pub async fn call(
        self: &Arc<Self>,
        mut request: Box<Request<RequestBody>>,
        client: &Client,
        own_host: bool,
        wait: &Wait,
    ) -> Result<(response::Parts, Answer), retry::Failed> {
        wait.begin();
        let mut rotation = self.rotation(client);
        let mut last = None;
        while let Some(turn) = rotation.next_turn() {
            if own_host {
                request.headers_mut().insert(HOST, turn.server().host.clone());
            }
            let asked = Asked { rotation: &rotation, wait };
            match turn.ask(request, &rotation).await {
                Ok(answered) => return Ok(answered),
                Err(Unanswered::Unsent(unsent, error)) => (request, last) = (unsent, Some(error)),
                Err(Unanswered::Broken(error)) => {
                    asked.failed();
                    return Err((CallError::Broken(error), None));
                }
            }
        }
        let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the upstream's name has no address yet");
        Err((CallError::Connect(last.unwrap_or_else(nowhere)), Some(request)))
    }

    /// Whether all its servers have an address.
    pub fn is_located(&self) -> bool {
        let endpoints = self.fleet.endpoints.load();
        self.fleet.members.iter().all(|member| endpoints.iter().any(|e| Arc::ptr_eq(&e.server, member)))
    }

    /// Looks all names up that have to be.
    pub async fn look_up(&self) {
        join_all(self.fleet.members.iter().map(|member| self.fleet.look_up(&self.name, member))).await;
    }

    /// Starts what keeps it up to date, on the runtime that asks for it; once is enough. Whoever tended its servers until
    /// now, under other settings, does so no longer.
    pub fn tend(&self) {
        if self.tending.load(Ordering::Relaxed) != 0 {
            return;
        }
        let fleet = &self.fleet;
        let number = fleet.turns.take_office(|| {
            if self.settings.check.is_none() {
                fleet.endpoints.load().iter().for_each(|endpoint| endpoint.health.unchecked());
            }
        });
        self.tending.store(number, Ordering::Relaxed);
        let tender = Tender::new(&self.name, fleet, number);
        for member in &fleet.members {
            tokio::spawn(follow(tender.clone(), member.clone()));
        }
        if let Some(check) = &self.settings.check {
            tokio::spawn(check::watch(tender, check.clone()));
        }
    }

    /// It is in force no longer: requests that it has finish, but nothing is asked or judged under its settings any more.
    pub fn retire(&self) {
        self.fleet.turns.leave_office(self.tending.load(Ordering::Relaxed));
    }

    /// Closes connections that were not used for too long.
    pub fn sweep(&self) {
        let idle = self.settings.timeouts.idle;
        self.fleet.endpoints.load().iter().for_each(|endpoint| endpoint.pool.sweep(idle));
    }

    /// Its servers as they are now.
    pub fn states(&self) -> Vec<ServerState> {
        let endpoints = self.fleet.endpoints.load();
        let state = |member: &Arc<Member>| {
            let own = || endpoints.iter().filter(|endpoint| Arc::ptr_eq(&endpoint.server, member));
            ServerState {
                upstream: self.name.clone(),
                server: member.server.name.clone(),
                up: own().any(|endpoint| endpoint.health.is_well(|| self.clock.now())),
                in_use: own().map(|endpoint| endpoint.busy()).sum(),
                lost: member.lost.load(Ordering::Relaxed),
            }
        };
        self.fleet.members.iter().map(state).collect()
    }

    /// What is wrong with its servers, in a sentence, if anything is.
    pub fn ailment(&self) -> Option<String> {
        let states = self.states();
        let named = |wrong: fn(&ServerState) -> bool| {
            let names: Vec<&str> = states.iter().filter(|state| wrong(state)).map(|s| &*s.server).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if states.iter().all(|state| !state.up) {
            return Some(format!("No server of upstream {} is well.", self.name));
        }
        let down = named(|state| !state.up).map(|names| format!("{names} is not well"));
        let lost = named(|state| state.lost).map(|names| format!("{names} can't be looked up"));
        let wrong: Vec<String> = down.into_iter().chain(lost).collect();
        (!wrong.is_empty()).then(|| format!("Of upstream {}, {}.", self.name, wrong.join("; ")))
    }

    /// What keeps a client's requests together, where anything does.
    fn subject(&self, client: &Client) -> u64 {
        let Balance::Hash(by) = self.settings.balance else { return 0 };
        let known = match by {
            HashBy::User => client.user,
            HashBy::Session => client.session,
            HashBy::Address => None,
        };
        known.map_or_else(|| of_address(client.address), |digest| digest.0 as u64)
    }
}

fn of_address(address: IpAddr) -> u64 {
    let mut hasher = SipHasher13::new();
    match address.to_canonical() {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        // A subscriber has a /64, and its devices change addresses within.
        IpAddr::V6(address) => hasher.write(&address.octets()[..8]),
    }
    hasher.finish()
}

/// Looks the name of a server up again and again, for as long as `tender` is in office.
async fn follow(tender: Tender, member: Arc<Member>) {
    while let Some(fleet) = tender.fleet() {
        let Some(again) = fleet.look_up(&tender.upstream, &member).await else { return };
        drop(fleet);
        sleep(again).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::endpoint::Endpoint;
    use super::*;
    use crate::state::Timestamp;

    fn order(upstream: &Arc<Upstream>) -> Vec<String> {
        let mut rotation = upstream.rotation(&testing::client());
        std::iter::from_fn(|| rotation.next_turn()).map(|turn| turn.endpoint.address.to_string()).collect()
    }

    /// Sets the addresses of the only server, a name at port 1.
    fn resolve(upstream: &Upstream, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("address")).collect();
        let (fleet, known) = (&upstream.fleet, upstream.fleet.endpoints.load_full());
        fleet.endpoints.store(Arc::new(Endpoint::of_name(&fleet.members[0], 1, &addresses, &known)));
    }

    /// `localhost` resolves to two addresses, and most small apps listen on one: requests must not alternate, and must
    /// find the other.
    #[test]
    fn the_second_family_of_a_name_is_spare() {
        let upstream = testing::upstream(&["http://localhost:1"]);
        assert!(order(&upstream).is_empty());
        resolve(&upstream, &["127.0.0.1", "::1"]);
        for _ in 0..3 {
            assert_eq!(order(&upstream), ["127.0.0.1:1", "[::1]:1"]);
        }
        resolve(&upstream, &["127.0.0.1", "127.0.0.2"]);
        assert_ne!(order(&upstream)[0], order(&upstream)[0], "several addresses of a family take turns");
    }

    /// A name that moves must not cost the connections to the addresses that stay.
    #[test]
    fn addresses_that_stay_keep_their_connections() {
        let upstream = testing::upstream(&["http://app:1"]);
        resolve(&upstream, &["10.0.0.1", "10.0.0.2"]);
        let before = upstream.fleet.endpoints.load_full();
        resolve(&upstream, &["10.0.0.2", "10.0.0.3"]);
        let after = upstream.fleet.endpoints.load_full();
        assert!(Arc::ptr_eq(&before[1], &after[0]) && after[1].id > before[1].id);
    }

    /// A server that rests gets no request as long as another is well; when none is, all are tried.
    #[test]
    fn who_rests_is_tried_last() {
        let upstream = testing::upstream(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        let fail = |at: usize| {
            let endpoints = upstream.fleet.endpoints.load();
            let (patience, now) = (&upstream.settings.patience, upstream.clock.now());
            for _ in 0..3 {
                endpoints[at].health.failed(patience, now);
            }
        };
        fail(0);
        for _ in 0..3 {
            assert_eq!(order(&upstream), ["127.0.0.1:2", "127.0.0.1:1"]);
        }
        assert!(upstream.ailment().expect("one rests").contains("127.0.0.1:1 is not well"));
        fail(1);
        assert_eq!(order(&upstream).len(), 2);
        assert!(upstream.ailment().expect("both rest").contains("No server"));
    }

    /// What one server of several does must not shut all of them off; but an app that stands alone, whatever its name
    /// resolves to, or whose last other server is down, too, has to be left alone as a whole.
    #[test]
    fn a_failure_is_contained_where_another_server_is_well() {
        let fail = |upstream: &Upstream, at: usize, ago: Duration| {
            let (endpoints, now) = (upstream.fleet.endpoints.load(), upstream.clock.now());
            let then = Timestamp::from_micros(now.as_micros() - ago.as_micros() as u64);
            for _ in 0..3 {
                endpoints[at].health.failed(&upstream.settings.patience, then);
            }
        };
        let is_contained = |upstream: &Arc<Upstream>| {
            let mut rotation = upstream.rotation(&testing::client());
            rotation.next_turn().expect("a server");
            fail(upstream, 0, Duration::ZERO);
            rotation.is_contained()
        };
        let two = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
        assert!(is_contained(&testing::upstream(&two)));
        assert!(!is_contained(&testing::upstream(&two[..1])));
        let long_ago = testing::upstream(&two);
        fail(&long_ago, 1, Duration::from_secs(60));
        assert!(!is_contained(&long_ago), "the other has yet to answer again");
        let named = testing::upstream(&["http://localhost:1"]);
        resolve(&named, &["127.0.0.1", "::1"]);
        assert!(!is_contained(&named));
    }

    /// After a reload that changes how long a connection is waited for, every connection and all that was learnt would be
    /// lost.
    #[test]
    fn the_living_part_is_adopted_by_the_same_servers() {
        let running = testing::upstream(&["http://127.0.0.1:1"]);
        let built = |settings| Upstream::build("app", settings, running.clock.clone()).expect("an upstream");
        let mut other = testing::settings(&["http://127.0.0.1:1"]);
        other.timeouts.connect = Duration::from_secs(9);
        let mut changed = built(other);
        assert!(!changed.is_same(&running));
        changed.adopt(&running);
        assert!(Arc::ptr_eq(&changed.fleet, &running.fleet));
        let mut elsewhere = built(testing::settings(&["http://127.0.0.1:2"]));
        elsewhere.adopt(&running);
        assert!(!Arc::ptr_eq(&elsewhere.fleet, &running.fleet));
    }
}
