//! A limit as it runs: a name and its sliding windows.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use smallvec::SmallVec;

use super::clock::micros;

/// Up to this many draws in a window each is timed on its own; above, draws share grains of time.
const EXACT_MAX: u64 = 256;

/// Grains in a window too large to time each draw: a draw there leaves at most 1/128 of the window late.
const GRAINS: u64 = 128;

/// At most `max` draws in any span of `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Length of the window, 1 ms to 366 days.
    pub length: Duration,
    /// Draws allowed in it. 0 refuses every draw.
    pub max: u64,
}

/// A window as it is counted; times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sliding {
    pub(crate) length: u64,
    pub(crate) max: u64,
    /// Draws whose times agree when divided by this may be remembered as one, made at the time of the last. 1
    /// where each draw is timed on its own.
    pub(crate) grain: u64,
    /// Tells this window of this limit from all others, and stays the same when a reload changes only `max`.
    pub(crate) counter: u64,
}

impl Sliding {
    /// A window as it is counted under `counter`.
    pub(crate) fn new(length: u64, max: u64, counter: u64) -> Self {
        let grain = if max <= EXACT_MAX { 1 } else { (length / GRAINS).max(1) };
        Self { length, max, grain, counter }
    }
}

/// A named limit. Counters belong to the name and the window's length: another spec of the same name and
/// window (a reload, another route) counts on where this one stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSpec {
    name: Box<str>,
    windows: SmallVec<[Sliding; 2]>,
}

/// A limit that can't be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// It has no window, so it would limit nothing.
    NoWindow,
    /// A window is shorter than a millisecond or longer than 366 days.
    Length(Duration),
    /// Two windows have the same length.
    Twice(Duration),
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWindow => f.write_str("a limit needs at least one window"),
            Self::Length(length) => write!(f, "a window of {length:?} is not between 1 ms and 366 days"),
            Self::Twice(length) => write!(f, "two windows of {length:?}; keep the smaller maximum"),
        }
    }
}

impl std::error::Error for LimitError {}

impl LimitSpec {
    /// A limit of at least one window, no two of one length; they are kept in the order given.
    pub fn new(name: &str, windows: impl IntoIterator<Item = Window>) -> Result<Self, LimitError> {
        let mut compiled = SmallVec::<[Sliding; 2]>::new();
        for Window { length, max } in windows {
            let span = micros(length);
            if !(1_000..=366 * 86_400 * 1_000_000).contains(&span) {
                return Err(LimitError::Length(length));
            }
            if compiled.iter().any(|window| window.length == span) {
                return Err(LimitError::Twice(length));
            }
            // Fixed keys: equal names must give equal counters across reloads. Names are the operator's own.
            let mut hasher = DefaultHasher::new();
            (name, span).hash(&mut hasher);
            compiled.push(Sliding::new(span, max, hasher.finish()));
        }
        if compiled.is_empty() {
            return Err(LimitError::NoWindow);
        }
        Ok(Self { name: name.into(), windows: compiled })
    }

    /// Its name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its windows, never empty.
    pub fn windows(&self) -> impl ExactSizeIterator<Item = Window> {
        self.windows
            .iter()
            .map(|window| Window { length: Duration::from_micros(window.length), max: window.max })
    }

    /// One of `shares` equal shares of it, on the same counters: rounded down, but a limit that grants anything grants
    /// 1 at least.
    pub(crate) fn shared_by(&self, shares: u32) -> Self {
        let share = |window: &Sliding| {
            let max = (window.max / u64::from(shares.max(1))).max(window.max.min(1));
            Sliding::new(window.length, max, window.counter)
        };
        Self { name: self.name.clone(), windows: self.windows.iter().map(share).collect() }
    }

    pub(crate) fn sliding(&self) -> &[Sliding] {
        &self.windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A reload that kept the name and the window must not hand everyone a fresh quota.
    #[test]
    fn counters_follow_name_and_length_but_not_maximum() {
        let counter =
            |name, length, max| LimitSpec::new(name, [Window { length, max }]).unwrap().sliding()[0].counter;
        assert_eq!(counter("ai", MINUTE, 5), counter("ai", MINUTE, 500));
        assert_ne!(counter("ai", MINUTE, 5), counter("api", MINUTE, 5));
        assert_ne!(counter("ai", MINUTE, 5), counter("ai", MINUTE * 60, 5));
    }

    /// Gates that lost sight of each other would together grant more than the limit, or nothing at all.
    #[test]
    fn shares_are_rounded_down_but_grant_something() {
        let limit = LimitSpec::new("ai", [Window { length: MINUTE, max: 7 }]).unwrap();
        let share = |of: &LimitSpec, shares| of.shared_by(shares).sliding()[0].max;
        assert_eq!([0, 1, 2, 3, 7, 8].map(|shares| share(&limit, shares)), [7, 7, 3, 2, 1, 1]);
        let none = LimitSpec::new("ai", [Window { length: MINUTE, max: 0 }]).unwrap();
        assert_eq!(share(&none, 3), 0);
        let large = LimitSpec::new("ai", [Window { length: MINUTE, max: 512 }]).unwrap();
        assert_eq!(large.shared_by(2), LimitSpec::new("ai", [Window { length: MINUTE, max: 256 }]).unwrap());
    }

    /// A limit that silently limits nothing, or twice, is worse than an error at start.
    #[test]
    fn limits_that_cannot_be_counted_are_refused() {
        let err = |lengths: &[Duration]| {
            LimitSpec::new("x", lengths.iter().map(|&length| Window { length, max: 5 })).unwrap_err()
        };
        assert_eq!(err(&[]), LimitError::NoWindow);
        assert_eq!(err(&[Duration::ZERO]), LimitError::Length(Duration::ZERO));
        assert_eq!(err(&[Duration::MAX]), LimitError::Length(Duration::MAX));
        assert_eq!(err(&[MINUTE, MINUTE]), LimitError::Twice(MINUTE));
    }
}
