//! The one thread that writes to the database, and looks after the journal meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Inner;
use super::database::{Database, Mark};
use super::drain::Predecessor;
use super::frame::StoreId;
use super::segment::SEGMENT;

/// How often it looks, with changes on their way to a file and without.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// What has changed is in the database by then, however little it is.
const CHECKPOINT: Duration = Duration::from_secs(30);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// The thread's own.
pub(super) struct Writer {
    pub(super) inner: Arc<Inner>,
    pub(super) database: Database,
    pub(super) store: StoreId,
    pub(super) predecessors: Vec<Predecessor>,
    /// Bytes of the last checkpoint, and of the journal at that time.
    pub(super) written: u64,
    pub(super) journal: u64,
    pub(super) checkpointed: Instant,
    pub(super) covered: u64,
    pub(super) failed: Option<Instant>,
}

/// How the thread ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// Not yet.
    #[default]
    No,
    /// With a last checkpoint.
    Clean,
    /// At once.
    Now,
}

impl Writer {
    pub(super) fn run(mut self) {
        loop {
            let end = self.rest();
            if end == End::Now {
                return;
            }
            // A failure is told by the journal itself.
            let _ = self.inner.log.journal.persist();
            if end == End::Clean {
                if self.inner.log.journal.is_ailing() {
                    self.mend();
                }
                self.checkpoint(Mark::Clean);
                return;
            }
            self.inner.log.journal.prepare();
            self.follow();
            let rested = self.failed.is_none_or(|at| at.elapsed() >= RETRY);
            if self.inner.log.journal.is_ailing() && rested {
                self.mend();
            } else if self.is_due() && rested {
                self.checkpoint(Mark::Running);
            }
        }
    }

    fn rest(&self) -> End {
        let busy = self.inner.log.journal.last() != self.covered;
        let look = if busy || !self.predecessors.is_empty() { LOOK.0 } else { LOOK.1 };
        let mut end = self.inner.end.lock();
        if *end == End::No {
            self.inner.ends.wait_for(&mut end, look);
        }
        *end
    }

    /// Whether it is time for a checkpoint: when the journal has grown by as much as the last one took, so that what is
    /// written is at most doubled by it.
    fn is_due(&self) -> bool {
        let journal = &self.inner.log.journal;
        let grown = journal.counts().0 - self.journal;
        (journal.full() > 0 && grown >= self.written.max(SEGMENT))
            || (journal.last() != self.covered && self.checkpointed.elapsed() >= CHECKPOINT)
    }

    fn checkpoint(&mut self, mark: Mark<'_>) -> bool {
        let (began, covers) = (Instant::now(), self.inner.log.journal.last());
        let grown = self.inner.log.journal.counts().0;
        let written = self.database.checkpoint(&self.inner.memory, covers, mark, self.inner.clock.now());
        match written {
            Ok(bytes) => {
                (self.written, self.journal, self.covered) = (bytes, grown, covers);
                (self.checkpointed, self.failed) = (Instant::now(), None);
                self.inner.log.journal.covered(covers);
                self.inner.progress.lock().succeeded(began.elapsed());
                true
            }
            Err(error) => {
                self.failed = Some(Instant::now());
                self.inner.progress.lock().failed(&error.to_string());
                false
            }
        }
    }

    /// Begins again after a failure: with another file, and a checkpoint of everything.
    fn mend(&mut self) {
        self.failed = Some(Instant::now());
        let mended = self.inner.log.journal.mend();
        self.database.distrust();
        // In any case: it may be what frees a file.
        if self.checkpoint(Mark::Running) && mended.is_ok() {
            self.inner.log.journal.healed();
        }
    }

    /// Takes over what processes do that are about to end.
    fn follow(&mut self) {
        if self.predecessors.is_empty() {
            return;
        }
        let (memory, store) = (&self.inner.memory, self.store);
        self.predecessors.retain_mut(|predecessor| match predecessor.follow(memory, store) {
            Ok(ended) => !ended,
            Err(why) => {
                tracing::warn!(%why, "what the process before does can't be read");
                false
            }
        });
        if self.predecessors.is_empty() {
            memory.settle_inherited();
        }
    }
}
