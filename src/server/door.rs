//! The door: who may connect, how many at once, and how long a request head may take.
//!
//! It stands between Pingora's listening service and its HTTP app, so TLS, SNI and socket passing stay stock.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::canned::{self, BUSY};
use super::gate_io::{GateIo, HeadCaps};
use super::stop::{Connected, Stop};
use crate::guard::Reason;
use crate::observe::metrics::ConnectionRefusal;
use crate::observe::{Observer, OpenConnection, SecurityEvent};
use crate::proxy::reply::seconds;
use crate::state::inflight::{Inflight, Permit};
use crate::state::{AnyStore, Clock, Store, Subject};

/// Caps on connections, as run.
#[derive(Clone, Debug)]
pub struct ConnectionCaps {
    /// Connections at once in total.
    pub total: u32,
    /// Connections at once from one address (IPv6: from one /64).
    pub per_address: u32,
    /// Requests served on one HTTP/1 connection.
    pub requests: u32,
    /// How long a connection may idle between requests.
    pub idle: Duration,
    /// Caps on each request head.
    pub head: HeadCaps,
    /// Whether HTTP/2 is understood in plain text (prior knowledge).
    pub h2c: bool,
    /// Streams at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Bytes of a decoded HTTP/2 header list.
    pub h2_header_list: u32,
}

/// What a connection holds while it lives.
pub struct Tenure {
    _places: Option<(Permit, Permit)>,
    open: Option<(OpenConnection, Connected)>,
    observer: Arc<Observer>,
    clock: Clock,
    peer: IpAddr,
}

impl Tenure {
    fn new<A>(places: Option<(Permit, Permit)>, peer: IpAddr, door: &Door<A>) -> Self {
        let open =
            door.traffic.as_ref().map(|stop| (door.observer.metrics().connection_opened(), stop.connect()));
        Self { _places: places, open, observer: door.observer.clone(), clock: door.clock.clone(), peer }
    }

    /// Of a connection that came through no door.
    pub fn of_nobody(observer: Arc<Observer>, clock: Clock, peer: IpAddr) -> Self {
        Self { _places: None, open: None, observer, clock, peer }
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        use crate::observe::{AccessFormat, LogTarget, ObserverConfig};
        let silent = ObserverConfig {
            access: LogTarget::Off,
            access_format: AccessFormat::Json,
            events: LogTarget::Off,
        };
        let clock = Clock::system();
        let observer = Arc::new(Observer::start(&silent, clock.now()).expect("observer"));
        Self::of_nobody(observer, clock, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Whether the connection, on which nothing of a request has come, has to end because the server does.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.open.as_mut().is_some_and(|(_, connected)| connected.is_over(cx))
    }

    /// Bytes of a head came that never became a request.
    pub(super) fn head_abandoned(&self) {
        if self.open.is_some() {
            self.observer.metrics().head_abandoned();
        }
    }

    /// A head came that is no HTTP.
    pub(super) fn head_unparsed(&self) {
        self.head_abandoned();
        self.observer.event(&SecurityEvent::at_the_door(
            self.clock.now(),
            Reason::MalformedRequest,
            "The request head is not HTTP (RFC 9112).",
            self.peer,
        ));
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tenure")
    }
}

/// The stream under an HTTP/1 session, if it came through the door.
pub fn client_stream(session: &ServerSession) -> Option<&GateIo> {
    session.as_http1()?.stream().as_any().downcast_ref::<GateIo>()
}

/// Accepts connections on behalf of `app`.
pub struct Door<A> {
    app: Arc<Marked<A>>,
    caps: ConnectionCaps,
    open: Arc<Inflight>,
    observer: Arc<Observer>,
    clock: Clock,
    /// Set if its connections are traffic, which shows in the metrics, and which the end waits for.
    traffic: Option<Arc<Stop>>,
    /// Tells who is banned.
    store: Option<Arc<AnyStore>>,
    /// Second in which the last refusal was told as an event: a flood must not become one of events.
    told: AtomicU64,
}

impl<A: HttpServerApp + Send + Sync + 'static> Door<A> {
    /// A door in front of `app`, whose connections are no traffic: the admin port's.
    pub fn new(app: A, caps: ConnectionCaps, observer: Arc<Observer>, clock: Clock) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = caps.h2c;
        // Pingora counts the requests that may follow the first.
        options.keepalive_request_limit = Some(caps.requests.saturating_sub(1));
        options.h2_idle_timeout = Some(caps.idle);
        let mut h2 = default_h2_options();
        h2.max_concurrent_streams(caps.h2_streams)
            .max_header_list_size(caps.h2_header_list)
            .max_pending_accept_reset_streams(20)
            .max_concurrent_reset_streams(20);
        let app = Arc::new(Marked { app: Arc::new(app), options, h2 });
        Self {
            app,
            caps,
            open: Arc::new(Inflight::new()),
            observer,
            clock,
            traffic: None,
            store: None,
            told: AtomicU64::new(0),
        }
    }

    /// A door whose connections are traffic, which is finished before `stop` ends the server.
    pub fn for_traffic(mut self, stop: Arc<Stop>) -> Self {
        self.traffic = Some(stop);
        self
    }

    /// Turns away addresses that are banned in `store`.
    pub fn banning(mut self, store: Arc<AnyStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// How long an address is still banned.
    fn banned(&self, peer: IpAddr) -> Option<Duration> {
        let ban = self.store.as_ref()?.bans().in_force(Subject::address(peer))?;
        Some(ban.until.since(self.clock.now()))
    }

    fn tell(&self, peer: IpAddr) {
        let now = self.clock.now();
        if self.told.swap(now.as_secs(), Ordering::Relaxed) != now.as_secs() {
            let detail = "Too many connections are open; further refusals of this second are counted only.";
            self.observer.event(&SecurityEvent::at_the_door(now, Reason::TooManyConnections, detail, peer));
        }
    }

    fn admit(&self, peer: IpAddr) -> Result<(Permit, Permit), ConnectionRefusal> {
        let caps = &self.caps;
        let total = self.open.try_acquire(Subject::global(), caps.total).ok_or(ConnectionRefusal::Total)?;
        let one = self.open.try_acquire(Subject::address(peer), caps.per_address);
        Ok((total, one.ok_or(ConnectionRefusal::PerAddress)?))
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Door<A> {
    async fn process_new(self: &Arc<Self>, mut io: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let digest = io.get_socket_digest();
        let peer =
            digest.as_ref().and_then(|digest| digest.peer_addr()).and_then(|address| address.as_inet());
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        if let Some(wait) = self.banned(peer) {
            turn_away(&mut io, &canned::banned(seconds(wait))).await;
            return None;
        }
        match self.admit(peer) {
            Ok(places) => {
                let tenure = Tenure::new(Some(places), peer, self);
                let io = GateIo::new(io, self.caps.head, self.caps.idle, tenure);
                self.app.process_new(Box::new(io), shutdown).await;
            }
            Err(why) => {
                self.observer.metrics().connection_refused(why);
                self.tell(peer);
                turn_away(&mut io, BUSY).await;
            }
        }
        None
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}

async fn turn_away(io: &mut Stream, answer: &[u8]) {
    // The socket's buffer is empty, so this does not wait; a peer that plays tricks loses its answer.
    let _ = timeout(Duration::from_millis(100), async {
        io.write_all(answer).await?;
        io.flush().await
    })
    .await;
}

/// Marks where a head begins.
struct Marked<A> {
    app: Arc<A>,
    options: HttpServerOptions,
    h2: H2Options,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Marked<A> {
    // Without a future of its own: it would only be a box around the app's.
    fn process_new_http<'life0, 'life1, 'async_trait>(
        self: &'life0 Arc<Self>,
        session: ServerSession,
        shutdown: &'life1 ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        if let Some(io) = client_stream(&session) {
            io.expect_head();
        }
        self.app.process_new_http(session, shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.app.http_cleanup().await;
    }
}
