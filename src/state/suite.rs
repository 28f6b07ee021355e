//! What every store must do: one suite, run against each of them with the clock moved by hand.

mod bans;
mod budgets;
mod claims;
mod model;
pub(crate) mod random;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::admission::{Outcome, Settlement};
use super::{
    AdmissionId, Clock, Decision, Demand, Denial, Draw, LimitSpec, ManualClock, Standing, Store, Subject,
    Timestamp, Window,
};
use crate::proxy::client::SubjectId;

const MICRO: Duration = Duration::from_micros(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A store under test, and the hand on its clock.
struct Bed<S> {
    store: Arc<S>,
    hand: ManualClock,
}

/// Runs the suite against the stores that `make` makes, each of which must start empty.
pub(crate) fn run<S: Store>(make: impl Fn(Clock) -> S) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bed = || {
            let hand = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000));
            Bed { store: Arc::new(make(hand.clock())), hand }
        };
        the_sixth_in_a_minute_is_refused(bed()).await;
        a_draw_leaves_exactly_when_its_window_ends(bed()).await;
        every_window_of_a_limit_is_kept(bed()).await;
        a_refused_demand_takes_nothing(bed()).await;
        the_longest_refusal_is_told(bed()).await;
        weights_count_in_full(bed()).await;
        a_limit_drawn_twice_counts_the_sum(bed()).await;
        looking_draws_nothing(bed()).await;
        a_reload_keeps_the_counts(bed()).await;
        subjects_and_limits_are_apart(bed()).await;
        a_large_window_is_never_over_admitted(bed()).await;
        five_hundred_at_once_against_a_hundred(bed()).await;
        opposite_orders_do_not_wait_for_each_other(bed()).await;
        settling_twice_or_in_vain_is_harmless(bed()).await;
        claims::of_twenty_at_once_one_is_granted(bed()).await;
        claims::a_served_claim_stands_as_long_as_it_should(bed()).await;
        claims::a_failed_try_frees_its_claim(bed()).await;
        claims::who_is_under_way_keeps_his_claim(bed()).await;
        claims::claims_and_draws_are_one_transaction(bed()).await;
        claims::answers_are_kept_as_long_as_their_claims(bed()).await;
        budgets::calls_at_once_never_hold_more_than_there_is(bed()).await;
        budgets::what_is_not_known_is_spent_as_held(bed()).await;
        budgets::a_hold_that_does_not_fit_takes_nothing(bed()).await;
        budgets::a_call_is_spent_in_the_period_that_held_it(bed()).await;
        bans::bans_are_in_force_at_once(bed()).await;
        bans::a_reset_limit_is_whole(bed()).await;
        model::exact_windows_agree(bed(), 100_000).await;
        model::large_windows_stay_within_a_grain(bed(), 20_000).await;
    });
}

/// Runs the models of windows alone, for a store that is no bed for the rest.
pub(crate) fn run_model<S: Store>(operations: usize, make: impl Fn(Clock) -> S) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let bed = || {
            let hand = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000));
            Bed { store: Arc::new(make(hand.clock())), hand }
        };
        model::exact_windows_agree(bed(), operations).await;
        model::large_windows_stay_within_a_grain(bed(), operations).await;
    });
}

fn limit(name: &str, windows: &[(Duration, u64)]) -> LimitSpec {
    LimitSpec::new(name, windows.iter().map(|&(length, max)| Window { length, max })).unwrap()
}

const fn user(id: u128) -> Subject {
    Subject::user(SubjectId(id))
}

impl<S: Store> Bed<S> {
    async fn draw(&self, draws: &[Draw<'_>]) -> Decision {
        self.store.admit(&Demand::draws(draws)).await.unwrap()
    }

    async fn one(&self, limit: &LimitSpec, subject: Subject) -> Decision {
        self.draw(&[Draw::one(limit, subject)]).await
    }

    async fn granted(&self, limit: &LimitSpec, subject: Subject, times: u64) {
        for time in 1..=times {
            assert!(
                self.one(limit, subject).await.is_granted(),
                "draw {time} of {times} from {}",
                limit.name()
            );
        }
    }

    async fn remaining(&self, limit: &LimitSpec, subject: Subject) -> u64 {
        self.store.standings(&[Draw::one(limit, subject)]).await.unwrap().tightest().unwrap().remaining
    }
}

fn refused(decision: Decision) -> (Standing, Option<Duration>) {
    match decision {
        Decision::Denied(Denial::Limited { standing, retry_after }) => (standing, retry_after),
        other => panic!("not refused by a limit: {other:?}"),
    }
}

/// The promise that users count on their fingers.
async fn the_sixth_in_a_minute_is_refused<S: Store>(bed: Bed<S>) {
    let ai = limit("ai", &[(MINUTE, 5)]);
    for left in (0..5).rev() {
        assert!(bed.one(&ai, user(1)).await.is_granted(), "refused with {left} left");
        let standings = bed.store.standings(&[Draw::one(&ai, user(1))]).await.unwrap();
        let expected = Standing { draw: 0, max: 5, remaining: left, window: MINUTE, reset: MINUTE };
        assert_eq!(*standings, [expected]);
    }
    bed.hand.advance(10 * SECOND);
    let (standing, retry_after) = refused(bed.one(&ai, user(1)).await);
    assert_eq!(standing, Standing { draw: 0, max: 5, remaining: 0, window: MINUTE, reset: 50 * SECOND });
    assert_eq!(retry_after, Some(50 * SECOND));
}

/// `Retry-After` that is a moment short gives a client that obeys it a second refusal.
async fn a_draw_leaves_exactly_when_its_window_ends<S: Store>(bed: Bed<S>) {
    let ai = limit("ai", &[(MINUTE, 3)]);
    for _ in 0..3 {
        bed.granted(&ai, user(1), 1).await;
        bed.hand.advance(7 * SECOND + MICRO);
    }
    for _ in 0..7 {
        let wait = refused(bed.one(&ai, user(1)).await).1.unwrap();
        bed.hand.advance(wait - MICRO);
        assert_eq!(refused(bed.one(&ai, user(1)).await).1, Some(MICRO));
        bed.hand.advance(MICRO);
        bed.granted(&ai, user(1), 1).await;
    }
}

/// A limit of 8 an hour would be 5 a minute, or the other way round.
async fn every_window_of_a_limit_is_kept<S: Store>(bed: Bed<S>) {
    let ai = limit("ai", &[(MINUTE, 5), (HOUR, 8)]);
    bed.granted(&ai, user(1), 5).await;
    assert_eq!(refused(bed.one(&ai, user(1)).await).1, Some(MINUTE));
    bed.hand.advance(MINUTE);
    bed.granted(&ai, user(1), 3).await;
    let (standing, retry_after) = refused(bed.one(&ai, user(1)).await);
    assert_eq!((standing.window, standing.max, retry_after), (HOUR, 8, Some(HOUR - MINUTE)));
    bed.hand.advance(HOUR - MINUTE);
    bed.granted(&ai, user(1), 5).await;
}

/// A client refused by one limit would be charged by all others for nothing.
async fn a_refused_demand_takes_nothing<S: Store>(bed: Bed<S>) {
    let (wide, narrow) = (limit("wide", &[(MINUTE, 10), (HOUR, 300)]), limit("narrow", &[(MINUTE, 1)]));
    let both = [Draw::one(&wide, user(1)), Draw::one(&narrow, user(2)), Draw::one(&wide, user(3))];
    assert!(bed.draw(&both).await.is_granted());
    for _ in 0..50 {
        let (standing, _) = refused(bed.draw(&both).await);
        assert_eq!((standing.draw, standing.max, standing.remaining), (1, 1, 0));
    }
    assert_eq!((bed.remaining(&wide, user(1)).await, bed.remaining(&wide, user(3)).await), (9, 9));
    bed.hand.advance(MINUTE);
    assert!(bed.draw(&both).await.is_granted(), "refused tries must not prolong the refusal");
}

/// Who waits for the shorter of two refusals is refused again.
async fn the_longest_refusal_is_told<S: Store>(bed: Bed<S>) {
    let (short, long) = (limit("short", &[(SECOND, 1)]), limit("long", &[(MINUTE, 1)]));
    for draws in [
        [Draw::one(&short, user(1)), Draw::one(&long, user(1))],
        [Draw::one(&long, user(2)), Draw::one(&short, user(2))],
    ] {
        assert!(bed.draw(&draws).await.is_granted());
        let (standing, retry_after) = refused(bed.draw(&draws).await);
        assert_eq!((standing.window, retry_after), (MINUTE, Some(MINUTE)));
    }
}

/// Bandwidth and costs are drawn by weight: one byte too many must be refused, and none lost.
async fn weights_count_in_full<S: Store>(bed: Bed<S>) {
    let bytes = limit("bytes", &[(MINUTE, 100)]);
    let of = |weight| [Draw { limit: &bytes, subject: user(1), weight }];
    assert!(bed.draw(&of(60)).await.is_granted());
    bed.hand.advance(SECOND);
    assert!(bed.draw(&of(30)).await.is_granted());
    assert_eq!(refused(bed.draw(&of(11)).await).1, Some(59 * SECOND));
    assert_eq!(refused(bed.draw(&of(71)).await).1, Some(60 * SECOND), "both draws are in its way");
    assert!(bed.draw(&of(10)).await.is_granted());
    assert!(bed.draw(&of(0)).await.is_granted(), "nothing is never refused");
    for weight in [101, u64::MAX] {
        let (standing, retry_after) = refused(bed.draw(&of(weight)).await);
        assert_eq!((standing.remaining, standing.reset, retry_after), (0, MINUTE, None), "it never fits");
    }
    bed.hand.advance(59 * SECOND);
    assert!(bed.draw(&of(60)).await.is_granted());
    let never = limit("never", &[(MINUTE, 0)]);
    assert_eq!(refused(bed.one(&never, user(1)).await).1, None);
}

/// A caller without a key may draw on its address twice in one demand: it must not pass on the strength of
/// one.
async fn a_limit_drawn_twice_counts_the_sum<S: Store>(bed: Bed<S>) {
    let ai = limit("ai", &[(MINUTE, 3)]);
    let twice = [Draw::one(&ai, user(1)), Draw::one(&ai, user(1))];
    assert!(bed.draw(&twice).await.is_granted());
    assert_eq!(refused(bed.draw(&twice).await).0.remaining, 1);
    bed.granted(&ai, user(1), 1).await;
    let four = [Draw::one(&ai, user(2)); 4];
    assert_eq!(refused(bed.draw(&four).await).1, None);
    assert_eq!(bed.remaining(&ai, user(2)).await, 3);
}

/// A caller that asks for its own limits would use them up by asking.
async fn looking_draws_nothing<S: Store>(bed: Bed<S>) {
    let api = limit("api", &[(MINUTE, 2), (HOUR, 1000)]);
    bed.granted(&api, user(1), 1).await;
    bed.hand.advance(20 * SECOND);
    let draws = [Draw::one(&api, user(1)), Draw { limit: &api, subject: user(2), weight: 7 }];
    for _ in 0..10 {
        let standings = bed.store.standings(&draws).await.unwrap();
        let stands = |draw, max, remaining, window, reset| Standing { draw, max, remaining, window, reset };
        assert_eq!(
            standings[..2],
            [stands(0, 2, 1, MINUTE, 40 * SECOND), stands(0, 1000, 999, HOUR, HOUR - 20 * SECOND)]
        );
        let untouched = Duration::ZERO;
        assert_eq!(
            standings[2..],
            [stands(1, 2, 2, MINUTE, untouched), stands(1, 1000, 1000, HOUR, untouched)]
        );
    }
    bed.hand.advance(40 * SECOND);
    assert_eq!(bed.remaining(&api, user(1)).await, 2, "what has left is not counted");
    bed.granted(&api, user(1), 2).await;
}

/// A reload would hand everyone a fresh quota, or an operator's tighter limit would come too late.
async fn a_reload_keeps_the_counts<S: Store>(bed: Bed<S>) {
    bed.granted(&limit("ai", &[(MINUTE, 5), (HOUR, 50)]), user(1), 4).await;
    let (tighter, wider) = (limit("ai", &[(MINUTE, 3)]), limit("ai", &[(HOUR, 50), (MINUTE, 6)]));
    let (standing, retry_after) = refused(bed.one(&tighter, user(1)).await);
    assert_eq!((standing.remaining, retry_after), (0, Some(MINUTE)));
    bed.granted(&wider, user(1), 2).await;
    assert_eq!(refused(bed.one(&wider, user(1)).await).1, Some(MINUTE));
    bed.granted(&limit("ai", &[(2 * MINUTE, 1)]), user(1), 1).await;
    bed.granted(&limit("ia", &[(MINUTE, 1)]), user(1), 1).await;
}

/// Nobody may use up another's limit, nor one limit's draws another.
async fn subjects_and_limits_are_apart<S: Store>(bed: Bed<S>) {
    let (a, b) = (limit("a", &[(MINUTE, 1)]), limit("b", &[(MINUTE, 1)]));
    let subjects = [
        user(1),
        user(1 << 64),
        Subject::session(SubjectId(1)),
        Subject::address([0, 0, 0, 1].into()),
        Subject::address([0, 0, 0, 0, 0, 0, 0, 2].into()),
        Subject::route("1"),
        Subject::global(),
    ];
    for subject in subjects {
        bed.granted(&a, subject, 1).await;
        bed.granted(&b, subject, 1).await;
    }
    for subject in subjects {
        refused(bed.one(&a, subject).await);
    }
}

/// Large windows need not time each draw, but must never let one more through, nor hold one back for long.
async fn a_large_window_is_never_over_admitted<S: Store>(bed: Bed<S>) {
    let api = limit("api", &[(HOUR, 1000)]);
    for _ in 0..1000 {
        bed.granted(&api, user(1), 1).await;
        bed.hand.advance(SECOND);
    }
    refused(bed.one(&api, user(1)).await);
    bed.hand.advance(HOUR - 1000 * SECOND - MICRO);
    let wait = refused(bed.one(&api, user(1)).await).1.unwrap();
    assert!(wait >= MICRO && wait <= HOUR / 128, "{wait:?}");
    bed.hand.advance(wait - MICRO);
    assert_eq!(refused(bed.one(&api, user(1)).await).1, Some(MICRO));
    bed.hand.advance(MICRO);
    bed.granted(&api, user(1), 1).await;
}

/// Requests that come at once would all see the same free place.
async fn five_hundred_at_once_against_a_hundred<S: Store>(bed: Bed<S>) {
    let limits = Arc::new((limit("ai", &[(MINUTE, 100), (HOUR, 200)]), limit("tenant", &[(MINUTE, 1000)])));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (store, limits) = (Arc::clone(&bed.store), Arc::clone(&limits));
        tasks.spawn(async move {
            let draws = [Draw::one(&limits.1, user(2)), Draw::one(&limits.0, user(1))];
            store.admit(&Demand::draws(&draws)).await.unwrap().is_granted()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|granted| *granted).count(), 100);
    assert_eq!((bed.remaining(&limits.0, user(1)).await, bed.remaining(&limits.1, user(2)).await), (0, 900));
}

/// Two requests that draw on the same two subjects the other way round would hang the gate.
async fn opposite_orders_do_not_wait_for_each_other<S: Store>(bed: Bed<S>) {
    let api = Arc::new(limit("api", &[(MINUTE, 1_000_000)]));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8u128 {
        let (store, api) = (Arc::clone(&bed.store), Arc::clone(&api));
        tasks.spawn(async move {
            for round in 0..500u128 {
                let (a, b) = (user(round % 16), user((round * 7 + task) % 16));
                let draws =
                    if task % 2 == 0 { [a, b] } else { [b, a] }.map(|subject| Draw::one(&api, subject));
                assert!(store.admit(&Demand::draws(&draws)).await.unwrap().is_granted());
            }
        });
    }
    within_a_minute(tasks.join_all()).await;
    let mut drawn = 0;
    for id in 0..16 {
        drawn += 1_000_000 - bed.remaining(&api, user(id)).await;
    }
    assert_eq!(drawn, 8 * 500 * 2);
}

async fn within_a_minute<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(MINUTE, work).await.expect("it hangs")
}

/// The settle actor repeats whole batches: what was settled already must not be settled again, nor fail the
/// rest.
async fn settling_twice_or_in_vain_is_harmless<S: Store>(bed: Bed<S>) {
    let ai = limit("ai", &[(MINUTE, 2)]);
    let draws = [Draw::one(&ai, user(1))];
    let ids = [AdmissionId(1 << 64), AdmissionId(2 << 64), AdmissionId(3 << 64)];
    let batch = ids.map(|id| Settlement { id, outcome: Outcome::Served, spent: None });
    for id in &ids[..2] {
        assert!(
            bed.store.admit(&Demand { id: Some(*id), ..Demand::draws(&draws) }).await.unwrap().is_granted()
        );
    }
    for _ in 0..3 {
        bed.store.settle(&batch).await.unwrap();
    }
    assert_eq!(bed.remaining(&ai, user(1)).await, 0, "settling gives no draw back");
}
