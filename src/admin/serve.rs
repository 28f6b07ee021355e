//! The admin port: Pingora's plain HTTP app around the endpoints.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tracing::warn;

use super::{AdminRequest, Controls, Sources, answer};
use crate::config::Rate;
use crate::guard::Reason;
use crate::guard::limits::LimitView;
use crate::observe::audit::{Act, Actor, AuditError, Began, Outcome};
use crate::observe::{
    BreakerView, Readiness, SecurityEvent, SharedStoreView, Snapshot, StateCounts, TopCaller,
};
use crate::proxy::{Gate, NotDone, NotSwitched, Whom};
use crate::server::door::client_stream;
use crate::server::reload::{Asker, Reloader};
use crate::state::reputation::Standing;
use crate::state::switches::Maintenance;
use crate::state::{Ban, MemoryStats, Subject};
use crate::upstream::breaker::Mode;

/// Bytes of a body that are read.
const BODY_BYTES: usize = 16 * 1024;
/// How long that may take.
const BODY_TIME: Duration = Duration::from_secs(5);

/// The app on the admin port.
pub struct Admin {
    gate: Arc<Gate>,
    reloader: Option<Arc<Reloader>>,
}

impl Admin {
    /// Shows `gate`, and has `reloader` read its settings again.
    pub fn new(gate: Arc<Gate>, reloader: Option<Arc<Reloader>>) -> Self {
        Self { gate, reloader }
    }
}

impl Sources for Admin {
    fn snapshot(&self) -> Snapshot {
        let gate = &self.gate;
        let mut snapshot = gate.observer().snapshot(gate.clock().now());
        let (store, settled) = (gate.store().stats(), gate.settler().stats());
        snapshot.readiness = if gate.stop().draining() { Readiness::Draining } else { Readiness::Ready };
        let live = gate.live();
        snapshot.limits = live.default_limits();
        snapshot.debug = live.server.debug;
        snapshot.environment = if live.server.debug { "development" } else { "production" }.into();
        snapshot.in_flight = gate.stop().in_flight();
        snapshot.servers = live.upstreams.iter().flat_map(|upstream| upstream.states()).collect();
        let now = gate.clock().now();
        snapshot.issuers = live.issuers().map(|issuer| issuer.state(now)).collect();
        snapshot.breakers = gate.breakers();
        snapshot.maintenance = gate.maintenance();
        snapshot.degraded = gate.ailments();
        snapshot.shared_store = gate.store().shared().map(|store| {
            let link = store.link();
            SharedStoreView {
                is_away: link.away.is_some(),
                gates: store.replicas().into(),
                failures: link.failures,
                alone: link.alone,
            }
        });
        snapshot.state = StateCounts {
            kept: gate.store().kept().unwrap_or_default(),
            open_admissions: store.open as u64,
            subjects: store.counters as u64,
            settled: settled.settled,
            settle_retries: settled.failures,
            ..snapshot.state
        };
        snapshot
    }

    fn top(&self, most: usize) -> Vec<TopCaller> {
        self.gate.observer().top_callers(most)
    }

    fn bans(&self) -> Vec<(Arc<Ban>, bool)> {
        self.gate.bans()
    }

    fn limits(&self) -> Vec<LimitView> {
        self.gate.limits()
    }

    fn reputations(&self, most: usize) -> Vec<Standing> {
        self.gate.reputations(most)
    }

    fn store(&self) -> MemoryStats {
        self.gate.store().stats()
    }

    fn metrics(&self, snapshot: &Snapshot) -> Option<String> {
        self.gate.observer().metrics().render(snapshot).ok()
    }

    fn reload(&self, asker: IpAddr) -> Result<(), String> {
        let Some(reloader) = &self.reloader else {
            return Err("the settings of this server were not read from anywhere".into());
        };
        // Files are read and names looked up meanwhile.
        block_in_place(|| reloader.reload(Asker::Admin(asker))).map_err(|why| why.to_string())
    }
}

impl Controls for Admin {
    fn switch_breakers(
        &self,
        mode: Mode,
        upstream: Option<&str>,
        by: IpAddr,
    ) -> Result<Vec<BreakerView>, NotSwitched> {
        self.gate.switch_breakers(mode, upstream, by)
    }

    fn maintain(&self, wanted: Option<Maintenance>, by: IpAddr) -> Result<(), NotSwitched> {
        self.gate.maintain(wanted, by)
    }

    fn keeps_switches(&self) -> bool {
        self.gate.keeps_switches()
    }

    fn ban(&self, whom: &Whom, time: Option<Duration>, reason: &str) -> Result<(Option<Ban>, Ban), NotDone> {
        let (before, ban) = wait_for(self.gate.ban(whom, time, reason))?;
        Ok((before.map(|ban| (*ban).clone()), ban))
    }

    fn unban(&self, whom: &Whom) -> Result<Ban, NotDone> {
        wait_for(self.gate.unban(whom)).map(|ban| (*ban).clone())
    }

    fn reset_counters(&self, whom: &Whom) -> Result<(Subject, u8, usize), NotDone> {
        wait_for(self.gate.reset_counters(whom))
    }

    fn set_limit(&self, name: &str, windows: Option<&[Rate]>) -> Result<(LimitView, LimitView), NotDone> {
        self.gate.set_limit(name, windows, || {
            let why = || "the settings of this server were not read from anywhere".to_owned();
            let reloader = self.reloader.as_ref().ok_or_else(why)?;
            reloader.renew().map_err(|why| why.to_string())
        })
    }

    fn begin(&self, act: &Act) -> Result<Began, AuditError> {
        self.gate.begin_act(act)
    }

    fn end(&self, act: &Act, began: Began, outcome: &Outcome) {
        self.gate.end_act(act, began, outcome);
    }
}

/// The answer of the store, from a thread that may block.
fn wait_for<T>(asked: impl Future<Output = T>) -> T {
    Handle::current().block_on(asked)
}

/// A request's body, as far as it is read: more than that is not JSON any more.
async fn body_of(session: &mut ServerSession) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = session.read_request_body().await {
        let room = BODY_BYTES - body.len();
        body.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        if body.len() == BODY_BYTES {
            break;
        }
    }
    body
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> http::Response<Vec<u8>> {
        if let Some(io) = client_stream(session) {
            io.head_done(|_| ());
        }
        let remote = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
        let body = match session.req_header().method {
            Method::POST => timeout(BODY_TIME, body_of(session)).await.unwrap_or_default(),
            _ => Vec::new(),
        };
        let head = session.req_header();
        let request = AdminRequest {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query(),
            body: &body,
            remote: remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            authority: head.uri.authority().map(|authority| authority.as_str()),
            headers: &head.headers,
        };
        let live = self.gate.live();
        // What changes state waits for the disk.
        let answered = block_in_place(|| answer(&request, live.admin_token(), self));
        if answered.status() == StatusCode::UNAUTHORIZED && head.headers.contains_key(AUTHORIZATION) {
            // Somebody guesses, or has an old token: either is worth knowing. The token itself is never written.
            let event = SecurityEvent {
                method: Some(head.method.as_str()),
                path: Some(head.uri.path()),
                ..SecurityEvent::at_the_door(
                    self.gate.clock().now(),
                    Reason::AdminTokenRefused,
                    "A token was presented on the admin port, and it is not the admin token.",
                    request.remote,
                )
            };
            self.gate.observer().event(&event);
            let by = Actor { address: Some(request.remote), token: None };
            let audited = block_in_place(|| self.gate.audit().token_refused(&by, head.uri.path()));
            if let Err(why) = audited {
                warn!("a refused token could not be written down: {why}");
            }
        }
        answered
    }
}
