//! Config errors: where, what and what to do about it, on one line.

use std::fmt;

use super::tree::Origin;

/// Errors beyond this many are counted, not printed: nobody reads the hundredth.
const PRINTED: usize = 20;

/// One thing that is wrong with the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, such as `routes[2].limits.ai`; empty for the file as a whole.
    pub path: String,
    /// Where it was written.
    pub origin: Option<Origin>,
    /// What is wrong. Never holds a secret, nor more than 40 characters of any value.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl ConfigError {
    /// An error at a key.
    pub fn new(path: impl Into<String>, origin: &Origin, message: impl Into<String>) -> Self {
        Self { path: path.into(), origin: Some(origin.clone()), message: message.into(), remedy: None }
    }

    /// Says what to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for ConfigError {
    /// `tidegate.yaml:12: limits.ai: unknown key "windws" — did you mean "windows"? (known: max, windows)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, " — {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that was found wrong with the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Adds one more.
    pub fn push(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// Puts the errors in the order of the file, as people mend them.
    pub(super) fn in_order(mut self) -> Self {
        self.0.sort_by(|a, b| {
            let place = |error: &ConfigError| error.origin.as_ref().map(|o| (o.file.clone(), o.line));
            place(a).cmp(&place(b))
        });
        self
    }

    /// Ends a collection: `Ok` if nothing was found wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl std::ops::Deref for ConfigErrors {
    type Target = [ConfigError];

    fn deref(&self) -> &[ConfigError] {
        &self.0
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl Extend<ConfigError> for ConfigErrors {
    fn extend<I: IntoIterator<Item = ConfigError>>(&mut self, errors: I) {
        self.0.extend(errors);
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    /// One error a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().take(PRINTED).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        match self.0.len().checked_sub(PRINTED) {
            Some(more @ 1..) => write!(f, "\nand {more} more"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// The remedy for a name that isn't known: the nearest known one, and all of them.
pub(super) fn known_names(wrong: &str, known: &[&str]) -> String {
    let normal = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&normal(wrong), &normal(name)), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance);
    let list = known.join(", ");
    match near {
        Some((_, name)) => format!("did you mean {name:?}? (known: {list})"),
        None => format!("known: {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line an error, and a hundred errors don't bury the first.
    #[test]
    fn errors_are_lines() {
        let origin = Origin { file: "tidegate.yaml".into(), line: 12, env: None };
        let error = ConfigError::new("limits.ai", &origin, "unknown key \"windws\"").remedy("remove it");
        assert_eq!(error.to_string(), "tidegate.yaml:12: limits.ai: unknown key \"windws\" — remove it");
        let mut errors = ConfigErrors::from(error.clone());
        assert_eq!(errors.to_string(), error.to_string());
        errors.extend(std::iter::repeat_n(error, 24));
        assert_eq!(errors.to_string().lines().count(), 21);
        assert!(errors.to_string().ends_with("\nand 5 more"));
    }

    /// A slip of the finger is named; a wild guess isn't answered with another.
    #[test]
    fn the_nearest_name_is_offered() {
        let known = ["max", "window", "allowed_origins"];
        for (wrong, near) in [("windwo", "window"), ("Allowed-Origins", "allowed_origins"), ("mx", "max")] {
            assert!(known_names(wrong, &known).starts_with(&format!("did you mean {near:?}? ")), "{wrong}");
        }
        assert_eq!(known_names("frobnicate", &known), "known: max, window, allowed_origins");
    }
}
