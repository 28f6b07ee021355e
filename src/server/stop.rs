//! An orderly end: not ready any more, finish what is in flight, then stop.
//!
//! Pingora's graceful timeout drops running requests, so the waiting is done here, before it hears of the end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

/// The last fifth of a drain is for the ends of streams.
const LAST_PART: u32 = 5;

/// The end of a server, and what has to happen before it.
#[derive(Debug)]
pub struct Stop {
    asked: Notify,
    draining: AtomicBool,
    in_flight: AtomicU64,
    idle: Notify,
    streams_told: AtomicBool,
    streams: Notify,
    deadline: Duration,
}

impl Stop {
    /// `deadline`: how long requests in flight may take once the end was asked for.
    pub fn new(deadline: Duration) -> Self {
        Self {
            asked: Notify::new(),
            draining: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            idle: Notify::new(),
            streams_told: AtomicBool::new(false),
            streams: Notify::new(),
            deadline,
        }
    }

    /// Asks the server to end.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Whether the end has begun: answers say `Connection: close`, `/readyz` says no.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Resolves when streams are to end: early enough before the deadline to do it in good order.
    pub async fn streams_end(&self) {
        let mut told = pin!(self.streams.notified());
        let mut waits = false;
        poll_fn(|cx| {
            if self.streams_told.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            if waits {
                // The task is known already, and a stream asks again at each of its events: no lock for that.
                return Poll::Pending;
            }
            waits = true;
            told.as_mut().poll(cx)
        })
        .await;
    }

    /// Counts a request until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Acquire)
    }

    async fn drained(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let mut idle = pin!(async {
            while self.in_flight() > 0 {
                let notified = self.idle.notified();
                if self.in_flight() > 0 {
                    notified.await;
                }
            }
        });
        if timeout(self.deadline - self.deadline / LAST_PART, idle.as_mut()).await.is_ok() {
            return;
        }
        self.streams_told.store(true, Ordering::Release);
        self.streams.notify_waiters();
        if timeout(self.deadline / LAST_PART, idle).await.is_err() {
            warn!(
                in_flight = self.in_flight(),
                "stopping although requests are in flight: the drain deadline passed"
            );
        }
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Stop>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 && self.0.draining() {
            self.0.idle.notify_one();
        }
    }
}

/// Tells Pingora when to stop: after the drain.
pub struct Signals(Arc<Stop>);

impl Signals {
    /// Watches the process's signals and `stop`.
    pub fn new(stop: Arc<Stop>) -> Self {
        Self(stop)
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        match (terminate, interrupt) {
            (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = self.0.asked.notified() => {}
            },
            _ => {
                warn!("cannot watch for signals; only an internal stop will end the server");
                self.0.asked.notified().await;
            }
        }
        info!(in_flight = self.0.in_flight(), "stopping");
        self.0.drained().await;
        ShutdownSignal::FastShutdown
    }
}
