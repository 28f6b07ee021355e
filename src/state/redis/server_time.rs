//! The server's clock, as far as it is known here.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::super::clock::{Clock, Timestamp};

/// This gate's clock, and how far the server's is ahead of it.
pub(super) struct ServerTime {
    clock: Clock,
    /// Microseconds.
    ahead: AtomicI64,
}

impl ServerTime {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, ahead: AtomicI64::new(0) }
    }

    /// This gate's own time.
    pub(super) fn local(&self) -> Timestamp {
        self.clock.now()
    }

    /// Nearly the server's time.
    pub(super) fn now(&self) -> Timestamp {
        self.to_server(self.clock.now())
    }

    /// The time for scripts to go by, in microseconds, where a test moves the clock by hand; else 0: the server's own.
    pub(super) fn by_hand(&self) -> u64 {
        if self.clock.is_manual() { self.clock.now().as_micros() } else { 0 }
    }

    /// A point of this gate's time, by the server's clock.
    pub(super) fn to_server(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_micros(at.as_micros().saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    /// A point of the server's time, by this gate's clock.
    pub(super) fn to_local(&self, at: Timestamp) -> Timestamp {
        let behind = self.ahead.load(Ordering::Relaxed).saturating_neg();
        Timestamp::from_micros(at.as_micros().saturating_add_signed(behind))
    }

    /// Learns from an answer that was given at `server` to a question asked at `asked`.
    pub(super) fn learn(&self, asked: Timestamp, server: u64) {
        let now = self.clock.now();
        let half = now.since(asked) / 2;
        self.set(asked.after(half), server);
    }

    /// Learns from an answer that says that what was believed is wrong.
    pub(super) fn correct(&self, server: u64) {
        self.set(self.clock.now(), server);
    }

    fn set(&self, local: Timestamp, server: u64) {
        if !self.clock.is_manual() {
            let ahead = i128::from(server) - i128::from(local.as_micros());
            self.ahead.store(i64::try_from(ahead).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// The last moment at which the server may still grant what is asked now; 0 where time is moved by hand.
    pub(super) fn deadline(&self, patience: Duration) -> u64 {
        if self.clock.is_manual() { 0 } else { self.now().after(patience).as_micros() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate whose clock is wrong would count for another hour than its neighbours, or refuse every answer as late.
    #[test]
    fn a_clock_that_is_off_is_made_up_for() {
        let time = ServerTime::new(Clock::system());
        let hour = 3_600_000_000;
        let asked = time.local();
        time.learn(asked, asked.as_micros() + hour);
        let near = |a: u64, b: u64| a.abs_diff(b) < 1_000_000;
        assert!(near(time.now().as_micros(), asked.as_micros() + hour));
        assert!(near(time.to_local(time.now()).as_micros(), asked.as_micros()));
        time.correct(asked.as_micros() - hour);
        assert!(near(time.now().as_micros(), asked.as_micros() - hour));
        assert!(near(time.deadline(Duration::from_millis(20)), asked.as_micros() - hour));
    }
}
