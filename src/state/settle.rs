//! The settle actor: a thread of its own, so that a settlement outlives the server that made it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender, WeakSender};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

use super::admission::Settlement;
use super::{Store, StoreError};

/// Settlements sent to the store at once, at most.
const BATCH: usize = 1024;

/// Pause after a batch. Those that come meanwhile wake nobody, so that a busy gate pays for at most 100
/// wake-ups a second.
const REST: Duration = Duration::from_millis(10);

/// Pauses between tries while the store fails: doubled from the first up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What the settle actor has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettleStats {
    /// Settlements that the store has taken.
    pub settled: u64,
    /// Tries that the store failed.
    pub failures: u64,
    /// Settlements given up at the end of the patience of [`SettleActor::shutdown`].
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Counts {
    settled: AtomicU64,
    failures: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    fn read(&self) -> SettleStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SettleStats { settled: get(&self.settled), failures: get(&self.failures), lost: get(&self.lost) }
    }
}

/// The way to the settle actor; cheap to clone.
#[derive(Clone, Debug)]
pub struct Settler {
    /// Weak, so that the channel ends with the actor's handle and the last open admission.
    sender: WeakSender<Settlement>,
    counts: Arc<Counts>,
}

impl Settler {
    /// A slot for the settlement of an admission that is about to be asked for.
    pub(super) fn reserve(&self) -> Result<OwnedPermit<Settlement>, StoreError> {
        let sender = self.sender.upgrade().ok_or(StoreError::Stopped)?;
        sender.try_reserve_owned().map_err(|error| match error {
            TrySendError::Full(_) => StoreError::SettleBacklog,
            TrySendError::Closed(_) => StoreError::Stopped,
        })
    }

    /// How many admissions are open or wait to be settled, and how many may.
    pub fn slots(&self) -> (u64, u64) {
        // Without the actor nothing is open any more.
        self.sender.upgrade().map_or((0, 0), |sender| {
            let max = sender.max_capacity();
            ((max - sender.capacity()) as u64, max as u64)
        })
    }

    /// What was done so far.
    pub fn stats(&self) -> SettleStats {
        self.counts.read()
    }
}

/// The running actor. Dropped without [`shutdown`](Self::shutdown), it goes on until the last admission is
/// settled.
#[derive(Debug)]
pub struct SettleActor {
    sender: Sender<Settlement>,
    stop: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
    counts: Arc<Counts>,
}

impl SettleActor {
    /// Starts the thread that settles with `store`. At most `capacity` admissions are open or wait to be
    /// settled; beyond, none that needs settling is made.
    ///
    /// # Errors
    /// The system gives no thread, or none of what a runtime needs.
    pub fn start<S: Store>(store: Arc<S>, capacity: usize) -> io::Result<(Settler, Self)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, receiver) = mpsc::channel(capacity.clamp(1, Semaphore::MAX_PERMITS));
        let (stop, stopped) = oneshot::channel();
        let counts = Arc::new(Counts::default());
        let queue = Queue { receiver, batch: Vec::with_capacity(BATCH), counts: Arc::clone(&counts) };
        let thread = std::thread::Builder::new()
            .name("settle".into())
            .spawn(move || runtime.block_on(run(&*store, queue, stopped)))?;
        let settler = Settler { sender: sender.downgrade(), counts: Arc::clone(&counts) };
        Ok((settler, Self { sender, stop, thread, counts }))
    }

    /// Waits until the last admission is settled, for `patience` at most, and ends the thread. Blocks: to be
    /// called when the server has stopped, not from async code.
    pub fn shutdown(self, patience: Duration) -> SettleStats {
        let Self { sender, stop, thread, counts } = self;
        drop(sender);
        // A send or a join that fails means that the actor has ended already; the counts tell how far it
        // came.
        let _ = stop.send(patience);
        let _ = thread.join();
        counts.read()
    }
}

struct Queue {
    receiver: Receiver<Settlement>,
    batch: Vec<Settlement>,
    counts: Arc<Counts>,
}

async fn run<S: Store>(store: &S, mut queue: Queue, stopped: oneshot::Receiver<Duration>) {
    let patience = async {
        match stopped.await {
            Ok(patience) => sleep(patience).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = queue.settle_all(store) => {}
        () = patience => queue.give_up(),
    }
}

impl Queue {
    /// Settles until no sender is left and the queue is empty.
    async fn settle_all<S: Store>(&mut self, store: &S) {
        while self.receiver.recv_many(&mut self.batch, BATCH).await > 0 {
            let mut backoff = BACKOFF.0;
            while store.settle(&self.batch).await.is_err() {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
            self.counts.settled.fetch_add(self.batch.len() as u64, Ordering::Relaxed);
            self.batch.clear();
            sleep(REST).await;
        }
    }

    /// Counts what is left: in hand, queued, and still held by admissions that are open.
    fn give_up(&mut self) {
        let held = self.receiver.max_capacity() - self.receiver.capacity();
        self.counts.lost.fetch_add((self.batch.len() + held) as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
