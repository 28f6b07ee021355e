//! How long a slow sender is waited for.

use std::time::{Duration, Instant};

/// An allowance of time: waiting uses it up, each byte that comes gives some of it back. So a silence ends when it is
/// used up, and a drip does, too; a burst is no credit for more than the whole allowance.
#[derive(Debug)]
pub struct Patience {
    whole: Duration,
    /// Bytes that are worth a second.
    rate: u64,
    left: Duration,
    /// Since when it is used up; `None`: nobody is waited for.
    since: Option<Instant>,
}

impl Patience {
    /// Waits for `whole` at first, and for ever if `rate` bytes come each second.
    pub fn new(whole: Duration, rate: u64) -> Self {
        Self { whole, rate: rate.max(1), left: whole, since: None }
    }

    /// The sender is waited for: until when.
    pub fn wait(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now) + self.left
    }

    /// The sender is not waited for any longer, since nobody takes what it sends.
    pub fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
    }

    /// So many bytes came.
    pub fn received(&mut self, now: Instant, bytes: usize) {
        self.pause(now);
        let worth = (bytes as u64).saturating_mul(1_000_000) / self.rate;
        self.left = self.left.saturating_add(Duration::from_micros(worth)).min(self.whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends `bytes` each `pause`; after how many the sender is given up.
    fn given_up(bytes: usize, pause: Duration) -> Option<u32> {
        let mut patience = Patience::new(30 * SECOND, 500);
        let mut now = Instant::now();
        (0..1000).find(|_| {
            let due = patience.wait(now);
            now += pause;
            patience.received(now, bytes);
            due < now
        })
    }

    /// A drip holds a connection here and one to the app for as long as its sender likes; a slow line is no drip.
    #[test]
    fn drips_end_and_slow_lines_do_not() {
        assert_eq!(given_up(1, 10 * SECOND), Some(3));
        assert_eq!(given_up(1, SECOND), Some(30));
        assert_eq!(given_up(1_000_000, 31 * SECOND), Some(0));
        assert_eq!(given_up(500, SECOND), None);
        assert_eq!(given_up(16_384, 29 * SECOND), None);
    }

    /// A megabyte at once must not buy half an hour of dripping.
    #[test]
    fn bursts_are_no_credit() {
        let mut patience = Patience::new(30 * SECOND, 500);
        let now = Instant::now();
        patience.wait(now);
        patience.received(now, 1_000_000);
        assert_eq!(patience.wait(now), now + 30 * SECOND);
    }

    /// A sender is not to blame while the app does not read.
    #[test]
    fn pauses_do_not_count() {
        let mut patience = Patience::new(30 * SECOND, 500);
        let now = Instant::now();
        patience.wait(now);
        patience.pause(now + 10 * SECOND);
        let later = now + 1000 * SECOND;
        assert_eq!(patience.wait(later), later + 20 * SECOND);
    }
}
