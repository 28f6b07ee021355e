//! The store on this machine's disk: it decides in memory, as fast as the [memory store](super::MemoryStore), and keeps
//! what it decided.
//!
//! | what happens | what is left |
//! |---|---|
//! | the process is killed | all: each change stands in the journal before anything of its request leaves the gate |
//! | the power fails | what was flushed: the last checkpoint, and the ceilings of budgets, which then count as spent |
//! | the disk is full, or fails | limits go on in memory, budgets close, health says so; it heals by itself |
//!
//! Nothing waits for the disk on the way of a request but a budget's first call in a period. Checkpoints bring the
//! journal into a database from a thread of their own.

mod database;
mod drain;
mod error;
mod frame;
mod journal;
mod lease;
mod recover;
mod segment;
mod writer;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use schemars::JsonSchema;
use serde::Deserialize;

use self::drain::make as make_drain;
use self::journal::Journal;
use self::lease::Leases;
use self::recover::recover;
use self::writer::{End, Writer};
use super::admission::Settlement;
use super::budget::Hold;
use super::claim::{ClaimKey, KeptAnswer};
use super::memory::{MemoryConfig, MemoryStats, MemoryStore};
use super::record::{Changes, Feed, Raise};
use super::{Balance, Ban, Bans, Clock, Decision, Demand, Draw, Standings, Store, StoreError, Subject};

pub use error::OpenError;

/// What becomes of requests while the disk can't be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Limits are counted in memory; what would be held in a budget is refused.
    #[default]
    Serve,
    /// Whatever would be counted is refused.
    Refuse,
}

/// Where an [`EmbeddedStore`] keeps what it counts, and how much it may remember.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Directory of its own; made if missing.
    pub directory: PathBuf,
    /// Nobody chose the directory: if it can't be used, it is done without.
    pub implied: bool,
    /// While the disk can't be written.
    pub on_failure: OnFailure,
    /// In memory.
    pub memory: MemoryConfig,
}

/// What it took to keep what was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EmbeddedStats {
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Times that the journal or the database could not be written.
    pub failures: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// What they took together.
    pub checkpoint_time: Duration,
    /// How long ago the last one was.
    pub checkpoint_age: Duration,
}

/// Counts in memory, and keeps it on the disk. Counts in memory only until it is [opened](Self::open).
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    config: EmbeddedConfig,
    hands: Mutex<Option<Hands>>,
}

struct Inner {
    memory: MemoryStore,
    log: Arc<Log>,
    clock: Clock,
    mode: AtomicU8,
    end: Mutex<End>,
    ends: Condvar,
    progress: Mutex<Progress>,
}

/// Where the memory store's changes go.
struct Log {
    journal: Journal,
    leases: Leases,
}

impl Feed for Log {
    fn append(&self, record: &[u8]) {
        self.journal.append(record);
    }

    fn last(&self) -> u64 {
        self.journal.last()
    }

    fn raise(&self, raise: Raise) -> u64 {
        self.leases.ask(raise)
    }
}

/// Nothing is kept, and nothing is to be.
const MEMORY: u8 = 0;
/// All is kept.
const KEPT: u8 = 1;
/// Another process has the store; what this one still does is written for it to read.
const HANDED_OVER: u8 = 2;

/// What an open store has of the system.
struct Hands {
    writer: Option<JoinHandle<()>>,
    leases: Option<JoinHandle<()>>,
    /// Held as long as it is locked.
    lock: Option<File>,
}

struct Progress {
    opened: Instant,
    last: Option<Instant>,
    checkpoints: u64,
    time: Duration,
    failures: u64,
    failure: Option<String>,
}

impl Progress {
    fn succeeded(&mut self, took: Duration) {
        self.last = Some(Instant::now());
        self.checkpoints += 1;
        self.time += took;
        if self.failure.take().is_some() {
            tracing::info!("the database is written again");
        }
    }

    fn failed(&mut self, why: &str) {
        self.failures += 1;
        if self.failure.is_none() {
            tracing::error!(why, "the database can't be written; the journal goes on as long as it has room");
        }
        self.failure = Some(why.to_owned());
    }
}

impl EmbeddedStore {
    /// An empty store that keeps nothing yet. Touches no file.
    pub fn new(config: EmbeddedConfig, clock: Clock) -> Self {
        let log = Arc::new(Log { journal: Journal::new(), leases: Leases::new() });
        let memory = MemoryStore::recorded(config.memory, clock.clone(), Changes::to(log.clone()));
        let progress = Progress {
            opened: Instant::now(),
            last: None,
            checkpoints: 0,
            time: Duration::ZERO,
            failures: 0,
            failure: None,
        };
        let inner = Arc::new(Inner {
            memory,
            log,
            clock,
            mode: AtomicU8::new(MEMORY),
            end: Mutex::default(),
            ends: Condvar::new(),
            progress: Mutex::new(progress),
        });
        Self { inner, config, hands: Mutex::new(None) }
    }

    /// Brings back what was counted before, and keeps what is counted from now on. A process that has the store may take
    /// `patience` to let it go. Blocks for as long as the disk takes; to be called once, before anything is counted.
    ///
    /// # Errors
    /// The directory can't be used, or holds what can't be read. If nobody chose it and it can't be used, it is done
    /// without: `Ok` with the reason.
    pub fn open(&self, patience: Duration) -> Result<Option<OpenError>, OpenError> {
        self.open_under(&recover::boot(), patience)
    }

    fn open_under(&self, boot: &str, patience: Duration) -> Result<Option<OpenError>, OpenError> {
        let directory = &self.config.directory;
        let lock = match lock(directory, patience) {
            Ok(lock) => lock,
            Err(why) if self.config.implied => return Ok(Some(why)),
            Err(why) => return Err(why),
        };
        let inner = &self.inner;
        let recovered = recover(directory, &inner.memory, &inner.log, &inner.clock, boot)?;
        inner.log.leases.open();
        let lease = {
            let (inner, file) = (inner.clone(), recovered.leases);
            move || {
                let failed = |why: &std::io::Error| {
                    tracing::error!(%why, "ceilings of budgets can't be written");
                    inner.progress.lock().failures += 1;
                };
                let memory = &inner.memory;
                inner.log.leases.serve(file, |raise| memory.raised(raise), failed, || memory.ceilings());
            }
        };
        let writer = Writer {
            inner: inner.clone(),
            database: recovered.database,
            store: recovered.store,
            predecessors: recovered.predecessors,
            written: recovered.written,
            journal: 0,
            checkpointed: Instant::now(),
            covered: inner.log.journal.last(),
            failed: None,
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(OpenError::unusable(directory))
        };
        let writer = Some(spawn("store-write", Box::new(move || writer.run()))?);
        let leases = Some(spawn("store-lease", Box::new(lease))?);
        *self.hands.lock() = Some(Hands { writer, leases, lock: Some(lock) });
        inner.mode.store(KEPT, Ordering::Release);
        Ok(None)
    }

    /// Writes what is left and lets the store go. Blocks; to be called when nothing is counted any more.
    pub fn close(&self) {
        self.end(End::Clean);
    }

    /// Lets another process have the store. What this one still counts is written for the other one to read, until it is
    /// [closed](Self::close). No more is held in budgets than is certain already. Blocks.
    ///
    /// # Errors
    /// It could not be handed over; this process keeps nothing any more.
    pub fn hand_over(&self) -> Result<(), StoreError> {
        if self.inner.mode.load(Ordering::Acquire) != KEPT {
            return Ok(());
        }
        self.stop(End::Now);
        self.inner.mode.store(HANDED_OVER, Ordering::Release);
        let drain = make_drain(&self.config.directory).map_err(|why| {
            tracing::error!(%why, "what is still counted here won't reach the process that took over");
            StoreError::NotKept
        });
        let handed =
            drain.and_then(|file| self.inner.log.journal.drain_to(file).map_err(|_| StoreError::NotKept));
        if handed.is_err() {
            // The files are the other process's from now on.
            self.inner.log.journal.close();
            self.inner.mode.store(MEMORY, Ordering::Release);
        }
        if let Some(hands) = self.hands.lock().as_mut() {
            hands.lock = None;
        }
        handed
    }

    fn end(&self, end: End) {
        let inner = &self.inner;
        self.stop(end);
        // What came last, if another process has the store.
        let _ = inner.log.journal.persist();
        inner.log.journal.close();
        inner.mode.store(MEMORY, Ordering::Release);
        *self.hands.lock() = None;
    }

    /// Ends the threads.
    fn stop(&self, end: End) {
        self.inner.log.leases.close();
        *self.inner.end.lock() = end;
        self.inner.ends.notify_all();
        let mut hands = self.hands.lock();
        let Some(hands) = hands.as_mut() else { return };
        for thread in [hands.writer.take(), hands.leases.take()].into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }

    /// Forgets what has expired. Meant for a timer, some seconds apart.
    pub fn sweep(&self) {
        self.inner.memory.sweep();
    }

    /// What it holds in memory.
    pub fn stats(&self) -> MemoryStats {
        self.inner.memory.stats()
    }

    /// What it took to keep it; `None` if nothing is kept.
    pub fn kept(&self) -> Option<EmbeddedStats> {
        if self.inner.mode.load(Ordering::Acquire) == MEMORY {
            return None;
        }
        let (journal_bytes, failures) = self.inner.log.journal.counts();
        let progress = self.inner.progress.lock();
        Some(EmbeddedStats {
            journal_bytes,
            failures: failures + progress.failures,
            checkpoints: progress.checkpoints,
            checkpoint_time: progress.time,
            checkpoint_age: progress.last.unwrap_or(progress.opened).elapsed(),
        })
    }

    /// Why what is counted is not kept as it should be.
    pub fn ailment(&self) -> Option<String> {
        let journal = self.inner.log.journal.failure();
        let database = || {
            let why = self.inner.progress.lock().failure.clone()?;
            Some(format!("the database can't be written: {why}"))
        };
        journal.or_else(database).or_else(|| self.inner.log.journal.shortage())
    }

    /// Whether what is decided now would be forgotten.
    fn fails(&self) -> bool {
        self.inner.log.journal.is_ailing()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.end(End::Clean);
    }
}

/// Makes the directory and takes it for this process.
fn lock(directory: &Path, patience: Duration) -> Result<File, OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(OpenError::unusable(directory))?;
    let path = directory.join("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = file.map_err(OpenError::unusable(&path))?;
    let until = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::Error(error)) if error.kind() != ErrorKind::Interrupted => {
                return Err(OpenError::Unusable { path, cause: error });
            }
            Err(_) if Instant::now() < until => park_timeout(Duration::from_millis(5)),
            Err(_) => {
                let process = fs::read_to_string(&path).ok().and_then(|id| id.trim().parse().ok());
                return Err(OpenError::Held { directory: directory.to_owned(), process });
            }
        }
    }
    let told = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    told.map_err(OpenError::unusable(&path))?;
    Ok(file)
}

impl Store for EmbeddedStore {
    async fn admit(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        if self.fails() && (self.config.on_failure == OnFailure::Refuse || !demand.holds.is_empty()) {
            return Err(StoreError::NotKept);
        }
        let (decision, wait) = self.inner.memory.admit_now(demand)?;
        if let Some(ticket) = wait.filter(|_| self.inner.mode.load(Ordering::Acquire) != MEMORY) {
            self.inner.log.leases.given(ticket).await.map_err(|_| StoreError::NotKept)?;
        }
        Ok(decision)
    }

    async fn settle(&self, batch: &[Settlement]) -> Result<(), StoreError> {
        self.inner.memory.settle(batch).await?;
        // They are settled: what can't be kept is told by the next request, and by health.
        let _ = self.persist().await;
        Ok(())
    }

    /// In memory, and a write where it gives something back.
    fn settles_at_once(&self) -> bool {
        true
    }

    async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        self.inner.memory.standings(draws).await
    }

    async fn balances(&self, holds: &[Hold<'_>]) -> Result<Vec<Balance>, StoreError> {
        self.inner.memory.balances(holds).await
    }

    async fn reset(&self, draws: &[Draw<'_>]) -> Result<(), StoreError> {
        self.inner.memory.reset(draws).await?;
        self.persist().await
    }

    async fn persist(&self) -> Result<(), StoreError> {
        // Who comes when it is known already was admitted all the same, or there would be no request.
        let known = self.fails() && self.config.on_failure == OnFailure::Serve;
        if known || self.inner.mode.load(Ordering::Acquire) == MEMORY {
            return Ok(());
        }
        self.inner.log.journal.persist().map_err(|_| StoreError::NotKept)
    }

    async fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) -> Result<(), StoreError> {
        self.inner.memory.keep_answer(key, answer).await
    }

    async fn kept_answer(&self, key: ClaimKey) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
        self.inner.memory.kept_answer(key).await
    }

    fn bans(&self) -> &Bans {
        self.inner.memory.bans()
    }

    async fn ban(&self, ban: Ban) -> Result<bool, StoreError> {
        let banned = self.inner.memory.ban(ban).await?;
        // In force it is, whatever the disk says.
        let _ = self.persist().await;
        Ok(banned)
    }

    async fn lift(&self, subject: Subject) -> Result<Option<Arc<Ban>>, StoreError> {
        let lifted = self.inner.memory.lift(subject).await?;
        let _ = self.persist().await;
        Ok(lifted)
    }
}

#[cfg(test)]
mod tests;
