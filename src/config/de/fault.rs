//! What serde reports, in plain words and with its place.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::super::error::{ConfigError, known_names};
use super::super::shown::short;
use super::value::At;

/// Who wrote a message, and so what may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Wording {
    /// We did, and it says all that may be said of the value.
    Ours,
    /// The type did, and it says what it expects; the value is to be added.
    Expected,
    /// Some parser did; it may repeat the value or a part of it.
    Foreign,
}

/// An error on its way up. The innermost value that sees it gives it its place; those further out leave it alone.
#[derive(Debug)]
pub(in crate::config) struct Fault {
    message: String,
    remedy: Option<String>,
    wording: Wording,
    missing: Option<&'static str>,
    place: Option<Box<Located>>,
}

/// An error with its place.
#[derive(Debug)]
pub(in crate::config) struct Located {
    pub error: ConfigError,
    /// The key path of what has to go for the error to go.
    pub culprit: String,
    /// The key path of the key that is missing, if that is the error.
    pub missing: Option<String>,
}

impl Fault {
    /// An error whose message says all that may be said of the value.
    pub fn complete(message: impl Into<String>) -> Self {
        Self { wording: Wording::Ours, ..Self::custom(message.into()) }
    }

    /// Says what to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// An error about a key: shown at the mapping it stands in, cured by leaving out the key.
    pub fn unknown_key(mapping: &At<'_>, key: &At<'_>, name: &str, known: &[&str]) -> Self {
        let message = format!("unknown key {}", short(name));
        let error = ConfigError::new(mapping.path.to_string(), &key.node.origin, message);
        let error = if known.is_empty() { error } else { error.remedy(known_names(name, known)) };
        let located = Located { error, culprit: key.path.to_string(), missing: None };
        Self { place: Some(Box::new(located)), ..Self::custom("") }
    }

    /// The error with its place, which is `at` unless something further in has claimed it.
    pub fn locate(self, at: &At<'_>) -> Located {
        if let Some(located) = self.place {
            return *located;
        }
        let path = at.path.to_string();
        let message = at.with_value(self.message, self.wording);
        let error = ConfigError {
            path: path.clone(),
            origin: Some(at.node.origin.clone()),
            message,
            remedy: self.remedy,
        };
        let missing = self.missing.map(|key| super::Path::Key(at.path, key).to_string());
        Located { error, culprit: path, missing }
    }

    /// Claims the error for `at`, if nothing further in has.
    pub fn found_at(self, at: &At<'_>) -> Self {
        Self { place: Some(Box::new(self.locate(at))), ..Self::custom("") }
    }
}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            remedy: None,
            wording: Wording::Foreign,
            missing: None,
            place: None,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_value(found, expected)
    }

    /// The value is added by the place that knows whether it may be shown.
    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { wording: Wording::Expected, ..Self::custom(format_args!("expected {expected}")) }
    }

    fn invalid_length(found: usize, expected: &dyn Expected) -> Self {
        let values = if found == 1 { "value" } else { "values" };
        Self::complete(format!("expected {expected}, found {found} {values}"))
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        let fault = Self { wording: Wording::Expected, ..Self::custom("not one of the known values") };
        fault.remedy(known_names(name, known))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::complete(format!("unknown key {}", short(name))).remedy(known_names(name, known))
    }

    fn missing_field(key: &'static str) -> Self {
        let fault = Self::complete(format!("the key {key:?} is missing")).remedy(format!("add `{key}: …`"));
        Self { missing: Some(key), ..fault }
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::complete(format!("the key {key:?} is given under two of its names")).remedy("keep one of them")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(located) => located.error.fmt(f),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Fault {}
