//! What a process does between the moment when another one took its store over and its own end: requests in flight still
//! draw, settle and free. It writes that to a file of its own, which the other one reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::memory::MemoryStore;
use super::super::record;
use super::frame::{Found, StoreId, scan};

const PREFIX: &str = "drain-";
const PLACE: &str = "at";

/// Makes the file of this process, locked until it ends.
pub(super) fn make(directory: &Path) -> io::Result<File> {
    for number in 0.. {
        let path = directory.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                file.try_lock().map_err(io::Error::from)?;
                return Ok(file);
            }
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// A process that has handed its store over, as the one that took it sees it.
pub(super) struct Predecessor {
    path: PathBuf,
    file: File,
    /// Up to there it was read.
    at: u64,
}

impl Predecessor {
    /// Those that left a file in `directory`.
    pub(super) fn all(directory: &Path) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with(PREFIX) || path.extension().is_some() {
                continue;
            }
            let file = File::open(&path)?;
            let at = fs::read_to_string(path.with_extension(PLACE)).unwrap_or_default();
            all.push(Self { path, file, at: at.trim().parse().unwrap_or(0) });
        }
        Ok(all)
    }

    /// Takes over what it did since this was asked last. True: it has ended, and this was all.
    pub(super) fn follow(&mut self, memory: &MemoryStore, store: StoreId) -> io::Result<bool> {
        // Asked before, since it may write its last between reading and asking.
        let ended = self.file.try_lock().is_ok();
        let mut bytes = vec![0; self.file.metadata()?.size().saturating_sub(self.at) as usize];
        let count = self.file.read_at(&mut bytes, self.at)?;
        bytes.truncate(count);
        let (found, whole) = scan(&bytes, store);
        for (_, record) in found.iter().flat_map(Found::records) {
            record::read(record, |at, change| memory.take_over(at, &change));
        }
        self.at += whole as u64;
        if ended {
            fs::remove_file(&self.path)?;
            let _ = fs::remove_file(self.path.with_extension(PLACE));
        } else if whole > 0 {
            // Lost, it is read again from the beginning, and counted twice rather than not at all.
            fs::write(self.path.with_extension(PLACE), self.at.to_string())?;
        }
        Ok(ended)
    }
}
