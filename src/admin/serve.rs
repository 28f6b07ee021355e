//! The admin port: Pingora's plain HTTP app around the endpoints.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::AUTHORIZATION;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use secrecy::SecretString;
use tracing::{info, warn};

use super::{AdminRequest, AdminToken, Sources, answer};
use crate::config::ServerSettings;
use crate::guard::Reason;
use crate::observe::{Readiness, SecurityEvent, Snapshot, StateCounts};
use crate::proxy::Gate;
use crate::server::door::client_stream;

/// The app on the admin port.
pub struct Admin {
    token: AdminToken,
    gate: Arc<Gate>,
}

impl Admin {
    /// Takes the token that was set, or the one kept in the state directory, or one that nobody knows.
    ///
    /// # Errors
    /// The token can't be used, read or kept; the text says why and what to do.
    pub fn new(settings: &ServerSettings, gate: Arc<Gate>) -> Result<Self, String> {
        let token = match (&settings.admin_token, &settings.state_dir) {
            (Some(token), _) => {
                AdminToken::given(&SecretString::from(token.expose())).map_err(|error| error.to_string())?
            }
            (None, Some(directory)) => {
                let (token, path) = AdminToken::kept(directory).map_err(|error| error.to_string())?;
                info!(path = %path.display(), "the admin token is in this file");
                token
            }
            (None, None) => {
                warn!(
                    "no admin token and no state_dir: the admin endpoints can be read from this machine only"
                );
                let mut bytes = [0u8; 32];
                rand::fill(&mut bytes).map_err(|_| "the system has no randomness".to_owned())?;
                let nobodys = SecretString::from(URL_SAFE_NO_PAD.encode(bytes));
                AdminToken::given(&nobodys).map_err(|error| error.to_string())?
            }
        };
        Ok(Self { token, gate })
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
        snapshot.degraded = gate.ailments();
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
        let answered = answer(&request, &self.token, self);
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
