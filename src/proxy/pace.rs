//! What is due while an answer is on its way and nothing comes of it.

use std::time::Duration;

use tokio::time::Instant;

use super::stream::Streams;
use super::timeouts::Timeouts;
use crate::server::Alarm;

/// How much longer than allowed a stream may take to finish the event that it is in.
const LAST_EVENT: Duration = Duration::from_secs(1);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A sign of life to the client.
    Heartbeat,
    /// The end: the upstream was silent for too long.
    Silence,
    /// The end: the stream has lasted long enough.
    Total,
}

/// The deadlines of one answer. All are this gate's own: Pingora's begin anew whenever a read is dropped.
#[derive(Debug)]
pub struct Pace {
    read: Duration,
    write: Duration,
    end: Option<Instant>,
    heartbeat: Option<Duration>,
    /// When the client was last told something, once somebody waited since.
    silent_since: Option<Instant>,
    beats: u32,
}

impl Pace {
    /// For an answer that is read whole.
    pub fn of_answer(timeouts: &Timeouts) -> Self {
        Self {
            read: timeouts.between_bytes,
            write: timeouts.write,
            end: None,
            heartbeat: None,
            silent_since: None,
            beats: 0,
        }
    }

    /// For a stream of events that was asked for at `started`.
    pub fn of_stream(timeouts: &Timeouts, streams: &Streams, started: Instant) -> Self {
        Self {
            read: timeouts.stream_idle,
            end: Some(started + timeouts.stream_total),
            heartbeat: streams.heartbeat,
            ..Self::of_answer(timeouts)
        }
    }

    /// Something came.
    pub fn heard(&mut self) {
        (self.silent_since, self.beats) = (None, 0);
    }

    /// Until when a write that begins now has to be done.
    pub fn write_deadline(&self) -> Instant {
        let next = Instant::now() + self.write;
        self.end.map_or(next, |end| next.min(end + LAST_EVENT))
    }

    /// Whether a stream that is always ready has lasted long enough: nobody ever waits for it.
    pub fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Resolves with what is due next. `between_events`: the stream may end here in good order. Safe to drop and call
    /// again with the same `alarm`.
    pub async fn due(&mut self, between_events: bool, alarm: &mut Alarm) -> Due {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        let (at, due) = self.next(since, between_events);
        alarm.until(at).await;
        if due == Due::Heartbeat {
            self.beats += 1;
        }
        due
    }

    fn next(&self, since: Instant, between_events: bool) -> (Instant, Due) {
        let mut next = (since + self.read, Due::Silence);
        let end = self.end.map(|end| if between_events { end } else { end + LAST_EVENT });
        if let Some(end) = end.filter(|end| *end < next.0) {
            next = (end, Due::Total);
        }
        let beat = self.heartbeat.map(|pause| since + pause * (self.beats + 1));
        if let Some(beat) = beat.filter(|beat| *beat < next.0) {
            next = (beat, Due::Heartbeat);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn stream(heartbeat: Option<Duration>, total: u64) -> Pace {
        let timeouts = Timeouts {
            request_body: seconds(1),
            body_idle: seconds(1),
            first_byte: seconds(1),
            between_bytes: seconds(60),
            stream_idle: seconds(40),
            stream_total: seconds(total),
            tunnel_idle: seconds(1),
            tunnel_total: seconds(1),
            write: seconds(60),
        };
        Pace::of_stream(&timeouts, &Streams { heartbeat }, Instant::now())
    }

    /// A silence is to be bridged by its heartbeats, and ended when it is too long.
    #[tokio::test(start_paused = true)]
    async fn a_silence_has_heartbeats_and_an_end() {
        let (mut pace, start) = (stream(Some(seconds(15)), 3600), Instant::now());
        let mut alarm = Alarm::default();
        for (due, at) in [(Due::Heartbeat, 15), (Due::Heartbeat, 30), (Due::Silence, 40)] {
            assert_eq!((pace.due(true, &mut alarm).await, start.elapsed()), (due, seconds(at)));
        }
    }

    /// What comes begins a new silence: neither a heartbeat nor the end may be reckoned from the old one.
    #[tokio::test(start_paused = true)]
    async fn what_comes_puts_everything_off() {
        let (mut pace, start) = (stream(Some(seconds(15)), 3600), Instant::now());
        let mut alarm = Alarm::default();
        for _ in 0..10 {
            let waited = tokio::time::timeout(seconds(14), pace.due(true, &mut alarm)).await;
            assert!(waited.is_err(), "{waited:?} after {:?}", start.elapsed());
            pace.heard();
        }
        assert_eq!(pace.due(true, &mut alarm).await, Due::Heartbeat);
        assert_eq!(start.elapsed(), seconds(155));
    }

    /// A stream without end would outlast every limit that was set for it; one that ends in an event breaks it.
    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_an_event_but_not_long() {
        for (between_events, at) in [(true, 20), (false, 21)] {
            let (mut pace, start) = (stream(None, 20), Instant::now());
            let mut alarm = Alarm::default();
            assert_eq!(pace.due(between_events, &mut alarm).await, Due::Total);
            assert_eq!(start.elapsed(), seconds(at));
            assert!(pace.is_over());
        }
    }
}
