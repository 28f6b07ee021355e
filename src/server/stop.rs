//! An orderly end: take nothing new, finish what is in flight, then stop.
//!
//! Pingora's graceful timeout drops running requests, so the waiting is done here, before it hears of the end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;

/// How long a connection may idle once the end has begun. A client that uses it more often than that is told with an
/// answer to use another one; to the rest the end of the connection is the same as any end of keep-alive.
const LAST_IDLE: Duration = Duration::from_secs(1);

/// For so long there must have been nothing left: a connection that was accepted last is not counted before its task
/// has run.
const SETTLED: Duration = Duration::from_millis(50);

/// The last fifth of a drain is for the ends of streams.
const LAST_PART: u32 = 5;

/// The end of a server, and what has to happen before it.
#[derive(Debug)]
pub struct Stop {
    asked: Notify,
    draining: AtomicBool,
    closing: watch::Sender<bool>,
    leaving: watch::Sender<bool>,
    requests: AtomicU64,
    connections: AtomicU64,
    fewer: Notify,
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
            closing: watch::Sender::new(false),
            leaving: watch::Sender::new(false),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            fewer: Notify::new(),
            streams_told: AtomicBool::new(false),
            streams: Notify::new(),
            deadline,
        }
    }

    /// Asks the server to end.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Resolves when the server was asked to end.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Whether the end has begun: answers say `Connection: close`, `/readyz` says no.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Turns true when no more traffic is to be accepted.
    pub fn closing(&self) -> ShutdownWatch {
        self.closing.subscribe()
    }

    /// Turns true when another process serves the admin port.
    pub(super) fn leaving(&self) -> ShutdownWatch {
        self.leaving.subscribe()
    }

    /// Another process accepts on the sockets.
    pub(super) fn handed_over(&self) {
        self.leaving.send_replace(true);
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
        self.requests.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::AcqRel);
        Connected { stop: self.clone(), over: Over::Unasked }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    fn left(&self) -> u64 {
        self.requests.load(Ordering::SeqCst) + self.connections.load(Ordering::SeqCst)
    }

    fn one_less(&self, of: &AtomicU64) {
        // In one order with what `drain` does, or each could miss the other.
        if of.fetch_sub(1, Ordering::SeqCst) == 1 && self.draining.load(Ordering::SeqCst) {
            self.fewer.notify_one();
        }
    }

    /// Begins the end, and waits until nothing is left to finish or the deadline has passed.
    pub(super) async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.closing.send_replace(true);
        let mut emptied = pin!(async {
            loop {
                while self.left() > 0 {
                    let notified = self.fewer.notified();
                    if self.left() > 0 {
                        notified.await;
                    }
                }
                sleep(SETTLED).await;
                if self.left() == 0 {
                    return;
                }
            }
        });
        if timeout(self.deadline - self.deadline / LAST_PART, emptied.as_mut()).await.is_ok() {
            return;
        }
        self.streams_told.store(true, Ordering::Release);
        self.streams.notify_waiters();
        if timeout(self.deadline / LAST_PART, emptied).await.is_err() && self.in_flight() > 0 {
            warn!(
                in_flight = self.in_flight(),
                "stopping although requests are in flight: the drain deadline passed"
            );
        }
    }

    /// Resolves when a connection that idles from now on has to end; not before the server does.
    async fn last_idle(self: Arc<Self>) {
        // An error would mean that the sender is gone, which is in `self`.
        let _ = self.closing().wait_for(|closing| *closing).await;
        sleep(LAST_IDLE.min(self.deadline / 2)).await;
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Stop>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.one_less(&self.0.requests);
    }
}

/// One open connection, and whether it has to end.
pub(super) struct Connected {
    stop: Arc<Stop>,
    over: Over,
}

enum Over {
    Unasked,
    Waiting(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Yes,
}

impl Connected {
    /// Whether this connection, on which nothing of a request has come, has to end. To be asked whenever it waits, by
    /// the one task that it belongs to: that task is woken when the answer changes.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.over {
            Over::Yes => return true,
            // Asked before, so the end wakes the task; to ask again would take a lock that all connections share.
            Over::Waiting(_) if !self.stop.draining() => return false,
            Over::Waiting(_) => {}
            Over::Unasked => self.over = Over::Waiting(Box::pin(self.stop.clone().last_idle())),
        }
        if let Over::Waiting(last_idle) = &mut self.over
            && last_idle.as_mut().poll(cx).is_ready()
        {
            self.over = Over::Yes;
        }
        matches!(self.over, Over::Yes)
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connected")
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.stop.one_less(&self.stop.connections);
    }
}
