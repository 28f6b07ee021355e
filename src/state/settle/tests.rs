//! Every admission is settled once, whichever way the request, the store or the server ends.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use parking_lot::Mutex;

use super::*;
use crate::state::admission::{Admission, Admissions, Admitted, Outcome};
use crate::state::budget::Hold;
use crate::state::claim::{Claim, ClaimKey, KeptAnswer};
use crate::state::{
    AdmissionId, Balance, Ban, Bans, Clock, Decision, Demand, Draw, LimitSpec, MemoryConfig, MemoryStore,
    Standings, Subject, Window,
};

/// How a scripted store answers demands.
#[derive(Clone, Copy)]
enum Answer {
    Grant,
    Refuse,
    Fail,
    Hang,
}

/// Does as it is told, and remembers every settlement it took.
struct Scripted {
    answer: Answer,
    at_once: bool,
    /// Does the rest.
    memory: MemoryStore,
    failures: AtomicUsize,
    taken: Mutex<Vec<Settlement>>,
}

impl Store for Scripted {
    async fn admit(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        match self.answer {
            Answer::Grant => Ok(Decision::Granted),
            Answer::Refuse => self.memory.admit(demand).await,
            Answer::Fail => Err(StoreError::TooManyOpen),
            Answer::Hang => std::future::pending().await,
        }
    }

    async fn settle(&self, batch: &[Settlement]) -> Result<(), StoreError> {
        let fewer = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            return Err(StoreError::TooManyOpen);
        }
        self.taken.lock().extend_from_slice(batch);
        Ok(())
    }

    fn settles_at_once(&self) -> bool {
        self.at_once
    }

    async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        self.memory.standings(draws).await
    }

    async fn balances(&self, holds: &[Hold<'_>]) -> Result<Vec<Balance>, StoreError> {
        self.memory.balances(holds).await
    }

    async fn reset(&self, draws: &[Draw<'_>]) -> Result<(), StoreError> {
        self.memory.reset(draws).await
    }

    async fn persist(&self) -> Result<(), StoreError> {
        self.memory.persist().await
    }

    async fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) -> Result<(), StoreError> {
        self.memory.keep_answer(key, answer).await
    }

    async fn kept_answer(&self, key: ClaimKey) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
        self.memory.kept_answer(key).await
    }

    fn bans(&self) -> &Bans {
        self.memory.bans()
    }

    async fn ban(&self, ban: Ban) -> Result<bool, StoreError> {
        self.memory.ban(ban).await
    }

    async fn lift(&self, subject: Subject) -> Result<Option<Arc<Ban>>, StoreError> {
        self.memory.lift(subject).await
    }
}

struct Bed {
    store: Arc<Scripted>,
    admissions: Admissions<Scripted>,
    actor: SettleActor,
    shut: LimitSpec,
}

const PATIENCE: Duration = Duration::from_secs(30);

fn bed(answer: Answer, failures: usize, capacity: usize) -> Bed {
    let store = Arc::new(Scripted {
        answer,
        at_once: false,
        memory: MemoryStore::new(MemoryConfig::default(), Clock::system()),
        failures: failures.into(),
        taken: Mutex::default(),
    });
    let (settler, actor) = SettleActor::start(Arc::clone(&store), capacity).unwrap();
    let shut = LimitSpec::new("shut", [Window { length: Duration::from_secs(60), max: 0 }]).unwrap();
    Bed { admissions: Admissions::new(Arc::clone(&store), settler), store, actor, shut }
}

impl Bed {
    async fn admit(&self) -> Result<Option<Admission>, StoreError> {
        match self.admissions.admit(Demand::draws(&[Draw::one(&self.shut, Subject::global())])).await? {
            Admitted::Granted(admission) => Ok(Some(admission)),
            Admitted::Denied(_) => Ok(None),
        }
    }

    async fn granted(&self) -> Admission {
        self.admit().await.unwrap().unwrap()
    }

    /// Stops, and tells what the store has taken.
    fn taken(self) -> Vec<Settlement> {
        let stats = self.actor.shutdown(PATIENCE);
        let taken = self.store.taken.lock().clone();
        assert_eq!((stats.settled, stats.lost), (taken.len() as u64, 0));
        taken
    }
}

/// What the store is told decides later what the client pays.
#[tokio::test]
async fn each_way_out_settles_once_with_its_outcome() {
    let bed = bed(Answer::Grant, 0, 16);
    let mut expected = Vec::new();
    let mut expect = |admission: &Admission, outcome| {
        expected.push(Settlement { id: admission.id(), outcome, spent: None })
    };

    for outcome in [Outcome::Served, Outcome::ClientGone, Outcome::UpstreamFailed] {
        let admission = bed.granted().await;
        expect(&admission, outcome);
        admission.settle(outcome);
    }
    let unsent = bed.granted().await;
    expect(&unsent, Outcome::NeverSent);
    drop(unsent);
    let mut dropped = bed.granted().await;
    expect(&dropped, Outcome::Abandoned);
    dropped.note(Outcome::Abandoned);
    drop(dropped);
    for (noted, outcome) in
        [(Outcome::Abandoned, Outcome::Panicked), (Outcome::NeverSent, Outcome::NeverSent)]
    {
        let mut unwound = bed.granted().await;
        expect(&unwound, outcome);
        unwound.note(noted);
        let panic = catch_unwind(AssertUnwindSafe(move || {
            let _unwound = unwound;
            resume_unwind(Box::new("a defect"));
        }));
        assert!(panic.is_err());
    }
    assert_eq!(bed.taken(), expected);
}

/// Refused requests are the many: each would hold a place for ever and settle what was never granted.
#[tokio::test]
async fn a_refusal_settles_nothing_and_gives_its_place_back() {
    let bed = bed(Answer::Refuse, 0, 1);
    for _ in 0..100 {
        assert!(bed.admit().await.unwrap().is_none());
    }
    assert_eq!(bed.taken(), []);
}

/// A store that failed may have granted all the same: what it may hold must be let go.
#[tokio::test]
async fn an_unknown_admit_is_settled_as_never_sent() {
    let failing = bed(Answer::Fail, 0, 16);
    assert_eq!(failing.admit().await.unwrap_err(), StoreError::TooManyOpen);
    let hanging = bed(Answer::Hang, 0, 16);
    tokio::select! {
        biased;
        _ = hanging.admit() => unreachable!("it hangs"),
        () = std::future::ready(()) => {}
    }
    for bed in [failing, hanging] {
        let taken = bed.taken();
        assert_eq!(
            taken.iter().map(|settlement| settlement.outcome).collect::<Vec<_>>(),
            [Outcome::NeverSent]
        );
    }
}

/// A store that is down would let an unbounded queue grow; and when it is back, the gate must open again.
#[tokio::test]
async fn a_full_queue_fails_admits_until_there_is_room() {
    let bed = bed(Answer::Grant, 0, 2);
    let (first, second) = (bed.granted().await, bed.granted().await);
    assert_eq!(bed.admit().await.unwrap_err(), StoreError::SettleBacklog);
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    let third = loop {
        match bed.admit().await {
            Ok(third) => break third,
            Err(_) => assert!(Instant::now() < deadline, "it never opens again"),
        }
        tokio::task::yield_now().await;
    };
    drop((second, third));
    assert_eq!(bed.taken().len(), 3);
}

/// One failed write would lose the settlements of a whole batch.
#[tokio::test]
async fn a_failed_batch_is_repeated_until_the_store_takes_it() {
    let bed = bed(Answer::Grant, 3, 64);
    let mut ids: Vec<_> = Vec::new();
    for _ in 0..50 {
        ids.push(bed.granted().await.id());
    }
    let settler = bed.admissions.settler().clone();
    assert_eq!(bed.taken().iter().map(|settlement| settlement.id).collect::<Vec<_>>(), ids);
    assert_eq!(settler.stats().failures, 3);
}

/// Streams that still run when the server stops would never be settled; a store that is gone would hang the
/// stop.
#[tokio::test]
async fn shutdown_waits_for_open_admissions_but_not_for_ever() {
    let patient = bed(Answer::Grant, 0, 16);
    let (admission, settler) = (patient.granted().await, patient.admissions.settler().clone());
    let stopping = std::thread::spawn(move || patient.taken());
    // What is left then is the sender that the admission holds.
    while settler.sender.strong_count() > 1 {
        std::thread::yield_now();
    }
    assert!(!stopping.is_finished());
    admission.settle(Outcome::Served);
    assert_eq!(stopping.join().unwrap().len(), 1);
    assert_eq!(settler.reserve().unwrap_err(), StoreError::Stopped);

    let gone = bed(Answer::Grant, usize::MAX, 16);
    let open = gone.granted().await;
    drop((gone.granted().await, gone.granted().await));
    let stats = gone.actor.shutdown(Duration::from_millis(20));
    assert_eq!((stats.settled, stats.lost), (0, 3));
    drop(open);
}

/// The proof in the large: nothing stays open whatever threads do at once.
#[test]
fn nothing_stays_open_after_many_threads() {
    let store = Arc::new(MemoryStore::new(MemoryConfig::default(), Clock::system()));
    let (settler, actor) = SettleActor::start(Arc::clone(&store), 65_536).unwrap();
    let admissions = Admissions::new(Arc::clone(&store), settler);
    let limit = LimitSpec::new("ai", [Window { length: Duration::from_secs(3600), max: 5000 }]).unwrap();
    let granted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (admissions, limit, granted) = (&admissions, &limit, &granted);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let draws = [Draw::one(limit, Subject::global())];
                for round in 0..1000 {
                    let Ok(Admitted::Granted(admission)) =
                        runtime.block_on(admissions.admit(Demand::draws(&draws)))
                    else {
                        continue;
                    };
                    granted.fetch_add(1, Ordering::Relaxed);
                    match (round + thread) % 2 {
                        0 => drop(admission),
                        _ => admission.settle(Outcome::Served),
                    }
                }
            });
        }
    });
    let stats = actor.shutdown(PATIENCE);
    assert_eq!(granted.into_inner(), 5000);
    assert_eq!((stats.settled, stats.lost, store.stats().open), (5000, 0, 0));
}

/// Two admissions of one id would settle each other.
#[tokio::test]
async fn ids_never_repeat_nor_do_those_of_two_gates() {
    let (one, other) = (bed(Answer::Grant, 0, 4096), bed(Answer::Grant, 0, 4096));
    let mut ids: Vec<AdmissionId> = Vec::new();
    for _ in 0..1000 {
        ids.extend([one.granted().await.id(), other.granted().await.id()]);
    }
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 2000);
}

/// A client that was told of a failure, and tries again at once, would meet its own claim for another while.
#[tokio::test]
async fn what_somebody_may_wait_for_is_settled_at_once_and_once() {
    let settled = |bed: &Bed| bed.store.taken.lock().len();
    let claims = [Claim { key: ClaimKey(1), content: 1, keep: Duration::from_secs(1) }];
    for failures in 0..2 {
        let bed = bed(Answer::Grant, failures, 16);
        let demand = Demand { claims: &claims, ..Demand::default() };
        let Ok(Admitted::Granted(admission)) = bed.admissions.admit(demand).await else {
            panic!("granted");
        };
        bed.admissions.settle(admission, Outcome::Declined).await;
        assert!(failures > 0 || settled(&bed) == 1, "it waits for the actor");
        let Bed { store, admissions, actor, .. } = bed;
        drop(admissions);
        tokio::task::spawn_blocking(|| actor.shutdown(PATIENCE)).await.unwrap();
        assert_eq!(store.taken.lock().len(), 1);
    }
}
