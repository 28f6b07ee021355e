//! Secrets that the gate makes for itself, and keeps in its state directory.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

/// A secret of 32 random bytes (base64url) in a file that only its owner can read.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Name of the file.
    pub file: &'static str,
    /// What it is, for people.
    pub what: &'static str,
}

/// Why there is no such secret.
#[derive(Debug)]
pub enum KeptError {
    /// Others than its owner can read this file.
    Exposed(&'static str, PathBuf),
    /// This path can't be read or written.
    Io(&'static str, PathBuf, io::Error),
    /// The system gave no random bytes.
    NoRandomness(&'static str),
}

impl fmt::Display for KeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exposed(what, path) => {
                let path = path.display();
                write!(
                    f,
                    "others can read the {what} in {path}; chmod 600 {path}, or remove it to have one made"
                )
            }
            Self::Io(what, path, error) => write!(f, "can't keep the {what} in {}: {error}", path.display()),
            Self::NoRandomness(what) => write!(f, "the system gave no random bytes for the {what}"),
        }
    }
}

impl std::error::Error for KeptError {}

impl Kept {
    /// Where it is.
    pub fn path(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(self.file)
    }

    /// Takes the secret, or makes one. Of several processes that start at once one makes it and all take it.
    ///
    /// # Errors
    /// When the file can't be read or made, or can be read by others.
    pub fn take(&self, state_dir: &Path) -> Result<SecretString, KeptError> {
        let path = self.path(state_dir);
        if !fs::exists(&path).map_err(|error| KeptError::Io(self.what, path.clone(), error))? {
            self.make(state_dir, &path)?;
        }
        self.read(state_dir)
    }

    /// The secret, if one is there.
    ///
    /// # Errors
    /// When the file can't be read, or can be read by others.
    pub fn read(&self, state_dir: &Path) -> Result<SecretString, KeptError> {
        let path = self.path(state_dir);
        let io = |error| KeptError::Io(self.what, path.clone(), error);
        if fs::metadata(&path).map_err(io)?.mode() & 0o077 != 0 {
            return Err(KeptError::Exposed(self.what, path));
        }
        let text = SecretString::from(fs::read_to_string(&path).map_err(io)?);
        Ok(SecretString::from(text.expose_secret().trim_ascii()))
    }

    /// Writes a whole file aside, then gives it its name: nobody ever reads half a secret, and none is replaced.
    fn make(&self, state_dir: &Path, path: &Path) -> Result<(), KeptError> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| KeptError::NoRandomness(self.what))?;
        let secret = SecretString::from(URL_SAFE_NO_PAD.encode(bytes));
        // The name is as random as the secret, and not the secret.
        rand::fill(&mut bytes).map_err(|_| KeptError::NoRandomness(self.what))?;
        let aside = state_dir.join(format!(".{}.{}", self.file, URL_SAFE_NO_PAD.encode(bytes)));
        let written = (|| {
            DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            writeln!(file, "{}", secret.expose_secret())?;
            file.sync_all()?;
            match fs::hard_link(&aside, path) {
                // Another process was first; its secret counts.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        })();
        let _ = fs::remove_file(&aside);
        written.map_err(|error| KeptError::Io(self.what, path.into(), error))
    }
}
