//! Random demands, compared with a model that remembers every draw and is slow and obviously right.

use std::collections::BTreeMap;
use std::time::Duration;

use super::random::Random;
use super::{Bed, HOUR, MICRO, MINUTE, SECOND, limit, refused, user};
use crate::state::{Draw, LimitSpec, Standing, Store, Subject, Timestamp, Window};

/// Name of the limit, and who draws.
type Counter = (Box<str>, Subject);

/// Every draw from each counter, with its time and weight.
#[derive(Default)]
struct Model(BTreeMap<Counter, Vec<(Timestamp, u64)>>);

impl Model {
    /// The draws that are in `window` at `now`, oldest first.
    fn inside(
        &self,
        draw: &Draw<'_>,
        window: Window,
        now: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, u64)> {
        let all = self.0.get(&(draw.limit.name().into(), draw.subject));
        all.into_iter().flatten().copied().filter(move |(at, _)| now < at.after(window.length))
    }

    fn used(&self, draw: &Draw<'_>, window: Window, now: Timestamp) -> u64 {
        self.inside(draw, window, now).map(|(_, weight)| weight).sum()
    }

    /// The earliest wait after which `weight` more fits.
    fn wait(&self, draw: &Draw<'_>, weight: u64, window: Window, now: Timestamp) -> Option<Duration> {
        let ends = self.inside(draw, window, now).map(|(at, _)| at.after(window.length));
        std::iter::once(now)
            .chain(ends)
            .find(|&then| self.used(draw, window, then) + weight <= window.max)
            .map(|then| then.since(now))
    }

    /// The weight that `draws[at]` needs beside earlier draws of the same limit and subject.
    fn needs(draws: &[Draw<'_>], at: usize) -> u64 {
        let same = |other: &&Draw<'_>| {
            other.limit.name() == draws[at].limit.name() && other.subject == draws[at].subject
        };
        draws[..=at].iter().filter(same).map(|draw| draw.weight).sum()
    }

    /// How long each window that refuses does so; empty if all is granted.
    fn refusals(&self, draws: &[Draw<'_>], now: Timestamp) -> Vec<Option<Duration>> {
        let mut refusals = Vec::new();
        for (at, draw) in draws.iter().enumerate().filter(|(_, draw)| draw.weight > 0) {
            for window in draw.limit.windows() {
                let wait = self.wait(draw, Self::needs(draws, at), window, now);
                if wait != Some(Duration::ZERO) {
                    refusals.push(wait);
                }
            }
        }
        refusals
    }

    fn standings(&self, draws: &[Draw<'_>], now: Timestamp) -> Vec<Standing> {
        let mut standings = Vec::new();
        for (at, draw) in draws.iter().enumerate() {
            for window in draw.limit.windows() {
                let last = self.inside(draw, window, now).last();
                standings.push(Standing {
                    draw: at,
                    max: window.max,
                    remaining: window.max.saturating_sub(self.used(draw, window, now)),
                    window: window.length,
                    reset: last.map_or(Duration::ZERO, |(at, _)| at.after(window.length).since(now)),
                });
            }
        }
        standings
    }

    fn draw(&mut self, draws: &[Draw<'_>], now: Timestamp) {
        for draw in draws.iter().filter(|draw| draw.weight > 0) {
            let all = self.0.entry((draw.limit.name().into(), draw.subject)).or_default();
            all.push((now, draw.weight));
            // No window of these tests is longer.
            all.retain(|(at, _)| now < at.after(HOUR));
        }
    }
}

fn demand<'a>(random: &mut Random, limits: &'a [LimitSpec], weights: u64) -> Vec<Draw<'a>> {
    let draw = |random: &mut Random| Draw {
        limit: &limits[random.below(limits.len() as u64) as usize],
        subject: user(u128::from(random.below(3))),
        weight: if random.below(3) == 0 { random.below(weights) } else { 1 },
    };
    (0..=random.below(3)).map(|_| draw(random)).collect()
}

/// Steps that meet the edges: none, one microsecond, to the very end of a refusal, or some part of a window.
fn step(random: &mut Random, refusal: Option<Duration>) -> Duration {
    match (random.below(8), refusal) {
        (0..3, _) => Duration::ZERO,
        (3, _) => MICRO,
        (4, Some(wait)) => wait,
        (5, Some(wait)) => wait.saturating_sub(MICRO),
        (6, _) => Duration::from_micros(random.below(90_000_000)),
        _ => Duration::from_micros(random.below(3_000_000)),
    }
}

/// Windows of up to 256 draws: grants, refusals, waits and standings are right to the microsecond.
pub(super) async fn exact_windows_agree<S: Store>(bed: Bed<S>, operations: usize) {
    let limits = [
        limit("a", &[(MINUTE, 5), (10 * MINUTE, 12)]),
        limit("b", &[(SECOND, 1)]),
        limit("c", &[(5 * SECOND, 40), (MINUTE, 90), (HOUR, 120)]),
        limit("d", &[(MINUTE, 9)]),
    ];
    let clock = bed.hand.clock();
    let (mut random, mut model) = (Random(1), Model::default());
    let mut decided = [0usize; 2];
    for operation in 0..operations {
        let draws = demand(&mut random, &limits, 12);
        let now = clock.now();
        if operation % 4 == 0 {
            let standings = bed.store.standings(&draws).await.unwrap();
            assert_eq!(*standings, model.standings(&draws, now), "{operation}: {draws:?}");
        }
        let refusals = model.refusals(&draws, now);
        let decision = bed.draw(&draws).await;
        decided[usize::from(decision.is_granted())] += 1;
        let mut wait = None;
        if refusals.is_empty() {
            model.draw(&draws, now);
            assert!(decision.is_granted(), "{operation}: {draws:?}: {decision:?}");
            let standings = bed.store.standings(&draws).await.unwrap();
            assert_eq!(*standings, model.standings(&draws, now), "{operation}: {draws:?}");
        } else {
            let never = refusals.contains(&None);
            wait = refusals.into_iter().flatten().max();
            let told = refused(decision).1;
            assert_eq!(told, wait.filter(|_| !never), "{operation}: {draws:?}");
        }
        bed.hand.advance(step(&mut random, wait));
    }
    assert!(decided.iter().all(|count| *count > operations / 10), "one-sided: {decided:?}");
}

/// Larger windows: nothing is granted that the model refuses, nothing refused that would fit with every draw
/// leaving a 128th of the window later.
pub(super) async fn large_windows_stay_within_a_grain<S: Store>(bed: Bed<S>, operations: usize) {
    let limits = [limit("a", &[(MINUTE, 300)]), limit("b", &[(20 * SECOND, 400), (5 * MINUTE, 2000)])];
    let late: Vec<_> = limits
        .iter()
        .map(|limit| {
            LimitSpec::new(
                limit.name(),
                limit
                    .windows()
                    .map(|window| Window { length: window.length + window.length / 128, max: window.max }),
            )
            .unwrap()
        })
        .collect();
    let clock = bed.hand.clock();
    let (mut random, mut model) = (Random(2), Model::default());
    let mut decided = [0usize; 2];
    for operation in 0..operations {
        let draws = demand(&mut random, &limits, 40);
        let now = clock.now();
        let decision = bed.draw(&draws).await;
        decided[usize::from(decision.is_granted())] += 1;
        let mut wait = None;
        if decision.is_granted() {
            assert!(model.refusals(&draws, now).is_empty(), "{operation}: over-admitted {draws:?}");
            model.draw(&draws, now);
        } else {
            let later = |draw: &Draw<'_>| {
                let same = late.iter().find(|limit| limit.name() == draw.limit.name());
                (same.unwrap(), draw.subject, draw.weight)
            };
            let draws: Vec<_> = draws
                .iter()
                .map(later)
                .map(|(limit, subject, weight)| Draw { limit, subject, weight })
                .collect();
            assert!(!model.refusals(&draws, now).is_empty(), "{operation}: held back {draws:?}");
            wait = refused(decision).1;
        }
        bed.hand.advance(step(&mut random, wait) / 20);
    }
    assert!(decided.iter().all(|count| *count > operations / 20), "one-sided: {decided:?}");
}
