//! Where a log goes, as configured and as opened.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::writer::{Sink, Target};

/// Where a log goes. As text: `off`, `stdout`, `stderr`, or a path that contains a `/`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^(off|stdout|stderr)$|/"))]
pub enum LogTarget {
    /// Nothing is written.
    Off,
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// A file that is created (mode 0640) or appended to.
    File(PathBuf),
}

impl TryFrom<String> for LogTarget {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            // A bare word is more likely a typing error than a file in whatever the working directory is.
            path if path.contains('/') => Ok(Self::File(path.into())),
            _ => Err("a log goes to off, stdout, stderr, or a path with a / in it"),
        }
    }
}

impl LogTarget {
    /// Opens the target; `None` when it is off.
    pub(super) fn open(&self) -> io::Result<Option<Sink>> {
        // The streams are duplicated past the standard library's line buffer: a batch is one write.
        let fd = match self {
            Self::Off => return Ok(None),
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
            Self::File(path) => {
                return Ok(Some(Box::new(LogFile { file: open_file(path)?, path: path.clone() })));
            }
        };
        Ok(Some(Box::new(File::from(fd))))
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// A log in a file.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Target for LogFile {
    fn reopen(&mut self) {
        match open_file(&self.path) {
            Ok(file) => self.file = file,
            // Better in the old file than nowhere.
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot open the log anew; the old file is kept")
            }
        }
    }
}

/// A standard stream, which is the same for as long as the process lives.
impl Target for File {}
