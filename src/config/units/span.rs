//! Lengths of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{leading_number, text_form};

/// What is said when a text is no length of time.
const EXPECTED: &str =
    "a length of time: whole numbers with the units ms, s, m (or min), h, d, such as 500ms, 30s, 5m or 1h30m";

/// A hundred years: further than any timeout, and far from where clocks overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A length of time, to the millisecond: `500ms`, `30s`, `5m` or `5min`, `1h`, `1d`, together as in `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl Span {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The span as a duration.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// A pattern for the names of units.
pub(super) const UNITS: &str =
    "(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hr|hours?|d|days?|w|weeks?)";

/// Milliseconds in a unit.
pub(super) fn unit(name: &str) -> Option<u64> {
    match name {
        "ms" | "millisecond" | "milliseconds" => Some(1),
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1_000),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60_000),
        "h" | "hr" | "hour" | "hours" => Some(3_600_000),
        "d" | "day" | "days" => Some(86_400_000),
        "w" | "week" | "weeks" => Some(604_800_000),
        _ => None,
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected {EXPECTED}");
        let mut rest = text.trim();
        let mut millis = 0u64;
        let mut smallest = u64::MAX;
        if rest.is_empty() {
            return Err(expected());
        }
        while !rest.is_empty() {
            let (number, after) = leading_number(rest).ok_or_else(expected)?;
            let after = after.trim_start();
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            let unit = unit(name).ok_or_else(expected)?;
            if unit >= smallest {
                return Err(
                    "the units of a length of time go from the largest down, each once, as in 1h30m".into()
                );
            }
            smallest = unit;
            millis = number.checked_mul(unit).and_then(|part| millis.checked_add(part)).unwrap_or(u64::MAX);
            rest = after.trim_start();
        }
        let duration = Duration::from_millis(millis);
        if duration > LONGEST { Err("longer than 36500 days".into()) } else { Ok(Self(duration)) }
    }
}

impl fmt::Display for Span {
    /// The largest units first, `1h30m`; parts of a millisecond are dropped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            let number = rest / unit;
            rest %= unit;
            if number > 0 {
                write!(f, "{number}{name}")?;
            }
        }
        Ok(())
    }
}

text_form!(
    Span,
    EXPECTED,
    "string",
    format!(r"^\s*([0-9]+\s*{UNITS}\s*)+$"),
    ["500ms", "30s", "5m", "1h30m", "1d"]
);
