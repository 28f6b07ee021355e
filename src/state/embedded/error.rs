//! Why a store can't be opened, and what to do about it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The store can't be opened. Nothing has changed in its directory.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Held {
        /// Its directory.
        directory: PathBuf,
        /// The other process, if it left its id.
        process: Option<u32>,
    },
    /// The system doesn't let us.
    Unusable {
        /// What can't be read or written.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It is not what was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A later version of the program made it.
    Newer {
        /// The file.
        file: PathBuf,
        /// The version of its tables.
        version: i64,
    },
}

impl OpenError {
    pub(super) fn unusable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |cause| Self::Unusable { path: path.to_owned(), cause }
    }

    /// As SQLite tells it, of the database in `file`.
    pub(super) fn of_database(file: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        |error| {
            let kind = match error.sqlite_error_code() {
                Some(Code::DatabaseCorrupt | Code::NotADatabase) => None,
                Some(Code::DiskFull) => Some(ErrorKind::StorageFull),
                Some(Code::ReadOnly) => Some(ErrorKind::ReadOnlyFilesystem),
                Some(Code::PermissionDenied | Code::CannotOpen) => Some(ErrorKind::PermissionDenied),
                Some(_) => Some(ErrorKind::Other),
                // A value that is not of its column's type.
                None => None,
            };
            match kind {
                None => Self::Damaged { file: file.to_owned(), what: error.to_string() },
                Some(kind) => {
                    Self::Unusable { path: file.to_owned(), cause: io::Error::new(kind, error.to_string()) }
                }
            }
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { directory, process } => {
                write!(f, "another process ")?;
                if let Some(process) = process {
                    write!(f, "({process}) ")?;
                }
                write!(f, "counts in {}; stop it, or give this one another state_dir", directory.display())
            }
            Self::Unusable { path, cause } => {
                write!(f, "the store can't use {}: {cause}; ", path.display())?;
                f.write_str(match cause.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space",
                    ErrorKind::PermissionDenied => {
                        "give it to the user that tidegate runs as, with mode 0700"
                    }
                    ErrorKind::ReadOnlyFilesystem => "mount it so that it can be written",
                    _ => "mend it",
                })?;
                f.write_str(", set state_dir (STATE_DIR) to another place, or write `store: {kind: memory}`")
            }
            Self::Damaged { file, what } => write!(
                f,
                "{} is damaged: {what}; bring it back from a backup, or move it away to count anew",
                file.display()
            ),
            Self::Newer { file, version } => write!(
                f,
                "{} was written by a later tidegate (version {version} of its tables); run that one, or move it away to count anew",
                file.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}
