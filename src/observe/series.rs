//! The counters of one route and of one upstream, found once when the config is built, so that a request only adds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::guard::sanitize::{Kind, Kinds, Sink};
use crate::guard::{Reason, Traffic};
use crate::upstream::breaker::State;

/// Methods that have a label of their own (RFC 9110 §9, RFC 5789); a client can invent others.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "other"];
/// `none`: the connection ended without an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const TRAFFIC: [&str; 3] = ["page", "api", "ai"];

/// The series of one route. A route that keeps its name over a reload keeps its counts.
pub struct RouteSeries {
    name: Arc<str>,
    requests: Lazily,
    refusals: Lazily,
    observed: Lazily,
    sanitized: Lazily,
    seconds: Histogram,
    fallbacks: [IntCounter; Fallback::ALL.len()],
}

/// The series of one upstream.
pub struct UpstreamSeries {
    name: Box<str>,
    seconds: Histogram,
    retries: IntCounter,
}

/// What served a request in place of its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The answer that stands in the settings.
    Answer,
    /// Another upstream.
    Upstream,
}

impl Fallback {
    const ALL: [&'static str; 2] = ["answer", "upstream"];
}

/// The series of one circuit breaker.
pub struct BreakerSeries {
    state: IntGauge,
    to: [IntCounter; State::ALL.len()],
}

/// Counters that appear in the output once they have counted something.
struct Lazily {
    family: IntCounterVec,
    cells: Box<[OnceLock<IntCounter>]>,
}

impl Lazily {
    fn new(family: &IntCounterVec, cells: usize) -> Self {
        Self { family: family.clone(), cells: (0..cells).map(|_| OnceLock::new()).collect() }
    }

    fn inc<const N: usize>(&self, cell: usize, labels: impl FnOnce() -> [&'static str; N], route: &str) {
        let Some(cell) = self.cells.get(cell) else { return };
        cell.get_or_init(|| {
            let labels: Vec<&str> = [route].into_iter().chain(labels()).collect();
            // The number of labels is the family's own: both stand in this room.
            self.family.with_label_values(&labels)
        })
        .inc();
    }
}

impl RouteSeries {
    /// Labels of the requests family, the route first.
    pub(super) const REQUEST_LABELS: [&'static str; 4] = ["route", "traffic", "status_class", "method"];
    /// Labels of the families of refusals and of observed refusals, the route first.
    pub(super) const REFUSAL_LABELS: [&'static str; 2] = ["route", "reason"];
    /// Labels of the family of sanitized texts, the route first.
    pub(super) const SANITIZED_LABELS: [&'static str; 3] = ["route", "sink", "kind"];
    /// Labels of the fallbacks family, the route first.
    pub(super) const FALLBACK_LABELS: [&'static str; 2] = ["route", "by"];

    pub(super) fn new(
        name: &str,
        requests: &IntCounterVec,
        refusals: &IntCounterVec,
        observed: &IntCounterVec,
        sanitized: &IntCounterVec,
        seconds: &HistogramVec,
        fallbacks: &IntCounterVec,
    ) -> Self {
        Self {
            name: name.into(),
            requests: Lazily::new(requests, TRAFFIC.len() * CLASSES.len() * METHODS.len()),
            refusals: Lazily::new(refusals, Reason::ALL.len()),
            observed: Lazily::new(observed, Reason::ALL.len()),
            sanitized: Lazily::new(sanitized, Sink::ALL.len() * Kind::ALL.len()),
            seconds: seconds.with_label_values(&[name]),
            fallbacks: Fallback::ALL.map(|by| fallbacks.with_label_values(&[name, by])),
        }
    }

    /// The route's name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn request(
        &self,
        traffic: Traffic,
        status: Option<StatusCode>,
        method: &Method,
        took: Duration,
    ) {
        let traffic = match traffic {
            Traffic::Page => 0,
            Traffic::Api => 1,
            Traffic::Ai => 2,
        };
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(CLASSES.len() - 1));
        let method = method_place(method);
        let label = |of: &[&'static str], at: usize| of.get(at).copied().unwrap_or("other");
        let labels = || [label(&TRAFFIC, traffic), label(&CLASSES, class), label(&METHODS, method)];
        self.requests.inc((traffic * CLASSES.len() + class) * METHODS.len() + method, labels, &self.name);
        self.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn refusal(&self, reason: Reason) {
        self.refusals.inc(reason as usize, || [reason.code()], &self.name);
    }

    pub(super) fn observed(&self, reason: Reason) {
        self.observed.inc(reason as usize, || [reason.code()], &self.name);
    }

    pub(super) fn sanitized(&self, sink: Sink, found: Kinds) {
        for kind in found.iter() {
            let cell = sink as usize * Kind::ALL.len() + kind as usize;
            self.sanitized.inc(cell, || [sink.name(), kind.name()], &self.name);
        }
    }

    pub(super) fn fallback(&self, by: Fallback) {
        self.fallbacks[by as usize].inc();
    }
}

impl UpstreamSeries {
    pub(super) fn new(name: &str, seconds: &HistogramVec, retries: &IntCounterVec) -> Self {
        let seconds = seconds.with_label_values(&[name]);
        Self { name: name.into(), seconds, retries: retries.with_label_values(&[name]) }
    }

    /// The upstream's name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn observe(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts calls that were tried again.
    pub fn retried(&self, times: u64) {
        self.retries.inc_by(times);
    }
}

impl BreakerSeries {
    /// Labels of the transitions family, the upstream first.
    pub(super) const LABELS: [&'static str; 2] = ["upstream", "to"];

    pub(super) fn new(name: &str, states: &IntGaugeVec, transitions: &IntCounterVec) -> Self {
        let to = State::ALL.map(|state| transitions.with_label_values(&[name, state.name()]));
        Self { state: states.with_label_values(&[name]), to }
    }

    /// Shows a state without counting a move to it.
    pub fn set(&self, state: State) {
        self.state.set(state as i64);
    }

    /// Counts a move.
    pub fn moved(&self, to: State) {
        self.set(to);
        self.to[to as usize].inc();
    }
}

const fn method_place(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::CONNECT => 5,
        Method::OPTIONS => 6,
        Method::TRACE => 7,
        Method::PATCH => 8,
        _ => METHODS.len() - 1,
    }
}
