//! Seeing: metrics, access log, security events, and the snapshot that the admin endpoints show.

mod access;
mod attempt;
pub mod audit;
mod breaker_event;
mod callers;
mod connections;
mod event;
mod health;
pub mod line;
pub mod metrics;
mod pattern;
mod process;
pub mod redact;
mod series;
mod sessions;
mod snapshot;
mod stamp;
mod streams;
mod target;
#[cfg(test)]
mod tests;
mod totals;
pub mod watch;
mod writer;

pub use access::AccessFormat;
pub use breaker_event::BreakerEvent;
pub use callers::TopCaller;
pub use connections::OpenConnection;
pub use event::{ReloadEvent, SecurityEvent};
pub use health::{Ailment, AilmentKind};
pub use pattern::Variable;
pub use process::Process;
pub use series::{BreakerSeries, Fallback, RouteSeries, UpstreamSeries};
pub use sessions::SessionStats;
pub use snapshot::{
    BreakerView, ConnectionCounts, DefaultLimits, Readiness, SharedStoreView, Snapshot, StateCounts,
};
pub use stamp::rfc3339;
pub use streams::{OpenStream, StreamMetrics};
pub use target::LogTarget;
pub use totals::Totals;
pub use watch::{Anomaly, Notice, Watch};

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode, Version};

use crate::guard::jwt::Identity;
use crate::guard::sanitize::{Kinds, Sightings, Sink, Target};
use crate::guard::{Event, Reason, Refusal, Traffic};
use crate::proxy::client::SubjectId;
use crate::state::clock::Timestamp;

use callers::Callers;
use metrics::Metrics;
use redact::KeyNames;
use sessions::Sessions;
use writer::{Log, Writer};

/// A request once it is over. Filled by the proxy, read by metrics, access log and events.
pub struct Record<'a> {
    /// When its head had been read.
    pub at: Timestamp,
    /// Request method.
    pub method: &'a Method,
    /// Normalised path without query.
    pub path: &'a str,
    /// Query without `?`, as received; secret values are masked before they are written.
    pub query: Option<&'a str>,
    /// Parameters of it that carry keys, besides those whose names say so.
    pub keys: KeyNames<'a>,
    /// Host asked for, as received; empty if none was given.
    pub host: &'a str,
    /// Protocol version.
    pub version: Version,
    /// Status of the answer; `None` if the connection ended without one.
    pub status: Option<StatusCode>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From `at` to the last byte of the answer.
    pub duration: Duration,
    /// The part of `duration` spent on the upstream; `None` if it was not asked.
    pub upstream_duration: Option<Duration>,
    /// Address of who asked.
    pub client_address: IpAddr,
    /// Digest of the user.
    pub user: Option<SubjectId>,
    /// Digest of the session.
    pub session: Option<SubjectId>,
    /// Digest of the device.
    pub device: Option<SubjectId>,
    /// The route taken; `None` if none was.
    pub route: Option<&'a RouteSeries>,
    /// The upstream chosen.
    pub upstream: Option<&'a UpstreamSeries>,
    /// Tries of the call to the upstream after the first.
    pub retries: u32,
    /// What served it in place of its upstream.
    pub fallback: Option<Fallback>,
    /// What the request counted as.
    pub traffic: Traffic,
    /// How it travelled.
    pub carriage: Carriage,
    /// Why it was refused or failed.
    pub refusal: Option<&'a Refusal>,
    /// What it would have been refused for by guards that only observe.
    pub noted: &'a [Refusal],
    /// What was found in its texts.
    pub seen: Option<&'a Sightings>,
    /// The request's id, made here or passed.
    pub request_id: &'a str,
    /// `User-Agent` as received.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer` as received.
    pub referer: Option<&'a [u8]>,
    /// The model asked for, where one was read from the body.
    pub model: Option<&'a str>,
    /// What a verified token says of the user.
    pub identity: Option<&'a Identity>,
    /// Whether that token was not seen before.
    pub attempt: bool,
}

impl Record<'_> {
    const fn traffic_name(&self) -> &'static str {
        match self.traffic {
            Traffic::Page => "page",
            Traffic::Api => "api",
            Traffic::Ai => "ai",
        }
    }
}

/// How a request travels (design: two carriages).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// Answered by the gate itself.
    Gate,
    /// Read whole, then forwarded by the gate.
    Exchange,
    /// Streamed through Pingora's own phases.
    Passthrough,
}

impl Carriage {
    const fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Exchange => "exchange",
            Self::Passthrough => "passthrough",
        }
    }
}

/// What is written, and where.
#[derive(Clone, Debug)]
pub struct ObserverConfig {
    /// Where access lines go.
    pub access: LogTarget,
    /// How they look.
    pub access_format: AccessFormat,
    /// Where security events go.
    pub events: LogTarget,
}

/// Why the observer could not be built.
#[derive(Debug)]
pub enum ObserveError {
    /// A log's target can't be opened: which log, which target, why.
    Open(&'static str, LogTarget, io::Error),
    /// The writing thread can't be started.
    Thread(io::Error),
    /// A metric is declared wrongly.
    Metrics(prometheus::Error),
}

impl fmt::Display for ObserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(log, LogTarget::File(path), error) => {
                write!(f, "can't open {} for the {log} log: {error}", path.display())
            }
            Self::Open(log, target, error) => write!(f, "can't open {target:?} for the {log} log: {error}"),
            Self::Thread(error) => write!(f, "can't start the log writer: {error}"),
            Self::Metrics(error) => write!(f, "can't declare the metrics: {error}"),
        }
    }
}

impl std::error::Error for ObserveError {}

/// Sees every request once, when it is over.
pub struct Observer {
    metrics: Arc<Metrics>,
    started: Timestamp,
    unrouted: RouteSeries,
    sessions: Sessions,
    callers: Callers,
    access: Option<(AccessFormat, Log)>,
    events: Option<Log>,
    writer: Mutex<Writer>,
}

thread_local! {
    /// The line being written; kept, so that a request allocates nothing for it.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Observer {
    /// Opens the logs and starts the writing thread; `now` is taken for the start of the process.
    ///
    /// # Errors
    /// When a log's file can't be opened or the thread can't be started.
    pub fn start(config: &ObserverConfig, now: Timestamp) -> Result<Self, ObserveError> {
        let open = |log, target: &LogTarget| {
            target.open().map_err(|error| ObserveError::Open(log, target.clone(), error))
        };
        Self::with_sinks(
            config.access_format.clone(),
            open("access", &config.access)?,
            open("events", &config.events)?,
            now,
        )
    }

    fn with_sinks(
        format: AccessFormat,
        access: Option<writer::Sink>,
        events: Option<writer::Sink>,
        now: Timestamp,
    ) -> Result<Self, ObserveError> {
        let metrics = Arc::new(Metrics::new(now).map_err(ObserveError::Metrics)?);
        let (has_access, has_events) = (access.is_some(), events.is_some());
        let sinks = [
            access.map(|sink| (sink, metrics.access_dropped.clone())),
            events.map(|sink| (sink, metrics.events_dropped.clone())),
        ];
        let (writer, logs) =
            Writer::start(sinks.into_iter().flatten().collect()).map_err(ObserveError::Thread)?;
        let mut logs = logs.into_iter();
        Ok(Self {
            unrouted: metrics.route("none"),
            sessions: Sessions::new(),
            callers: Callers::new(),
            started: now,
            access: if has_access { logs.next().map(|log| (format, log)) } else { None },
            events: if has_events { logs.next() } else { None },
            writer: Mutex::new(writer),
            metrics,
        })
    }

    /// Counts and logs a request that is over. Never waits: a log that can't keep up loses lines, and counts them.
    pub fn record(&self, record: &Record<'_>) {
        let route = record.route.unwrap_or(&self.unrouted);
        route.request(record.traffic, record.status, record.method, record.duration);
        self.metrics.bytes_in.inc_by(record.bytes_in);
        self.metrics.bytes_out.inc_by(record.bytes_out);
        if let (Some(upstream), Some(took)) = (record.upstream, record.upstream_duration) {
            upstream.observe(took);
        }
        if let Some(upstream) = record.upstream {
            upstream.retried(record.retries.into());
        }
        if let Some(by) = record.fallback {
            route.fallback(by);
        }
        self.callers.seen(record);
        if let Some(session) = record.session {
            let route = record.route.map(RouteSeries::shared_name);
            self.sessions.seen(session, record.at, route, record.traffic != Traffic::Page);
        }
        if let Some(refusal) = record.refusal {
            route.refusal(refusal.reason);
        }
        if let Some((format, log)) = &self.access {
            with_line(log, |line| format.write(record, line));
        }
        if let Some(event) = SecurityEvent::of(record) {
            self.event(&event);
        }
        if let Some(identity) = record.identity.filter(|_| record.attempt) {
            self.metrics.events(Event::AuthAttempt).inc();
            if let Some(log) = &self.events {
                with_line(log, |line| attempt::write(record, identity, line));
            }
        }
        record.noted.iter().for_each(|refusal| route.observed(refusal.reason));
        // The first alone would have refused it: to tell of all would make more events than refusing does.
        if let Some(first) = record.noted.first() {
            let event = SecurityEvent::about(record, first.reason, &first.detail);
            self.event(&SecurityEvent { action: Some("observed"), ..event });
        }
        if let Some(seen) = record.seen {
            seen.iter().for_each(|(target, found)| route.sanitized(target.sink, found));
            self.tell_of(seen, record);
        }
    }

    /// Tells of texts that were changed or observed. A refusal was told as such; what goes to models is counted only, since
    /// code is their daily bread.
    fn tell_of(&self, seen: &Sightings, record: &Record<'_>) {
        let noted = record.noted.first().is_some_and(|first| first.reason == Reason::ThreatDetected);
        if noted || record.refusal.is_some() {
            return;
        }
        let told = |(target, _): &(Target, Kinds)| target.sink != Sink::Model;
        for (target, found) in seen.iter().filter(told) {
            let kinds = found.names().collect::<Vec<_>>().join(", ");
            let detail = format!("A text held what a page would run or what nobody sees: {kinds}.");
            let event = SecurityEvent::about(record, Reason::ThreatDetected, &detail);
            self.event(&SecurityEvent { action: Some(target.action.done()), ..event });
        }
    }

    /// Counts and writes a security event that belongs to no recorded request: one at the door, or of the admin port.
    /// A reason that raises no event is ignored.
    pub fn event(&self, event: &SecurityEvent<'_>) {
        let Some(kind) = event.reason.event() else { return };
        self.metrics.events(kind).inc();
        if let Some(log) = &self.events {
            with_line(log, |line| event.write(kind.name(), line));
        }
    }

    /// Counts and writes a move of a breaker, or a switch by hand; and says it in the program's own log.
    pub fn breaker_event(&self, event: &BreakerEvent<'_>) {
        self.metrics.events(Event::CircuitBreaker).inc();
        event.say();
        if let Some(log) = &self.events {
            with_line(log, |line| event.write(Event::CircuitBreaker.name(), line));
        }
    }

    /// Counts and writes that settings were read again.
    pub fn reloaded(&self, event: &ReloadEvent<'_>) {
        self.metrics.events(Event::ConfigReload).inc();
        self.metrics.reloaded(event.at, event.refused.is_none());
        if let Some(log) = &self.events {
            with_line(log, |line| event.write(line));
        }
    }

    /// Counts and writes what became of an operator's act.
    pub fn admin_act(&self, at: Timestamp, act: &audit::Act, began: audit::Began, outcome: &audit::Outcome) {
        self.metrics.events(Event::AdminAct).inc();
        if let Some(log) = &self.events {
            with_line(log, |line| outcome.write(at, act, began, line));
        }
    }

    /// Counts and writes an event of the watch.
    pub fn notice(&self, notice: &Notice) {
        self.metrics.events(notice.event()).inc();
        if let Some(log) = &self.events {
            with_line(log, |line| notice.write(line));
        }
    }

    /// The metric families: for the door, and for series that are taken when a config is built.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What the observer itself knows; `environment`, `debug`, `readiness`, `degraded`, `in_flight`, `limits` and the
    /// store's share of `state` are left for their owners to fill.
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let metrics = &self.metrics;
        let (users, blocked) = self.callers.counts(now);
        Snapshot {
            state: StateCounts { users, blocked, ..StateCounts::default() },
            version: env!("CARGO_PKG_VERSION"),
            uptime: now.since(self.started),
            connections: ConnectionCounts {
                total: metrics.connections.total(),
                active: metrics.connections.active(),
                event_streams: metrics.streams.active(),
                oldest_age: metrics.connections.oldest_age(),
            },
            requests: metrics.requests_total(),
            refusals: metrics.refusals_by_reason(),
            events: metrics.events_by_name(),
            log_dropped: metrics.access_dropped.get() + metrics.events_dropped.get(),
            panics: metrics.panics.get(),
            process: Process::read(),
            sessions: self.sessions.stats(now),
            ..Snapshot::default()
        }
    }

    /// The user whose digest logs show so, if it has asked lately.
    pub fn user_shown(&self, digest: &str) -> Option<SubjectId> {
        self.callers.user_shown(digest)
    }

    /// The callers that ask most, most first.
    pub fn top_callers(&self, most: usize) -> Vec<TopCaller> {
        self.callers.top(most)
    }

    /// Opens the files of the logs anew, so that they can be renamed and put away: what was queued before is written to
    /// the old ones, what comes after to the new.
    pub fn reopen(&self) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).reopen();
    }

    /// Waits until every line queued so far is written; false if that took longer than `deadline`.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).flush(deadline)
    }

    /// Writes what is queued and joins the writing thread: the last thing to do, after the server has stopped. False if
    /// a target was still stuck after `deadline`.
    pub fn close(&self, deadline: Duration) -> bool {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).close(deadline)
    }
}

fn with_line(log: &Log, write: impl FnOnce(&mut Vec<u8>)) {
    LINE.with_borrow_mut(|line| {
        line.clear();
        write(line);
        log.push(line);
    });
}
