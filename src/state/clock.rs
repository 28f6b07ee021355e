//! The one clock: everything that counts time is handed it, and tests move it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time: microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The point `span` later; the end of time if there is none.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// `span` in whole microseconds, rounded down, at most `u64::MAX`.
pub(crate) fn micros(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(span.subsec_micros()))
}

/// Tells the time; cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The wall clock as it stood at `anchor`, carried on by the monotonic one: a stepped wall clock must
    /// neither empty a window nor freeze it.
    System {
        anchor: Instant,
        epoch: u64,
    },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock. It never steps back while the process runs.
    #[allow(clippy::disallowed_methods, reason = "this is the one place where wall time is read")]
    pub fn system() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros);
        Self(Source::System { anchor: Instant::now(), epoch })
    }

    /// The machine's clock as a machine would have it whose clock is fast by `span`.
    #[cfg(test)]
    pub(crate) fn fast_by(span: Duration) -> Self {
        let Source::System { anchor, epoch } = Self::system().0 else { return Self::system() };
        Self(Source::System { anchor, epoch: epoch + micros(span) })
    }

    /// Whether a test moves it by hand.
    pub(crate) const fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }

    /// The time now.
    #[inline]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { anchor, epoch } => Timestamp(epoch.saturating_add(micros(anchor.elapsed()))),
            Source::Manual(now) => Timestamp(now.load(Ordering::Acquire)),
        }
    }
}

/// A clock that stands still until a test moves it.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(AtomicU64::new(start.0)))
    }

    /// The clock to hand to what is tested; all of them move together.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(Arc::clone(&self.0)))
    }

    /// Moves on by `span` (whole microseconds).
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(micros(span), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without it the log and the windows would disagree with the wall clock.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "the clock is compared with wall time")]
    fn system_clock_starts_at_wall_time_and_never_steps_back() {
        let clock = Clock::system();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(clock.now().as_secs().abs_diff(wall.as_secs()) <= 1);
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    /// Tests of a day's window would otherwise have to wait for a day.
    #[test]
    fn manual_clock_moves_all_its_clones_at_once() {
        let hand = ManualClock::new(Timestamp::from_micros(5));
        let (a, b) = (hand.clock(), hand.clock().clone());
        hand.advance(Duration::from_secs(86_400));
        assert_eq!(a.now().as_micros(), 86_400_000_005);
        assert_eq!(a.now(), b.now());
        assert_eq!(a.now().since(Timestamp::from_micros(5)), Duration::from_secs(86_400));
    }
}
