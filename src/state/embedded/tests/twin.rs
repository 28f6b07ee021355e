//! Random operations on a store that is killed and closed every so often, compared with a memory store that never is.

use std::sync::OnceLock;

use smallvec::smallvec;
use tokio::sync::RwLock;

use super::*;
use crate::state::suite::random::Random;

/// One of a few users.
fn any_user(random: &mut Random) -> Subject {
    user(random.below(6).into())
}

/// Any change that is lost, made twice or made to another row shows here sooner or later.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_counts_like_one_that_is_not() {
    let (scratch, hand) = (Scratch::new(), hand());
    let limits = [
        limit("a", &[(MINUTE, 9), (HOUR, 60)]),
        limit("b", &[(Duration::from_secs(5), 3)]),
        limit("c", &[(HOUR, 700)]),
    ];
    let budgets = [budget("day", 4000), BudgetSpec::new("hour", 500, Calendar::Hour, "UTC").unwrap()];
    let twin = MemoryStore::new(MemoryConfig::default(), hand.clock());
    let mut store = open(&scratch.0, &hand);
    let (mut random, mut open_ids, mut id) = (Random(3), Vec::<u128>::new(), 0u128);
    let (mut ends, mut granted) = (0, 0);
    for operation in 0..6000 {
        match random.below(100) {
            0 => {
                if random.below(2) == 0 {
                    store.close();
                } else {
                    store.persist().await.unwrap();
                    store.kill();
                }
                ends += 1;
                store = open(&scratch.0, &hand);
                // What is open when a process ends is spent as held, and its claims are free.
                let left: Vec<_> = open_ids.drain(..).map(|id| settlement(id, Outcome::Abandoned)).collect();
                twin.settle(&left).await.unwrap();
            }
            1 => {
                let draws = [Draw::one(&limits[random.below(3) as usize], any_user(&mut random))];
                store.reset(&draws).await.unwrap();
                twin.reset(&draws).await.unwrap();
            }
            2 => {
                let at = hand.clock().now();
                let ban = Ban {
                    subject: any_user(&mut random),
                    reason: format!("{operation}").into(),
                    ..ban(0, at)
                };
                store.ban(ban.clone()).await.unwrap();
                twin.ban(ban).await.unwrap();
            }
            3 => {
                let subject = any_user(&mut random);
                assert_eq!(store.lift(subject).await, twin.lift(subject).await);
            }
            4 => {
                store.sweep();
                twin.sweep();
            }
            5 if random.below(10) == 0 => {
                // A call that runs over two hours is billed to the last by one and to its own by the other: both count.
                let all: Vec<_> = open_ids.drain(..).map(|id| settlement(id, Outcome::Served)).collect();
                store.settle(&all).await.unwrap();
                twin.settle(&all).await.unwrap();
                hand.advance(HOUR);
            }
            5..30 if !open_ids.is_empty() => {
                let id = open_ids.swap_remove(random.below(open_ids.len() as u64) as usize);
                let outcomes =
                    [Outcome::Served, Outcome::Served, Outcome::NeverSent, Outcome::UpstreamFailed];
                let spent = (random.below(2) == 0).then(|| smallvec![random.below(30), random.below(30)]);
                let outcome = outcomes[random.below(4) as usize];
                let batch = [Settlement { id: AdmissionId(id), outcome, spent }];
                store.settle(&batch).await.unwrap();
                twin.settle(&batch).await.unwrap();
            }
            _ => {
                id += 1;
                let limit = &limits[random.below(3) as usize];
                let draws = [
                    Draw { limit, subject: any_user(&mut random), weight: random.below(3) },
                    Draw::one(&limits[2], any_user(&mut random)),
                ];
                let claims = [claim(random.below(20).into())];
                let holds = [0, 1].map(|at: usize| Hold {
                    budget: &budgets[at],
                    subject: user(random.below(3).into()),
                    amount: random.below(20),
                });
                let demand = Demand {
                    id: Some(AdmissionId(id)),
                    draws: &draws[..random.below(3) as usize],
                    claims: &claims[..random.below(2) as usize],
                    holds: &holds[..random.below(3) as usize],
                };
                let decision = store.admit(&demand).await.unwrap();
                assert_eq!(decision, twin.admit(&demand).await.unwrap(), "{operation}: {demand:?}");
                if decision.is_granted() {
                    open_ids.push(id);
                    granted += 1;
                }
            }
        }
        if operation % 7 == 0 {
            hand.advance(Duration::from_millis(random.below(3000)));
        }
        for subject in (0..6).map(user) {
            let draws = [0, 1, 2].map(|at: usize| Draw::one(&limits[at], subject));
            assert_eq!(store.standings(&draws).await, twin.standings(&draws).await, "{operation}");
            let holds = [0, 1].map(|at: usize| Hold { budget: &budgets[at], subject, amount: 0 });
            assert_eq!(store.balances(&holds).await, twin.balances(&holds).await, "{operation}");
        }
        assert_eq!(store.bans().all(), twin.bans().all(), "{operation}");
    }
    assert!(ends > 30 && granted > 1000, "{ends} ends, {granted} granted");
}

/// A store that is ended and opened anew every few operations, under the suite's own model.
struct Reopening {
    now: RwLock<&'static EmbeddedStore>,
    clock: Clock,
    directory: PathBuf,
    random: Mutex<Random>,
}

impl Reopening {
    async fn store(&self) -> &'static EmbeddedStore {
        let (due, orderly) = {
            let mut random = self.random.lock();
            (random.below(400) == 0, random.below(2) == 0)
        };
        if due {
            let mut now = self.now.write().await;
            now.persist().await.unwrap();
            if orderly {
                now.close()
            } else {
                now.kill()
            }
            // Few, and small: leaked, so that they can be lent.
            *now = Box::leak(Box::new(try_open(&self.directory, self.clock.clone()).unwrap()));
        }
        *self.now.read().await
    }
}

impl Store for Reopening {
    async fn admit(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        self.store().await.admit(demand).await
    }

    async fn settle(&self, batch: &[Settlement]) -> Result<(), StoreError> {
        self.store().await.settle(batch).await
    }

    fn settles_at_once(&self) -> bool {
        true
    }

    async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        self.store().await.standings(draws).await
    }

    async fn balances(&self, holds: &[Hold<'_>]) -> Result<Vec<Balance>, StoreError> {
        self.store().await.balances(holds).await
    }

    async fn reset(&self, draws: &[Draw<'_>]) -> Result<(), StoreError> {
        self.store().await.reset(draws).await
    }

    async fn persist(&self) -> Result<(), StoreError> {
        self.store().await.persist().await
    }

    async fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) -> Result<(), StoreError> {
        self.store().await.keep_answer(key, answer).await
    }

    async fn kept_answer(&self, key: ClaimKey) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
        self.store().await.kept_answer(key).await
    }

    fn bans(&self) -> &Bans {
        static NONE: OnceLock<Bans> = OnceLock::new();
        NONE.get_or_init(|| Bans::new(1, self.clock.clone()))
    }

    async fn ban(&self, ban: Ban) -> Result<bool, StoreError> {
        self.store().await.ban(ban).await
    }

    async fn lift(&self, subject: Subject) -> Result<Option<Arc<Ban>>, StoreError> {
        self.store().await.lift(subject).await
    }
}

/// A window must be as exact over a restart as without one: to the microsecond, to the draw.
#[test]
fn windows_are_exact_over_restarts() {
    let scratch = Scratch::new();
    let next = AtomicU32::new(0);
    suite::run_model(8_000, |clock| {
        let directory = scratch.0.join(next.fetch_add(1, Ordering::Relaxed).to_string());
        let first: &'static EmbeddedStore = Box::leak(Box::new(try_open(&directory, clock.clone()).unwrap()));
        Reopening { now: RwLock::new(first), clock, directory, random: Mutex::new(Random(5)) }
    });
}

/// A client that asks again after a restart gets its answer again, not somebody else's, and not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn kept_answers_come_back_with_their_claims() {
    let (scratch, hand) = (Scratch::new(), hand());
    let answer = |text: &str| {
        let headers = vec![("content-type".into(), b"text/plain"[..].into())];
        Arc::new(KeptAnswer { status: 201, headers, body: text.to_owned().into() })
    };
    let store = open(&scratch.0, &hand);
    for key in 1..=3u128 {
        assert!(take(&store, key, key).await.is_granted());
        store.keep_answer(ClaimKey(key), answer(&format!("answer {key}"))).await.unwrap();
        store.settle(&[settlement(key, Outcome::Served)]).await.unwrap();
    }
    drop(store);
    let store = open(&scratch.0, &hand);
    let kept = async |store: &EmbeddedStore, key| store.kept_answer(ClaimKey(key)).await.unwrap();
    assert_eq!(kept(&store, 1).await, Some(answer("answer 1")));
    assert_eq!(kept(&store, 3).await, Some(answer("answer 3")));
    hand.advance(KEEP);
    assert!(take(&store, 4, 2).await.is_granted());
    store.settle(&[settlement(4, Outcome::Served)]).await.unwrap();
    drop(store);
    let store = open(&scratch.0, &hand);
    for key in 1..=3 {
        assert_eq!(kept(&store, key).await, None, "{key}");
    }
}
