//! The event streams that are open, and how those ended that are not.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

/// How a stream can end: by itself, by its client, or for a reason that has a code.
const ENDS: [&str; 6] = ["done", "client_gone", "upstream_failed", "stream_idle", "stream_total", "draining"];

/// The series of all event streams.
pub struct StreamMetrics {
    open: IntGauge,
    heartbeats: IntCounter,
    ended: IntCounterVec,
}

/// One stream; dropping it takes it from those that are open.
pub struct OpenStream<'a>(&'a StreamMetrics);

impl StreamMetrics {
    pub(super) fn new(open: IntGauge, heartbeats: IntCounter, ended: IntCounterVec) -> Self {
        for end in ENDS {
            ended.with_label_values(&[end]);
        }
        Self { open, heartbeats, ended }
    }

    /// Counts a stream as open until the answer is dropped.
    pub fn open(&self) -> OpenStream<'_> {
        self.open.inc();
        OpenStream(self)
    }

    /// Counts a heartbeat.
    pub fn heartbeat(&self) {
        self.heartbeats.inc();
    }

    /// Streams open now.
    pub(super) fn active(&self) -> u64 {
        u64::try_from(self.open.get()).unwrap_or(0)
    }
}

impl OpenStream<'_> {
    /// Counts how the stream ended.
    pub fn ended(self, how: &'static str) {
        debug_assert!(ENDS.contains(&how), "{how} is no end of a stream");
        self.0.ended.with_label_values(&[how]).inc();
    }
}

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}
