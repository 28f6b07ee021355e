//! What is wrong with a guard's config: which key, and what to write instead.

use std::borrow::Cow;
use std::fmt;

/// A guard that can't be built from its config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Key path below the route (or the top level), as in `cors.allowed_origins[1]`.
    pub key: Cow<'static, str>,
    /// What is wrong with its value and what would be right.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// A fault of the value at `key`.
    pub fn new(key: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for Fault {}
