//! The client connections that are open: how many, and since when.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge};

/// Connections come and go more rarely than requests, yet spread over these sets so that they don't queue.
const SHARDS: usize = 16;

/// When a connection was opened, and which of that moment it is.
type Opened = (Instant, u64);

/// All open connections.
pub(super) struct Connections {
    next: AtomicU64,
    total: IntCounter,
    open: IntGauge,
    since: [Mutex<BTreeSet<Opened>>; SHARDS],
}

/// One connection; dropping it closes it.
pub struct OpenConnection {
    all: Arc<Connections>,
    opened: Opened,
}

impl Connections {
    pub(super) fn new(total: IntCounter, open: IntGauge) -> Self {
        Self { next: AtomicU64::new(0), total, open, since: Default::default() }
    }

    pub(super) fn open(self: &Arc<Self>) -> OpenConnection {
        let opened = (Instant::now(), self.next.fetch_add(1, Ordering::Relaxed));
        self.total.inc();
        self.open.inc();
        if let Some(mut shard) = self.shard(opened) {
            shard.insert(opened);
        }
        OpenConnection { all: Arc::clone(self), opened }
    }

    /// Connections accepted since the start.
    pub(super) fn total(&self) -> u64 {
        self.total.get()
    }

    /// Connections open now.
    pub(super) fn active(&self) -> u64 {
        u64::try_from(self.open.get()).unwrap_or(0)
    }

    /// How long the oldest connection has been open; zero if none is.
    pub(super) fn oldest_age(&self) -> Duration {
        let oldest = self.since.iter().filter_map(|shard| locked(shard).first().map(|(at, _)| *at)).min();
        oldest.map_or(Duration::ZERO, |at| at.elapsed())
    }

    fn shard(&self, (_, number): Opened) -> Option<MutexGuard<'_, BTreeSet<Opened>>> {
        self.since.get((number % SHARDS as u64) as usize).map(locked)
    }
}

fn locked(shard: &Mutex<BTreeSet<Opened>>) -> MutexGuard<'_, BTreeSet<Opened>> {
    // Inserting and removing can't be left half done.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenConnection({})", self.opened.1)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.all.open.dec();
        if let Some(mut shard) = self.all.shard(self.opened) {
            shard.remove(&self.opened);
        }
    }
}
