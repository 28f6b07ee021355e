//! What is known of one request, from its first byte to its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::api::{Api, ErrorShape};
use super::body_memory::Held;
use super::client::Client;
use super::live::Live;
use super::route::Route;
use super::timeouts::Timeouts;
use crate::guard::concurrency::Places;
use crate::guard::mode::{Noted, NotedLate};
use crate::guard::sanitize::Sightings;
use crate::guard::text::Values;
use crate::guard::{Reason, Refusal, Traffic};
use crate::observe::{Carriage, Fallback};
use crate::server::{Alarm, InFlight};
use crate::state::Timestamp;
use crate::state::admission::Admission;
use crate::state::claim::{ClaimKey, KeptAnswer};
use crate::upstream::breaker::Permit;
use crate::upstream::{Rotation, Turn, Upstream};

/// A request that found its route.
pub struct Routed {
    /// Its route.
    pub route: Arc<Route>,
    /// Where it goes: the route's upstream, or its fallback.
    pub upstream: Arc<Upstream>,
    /// API of its path.
    pub api: Option<Api>,
    /// What it counts as.
    pub traffic: Traffic,
    /// Who is asking.
    pub client: Client,
    /// Host asked for, as it came.
    pub authority: Option<Box<str>>,
    /// Normalised path and query, as forwarded.
    pub target: Target,
    /// `Origin`, where the answer depends on it.
    pub origin: Option<HeaderValue>,
    /// Whether the client asks for a WebSocket.
    pub websocket: bool,
    /// Whether the client says that it takes events.
    pub accepts_events: bool,
}

/// Path and query in one piece, as a request line wants them.
pub struct Target {
    text: Box<str>,
    path_length: usize,
}

impl Target {
    /// Joins a normalised path and a query without `?`.
    pub fn new(path: &str, query: Option<&str>) -> Self {
        let mut text = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
        text.push_str(path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Self { text: text.into(), path_length: path.len() }
    }

    /// The path.
    pub fn path(&self) -> &str {
        self.text.get(..self.path_length).unwrap_or_default()
    }

    /// The query without `?`.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_length + 1..)
    }

    /// Both, as forwarded.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Routed {
    /// Query as forwarded.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }
}

/// Everything of one request.
pub struct Context {
    /// The settings it runs under, whatever is reloaded meanwhile.
    pub live: Arc<Live>,
    /// When its head was complete, by the monotonic clock.
    pub started: Instant,
    /// The same, by the gate's clock.
    pub began: Timestamp,
    /// Id in logs and towards client and upstream.
    pub request_id: HeaderValue,
    /// Its `Content-Length`.
    pub declared: Option<u64>,
    /// Set once the head was understood.
    pub routed: Option<Routed>,
    /// Shape in which its client reads errors.
    pub shape: ErrorShape,
    /// Whether all that the head decides was decided in its favour.
    pub head_passed: bool,
    /// How it travels.
    pub carriage: Carriage,
    /// Why it was refused or failed, once it was.
    pub refusal: Option<Refusal>,
    /// What it would have been refused for, had the guards not only observed.
    pub noted: Noted,
    /// The same, of an upload that streams.
    pub noted_late: Option<NotedLate>,
    /// What was found in its texts.
    pub seen: Sightings,
    /// The values that its body names.
    pub named: Values,
    /// Its answer, if that was kept.
    pub kept: Option<Arc<KeptAnswer>>,
    /// Set if its answer is to be kept, and how long it may be.
    pub keep: Option<(ClaimKey, usize)>,
    /// From the call to the upstream's head.
    pub upstream_first_byte: Option<Duration>,
    /// When the upstream was called, in passthrough.
    pub upstream_called: Option<Instant>,
    /// The servers that it may try, in passthrough.
    pub rotation: Option<Rotation>,
    /// The server that it is at, in passthrough.
    pub turn: Option<Turn>,
    /// Tries of the call after the first.
    pub retries: u32,
    /// Whether its body is still arriving while it is forwarded.
    pub arriving: bool,
    /// Whether the client asked for a stream, as far as that is known.
    pub stream_asked: bool,
    /// Leave to call the upstream, until it is known how the call went.
    pub permit: Option<Permit>,
    /// Why it went to the fallback upstream, if it did.
    pub diverted: Option<Reason>,
    /// What served it in place of its upstream.
    pub fallback: Option<Fallback>,
    /// What was taken from shared state and has to be settled.
    pub admission: Option<Admission>,
    /// Memory that its body holds.
    pub held: Option<Held>,
    /// Places taken among the requests in flight, or, by a stream, among the streams.
    pub places: Option<Places>,
    /// The connection's timer.
    pub alarm: Alarm,
    /// Counts this request as in flight in the server.
    pub in_flight: Option<InFlight>,
}

impl Context {
    /// Times that its route allows; the top level's, as long as it has none.
    pub fn timeouts(&self) -> &Timeouts {
        self.routed.as_ref().map_or(&self.live.timeouts, |routed| &routed.route.timeouts)
    }

    /// Request id as text.
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}
