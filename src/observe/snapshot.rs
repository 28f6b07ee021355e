//! One look at the whole gate, from which the admin endpoints are rendered.

use std::time::Duration;

use super::health::Ailment;
use super::process::Process;
use super::sessions::SessionStats;
use crate::guard::jwt::IssuerState;
use crate::state::embedded::EmbeddedStats;
use crate::upstream::ServerState;

/// The gate at one moment. The observer fills what it counts; the owner of the rest adds it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Version of this build.
    pub version: &'static str,
    /// What the operator calls this installation (`production`, `development`).
    pub environment: Box<str>,
    /// Whether DEBUG is on.
    pub debug: bool,
    /// Since the process started.
    pub uptime: Duration,
    /// Whether traffic should be sent here.
    pub readiness: Readiness,
    /// Why the gate is degraded; empty means healthy.
    pub degraded: Vec<Ailment>,
    /// Client connections.
    pub connections: ConnectionCounts,
    /// Requests since the start.
    pub requests: u64,
    /// Requests being served.
    pub in_flight: u64,
    /// Refusals since the start by reason code; reasons that never occurred are absent.
    pub refusals: Vec<(String, u64)>,
    /// Security events since the start by name.
    pub events: Vec<(&'static str, u64)>,
    /// Log lines lost since the start.
    pub log_dropped: u64,
    /// Requests since the start that ended in a panic.
    pub panics: u64,
    /// The limits that apply by default.
    pub limits: DefaultLimits,
    /// What the store holds.
    pub state: StateCounts,
    /// The store that several gates share, if there is one.
    pub shared_store: Option<SharedStoreView>,
    /// The servers of all upstreams.
    pub servers: Vec<ServerState>,
    /// Issuers that publish the keys of their tokens.
    pub issuers: Vec<IssuerState>,
    /// Circuit breakers, one an upstream.
    pub breakers: Vec<BreakerView>,
    /// What callers are told while the app is closed for maintenance.
    pub maintenance: Option<Box<str>>,
    /// Sessions.
    pub sessions: SessionStats,
    /// The process.
    pub process: Process,
}

/// The store that several gates share, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SharedStoreView {
    /// Whether it does not answer.
    pub is_away: bool,
    /// How many gates use it, as last heard.
    pub gates: u64,
    /// Calls that failed since the start.
    pub failures: u64,
    /// Decisions that were made without it since the start.
    pub alone: u64,
}

/// A circuit breaker at one moment.
#[derive(Clone, Debug)]
pub struct BreakerView {
    /// Name of its upstream.
    pub upstream: Box<str>,
    /// `closed`, `half_open`, `open`.
    pub state: &'static str,
    /// Whether it refuses calls.
    pub is_open: bool,
    /// Who decides: `auto`, or `open` or `closed` by hand.
    pub mode: &'static str,
    /// Calls that failed, of those in its window.
    pub failures: u32,
    /// Calls in its window.
    pub calls: u32,
    /// Code of why it is not closed.
    pub reason: Option<&'static str>,
}

/// Whether a load balancer should send traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet: listeners or state are still being opened.
    #[default]
    Starting,
    /// Yes.
    Ready,
    /// No longer: requests in flight are being finished.
    Draining,
}

/// Client connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionCounts {
    /// Accepted since the start.
    pub total: u64,
    /// Open now.
    pub active: u64,
    /// Open now that carry an event stream.
    pub event_streams: u64,
    /// Age of the oldest one; zero when none is open.
    pub oldest_age: Duration,
}

/// Limits as configured at the top level; `None` where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultLimits {
    /// API requests a minute and address.
    pub per_minute: Option<u64>,
    /// API requests an hour and address.
    pub per_hour: Option<u64>,
    /// AI calls a minute and user.
    pub ai_per_minute: Option<u64>,
    /// AI calls an hour and user.
    pub ai_per_hour: Option<u64>,
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateCounts {
    /// Subjects of any kind that limits are counted for.
    pub subjects: u64,
    /// Callers of the last day: keys presented, and addresses that presented none.
    pub users: u64,
    /// Callers that a limit holds off now.
    pub blocked: u64,
    /// Admissions granted and not settled yet.
    pub open_admissions: u64,
    /// Settlements since the start.
    pub settled: u64,
    /// Settlements tried again since the start.
    pub settle_retries: u64,
    /// Settlements waiting for the store.
    pub settle_queued: u64,
    /// What it took to keep it on the disk; nothing if it is not.
    pub kept: EmbeddedStats,
}
