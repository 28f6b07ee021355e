//! The journal's files. Each is filled with zeros when it is made, so that a full disk is met then and not by a request;
//! once a checkpoint holds all that is in it, it is written over from its beginning.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a file.
pub(super) const SEGMENT: u64 = 4 << 20;

const PREFIX: &str = "journal-";

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    number: u32,
    file: File,
}

impl Segment {
    /// Makes a file, or takes one that is there.
    pub(super) fn prepare(directory: &Path, number: u32) -> io::Result<Self> {
        let path = path(directory, number);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let segment = Self { number, file };
        if let Err(error) = segment.fill() {
            // Half a file would be in the way of whoever frees space.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(segment)
    }

    fn fill(&self) -> io::Result<()> {
        let mut at = self.file.metadata()?.len();
        let zeros = vec![0; 1 << 18];
        while at < SEGMENT {
            let count = zeros.len().min((SEGMENT - at) as usize);
            self.file.write_all_at(&zeros[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Gives its room back.
    pub(super) fn remove(self, directory: &Path) -> io::Result<()> {
        fs::remove_file(path(directory, self.number))
    }
}

fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{PREFIX}{number}"))
}

/// The numbers of the files in `directory`.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// All that stands in the file of this number.
pub(super) fn read(directory: &Path, number: u32) -> io::Result<Vec<u8>> {
    fs::read(path(directory, number))
}
