//! The journal: every change, in order, in a buffer; written to a file before anything of the request that made it leaves
//! the gate. What is written is in the kernel's hands and outlives this process however it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::frame::{Frame, StoreId};
use super::segment::{self, SEGMENT, Segment};

/// Empty files that are kept at hand.
const SPARE: usize = 1;

/// Files that no checkpoint covers yet, at most: 256 MiB.
const MOST: usize = 64;

/// Changes on their way to a file.
pub(super) struct Journal {
    buffer: Mutex<Buffer>,
    /// The number of the last change.
    last: AtomicU64,
    /// The number of the last change that is in a file.
    written: AtomicU64,
    tail: Mutex<Option<Tail>>,
    /// Nothing is written.
    failed: AtomicBool,
    /// Nothing is written, or something was not and no checkpoint covers it yet.
    ailing: AtomicBool,
    why: RwLock<Option<String>>,
    /// Why there is no empty file at hand.
    short: Mutex<Option<String>>,
    bytes: AtomicU64,
    failures: AtomicU64,
    #[cfg(test)]
    pub(super) broken: AtomicBool,
}

struct Buffer {
    frame: Frame,
    /// Whether anybody writes what is in it.
    open: bool,
}

/// The end of what is written.
struct Tail {
    store: StoreId,
    frame: Frame,
    place: Place,
}

enum Place {
    Segments(Segments),
    /// A file that only grows: of a process that has handed over and is about to end.
    Drain {
        file: File,
        at: u64,
    },
}

struct Segments {
    directory: PathBuf,
    current: Option<Segment>,
    at: u64,
    /// Files that are written full, with the number of the last change in each.
    full: Vec<(Segment, u64)>,
    spare: Vec<Segment>,
    /// The number of the next file to be made.
    next: u32,
}

impl Segments {
    /// Makes room for `length` bytes.
    fn make_room(&mut self, length: u64, last: u64) -> io::Result<()> {
        if self.current.is_some() && (self.at == 0 || self.at + length <= SEGMENT) {
            return Ok(());
        }
        let fresh = match self.spare.pop() {
            Some(segment) => segment,
            None => self.make()?,
        };
        self.full.extend(self.current.replace(fresh).map(|full| (full, last)));
        self.at = 0;
        Ok(())
    }

    fn make(&mut self) -> io::Result<Segment> {
        if self.full.len() >= MOST {
            return Err(io::Error::other(format!(
                "{MOST} files of the journal are full and none is covered"
            )));
        }
        let segment = Segment::prepare(&self.directory, self.next)?;
        self.next += 1;
        Ok(segment)
    }
}

impl Tail {
    fn write(&mut self, written: u64) -> io::Result<u64> {
        let length = self.frame.len() as u64;
        let bytes = self.frame.seal(self.store);
        match &mut self.place {
            Place::Segments(segments) => {
                segments.make_room(length, written)?;
                let current = segments.current.as_ref().ok_or(io::ErrorKind::NotFound)?;
                current.write(bytes, segments.at)?;
                segments.at += length;
            }
            Place::Drain { file, at } => {
                file.write_all_at(bytes, *at)?;
                *at += length;
            }
        }
        Ok(length)
    }
}

/// What was decided can't be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotWritten;

impl Journal {
    /// One that takes nothing yet.
    pub(super) fn new() -> Self {
        Self {
            buffer: Mutex::new(Buffer { frame: Frame::new(), open: false }),
            last: AtomicU64::new(0),
            written: AtomicU64::new(0),
            tail: Mutex::new(None),
            failed: AtomicBool::new(false),
            ailing: AtomicBool::new(false),
            why: RwLock::new(None),
            short: Mutex::new(None),
            bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            #[cfg(test)]
            broken: AtomicBool::new(false),
        }
    }

    /// Takes a change, and gives it the next number.
    #[inline]
    pub(super) fn append(&self, record: &[u8]) {
        let mut buffer = self.buffer.lock();
        let number = self.last.load(Ordering::Relaxed) + 1;
        if buffer.open {
            buffer.frame.push(number, record);
        }
        self.last.store(number, Ordering::Release);
    }

    /// The number of the last change.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Writes all changes so far, unless somebody has. Most requests find that the one before has done it for them, or do
    /// it for the next ones.
    #[inline]
    pub(super) fn persist(&self) -> Result<(), NotWritten> {
        let wanted = self.last();
        if self.written.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        self.write(wanted)
    }

    fn write(&self, wanted: u64) -> Result<(), NotWritten> {
        let mut tail = self.tail.lock();
        if self.written.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let Some(tail) = tail.as_mut().filter(|_| !self.failed.load(Ordering::Acquire)) else {
            return Err(NotWritten);
        };
        std::mem::swap(&mut self.buffer.lock().frame, &mut tail.frame);
        if tail.frame.is_empty() {
            return Ok(());
        }
        let before = self.written.load(Ordering::Relaxed);
        let written = self.intact().and_then(|()| tail.write(before));
        let last = tail.frame.last();
        tail.frame.clear();
        match written {
            Ok(length) => {
                self.bytes.fetch_add(length, Ordering::Relaxed);
                self.written.store(last, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                self.fail(&format!("the journal can't be written: {error}"));
                Err(NotWritten)
            }
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "tests break it")]
    const fn intact(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn intact(&self) -> io::Result<()> {
        match self.broken.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    /// From now on nothing is kept, until [`mend`](Self::mend).
    pub(super) fn fail(&self, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut told = self.why.write();
        if told.is_none() {
            tracing::error!(why, "the store keeps nothing from now on");
            *told = Some(why.to_owned());
        }
        self.ailing.store(true, Ordering::Release);
        self.failed.store(true, Ordering::Release);
        drop(told);
        let mut buffer = self.buffer.lock();
        buffer.open = false;
        buffer.frame.clear();
    }

    /// Why nothing is kept.
    pub(super) fn failure(&self) -> Option<String> {
        self.why.read().clone()
    }

    /// Why it will not be written for much longer.
    pub(super) fn shortage(&self) -> Option<String> {
        self.short.lock().clone()
    }

    /// Whether there is such a failure.
    #[inline]
    pub(super) fn is_ailing(&self) -> bool {
        self.ailing.load(Ordering::Acquire)
    }

    /// Gives the next change a number above `last`.
    pub(super) fn go_on_after(&self, last: u64) {
        self.last.fetch_max(last, Ordering::AcqRel);
    }

    /// Begins to take changes, in the files of `directory`, none of which is needed any more.
    pub(super) fn begin(&self, directory: PathBuf, store: StoreId) -> io::Result<()> {
        let mut segments =
            Segments { directory, current: None, at: 0, full: Vec::new(), spare: Vec::new(), next: 0 };
        for number in segment::numbers(&segments.directory)? {
            let segment = Segment::prepare(&segments.directory, number)?;
            segments.next = number + 1;
            if segments.spare.len() <= SPARE {
                segments.spare.push(segment);
            } else {
                segment.remove(&segments.directory)?;
            }
        }
        while segments.spare.len() <= SPARE {
            let segment = segments.make()?;
            segments.spare.push(segment);
        }
        let tail = Tail { store, frame: Frame::new(), place: Place::Segments(segments) };
        *self.tail.lock() = Some(tail);
        self.reopen();
        Ok(())
    }

    /// Takes changes again. Those that were made meanwhile are in no file: a checkpoint has to cover them.
    fn reopen(&self) {
        let mut buffer = self.buffer.lock();
        buffer.open = true;
        buffer.frame.clear();
        self.written.store(self.last.load(Ordering::Relaxed), Ordering::Release);
        self.failed.store(false, Ordering::Release);
    }

    /// Tries to write to another file, after a failure. Until [`healed`](Self::healed) it counts as failed.
    pub(super) fn mend(&self) -> io::Result<()> {
        self.intact()?;
        let mut tail = self.tail.lock();
        let Some(Tail { place: Place::Segments(segments), .. }) = tail.as_mut() else { return Ok(()) };
        // It may have been the file.
        let last = self.last();
        segments.full.extend(segments.current.take().map(|full| (full, last)));
        segments.make_room(0, last)?;
        self.reopen();
        Ok(())
    }

    /// All that was made while nothing was written is covered by a checkpoint.
    pub(super) fn healed(&self) {
        if !self.failed.load(Ordering::Acquire) && self.why.write().take().is_some() {
            self.ailing.store(false, Ordering::Release);
            tracing::info!("the store keeps what is counted again");
        }
    }

    /// A checkpoint covers all changes up to `number`: files with no later one are free again.
    pub(super) fn covered(&self, number: u64) {
        let mut free = Vec::new();
        let mut tail = self.tail.lock();
        let Some(Tail { place: Place::Segments(segments), .. }) = tail.as_mut() else { return };
        while segments.full.first().is_some_and(|(_, last)| *last <= number) {
            let (segment, _) = segments.full.remove(0);
            if segments.spare.len() < SPARE {
                segments.spare.push(segment);
            } else {
                free.push(segment);
            }
        }
        let directory = segments.directory.clone();
        drop(tail);
        for segment in free {
            if let Err(why) = segment.remove(&directory) {
                tracing::warn!(%why, "a file of the journal stays behind");
            }
        }
    }

    /// Has an empty file at hand, so that no request has to wait for one.
    pub(super) fn prepare(&self) {
        let (directory, number) = {
            let mut tail = self.tail.lock();
            let Some(Tail { place: Place::Segments(segments), .. }) = tail.as_mut() else { return };
            if segments.spare.len() >= SPARE || segments.full.len() >= MOST {
                return;
            }
            segments.next += 1;
            (segments.directory.clone(), segments.next - 1)
        };
        match Segment::prepare(&directory, number) {
            Ok(segment) => {
                *self.short.lock() = None;
                if let Some(Tail { place: Place::Segments(segments), .. }) = self.tail.lock().as_mut() {
                    segments.spare.push(segment);
                }
            }
            // It is met when the current one is full, or the disk has room again before.
            Err(why) => {
                let mut short = self.short.lock();
                if short.is_none() {
                    tracing::warn!(%why, "there is no room for another file of the journal");
                    *short = Some(format!("there is no room for another file of the journal: {why}"));
                }
            }
        }
    }

    /// Files that are full and that no checkpoint covers.
    pub(super) fn full(&self) -> usize {
        match self.tail.lock().as_ref() {
            Some(Tail { place: Place::Segments(segments), .. }) => segments.full.len(),
            _ => 0,
        }
    }

    /// Writes to `file` from now on: another process has the rest.
    pub(super) fn drain_to(&self, file: File) -> Result<(), NotWritten> {
        self.persist()?;
        let mut tail = self.tail.lock();
        let tail = tail.as_mut().ok_or(NotWritten)?;
        // What came in between goes to the new file: the other process reads both.
        tail.place = Place::Drain { file, at: 0 };
        Ok(())
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.buffer.lock().open = false;
        *self.tail.lock() = None;
    }

    /// Bytes written, and how often that failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}
