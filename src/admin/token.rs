//! The admin token: given, or made once and kept beside the state; compared in constant time.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::config::ServerSettings;

/// Name of the file under STATE_DIR.
const FILE: &str = "admin.token";

/// Knows the admin token when it sees it; holds only its SHA-256, so that no dump of memory shows it.
pub struct AdminToken([u8; digest::SHA256_OUTPUT_LEN]);

/// Why there is no admin token.
#[derive(Debug)]
pub enum TokenError {
    /// The token given, or the one in this file, is empty or holds bytes that a header can't carry.
    Unusable(Option<PathBuf>),
    /// Others than its owner can read this file.
    Exposed(PathBuf),
    /// This path can't be read or written.
    Io(PathBuf, io::Error),
    /// The system gave no random bytes.
    NoRandomness,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(None) => {
                f.write_str("the admin token given is empty or not printable ASCII without blanks")
            }
            Self::Unusable(Some(path)) => {
                write!(f, "{} holds no usable admin token; remove it to have one made", path.display())
            }
            Self::Exposed(path) => {
                let path = path.display();
                write!(
                    f,
                    "others can read the admin token in {path}; chmod 600 {path}, or remove it to have one made"
                )
            }
            Self::Io(path, error) => write!(f, "can't keep the admin token in {}: {error}", path.display()),
            Self::NoRandomness => f.write_str("the system gave no random bytes for the admin token"),
        }
    }
}

impl std::error::Error for TokenError {}

impl AdminToken {
    /// Takes the token that the settings give, or the one kept in their state directory; `None` if they have neither.
    ///
    /// # Errors
    /// The token can't be used, read or kept.
    pub fn of(settings: &ServerSettings) -> Result<Option<Self>, TokenError> {
        if let Some(token) = &settings.admin_token {
            return Self::given(&SecretString::from(token.expose())).map(Some);
        }
        settings.state_dir.as_deref().map(|directory| Ok(Self::kept(directory)?.0)).transpose()
    }

    /// A token that nobody knows.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn nobodys() -> Result<Self, TokenError> {
        let mut token = [0u8; digest::SHA256_OUTPUT_LEN];
        rand::fill(&mut token).map_err(|_| TokenError::NoRandomness)?;
        Ok(Self(token))
    }

    /// Takes the token that the operator gave.
    ///
    /// # Errors
    /// When no header could carry it.
    pub fn given(token: &SecretString) -> Result<Self, TokenError> {
        Self::hashed(token.expose_secret()).ok_or(TokenError::Unusable(None))
    }

    /// Takes the token kept in `state_dir`, or makes one of 32 random bytes there (base64url, mode 0600). Of several
    /// processes that start at once one makes it and all take it. Also answers the path of the file, to tell people.
    ///
    /// # Errors
    /// When the file can't be read or made, holds no token, or can be read by others.
    pub fn kept(state_dir: &Path) -> Result<(Self, PathBuf), TokenError> {
        let path = state_dir.join(FILE);
        if !fs::exists(&path).map_err(|error| TokenError::Io(path.clone(), error))? {
            make(state_dir, &path)?;
        }
        match Self::hashed(Self::text(state_dir)?.expose_secret()) {
            Some(token) => Ok((token, path)),
            None => Err(TokenError::Unusable(Some(path))),
        }
    }

    /// The token kept in `state_dir` itself, for who has to present it.
    ///
    /// # Errors
    /// When the file can't be read, or can be read by others.
    pub fn text(state_dir: &Path) -> Result<SecretString, TokenError> {
        let path = state_dir.join(FILE);
        let io = |error| TokenError::Io(path.clone(), error);
        if fs::metadata(&path).map_err(io)?.mode() & 0o077 != 0 {
            return Err(TokenError::Exposed(path));
        }
        let text = SecretString::from(fs::read_to_string(&path).map_err(io)?);
        Ok(SecretString::from(text.expose_secret().trim_ascii()))
    }

    /// Whether `authorization`, the field's value, carries this token as RFC 6750 §2.1 says.
    pub fn matches(&self, authorization: &[u8]) -> bool {
        let Some((scheme, token)) = authorization.split_at_checked(7) else { return false };
        let presented = digest::digest(&digest::SHA256, token.trim_ascii());
        scheme.eq_ignore_ascii_case(b"bearer ") & bool::from(presented.as_ref().ct_eq(&self.0))
    }

    /// Eight hex digits that tell this token from another in the audit, and are too few to try tokens against.
    pub fn mark(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"tidegate audit ");
        context.update(&self.0);
        context.finish().as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    fn hashed(token: &str) -> Option<Self> {
        let usable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        hash.as_ref().try_into().ok().filter(|_| usable).map(Self)
    }
}

/// Writes a whole file aside, then gives it its name: nobody ever reads half a token, and none is replaced.
fn make(state_dir: &Path, path: &Path) -> Result<(), TokenError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    let token = SecretString::from(URL_SAFE_NO_PAD.encode(bytes));
    // The name is as random as the token, and not the token.
    rand::fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    let aside = state_dir.join(format!(".{FILE}.{}", URL_SAFE_NO_PAD.encode(bytes)));
    let written = (|| {
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        writeln!(file, "{}", token.expose_secret())?;
        file.sync_all()?;
        match fs::hard_link(&aside, path) {
            // Another process was first; its token counts.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    })();
    let _ = fs::remove_file(&aside);
    written.map_err(|error| TokenError::Io(path.into(), error))
}
