//! Claims and the answers kept for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Bed, MICRO, MINUTE, SECOND, limit, user};
use crate::state::admission::{Outcome, Settlement};
use crate::state::claim::{Claim, ClaimKey, Holder, KeptAnswer};
use crate::state::{AdmissionId, Decision, Demand, Denial, Draw, Store};

const KEEP: Duration = Duration::from_secs(600);

const fn claim(key: u128, content: u128) -> Claim {
    Claim { key: ClaimKey(key), content, keep: KEEP }
}

impl<S: Store> Bed<S> {
    async fn claim(&self, id: u128, claims: &[Claim]) -> Decision {
        self.store.admit(&Demand { id: Some(AdmissionId(id)), claims, ..Demand::default() }).await.unwrap()
    }

    async fn settle(&self, id: u128, outcome: Outcome) {
        self.store.settle(&[Settlement { id: AdmissionId(id), outcome, spent: None }]).await.unwrap();
    }
}

fn holder(decision: Decision) -> (usize, Holder) {
    match decision {
        Decision::Denied(Denial::Claimed { claim, by }) => (claim, by),
        other => panic!("not claimed: {other:?}"),
    }
}

/// A webhook that is sent twice at once would be run, and paid, twice.
pub(super) async fn of_twenty_at_once_one_is_granted<S: Store>(bed: Bed<S>) {
    let mut tasks = tokio::task::JoinSet::new();
    for id in 0..20 {
        let store = Arc::clone(&bed.store);
        tasks.spawn(async move {
            let claims = [claim(7, 1), claim(1 << 70, 1)];
            let demand = Demand { id: Some(AdmissionId(id)), claims: &claims, ..Demand::default() };
            store.admit(&demand).await.unwrap().is_granted()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|granted| *granted).count(), 1);
}

/// A repetition must be told apart from another message under the same name, and free again to the microsecond.
pub(super) async fn a_served_claim_stands_as_long_as_it_should<S: Store>(bed: Bed<S>) {
    assert!(bed.claim(1, &[claim(7, 1)]).await.is_granted());
    bed.hand.advance(SECOND);
    let under_way = Holder { under_way: true, same_content: true, age: SECOND, free_in: KEEP - SECOND };
    assert_eq!(holder(bed.claim(2, &[claim(8, 1), claim(7, 1)]).await), (1, under_way));
    bed.settle(1, Outcome::Served).await;
    let other = Holder { under_way: false, same_content: false, ..under_way };
    assert_eq!(holder(bed.claim(3, &[claim(7, 2)]).await), (0, other));
    bed.hand.advance(KEEP - SECOND - MICRO);
    assert_eq!(holder(bed.claim(4, &[claim(7, 1)]).await).1.free_in, MICRO);
    bed.hand.advance(MICRO);
    assert!(bed.claim(5, &[claim(7, 1), claim(8, 1)]).await.is_granted(), "what was refused claimed nothing");
}

/// A message whose first try failed would never get through.
pub(super) async fn a_failed_try_frees_its_claim<S: Store>(bed: Bed<S>) {
    use Outcome::{Abandoned, ClientGone, NeverSent, Panicked, UpstreamFailed};
    for (id, outcome) in (1..).zip([ClientGone, UpstreamFailed, NeverSent, Abandoned, Panicked]) {
        assert!(bed.claim(id, &[claim(7, 1)]).await.is_granted(), "{outcome:?}");
        bed.settle(id, outcome).await;
    }
    assert!(bed.claim(9, &[claim(7, 1)]).await.is_granted());
    bed.settle(1, NeverSent).await;
    assert!(
        holder(bed.claim(10, &[claim(7, 1)]).await).1.under_way,
        "an old admission frees nobody else's claim"
    );
}

/// A claim that lasts shorter than its request must not let a second one in beside it.
pub(super) async fn who_is_under_way_keeps_his_claim<S: Store>(bed: Bed<S>) {
    assert!(bed.claim(1, &[claim(7, 1)]).await.is_granted());
    bed.hand.advance(KEEP + MINUTE);
    assert_eq!(holder(bed.claim(2, &[claim(7, 1)]).await).1.free_in, Duration::ZERO);
    bed.settle(1, Outcome::Served).await;
    assert!(bed.claim(3, &[claim(7, 1)]).await.is_granted());
}

/// Half a transaction would leave a message claimed by nobody, or a limit drawn for nothing.
pub(super) async fn claims_and_draws_are_one_transaction<S: Store>(bed: Bed<S>) {
    let ai = limit("ai", &[(MINUTE, 1)]);
    let draws = [Draw::one(&ai, user(1))];
    let admit = async |id, key| {
        let claims = [claim(key, 1)];
        let demand =
            Demand { id: Some(AdmissionId(id)), claims: &claims, draws: &draws, ..Demand::default() };
        bed.store.admit(&demand).await.unwrap()
    };
    assert!(admit(1, 7).await.is_granted());
    assert!(matches!(admit(2, 8).await, Decision::Denied(Denial::Limited { .. })));
    holder(admit(3, 7).await);
    bed.hand.advance(MINUTE);
    holder(admit(4, 7).await);
    assert!(admit(5, 8).await.is_granted(), "neither claimed nor drawn by those who were denied");
}

/// A client that asks again would get somebody else's answer, an old one, or none.
pub(super) async fn answers_are_kept_as_long_as_their_claims<S: Store>(bed: Bed<S>) {
    let headers = vec![("content-type".into(), b"text/plain"[..].into())];
    let answer = Arc::new(KeptAnswer { status: 201, headers, body: Bytes::from_static(b"hello") });
    let kept = async |key| bed.store.kept_answer(ClaimKey(key)).await.unwrap();
    bed.store.keep_answer(ClaimKey(7), answer.clone()).await.unwrap();
    assert_eq!(kept(7).await, None, "nobody has claimed it");
    assert!(bed.claim(1, &[claim(7, 1)]).await.is_granted());
    bed.store.keep_answer(ClaimKey(7), answer.clone()).await.unwrap();
    bed.settle(1, Outcome::Served).await;
    assert_eq!((kept(7).await, kept(8).await), (Some(answer), None));
    bed.hand.advance(KEEP);
    assert_eq!(kept(7).await, None);
    assert!(bed.claim(2, &[claim(7, 1)]).await.is_granted());
    assert_eq!(kept(7).await, None, "the answer to an earlier claim");
}
