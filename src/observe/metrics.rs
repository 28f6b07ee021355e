//! Every metric family of the gate, in a registry of its own (several gates can live in one process).

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Error, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::guard::Event;
use crate::state::clock::Timestamp;
use crate::state::embedded::EmbeddedStats;

use super::connections::{Connections, OpenConnection};
use super::series::{BreakerSeries, RouteSeries, UpstreamSeries};
use super::snapshot::Snapshot;
use super::streams::StreamMetrics;
use super::totals::Totals;

/// Seconds; a page takes a millisecond, a long completion minutes.
const REQUEST_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds; a guard takes between a hundred nanoseconds and, on a large body, some milliseconds.
const GUARD_BUCKETS: [f64; 9] = [1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 1e-3, 1e-2];

const SERVER_LABELS: [&str; 2] = ["upstream", "server"];

/// Why the door turned a connection away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// All connections that the gate allows are open.
    Total,
    /// All connections that one address may have are open.
    PerAddress,
}

impl ConnectionRefusal {
    /// The label's value.
    const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::PerAddress => "per_address",
        }
    }
}

/// All families. Their labels take values from the config and from fixed lists only, never from a client.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    refusals: IntCounterVec,
    observed_refusals: IntCounterVec,
    sanitized: IntCounterVec,
    request_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    guard_seconds: HistogramVec,
    breaker_states: IntGaugeVec,
    breaker_transitions: IntCounterVec,
    retries: IntCounterVec,
    fallbacks: IntCounterVec,
    pub(super) bytes_in: IntCounter,
    pub(super) bytes_out: IntCounter,
    pub(super) connections: Arc<Connections>,
    pub(super) streams: StreamMetrics,
    refused_total: IntCounter,
    refused_per_address: IntCounter,
    heads_abandoned: IntCounter,
    tokens_accepted: IntCounter,
    /// In the order of [`Event::ALL`].
    events: [IntCounter; Event::ALL.len()],
    pub(super) access_dropped: IntCounter,
    pub(super) events_dropped: IntCounter,
    pub(super) panics: IntCounter,
    reloads_applied: IntCounter,
    reloads_refused: IntCounter,
    settings_loaded: Gauge,
    scraped: Mutex<Scraped>,
}

/// What is not counted here but read from its owner when somebody looks.
struct Scraped {
    in_flight: IntGauge,
    upstream_up: IntGaugeVec,
    upstream_connections: IntGaugeVec,
    issuer_up: IntGaugeVec,
    issuer_keys: IntGaugeVec,
    maintenance: IntGauge,
    limit_subjects: IntGauge,
    open_admissions: IntGauge,
    settle_queued: IntGauge,
    settled: IntCounter,
    settle_retries: IntCounter,
    shared_store_away: IntGauge,
    shared_store_gates: IntGauge,
    shared_store_failures: IntCounter,
    shared_store_alone: IntCounter,
    store: StoreSeries,
    cpu_seconds: prometheus::Counter,
    resident_bytes: IntGauge,
    open_fds: IntGauge,
}

impl Metrics {
    /// Builds the families for a process that started at `started`.
    ///
    /// # Errors
    /// None in practice: names and labels are constants, checked by every test that builds one.
    pub fn new(started: Timestamp) -> Result<Self, Error> {
        let families = Families(Registry::new());
        let refused = families.counters(
            "connections_refused_total",
            "Connections turned away at the door.",
            &["why"],
        )?;
        let bytes = families.counters(
            "bytes_total",
            "Body bytes, from (in) and to (out) clients.",
            &["direction"],
        )?;
        let events = families.counters("events_total", "Security events.", &["event"])?;
        let dropped = families.counters(
            "log_dropped_total",
            "Log lines lost: the queue was full or the target could not be written.",
            &["log"],
        )?;
        let build =
            families.gauges("build_info", "Always 1; the label says which build runs.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let start = Gauge::new("process_start_time_seconds", "Start of the process, since the Unix epoch.")?;
        start.set(seconds(started));
        families.0.register(Box::new(start))?;
        let reloads = families.counters(
            "config_reloads_total",
            "Settings read again: applied, or refused with the old ones still in force.",
            &["result"],
        )?;
        let settings_loaded = families.add(Gauge::new(
            "tidegate_config_loaded_timestamp_seconds",
            "When the settings in force were read, since the Unix epoch.",
        ))?;
        settings_loaded.set(seconds(started));

        Ok(Self {
            requests: families.counters("requests_total", "Requests.", &RouteSeries::REQUEST_LABELS)?,
            refusals: families.counters(
                "refusals_total",
                "Requests that were refused or failed, by reason.",
                &RouteSeries::REFUSAL_LABELS,
            )?,
            observed_refusals: families.counters(
                "observed_refusals_total",
                "Refusals that were only noted, since their guard observes, by reason.",
                &RouteSeries::REFUSAL_LABELS,
            )?,
            sanitized: families.counters(
                "sanitized_total",
                "Requests with texts that held what their sink may not get, by what it was.",
                &RouteSeries::SANITIZED_LABELS,
            )?,
            request_seconds: families.histogram(
                "request_duration_seconds",
                "From the request's head to the last byte of its answer.",
                "route",
                &REQUEST_BUCKETS,
            )?,
            upstream_seconds: families.histogram(
                "upstream_duration_seconds",
                "The part of a request that was spent on its upstream.",
                "upstream",
                &REQUEST_BUCKETS,
            )?,
            guard_seconds: families.histogram(
                "guard_duration_seconds",
                "Time in one guard, measured on a sample of requests.",
                "guard",
                &GUARD_BUCKETS,
            )?,
            breaker_states: families.gauges(
                "breaker_state",
                "State of an upstream's circuit breaker: 0 closed, 1 half-open, 2 open.",
                &["upstream"],
            )?,
            breaker_transitions: families.counters(
                "breaker_transitions_total",
                "Moves of an upstream's circuit breaker.",
                &BreakerSeries::LABELS,
            )?,
            retries: families.counters("retries_total", "Calls tried again.", &["upstream"])?,
            fallbacks: families.counters(
                "fallbacks_total",
                "Requests that were served by a fallback.",
                &RouteSeries::FALLBACK_LABELS,
            )?,
            bytes_in: bytes.with_label_values(&["in"]),
            bytes_out: bytes.with_label_values(&["out"]),
            connections: Arc::new(Connections::new(
                families.counter("connections_total", "Client connections accepted.")?,
                families.gauge("connections", "Client connections that are open.")?,
            )),
            streams: StreamMetrics::new(
                families.gauge("streams", "Event streams that are open.")?,
                families.counter("stream_heartbeats_total", "Comments sent in silent streams.")?,
                families.counters("streams_ended_total", "Event streams that ended, by how.", &["end"])?,
            ),
            refused_total: refused.with_label_values(&[ConnectionRefusal::Total.name()]),
            refused_per_address: refused.with_label_values(&[ConnectionRefusal::PerAddress.name()]),
            heads_abandoned: families.counter(
                "heads_abandoned_total",
                "Connections that began a request head and never finished it, or not in time.",
            )?,
            tokens_accepted: families
                .counter("tokens_accepted_total", "Requests whose token was verified.")?,
            events: Event::ALL.map(|event| events.with_label_values(&[event.name()])),
            access_dropped: dropped.with_label_values(&["access"]),
            events_dropped: dropped.with_label_values(&["events"]),
            reloads_applied: reloads.with_label_values(&["applied"]),
            reloads_refused: reloads.with_label_values(&["refused"]),
            settings_loaded,
            panics: families.counter("panics_total", "Requests that ended in a panic of the gate.")?,
            scraped: Mutex::new(Scraped {
                in_flight: families.gauge("in_flight", "Requests being served.")?,
                upstream_up: families.gauges(
                    "upstream_up",
                    "Whether a server of an upstream seems well.",
                    &SERVER_LABELS,
                )?,
                upstream_connections: families.gauges(
                    "upstream_connections",
                    "Connections to a server that are in use.",
                    &SERVER_LABELS,
                )?,
                issuer_up: families.gauges(
                    "issuer_up",
                    "Whether the keys of a token's issuer could be fetched the last time.",
                    &["token"],
                )?,
                issuer_keys: families.gauges(
                    "issuer_keys",
                    "Keys of a token's issuer that are in force.",
                    &["token"],
                )?,
                maintenance: families.gauge("maintenance", "1 while the app is closed for maintenance.")?,
                limit_subjects: families.gauge("limit_subjects", "Subjects that limits are counted for.")?,
                open_admissions: families
                    .gauge("open_admissions", "Admissions granted and not settled yet.")?,
                settle_queued: families.gauge("settle_queued", "Settlements waiting for the store.")?,
                settled: families.counter("settle_total", "Settlements that the store took.")?,
                settle_retries: families.counter("settle_retries_total", "Settlements tried again.")?,
                shared_store_away: families.gauge(
                    "shared_store_away",
                    "1 while the store that several gates share does not answer.",
                )?,
                shared_store_gates: families
                    .gauge("shared_store_gates", "Gates that use the shared store, as last heard.")?,
                shared_store_failures: families
                    .counter("shared_store_failures_total", "Calls to the shared store that failed.")?,
                shared_store_alone: families
                    .counter("shared_store_alone_total", "Decisions made without the shared store.")?,
                store: StoreSeries::new(&families)?,
                cpu_seconds: families
                    .process_counter("process_cpu_seconds_total", "Processor time, user and system.")?,
                resident_bytes: families.process("process_resident_memory_bytes", "Resident memory.")?,
                open_fds: families.process("process_open_fds", "Open file descriptors.")?,
            }),
            registry: families.0,
        })
    }

    /// The series of a route; the same counters for the same name.
    pub fn route(&self, name: &str) -> RouteSeries {
        RouteSeries::new(
            name,
            &self.requests,
            &self.refusals,
            &self.observed_refusals,
            &self.sanitized,
            &self.request_seconds,
            &self.fallbacks,
        )
    }

    /// The series of an upstream; the same counters for the same name.
    pub fn upstream(&self, name: &str) -> UpstreamSeries {
        UpstreamSeries::new(name, &self.upstream_seconds, &self.retries)
    }

    /// The series of an upstream's circuit breaker; the same for the same name.
    pub fn breaker(&self, name: &str) -> BreakerSeries {
        BreakerSeries::new(name, &self.breaker_states, &self.breaker_transitions)
    }

    /// The durations of one guard, in seconds: taken once when the chain is built.
    pub fn guard(&self, name: &'static str) -> Histogram {
        self.guard_seconds.with_label_values(&[name])
    }

    /// Counts an accepted connection as open until the answer is dropped.
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections.open()
    }

    /// The series of event streams.
    pub const fn streams(&self) -> &StreamMetrics {
        &self.streams
    }

    /// Counts a connection that the door turned away.
    pub fn connection_refused(&self, why: ConnectionRefusal) {
        match why {
            ConnectionRefusal::Total => self.refused_total.inc(),
            ConnectionRefusal::PerAddress => self.refused_per_address.inc(),
        }
    }

    /// Counts a request head that was begun and never became a request.
    pub fn head_abandoned(&self) {
        self.heads_abandoned.inc();
    }

    /// Counts a request whose token was verified.
    pub fn token_accepted(&self) {
        self.tokens_accepted.inc();
    }

    /// Counts a request that ended in a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts settings that were read again at `at`, and put in force or not.
    pub(super) fn reloaded(&self, at: Timestamp, applied: bool) {
        if applied {
            self.reloads_applied.inc();
            self.settings_loaded.set(seconds(at));
        } else {
            self.reloads_refused.inc();
        }
    }

    pub(super) const fn events(&self, event: Event) -> &IntCounter {
        &self.events[event as usize]
    }

    /// Security events since the start, by name.
    pub(super) fn events_by_name(&self) -> Vec<(&'static str, u64)> {
        Event::ALL.map(|event| (event.name(), self.events(event).get())).into()
    }

    /// All that the watch looks at.
    pub fn totals(&self) -> Totals {
        let mut durations: Vec<(f64, u64)> = Vec::new();
        for family in self.request_seconds.collect() {
            for metric in family.get_metric() {
                let buckets = metric.get_histogram().get_bucket();
                durations.resize(buckets.len(), (0.0, 0));
                for (sum, bucket) in durations.iter_mut().zip(buckets) {
                    *sum = (bucket.upper_bound(), sum.1 + bucket.cumulative_count());
                }
            }
        }
        let errors = sums(&self.requests, "status_class").into_iter().find(|(class, _)| class == "5xx");
        Totals {
            routes: sums(&self.requests, "route").into_iter().collect(),
            errors: errors.map_or(0, |(_, count)| count),
            refusals: sums(&self.refusals, "reason").into_iter().collect(),
            auth_failures: self.events(Event::AuthFailed).get(),
            log_dropped: self.access_dropped.get() + self.events_dropped.get(),
            store_failures: 0,
            durations,
        }
    }

    /// Client connections that are open.
    pub fn open_connections(&self) -> u64 {
        self.connections.active()
    }

    /// Requests since the start, over all routes.
    pub(super) fn requests_total(&self) -> u64 {
        sums(&self.requests, "route").iter().map(|(_, count)| count).sum()
    }

    /// Refusals since the start by reason, over all routes.
    pub(super) fn refusals_by_reason(&self) -> Vec<(String, u64)> {
        sums(&self.refusals, "reason")
    }

    /// The text exposition format 0.0.4, with the values that others own taken from `snapshot`.
    ///
    /// # Errors
    /// When a family can't be encoded, which none of these does.
    pub fn render(&self, snapshot: &Snapshot) -> Result<String, Error> {
        {
            let scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
            let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            scraped.maintenance.set(snapshot.maintenance.is_some().into());
            scraped.in_flight.set(gauge(snapshot.in_flight));
            // Servers that a reload has removed are to go.
            scraped.upstream_up.reset();
            scraped.upstream_connections.reset();
            for server in &snapshot.servers {
                let labels = [&*server.upstream, &*server.server];
                scraped.upstream_up.with_label_values(&labels).set(server.up.into());
                scraped.upstream_connections.with_label_values(&labels).set(gauge(server.in_use as u64));
            }
            scraped.issuer_up.reset();
            scraped.issuer_keys.reset();
            for issuer in &snapshot.issuers {
                scraped.issuer_up.with_label_values(&[&*issuer.token]).set(issuer.up.into());
                scraped.issuer_keys.with_label_values(&[&*issuer.token]).set(gauge(issuer.keys as u64));
            }
            scraped.limit_subjects.set(gauge(snapshot.state.subjects));
            scraped.open_admissions.set(gauge(snapshot.state.open_admissions));
            scraped.settle_queued.set(gauge(snapshot.state.settle_queued));
            raise(&scraped.settled, snapshot.state.settled);
            raise(&scraped.settle_retries, snapshot.state.settle_retries);
            if let Some(store) = &snapshot.shared_store {
                scraped.shared_store_away.set(store.is_away.into());
                scraped.shared_store_gates.set(gauge(store.gates));
                raise(&scraped.shared_store_failures, store.failures);
                raise(&scraped.shared_store_alone, store.alone);
            }
            scraped.store.show(&snapshot.state.kept);
            let cpu = snapshot.process.cpu.as_secs_f64() - scraped.cpu_seconds.get();
            scraped.cpu_seconds.inc_by(cpu.max(0.0));
            scraped.resident_bytes.set(gauge(snapshot.process.resident_bytes));
            scraped.open_fds.set(gauge(snapshot.process.open_fds));
        }
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| Error::Msg(error.to_string()))
    }
}

/// What it takes to keep what is counted.
struct StoreSeries {
    journal_bytes: IntCounter,
    failures: IntCounter,
    checkpoints: IntCounter,
    checkpoint_seconds: prometheus::Counter,
    checkpoint_age: Gauge,
}

impl StoreSeries {
    fn new(families: &Families) -> Result<Self, Error> {
        Ok(Self {
            journal_bytes: families
                .counter("store_journal_bytes_total", "Bytes that the store's journal took.")?,
            failures: families
                .counter("store_failures_total", "Times that the store could not be written.")?,
            checkpoints: families.counter(
                "store_checkpoints_total",
                "Times that the journal was brought into the database.",
            )?,
            checkpoint_seconds: families.add(prometheus::Counter::new(
                "tidegate_store_checkpoint_seconds_total",
                "What that took, off the way of requests.",
            ))?,
            checkpoint_age: families
                .add(Gauge::new("tidegate_store_checkpoint_age_seconds", "How long ago that was last."))?,
        })
    }

    fn show(&self, kept: &EmbeddedStats) {
        raise(&self.journal_bytes, kept.journal_bytes);
        raise(&self.failures, kept.failures);
        raise(&self.checkpoints, kept.checkpoints);
        let more = kept.checkpoint_time.as_secs_f64() - self.checkpoint_seconds.get();
        self.checkpoint_seconds.inc_by(more.max(0.0));
        self.checkpoint_age.set(kept.checkpoint_age.as_secs_f64());
    }
}

/// Since the Unix epoch.
fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// A family's counts summed by the value of one label, in the order of the values.
fn sums(family: &IntCounterVec, label: &str) -> Vec<(String, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    for family in family.collect() {
        for metric in family.get_metric() {
            let value = metric.get_label().iter().find(|pair| pair.name() == label).map(|pair| pair.value());
            *sums.entry(value.unwrap_or_default().to_owned()).or_default() +=
                metric.get_counter().get_value() as u64;
        }
    }
    sums.into_iter().collect()
}

/// Declares families and registers them.
struct Families(Registry);

impl Families {
    fn add<C: Collector + Clone + 'static>(&self, family: Result<C, Error>) -> Result<C, Error> {
        let family = family?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(format!("tidegate_{name}"), help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(format!("tidegate_{name}"), help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(format!("tidegate_{name}"), help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(format!("tidegate_{name}"), help), labels))
    }

    fn histogram(&self, name: &str, help: &str, label: &str, buckets: &[f64]) -> Result<HistogramVec, Error> {
        let options = HistogramOpts::new(format!("tidegate_{name}"), help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, &[label]))
    }

    /// Process metrics go by the names that every dashboard knows.
    fn process(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(name, help))
    }

    fn process_counter(&self, name: &str, help: &str) -> Result<prometheus::Counter, Error> {
        self.add(prometheus::Counter::new(name, help))
    }
}
