//! Budgets: what is held, spent, and owed.

use std::sync::Arc;
use std::time::Duration;

use smallvec::smallvec;

use super::{Bed, HOUR, MICRO, MINUTE, limit, user};
use crate::state::admission::{Outcome, Settlement, Spent};
use crate::state::budget::{BudgetSpec, Calendar, Hold};
use crate::state::{AdmissionId, Balance, Decision, Demand, Denial, Draw, Store, Subject};

fn budget(name: &str, max: u64, calendar: Calendar) -> BudgetSpec {
    BudgetSpec::new(name, max, calendar, "UTC").unwrap()
}

const fn of(budget: &BudgetSpec, amount: u64) -> Hold<'_> {
    Hold { budget, subject: user(1), amount }
}

impl<S: Store> Bed<S> {
    async fn hold(&self, id: u128, holds: &[Hold<'_>]) -> Decision {
        self.store.admit(&Demand { id: Some(AdmissionId(id)), holds, ..Demand::default() }).await.unwrap()
    }

    async fn spend(&self, id: u128, outcome: Outcome, spent: Option<Spent>) {
        self.store.settle(&[Settlement { id: AdmissionId(id), outcome, spent }]).await.unwrap();
    }

    /// What is spent and held of `budget`.
    async fn stands(&self, budget: &BudgetSpec) -> (u64, u64) {
        let balance = self.store.balances(&[of(budget, 0)]).await.unwrap()[0];
        (balance.spent, balance.held)
    }
}

fn spent(decision: Decision) -> (usize, Balance) {
    match decision {
        Decision::Denied(Denial::Spent { hold, balance }) => (hold, balance),
        other => panic!("not spent: {other:?}"),
    }
}

/// Calls that run at once would each see the same money.
pub(super) async fn calls_at_once_never_hold_more_than_there_is<S: Store>(bed: Bed<S>) {
    let daily = Arc::new(budget("daily", 1000, Calendar::Day));
    let mut tasks = tokio::task::JoinSet::new();
    for id in 0..500 {
        let (store, daily) = (Arc::clone(&bed.store), Arc::clone(&daily));
        tasks.spawn(async move {
            let holds = [of(&daily, 10)];
            let demand = Demand { id: Some(AdmissionId(id)), holds: &holds, ..Demand::default() };
            store.admit(&demand).await.unwrap().is_granted().then_some(id)
        });
    }
    let granted: Vec<u128> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!((granted.len(), bed.stands(&daily).await), (100, (0, 1000)));
    for id in granted.iter().chain(&granted) {
        bed.spend(*id, Outcome::Served, Some(smallvec![7])).await;
    }
    assert_eq!(bed.stands(&daily).await, (700, 0), "each is settled once");
}

/// Money that was spent must be counted, whichever way a call ends; money that was not must come back.
pub(super) async fn what_is_not_known_is_spent_as_held<S: Store>(bed: Bed<S>) {
    use Outcome::{Abandoned, ClientGone, NeverSent, Panicked, Served, UpstreamFailed};
    let (cost, calls) = (budget("cost", 1000, Calendar::Day), budget("calls", 100, Calendar::Hour));
    for (id, outcome) in (0..).zip([Served, ClientGone, UpstreamFailed, Abandoned, Panicked, NeverSent]) {
        assert!(bed.hold(id, &[of(&cost, 10), of(&calls, 1)]).await.is_granted());
        bed.spend(id, outcome, None).await;
    }
    assert_eq!((bed.stands(&cost).await, bed.stands(&calls).await), ((50, 0), (5, 0)));
    assert!(bed.hold(9, &[of(&cost, 10), of(&calls, 1)]).await.is_granted());
    bed.spend(9, ClientGone, Some(smallvec![3])).await;
    assert_eq!((bed.stands(&cost).await, bed.stands(&calls).await), ((53, 0), (6, 0)));
}

/// What does not fit is refused whole, with when it will be otherwise.
pub(super) async fn a_hold_that_does_not_fit_takes_nothing<S: Store>(bed: Bed<S>) {
    let (day, hour) = (budget("day", 100, Calendar::Day), budget("hour", 30, Calendar::Hour));
    let ai = limit("ai", &[(MINUTE, 2)]);
    assert!(bed.hold(1, &[of(&day, 80), of(&hour, 30)]).await.is_granted());
    let (at, balance) = spent(bed.hold(2, &[of(&hour, 1), of(&day, 21)]).await);
    assert_eq!((at, balance.max, balance.spent, balance.held, balance.remaining()), (1, 100, 0, 80, 20));
    assert!(balance.reset > Duration::ZERO && balance.reset <= 24 * HOUR);
    assert_eq!(spent(bed.hold(2, &[of(&day, 11), of(&day, 10)]).await).0, 1, "two holds count as their sum");
    let draws = [Draw::one(&ai, user(1))];
    let holds = [of(&day, 21)];
    let demand = Demand { id: Some(AdmissionId(3)), draws: &draws, holds: &holds, ..Demand::default() };
    for _ in 0..5 {
        spent(bed.store.admit(&demand).await.unwrap());
    }
    assert_eq!((bed.remaining(&ai, user(1)).await, bed.stands(&day).await), (2, (0, 80)));
    assert!(bed.hold(4, &[of(&day, 20), of(&hour, 0)]).await.is_granted(), "nothing is never refused");
    let other = Hold { budget: &day, subject: Subject::global(), amount: 100 };
    assert!(bed.hold(5, &[other]).await.is_granted(), "another's account");
    assert_eq!(bed.store.balances(&[other, of(&hour, 9)]).await.unwrap()[1].held, 30);
}

/// A call that runs over midnight is yesterday's; what it overshot must not be forgiven.
pub(super) async fn a_call_is_spent_in_the_period_that_held_it<S: Store>(bed: Bed<S>) {
    let hour = budget("hour", 100, Calendar::Hour);
    let next = async || {
        let reset = bed.store.balances(&[of(&hour, 0)]).await.unwrap()[0].reset;
        bed.hand.advance(reset - MICRO);
        assert_eq!(bed.store.balances(&[of(&hour, 0)]).await.unwrap()[0].reset, MICRO);
        bed.hand.advance(MICRO);
    };
    assert!(
        bed.hold(1, &[of(&hour, 60)]).await.is_granted() && bed.hold(2, &[of(&hour, 30)]).await.is_granted()
    );
    bed.spend(2, Outcome::Served, None).await;
    next().await;
    assert_eq!(bed.stands(&hour).await, (0, 0), "a new hour");
    assert!(bed.hold(3, &[of(&hour, 10)]).await.is_granted());
    bed.spend(1, Outcome::Served, Some(smallvec![95])).await;
    assert_eq!(bed.stands(&hour).await, (25, 10), "95 and 30 are 25 more than there was");
    bed.spend(3, Outcome::Served, Some(smallvec![180])).await;
    next().await;
    assert_eq!(bed.stands(&hour).await, (105, 0));
    assert!(spent(bed.hold(4, &[of(&hour, 1)]).await).1.remaining() == 0);
    next().await;
    assert_eq!(bed.stands(&hour).await, (5, 0));
    next().await;
    assert_eq!(bed.stands(&hour).await, (0, 0));
}
