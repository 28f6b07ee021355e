//! The proxy: `entry` reads a request, `serve` is its one way through. What is to stream goes on through Pingora's
//! hooks, each of which only delegates.

pub mod api;
mod body;
mod body_memory;
mod call;
pub mod client;
mod context;
mod draw;
mod entry;
mod exchange;
pub mod explain;
pub mod fallback;
mod forward;
mod health;
mod intake;
mod keep;
mod live;
mod operate;
mod outbound;
mod pace;
mod passthrough;
pub mod path;
mod patience;
mod record;
mod relay;
pub mod reply;
mod request_id;
mod respond;
pub mod route;
mod sanction;
mod serve;
mod status;
pub mod stream;
pub mod timeouts;
mod unreadable;
mod upload;
mod watch;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use tokio::sync::Notify;
use tracing::warn;

pub use context::Context;
pub use entry::Entry;
pub use forward::{Forwarding, Told};
pub use live::Live;
pub use operate::{NotDone, NotSwitched, Whom};

use crate::admin::AdminToken;
use crate::config::Settings;
use crate::guard::chain::Timers;
use crate::observe::audit::Audit;
use crate::observe::{Observer, Watch};
use crate::server::Stop;
use crate::state::admission::Admissions;
use crate::state::inflight::Inflight;
use crate::state::reputation::Reputations;
use crate::state::settle::Settler;
use crate::state::switches::{Maintenance, Switches};
use crate::state::{AnyStore, Clock};
use crate::upstream::Upstream;
use crate::upstream::breaker::Breakers;
use body_memory::BodyMemory;
use request_id::RequestIds;

/// Callers whose faults are remembered.
const REPUTATIONS: usize = 100_000;

/// The gate: what all requests share.
pub struct Gate {
    live: ArcSwap<Live>,
    admissions: Admissions<AnyStore>,
    settler: Settler,
    clock: Clock,
    observer: Arc<Observer>,
    stop: Arc<Stop>,
    timers: Timers,
    inflight: Arc<Inflight>,
    reputations: Reputations,
    streams: Arc<Inflight>,
    ids: RequestIds,
    bodies: Arc<BodyMemory>,
    breakers: Breakers,
    switches: Arc<Switches>,
    audit: Audit,
    maintenance: ArcSwapOption<Maintenance>,
    changed: Notify,
    watch: Mutex<Watch>,
}

/// The gate as Pingora's proxy sees it: for requests that stream through.
pub struct Shared(Arc<Gate>);

impl Gate {
    /// Joins the parts.
    pub fn new(
        settings: Settings,
        admin_token: AdminToken,
        clock: Clock,
        observer: Arc<Observer>,
        settler: Settler,
        stop: Arc<Stop>,
        switches: Arc<Switches>,
    ) -> Arc<Self> {
        let timers = Timers::new(observer.metrics());
        let watch = Mutex::new(Watch::new(clock.now(), observer.metrics().totals()));
        let breakers = Breakers::new(clock.clone(), observer.clone());
        let positions = switches.positions();
        let audit = Audit::new(settings.server.state_dir.as_deref(), clock.clone());
        let live = Live::new(settings, admin_token.into(), observer.metrics(), &breakers, &positions);
        let known = |name: &str| live.upstreams.iter().any(|upstream| *upstream.name == *name);
        for upstream in positions.breakers.keys().filter(|name| !known(name)) {
            warn!(upstream, "a breaker was switched by hand, but there is no such upstream any more");
        }
        if positions.maintenance.is_some() {
            warn!("the app is closed for maintenance: `tidegate maintenance off` opens it");
        }
        let reputations = Reputations::new(REPUTATIONS, clock.clone());
        Arc::new(Self {
            bodies: BodyMemory::new(live.server.body_memory),
            admissions: Admissions::new(live.store.clone(), settler.clone()),
            live: ArcSwap::from_pointee(live),
            settler,
            clock,
            observer,
            stop,
            timers,
            watch,
            inflight: Arc::new(Inflight::new()),
            reputations,
            streams: Arc::new(Inflight::new()),
            ids: RequestIds::new(),
            maintenance: ArcSwapOption::from_pointee(positions.maintenance),
            breakers,
            switches,
            audit,
            changed: Notify::new(),
        })
    }

    /// The settings in force.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Puts other settings in force, for requests that are still to come. Breakers stay as they are, and without a token
    /// so does the one in force.
    pub fn put_in_force(&self, settings: Settings, admin_token: Option<AdminToken>) {
        let admin_token = admin_token.map_or_else(|| self.live().admin_token().clone(), Arc::new);
        let positions = self.switches.positions();
        let metrics = self.observer.metrics();
        let live = Arc::new(Live::new(settings, admin_token, metrics, &self.breakers, &positions));
        let before = self.live.swap(live.clone());
        let stays = |upstream: &Arc<Upstream>| live.upstreams.iter().any(|new| Arc::ptr_eq(new, upstream));
        before.upstreams.iter().filter(|upstream| !stays(upstream)).for_each(|upstream| upstream.retire());
        self.changed.notify_one();
    }

    /// Resolves when other settings were put in force: new upstreams want to be tended.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the settle actor has done.
    pub fn settler(&self) -> &Settler {
        &self.settler
    }

    /// Metrics, logs and events.
    pub fn observer(&self) -> &Arc<Observer> {
        &self.observer
    }

    /// The end of the server, and what is in flight.
    pub fn stop(&self) -> &Arc<Stop> {
        &self.stop
    }

    /// The store of counters.
    pub fn store(&self) -> &Arc<AnyStore> {
        self.admissions.store()
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What is due now and then: upstreams tended, idle connections closed, counters swept.
    pub fn upkeep(&self) {
        for upstream in &self.live().upstreams {
            upstream.tend();
            upstream.sweep();
        }
        self.store().sweep();
        if let Err(why) = self.audit.trim(self.live().audit_keep) {
            warn!("old rows of the audit could not be cut off: {why}");
        }
    }
}

#[async_trait]
impl ProxyHttp for Shared {
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        entry::handed_on().unwrap_or_else(|| self.0.context())
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<()> {
        self.0.govern(session, ctx);
        Ok(())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<Box<HttpPeer>> {
        self.0.peer(session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        self.0.rewrite_request(head, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        self.0.dress_passthrough(session, head, ctx)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<Context>,
        error: Box<Error>,
    ) -> Box<Error> {
        self.0.note_unreachable(ctx, error)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        self.0.fail(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Box<Context>) {
        self.0.record(session, error, ctx);
        self.0.draw_flown(session, ctx).await;
    }

    fn suppress_error_log(&self, _: &Session, _: &Box<Context>, _: &Error) -> bool {
        true
    }
}
