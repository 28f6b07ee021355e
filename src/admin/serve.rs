//! The admin port: Pingora's plain HTTP app around the endpoints.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use http::header::AUTHORIZATION;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use tokio::task::block_in_place;

use super::{AdminRequest, Sources, answer};
use crate::guard::Reason;
use crate::observe::{Readiness, SecurityEvent, Snapshot, StateCounts};
use crate::proxy::Gate;
use crate::server::door::client_stream;
use crate::server::reload::{Asker, Reloader};

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
        snapshot.state = StateCounts {
            open_admissions: store.open as u64,
            subjects: store.counters as u64,
            settled: settled.settled,
            settle_retries: settled.failures,
            ..snapshot.state
        };
        snapshot
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

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> http::Response<Vec<u8>> {
        if let Some(io) = client_stream(session) {
            io.head_done(|_| ());
        }
        let remote = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
        let head = session.req_header();
        let request = AdminRequest {
            method: &head.method,
            path: head.uri.path(),
            remote: remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            authority: head.uri.authority().map(|authority| authority.as_str()),
            headers: &head.headers,
        };
        let answered = answer(&request, self.gate.live().admin_token(), self);
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
        }
        answered
    }
}
