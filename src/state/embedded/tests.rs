//! What is left of a store after each way in which a process or a machine can end.

mod crashes;
mod failures;
mod handover;
mod twin;

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::proxy::client::SubjectId;
use crate::state::admission::{Outcome, Settlement};
use crate::state::budget::{BudgetSpec, Calendar};
use crate::state::claim::Claim;
use crate::state::{AdmissionId, Denial, LimitSpec, ManualClock, Timestamp, Window, suite};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const KEEP: Duration = Duration::from_secs(600);

/// A directory of a test's own, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-embedded-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hand() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000))
}

fn config(directory: &Path) -> EmbeddedConfig {
    let memory = MemoryConfig { answer_bytes: 4 << 20, ..MemoryConfig::default() };
    EmbeddedConfig { directory: directory.into(), implied: false, on_failure: OnFailure::Serve, memory }
}

fn try_open(directory: &Path, clock: Clock) -> Result<EmbeddedStore, OpenError> {
    let store = EmbeddedStore::new(config(directory), clock);
    store.open(Duration::ZERO).map(|_| store)
}

#[track_caller]
fn open(directory: &Path, hand: &ManualClock) -> EmbeddedStore {
    try_open(directory, hand.clock()).unwrap_or_else(|why| panic!("{why}"))
}

impl EmbeddedStore {
    /// Ends as by `kill -9`: what is not written is gone.
    fn kill(&self) {
        self.stop(End::Now);
        self.inner.log.journal.close();
        self.inner.mode.store(MEMORY, Ordering::Release);
        *self.hands.lock() = None;
    }

    fn checkpointed(&self) -> u64 {
        self.inner.progress.lock().checkpoints
    }
}

fn limit(name: &str, windows: &[(Duration, u64)]) -> LimitSpec {
    LimitSpec::new(name, windows.iter().map(|&(length, max)| Window { length, max })).unwrap()
}

const fn user(id: u128) -> Subject {
    Subject::user(SubjectId(id))
}

fn budget(name: &str, max: u64) -> BudgetSpec {
    BudgetSpec::new(name, max, Calendar::Day, "UTC").unwrap()
}

const fn claim(key: u128) -> Claim {
    Claim { key: ClaimKey(key), content: 1, keep: KEEP }
}

const fn settlement(id: u128, outcome: Outcome) -> Settlement {
    Settlement { id: AdmissionId(id), outcome, spent: None }
}

async fn remaining<S: Store>(store: &S, limit: &LimitSpec, subject: Subject) -> u64 {
    store.standings(&[Draw::one(limit, subject)]).await.unwrap().tightest().unwrap().remaining
}

/// What is spent and held.
async fn stands<S: Store>(store: &S, budget: &BudgetSpec, subject: Subject) -> (u64, u64) {
    let balance = store.balances(&[Hold { budget, subject, amount: 0 }]).await.unwrap()[0];
    (balance.spent, balance.held)
}

async fn draw<S: Store>(store: &S, limit: &LimitSpec, subject: Subject) -> bool {
    store.admit(&Demand::draws(&[Draw::one(limit, subject)])).await.unwrap().is_granted()
}

async fn hold<S: Store>(
    store: &S,
    id: u128,
    budget: &BudgetSpec,
    amount: u64,
) -> Result<Decision, StoreError> {
    let holds = [Hold { budget, subject: user(1), amount }];
    store.admit(&Demand { id: Some(AdmissionId(id)), holds: &holds, ..Demand::default() }).await
}

async fn take<S: Store>(store: &S, id: u128, key: u128) -> Decision {
    let claims = [claim(key)];
    store.admit(&Demand { id: Some(AdmissionId(id)), claims: &claims, ..Demand::default() }).await.unwrap()
}

fn ban(id: u128, now: Timestamp) -> Ban {
    let until = now.after(MINUTE);
    Ban {
        subject: user(id),
        since: now,
        until,
        remembered_until: until.after(MINUTE),
        level: 2,
        reason: "rate_limited".into(),
        by_hand: true,
    }
}

/// Users would meet other limits with the default store than with the one that all tests use.
#[test]
fn the_suite_passes() {
    let scratch = Scratch::new();
    let next = AtomicU32::new(0);
    suite::run(|clock| {
        let directory = scratch.0.join(next.fetch_add(1, Ordering::Relaxed).to_string());
        try_open(&directory, clock).unwrap()
    });
}
