//! One thread that writes all logs: requests hand it finished lines and never wait for a disk or a pipe.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus::IntCounter;

/// How long the writer lets lines gather after the first: at most a hundred wake-ups a second.
const GATHER: Duration = Duration::from_millis(10);
/// Request threads spread over this many buffers, so that they rarely meet at one lock.
const SHARDS: usize = 8;
/// Bytes that one buffer holds; with all of them, 4 MiB a log wait for a slow disk before lines are dropped.
const SHARD_BYTES: usize = 512 * 1024;

/// Where a log's lines go once the writer has them.
pub type Sink = Box<dyn Target>;

/// What a log is written to.
pub trait Target: Write + Send {
    /// Called between two batches when the operator has moved the log aside.
    fn reopen(&mut self) {}
}

/// The request side of one log. Lines of one thread stay in order.
pub struct Log {
    queue: Arc<Queue>,
    signal: Arc<Signal>,
}

/// Owns the writing thread; dropping it writes what is queued.
pub struct Writer {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

struct Queue {
    shards: [Shard; SHARDS],
    dropped: IntCounter,
}

/// Alone on its cache line: neighbours would slow each other down.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Vec<u8>>);

#[derive(Default)]
struct Signal {
    /// Set by whoever queues the first line since the last drain.
    pending: AtomicBool,
    control: Mutex<Control>,
    work: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct Control {
    flush_wanted: u64,
    flush_done: u64,
    reopen: bool,
    closing: bool,
    finished: bool,
}

impl Log {
    /// Queues one finished line, or drops and counts it when the buffer is full.
    pub fn push(&self, line: &[u8]) {
        {
            let mut bytes = locked(&self.queue.shard().0);
            if bytes.len() + line.len() > SHARD_BYTES {
                self.queue.dropped.inc();
                return;
            }
            bytes.extend_from_slice(line);
        }
        self.signal.wake();
    }
}

impl Queue {
    fn shard(&self) -> &Shard {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! { static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS; }
        let [first, ..] = &self.shards;
        THREAD.with(|thread| self.shards.get(*thread)).unwrap_or(first)
    }
}

impl Signal {
    fn wake(&self) {
        // Looked at before it is set: the lock of the buffer orders this look behind the drain that missed the line.
        if !self.pending.load(Ordering::Relaxed) && !self.pending.swap(true, Ordering::AcqRel) {
            // Under the lock, or the notice could fall between the writer's look at `pending` and its sleep.
            let _control = locked(&self.control);
            self.work.notify_one();
        }
    }
}

impl Control {
    fn is_urgent(&self) -> bool {
        self.closing || self.reopen || self.flush_wanted != self.flush_done
    }
}

impl Writer {
    /// Starts the thread for these sinks; the counters count lines that were dropped or could not be written.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(sinks: Vec<(Sink, IntCounter)>) -> io::Result<(Self, Vec<Log>)> {
        let signal = Arc::new(Signal::default());
        let mut outputs = Vec::with_capacity(sinks.len());
        let mut logs = Vec::with_capacity(sinks.len());
        for (sink, dropped) in sinks {
            let queue = Arc::new(Queue { shards: Default::default(), dropped });
            logs.push(Log { queue: Arc::clone(&queue), signal: Arc::clone(&signal) });
            outputs.push(Output { queue, sink, batch: Vec::new(), torn: false });
        }
        let shared = Arc::clone(&signal);
        let thread =
            thread::Builder::new().name("log-writer".into()).spawn(move || serve(&shared, outputs))?;
        Ok((Self { signal, thread: Some(thread) }, logs))
    }

    /// Opens the targets anew once what was queued before the call is written.
    pub fn reopen(&self) {
        locked(&self.signal.control).reopen = true;
        self.signal.work.notify_one();
    }

    /// Waits until all that was queued before the call is written; false if that took longer than `deadline`.
    pub fn flush(&self, deadline: Duration) -> bool {
        let mut control = locked(&self.signal.control);
        control.flush_wanted += 1;
        let ticket = control.flush_wanted;
        self.signal.work.notify_one();
        let written = |control: &mut Control| control.flush_done < ticket && !control.finished;
        !wait(&self.signal.idle, control, deadline, written)
    }

    /// Writes what is queued and ends the thread; false if a sink was still stuck after `deadline`, in which case
    /// the thread is left behind.
    pub fn close(&mut self, deadline: Duration) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        let mut control = locked(&self.signal.control);
        control.closing = true;
        self.signal.work.notify_one();
        let stuck = wait(&self.signal.idle, control, deadline, |control| !control.finished);
        !stuck && thread.join().is_ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close(Duration::from_secs(1));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds these locks can leave the data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits while `condition` holds, at most `limit`; whether the limit was met.
fn wait(
    on: &Condvar,
    guard: MutexGuard<'_, Control>,
    limit: Duration,
    condition: impl FnMut(&mut Control) -> bool,
) -> bool {
    on.wait_timeout_while(guard, limit, condition).unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

fn serve(signal: &Signal, mut outputs: Vec<Output>) {
    let mut control = locked(&signal.control);
    loop {
        while !signal.pending.load(Ordering::Acquire) && !control.is_urgent() {
            control = signal.work.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
        let gathered = signal.work.wait_timeout_while(control, GATHER, |control| !control.is_urgent());
        control = gathered.unwrap_or_else(PoisonError::into_inner).0;
        let (flush, closing) = (control.flush_wanted, control.closing);
        let reopen = std::mem::take(&mut control.reopen);
        drop(control);
        signal.pending.swap(false, Ordering::AcqRel);
        for output in &mut outputs {
            output.drain();
            if reopen {
                output.sink.reopen();
            }
        }
        control = locked(&signal.control);
        control.flush_done = flush;
        control.finished = closing;
        signal.idle.notify_all();
        if closing {
            return;
        }
    }
}

/// The writing side of one log.
struct Output {
    queue: Arc<Queue>,
    sink: Sink,
    batch: Vec<u8>,
    /// A write failed in the middle of a line, so the next one starts with a line break.
    torn: bool,
}

impl Output {
    fn drain(&mut self) {
        for at in 0..SHARDS {
            self.batch.clear();
            if let Some(Shard(bytes)) = self.queue.shards.get(at) {
                std::mem::swap(&mut *locked(bytes), &mut self.batch);
            }
            self.write();
        }
    }

    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.torn {
            self.torn = !matches!(self.sink.write(b"\n"), Ok(1));
        }
        let mut rest = self.batch.as_slice();
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        let flushed = self.sink.flush();
        if !rest.is_empty() || flushed.is_err() {
            let done = self.batch.len() - rest.len();
            self.torn |= done > 0 && self.batch.get(done - 1) != Some(&b'\n');
            self.queue.dropped.inc_by(rest.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
    }
}

#[cfg(test)]
mod tests;
