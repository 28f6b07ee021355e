//! The proxy: `entry` reads a request, `serve` is its one way through. What is to stream goes on through Pingora's
//! hooks, each of which only delegates.

pub mod api;
mod body;
mod body_memory;
pub mod client;
mod context;
mod draw;
mod entry;
mod exchange;
mod forward;
mod intake;
mod live;
mod passthrough;
pub mod path;
mod patience;
mod record;
pub mod reply;
mod request_id;
mod respond;
pub mod route;
mod serve;
mod status;
pub mod timeouts;
mod unreadable;
mod upload;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};

pub use context::Context;
pub use entry::Entry;
pub use forward::{Forwarding, Told};
pub use live::Live;

use crate::config::Settings;
use crate::guard::chain::Timers;
use crate::observe::Observer;
use crate::server::Stop;
use crate::state::admission::Admissions;
use crate::state::inflight::Inflight;
use crate::state::settle::Settler;
use crate::state::{Clock, MemoryStore};
use body_memory::BodyMemory;
use request_id::RequestIds;

/// The gate: what all requests share.
pub struct Gate {
    live: ArcSwap<Live>,
    admissions: Admissions<MemoryStore>,
    settler: Settler,
    clock: Clock,
    observer: Arc<Observer>,
    stop: Arc<Stop>,
    timers: Timers,
    inflight: Arc<Inflight>,
    ids: RequestIds,
    bodies: Arc<BodyMemory>,
}

/// The gate as Pingora's proxy sees it: for requests that stream through.
pub struct Shared(Arc<Gate>);

impl Gate {
    /// Joins the parts.
    pub fn new(
        settings: Settings,
        clock: Clock,
        observer: Arc<Observer>,
        settler: Settler,
        stop: Arc<Stop>,
    ) -> Arc<Self> {
        let timers = Timers::new(observer.metrics());
        Arc::new(Self {
            bodies: BodyMemory::new(settings.server.body_memory),
            admissions: Admissions::new(settings.store.clone(), settler.clone()),
            live: ArcSwap::from_pointee(Live::new(settings, observer.metrics())),
            settler,
            clock,
            observer,
            stop,
            timers,
            inflight: Arc::new(Inflight::new()),
            ids: RequestIds::new(),
        })
    }

    /// The settings in force.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
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
    pub fn store(&self) -> &Arc<MemoryStore> {
        self.admissions.store()
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What is due now and then: names looked up, idle connections closed, counters swept.
    pub async fn upkeep(&self) {
        let live = self.live();
        for upstream in live.upstreams.iter().filter(|u| !u.endpoints().is_literal()) {
            let looked_up =
                tokio::time::timeout(Duration::from_secs(10), upstream.endpoints().resolve()).await;
            match looked_up {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(upstream = %upstream.name, %error, "cannot look up the upstream's name")
                }
                Err(_) => {
                    tracing::warn!(upstream = %upstream.name, "looking up the upstream's name took too long")
                }
            }
        }
        live.upstreams.iter().for_each(|upstream| upstream.pool().sweep());
        self.store().sweep();
    }
}

#[async_trait]
impl ProxyHttp for Shared {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        entry::handed_on().unwrap_or_else(|| self.0.context())
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        self.0.govern(session, ctx);
        Ok(())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        self.0.peer(session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        self.0.rewrite_request(head, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        self.0.dress_passthrough(session, head, ctx)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Context,
        error: Box<Error>,
    ) -> Box<Error> {
        self.0.note_unreachable(peer, ctx, error)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        self.0.fail(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        self.0.record(session, error, ctx);
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }
}
