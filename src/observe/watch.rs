//! What is looked at now and then: a summary each hour, and every five minutes whether something is out of the ordinary.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::guard::Event;
use crate::state::clock::Timestamp;

use super::Totals;
use super::line::JsonLine;

/// How often the counts are read.
const SAMPLE: Duration = Duration::from_secs(10);
/// What counts as now, for health.
const RECENT: Duration = Duration::from_secs(60);
/// Between two looks for what is out of the ordinary.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Between two summaries.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Fewer requests than this in a window make no ratio.
const ENOUGH: u64 = 20;
/// Routes named in a summary.
const TOP_ROUTES: usize = 5;

/// What is out of the ordinary, as written and as run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// More refused requests a minute than this, on average over five minutes.
    pub refusals_per_minute: u64,
    /// More answers in a hundred than this are 5xx.
    #[schemars(range(max = 100))]
    pub errors_percent: u64,
    /// More failed authentications a minute than this, on average over five minutes.
    pub auth_failures_per_minute: u64,
}

/// Keeps what was counted when, to tell what is new.
#[derive(Debug)]
pub struct Watch {
    /// The last minute, oldest first; never empty.
    recent: VecDeque<(Timestamp, Totals)>,
    window: (Timestamp, Totals),
    hour: (Timestamp, Totals),
}

/// An event of the watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// What happened in about an hour.
    Summary {
        /// When the hour ended.
        at: Timestamp,
        /// How long it was.
        window: Duration,
        /// What was counted in it.
        counts: Totals,
    },
    /// Something is out of the ordinary.
    Alert {
        /// When it was seen.
        at: Timestamp,
        /// How long was looked at.
        window: Duration,
        /// What it is.
        anomaly: Anomaly,
        /// How much.
        value: u64,
        /// How much is ordinary.
        threshold: u64,
    },
}

/// What can be out of the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// Many refusals.
    Refusals,
    /// Many 5xx.
    Errors,
    /// Many failed authentications.
    AuthFailures,
}

impl Anomaly {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Refusals, Self::Errors, Self::AuthFailures];

    /// The stable code, which stands where other events have a reason.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Refusals => "refusals_high",
            Self::Errors => "errors_high",
            Self::AuthFailures => "auth_failures_high",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::Refusals => "More requests a minute are refused than watch.refusals_per_minute.",
            Self::Errors => "More answers in a hundred are 5xx than watch.errors_percent.",
            Self::AuthFailures => "More authentications a minute fail than watch.auth_failures_per_minute.",
        }
    }
}

impl Watch {
    /// Begins to watch.
    pub fn new(now: Timestamp, totals: Totals) -> Self {
        Self { recent: [(now, totals.clone())].into(), window: (now, totals.clone()), hour: (now, totals) }
    }

    /// Whether it is time for [`look`](Self::look).
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.recent.back().is_none_or(|(at, _)| now.since(*at) >= SAMPLE)
    }

    /// Takes the counts as they are now, and answers what there is to tell. Without a config nothing is out of the
    /// ordinary.
    pub fn look(&mut self, now: Timestamp, totals: Totals, config: Option<&Config>) -> Vec<Notice> {
        let mut notices = Vec::new();
        let window = now.since(self.window.0);
        if window >= WINDOW {
            let counts = totals.since(&self.window.1);
            self.window = (now, totals.clone());
            notices.extend(config.into_iter().flat_map(|config| config.judge(now, window, &counts)));
        }
        let window = now.since(self.hour.0);
        if window >= HOUR {
            let counts = totals.since(&self.hour.1);
            self.hour = (now, totals.clone());
            notices.push(Notice::Summary { at: now, window, counts });
        }
        self.recent.push_back((now, totals));
        // The oldest that is kept is the first from before the last minute.
        while self.recent.get(1).is_some_and(|(at, _)| now.since(*at) >= RECENT) {
            self.recent.pop_front();
        }
        notices
    }

    /// What was counted in about the last minute, up to `totals`.
    pub fn recent(&self, totals: &Totals) -> Totals {
        self.recent.front().map(|(_, then)| totals.since(then)).unwrap_or_default()
    }
}

impl Config {
    fn judge(&self, at: Timestamp, window: Duration, counts: &Totals) -> Vec<Notice> {
        let per_minute = |count: u64| count.saturating_mul(60) / window.as_secs().max(1);
        let requests = counts.requests();
        let percent = if requests < ENOUGH { 0 } else { counts.errors * 100 / requests };
        let found = [
            (Anomaly::Refusals, per_minute(counts.refused()), self.refusals_per_minute),
            (Anomaly::Errors, percent, self.errors_percent),
            (Anomaly::AuthFailures, per_minute(counts.auth_failures), self.auth_failures_per_minute),
        ];
        let found = found.into_iter().filter(|(_, value, threshold)| value > threshold);
        found
            .map(|(anomaly, value, threshold)| Notice::Alert { at, window, anomaly, value, threshold })
            .collect()
    }
}

impl Notice {
    /// The event that it is written as.
    pub const fn event(&self) -> Event {
        match self {
            Self::Summary { .. } => Event::Summary,
            Self::Alert { .. } => Event::SecurityAlert,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let event = self.event().name();
        match self {
            Self::Summary { at, window, counts } => {
                let mut line = JsonLine::begin(out, *at);
                line.text("event", event);
                line.number("window_s", window.as_secs());
                line.number("requests", counts.requests());
                line.number("errors", counts.errors);
                line.number("refused", counts.refused());
                line.value("refusals", &json!(counts.refusals));
                for (key, share) in [("p50_ms", 0.5), ("p95_ms", 0.95)] {
                    if let Some(took) = counts.quantile(share) {
                        line.millis(key, took);
                    }
                }
                let top = counts.top_routes(TOP_ROUTES).into_iter();
                let top: Value = top.map(|(name, n)| json!({ "route": name, "requests": n })).collect();
                line.value("top_routes", &top);
                line.number("auth_failures", counts.auth_failures);
                line.number("log_dropped", counts.log_dropped);
                line.end();
            }
            Self::Alert { at, window, anomaly, value, threshold } => {
                let mut line = JsonLine::begin(out, *at);
                line.text("event", event);
                line.text("reason", anomaly.code());
                line.text("detail", anomaly.detail());
                line.number("value", *value);
                line.number("threshold", *threshold);
                line.number("window_s", window.as_secs());
                line.end();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_micros(1_709_208_000_000_000);
    const CONFIG: Config =
        Config { refusals_per_minute: 10, errors_percent: 20, auth_failures_per_minute: 2 };

    fn totals(requests: u64, errors: u64, refused: u64, auth_failures: u64) -> Totals {
        Totals {
            routes: [("chat".to_owned(), requests)].into(),
            refusals: [("rate_limited".to_owned(), refused)].into(),
            errors,
            auth_failures,
            ..Totals::default()
        }
    }

    fn at(seconds: u64) -> Timestamp {
        NOON.after(Duration::from_secs(seconds))
    }

    fn alerts(notices: &[Notice]) -> Vec<(Anomaly, u64)> {
        let alert = |notice: &Notice| match notice {
            Notice::Alert { anomaly, value, .. } => Some((*anomaly, *value)),
            Notice::Summary { .. } => None,
        };
        notices.iter().filter_map(alert).collect()
    }

    /// An attack that lasts is told once in five minutes, and one that ends is not told again.
    #[test]
    fn what_is_out_of_the_ordinary_is_told_once_a_window() {
        let mut watch = Watch::new(NOON, Totals::default());
        let mut told = Vec::new();
        for step in 1..=90 {
            // For five minutes a refusal each second; then silence.
            let refused = (step * 10).min(300);
            told.extend(watch.look(at(step * 10), totals(refused, 0, refused, 0), Some(&CONFIG)));
        }
        assert_eq!(alerts(&told), [(Anomaly::Refusals, 60)]);
        let mut watch = Watch::new(NOON, Totals::default());
        let all = watch.look(at(300), totals(100, 21, 51, 11), Some(&CONFIG));
        assert_eq!(alerts(&all), [(Anomaly::Errors, 21)]);
        let all = watch.look(at(600), totals(200, 21, 200, 30), Some(&CONFIG));
        assert_eq!(alerts(&all), [(Anomaly::Refusals, 29), (Anomaly::AuthFailures, 3)]);
        assert_eq!(watch.look(at(900), totals(900, 721, 900, 900), None), []);
    }

    /// One failed request at night is no alarm.
    #[test]
    fn a_ratio_needs_enough_requests() {
        let mut watch = Watch::new(NOON, Totals::default());
        assert_eq!(watch.look(at(300), totals(ENOUGH - 1, ENOUGH - 1, 0, 0), Some(&CONFIG)), []);
    }

    /// The line is read by programs, hour by hour.
    #[test]
    fn each_hour_has_its_summary() {
        let mut watch = Watch::new(NOON, Totals::default());
        assert!(!watch.is_due(at(9)) && watch.is_due(at(10)));
        assert_eq!(watch.look(at(3590), totals(5, 1, 2, 0), None), []);
        let told = watch.look(at(3600), totals(10, 1, 4, 0), None);
        let [summary] = told.as_slice() else { panic!("{told:?}") };
        let mut line = Vec::new();
        summary.write(&mut line);
        let line: Value = serde_json::from_slice(&line).expect("JSON");
        let expected = json!({
            "ts": "2024-02-29T13:00:00.000Z", "event": "SUMMARY", "window_s": 3600, "requests": 10, "errors": 1,
            "refused": 4, "refusals": {"rate_limited": 4}, "p50_ms": 0.0, "p95_ms": 0.0,
            "top_routes": [{"route": "chat", "requests": 10}], "auth_failures": 0, "log_dropped": 0,
        });
        assert_eq!(line, expected);
        assert_eq!(watch.look(at(7190), totals(11, 1, 4, 0), None), []);
        let told = watch.look(at(7200), totals(11, 1, 4, 0), None);
        assert!(matches!(&told[..], [Notice::Summary { counts, .. }] if counts.requests() == 1), "{told:?}");
    }

    /// Health must get better again when the trouble is over.
    #[test]
    fn what_is_recent_is_a_minute() {
        let mut watch = Watch::new(NOON, Totals::default());
        let dropped = Totals { log_dropped: 9, ..Totals::default() };
        for step in 1..=6 {
            watch.look(at(step * 10), dropped.clone(), None);
            assert_eq!(watch.recent(&dropped).log_dropped, 9, "{step}");
        }
        watch.look(at(70), dropped.clone(), None);
        watch.look(at(80), dropped.clone(), None);
        assert_eq!(watch.recent(&dropped).log_dropped, 0);
    }
}
