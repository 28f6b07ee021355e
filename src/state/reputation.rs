//! What is known of a caller (L5): faults that are forgiven with time. It is a hint, not an account: kept in this process
//! only, and of so many callers as there is room for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;

use super::clock::{Clock, Timestamp};
use super::subject::Subject;

const SHARDS: usize = 64;

/// A blameless caller's score.
pub const BLAMELESS: u8 = 100;

/// Fewer points than this are none.
const NEGLIGIBLE: f32 = 0.5;

#[derive(Debug)]
struct Mark {
    points: f32,
    at: Timestamp,
    /// Faults since it was blameless, by code.
    faults: Vec<(&'static str, u32)>,
}

/// A caller's reputation, for showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub subject: Subject,
    /// From 100, blameless, down to 0.
    pub score: u8,
    /// What it did, by code, and how often.
    pub faults: Vec<(&'static str, u32)>,
}

/// Points against callers, halved with each half-life.
#[derive(Debug)]
pub struct Reputations {
    clock: Clock,
    seeds: RandomState,
    shards: [Mutex<HashMap<Subject, Mark, RandomState>>; SHARDS],
    /// Callers in a shard, at most.
    max: usize,
    count: AtomicUsize,
}

impl Reputations {
    /// All are blameless; `max` is how many others are remembered.
    pub fn new(max: usize, clock: Clock) -> Self {
        let seeds = RandomState::new();
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(seeds.clone())));
        Self { clock, seeds, shards, max: max.div_ceil(SHARDS).max(1), count: AtomicUsize::new(0) }
    }

    /// The score of `subject`, from 0 to 100.
    #[inline]
    pub fn score(&self, subject: Subject, half_life: Duration) -> u8 {
        if self.count.load(Ordering::Relaxed) == 0 {
            return BLAMELESS;
        }
        let now = self.clock.now();
        self.shard(subject).lock().get(&subject).map_or(BLAMELESS, |mark| mark.score(now, half_life))
    }

    /// Holds a fault against `subject`. Who is not remembered yet makes room by pushing out the one with the fewest points,
    /// unless that has more.
    pub fn blame(&self, subject: Subject, points: u8, fault: &'static str, half_life: Duration) {
        let now = self.clock.now();
        let points = f32::from(points);
        let mut shard = self.shard(subject).lock();
        if shard.len() >= self.max && !shard.contains_key(&subject) {
            let least = shard.iter().map(|(who, mark)| (mark.left(now, half_life), *who));
            let Some((left, who)) = least.min_by(|(a, _), (b, _)| a.total_cmp(b)) else { return };
            if left > points {
                return;
            }
            shard.remove(&who);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        let mark = shard.entry(subject).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            Mark { points: 0.0, at: now, faults: Vec::new() }
        });
        mark.points = mark.left(now, half_life) + points;
        mark.at = now;
        match mark.faults.iter_mut().find(|(known, _)| *known == fault) {
            Some((_, times)) => *times = times.saturating_add(1),
            None => mark.faults.push((fault, 1)),
        }
    }

    /// Forgets faults that have worn off, and answers the callers with the lowest scores.
    pub fn worst(&self, most: usize, half_life: Duration) -> Vec<Standing> {
        let now = self.clock.now();
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|_, mark| mark.left(now, half_life) >= NEGLIGIBLE);
            self.count.fetch_sub(before - shard.len(), Ordering::Relaxed);
            all.extend(shard.iter().map(|(subject, mark)| Standing {
                subject: *subject,
                score: mark.score(now, half_life),
                faults: mark.faults.clone(),
            }));
        }
        all.sort_unstable_by_key(|standing| (standing.score, standing.subject));
        all.truncate(most);
        all
    }

    /// Forgives `subject` everything.
    pub fn forgive(&self, subject: Subject) {
        if self.shard(subject).lock().remove(&subject).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, subject: Subject) -> &Mutex<HashMap<Subject, Mark, RandomState>> {
        &self.shards[(self.seeds.hash_one(subject) >> 32) as usize % SHARDS]
    }
}

impl Mark {
    fn left(&self, now: Timestamp, half_life: Duration) -> f32 {
        let lives = now.since(self.at).as_secs_f32() / half_life.as_secs_f32().max(f32::EPSILON);
        self.points * 0.5f32.powf(lives)
    }

    fn score(&self, now: Timestamp, half_life: Duration) -> u8 {
        // Rounded up, so that no fault goes unseen; a float this small becomes an integer as it is.
        BLAMELESS.saturating_sub(self.left(now, half_life).round().clamp(0.0, 100.0) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::client::SubjectId;
    use crate::state::ManualClock;

    const HOUR: Duration = Duration::from_secs(3600);

    const fn user(id: u128) -> Subject {
        Subject::user(SubjectId(id))
    }

    /// A fault that never wore off would throttle an honest user for ever; one that wore off at once, nobody.
    #[test]
    fn faults_are_forgiven_by_half_lives() {
        let hand = ManualClock::new(Timestamp::from_micros(5));
        let known = Reputations::new(100, hand.clock());
        assert_eq!(known.score(user(1), HOUR), 100);
        for _ in 0..3 {
            known.blame(user(1), 20, "rate_limited", HOUR);
        }
        known.blame(user(1), 20, "threat_detected", HOUR);
        assert_eq!((known.score(user(1), HOUR), known.score(user(2), HOUR)), (20, 100));
        hand.advance(HOUR);
        assert_eq!(known.score(user(1), HOUR), 60);
        let worst = known.worst(9, HOUR);
        assert_eq!(worst[0].faults, [("rate_limited", 3), ("threat_detected", 1)]);
        hand.advance(10 * HOUR);
        assert!(known.worst(9, HOUR).is_empty());
        assert_eq!(known.count.load(Ordering::Relaxed), 0, "it is forgotten");
        known.blame(user(1), 200, "x", HOUR);
        assert_eq!(known.score(user(1), HOUR), 0);
        known.forgive(user(1));
        assert_eq!(known.score(user(1), HOUR), 100);
    }

    /// A spray of callers must not grow memory without end, nor wash an offender clean.
    #[test]
    fn a_spray_pushes_out_only_who_has_done_less() {
        let hand = ManualClock::new(Timestamp::from_micros(5));
        let known = Reputations::new(SHARDS, hand.clock());
        known.blame(user(0), 90, "threat_detected", HOUR);
        for id in 1..10_000 {
            known.blame(user(id), 5, "rate_limited", HOUR);
        }
        assert_eq!(known.score(user(0), HOUR), 10);
        assert!(known.worst(usize::MAX, HOUR).len() <= SHARDS);
    }
}
