//! The store that several gates share: Redis or Valkey, 7.0 or later.
//!
//! Each transaction is one script, run by the server's clock. A call that gets no answer in time may have taken effect
//! all the same: it is released by its id, and scripts refuse what comes after its deadline. When the server is away, a
//! breaker keeps calls from going out; limits are then counted here, each gate its share, bans are those last heard of,
//! and budgets are closed. Everything that was granted is noted here as well, so that the local count does not begin
//! anew when the server goes.
//!
//! What the server loses (a power cut without fsync, a failover to a replica that lags) is lost.

mod admit;
mod answer;
mod bans;
mod config;
mod keeper;
mod keys;
mod link;
mod owed;
mod reserve;
mod script;
mod server_time;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;
use tracing::warn;

pub use config::{RedisConfig, RedisFile};
pub use link::LinkStats;

use self::admit::{Admit, Verdict};
use self::bans::SharedBans;
use self::keys::Keys;
use self::link::{Failure, Link};
use self::owed::Owed;
use self::reserve::Reserve;
use self::script::{Call, KEEP_ANSWER, KEPT_ANSWER};
use self::server_time::ServerTime;
use super::admission::{Outcome, Settlement};
use super::budget::Hold;
use super::claim::{ClaimKey, KeptAnswer};
use super::memory::{MemoryConfig, MemoryStats, MemoryStore};
use super::{
    Balance, Ban, Bans, Clock, Decision, Demand, Draw, LimitSpec, Standings, Store, StoreError, Subject,
};

/// How long the start waits for the server; it goes on without it.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// Bytes of an answer that is kept, at most.
const ANSWER_BYTES: usize = 1 << 20;

/// Counts in a server that others count in, too.
pub struct RedisStore {
    shared: Arc<Shared>,
    /// Dropped, it ends the keeper.
    stop: Mutex<Option<watch::Sender<()>>>,
}

/// What requests and the keeper share.
struct Shared {
    config: RedisConfig,
    keys: Keys,
    link: Link,
    time: ServerTime,
    /// Decides while the server is away; knows what it has granted to this gate.
    local: MemoryStore,
    bans: SharedBans,
    owed: Owed,
    reserve: Reserve,
    /// Settlements that could not be sent; the keeper sends them when the server is back.
    outbox: Mutex<Vec<Settlement>>,
}

impl RedisStore {
    /// A store that is not connected yet.
    pub fn new(config: RedisConfig, local: MemoryConfig, clock: Clock) -> Self {
        let shared = Shared {
            keys: Keys::new(&config.prefix),
            link: Link::new(config.target.clone()),
            time: ServerTime::new(clock.clone()),
            local: MemoryStore::new(local, clock),
            bans: SharedBans::default(),
            owed: Owed::default(),
            reserve: Reserve::default(),
            outbox: Mutex::default(),
            config,
        };
        Self { shared: Arc::new(shared), stop: Mutex::default() }
    }

    /// Connects, from a thread of its own, and goes on doing so whenever the server is away. Waits for the first answer,
    /// but not for long. Blocks. Starting again does nothing.
    ///
    /// # Errors
    /// The system gives no thread, or none of what a runtime needs.
    pub fn start(&self) -> io::Result<()> {
        let mut stop = self.stop.lock();
        if stop.is_some() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, stopped) = watch::channel(());
        let (tried, is_tried) = sync_channel(1);
        let shared = self.shared.clone();
        std::thread::Builder::new()
            .name("redis".into())
            .spawn(move || runtime.block_on(keeper::keep(&shared, stopped, tried)))?;
        *stop = Some(sender);
        // Without an answer in time it starts without the server; the keeper says so.
        let _ = is_tried.recv_timeout(FIRST_ANSWER);
        Ok(())
    }

    /// How the server is, and what became of calls to it.
    pub fn link(&self) -> LinkStats {
        self.shared.link.stats()
    }

    /// Among how many gates limits are divided while the server is away.
    pub fn replicas(&self) -> u32 {
        self.shared.replicas()
    }

    /// Forgets what has expired here; what is in the server expires by itself.
    pub fn sweep(&self) {
        self.shared.local.sweep();
    }

    /// What is held here.
    pub fn stats(&self) -> MemoryStats {
        self.shared.local.stats()
    }
}

impl Shared {
    fn replicas(&self) -> u32 {
        self.config.replicas.unwrap_or_else(|| self.link.gates())
    }

    /// Decides without the server.
    async fn decide_alone(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        let replicas = self.replicas();
        let shares: SmallVec<[LimitSpec; 4]> =
            demand.draws.iter().map(|draw| draw.limit.shared_by(replicas)).collect();
        let draws: SmallVec<[Draw<'_>; 4]> =
            demand.draws.iter().zip(&shares).map(|(draw, limit)| Draw { limit, ..*draw }).collect();
        let demand = Demand { draws: &draws, ..*demand };
        if demand.holds.is_empty() { self.local.admit(&demand).await } else { self.hold_alone(&demand).await }
    }

    /// What the server says to `demand`; `None` if it does not say anything in time.
    async fn ask(&self, demand: &Demand<'_>) -> Result<Option<Decision>, Failure> {
        // Again, if what was believed of the server's clock was wrong: nothing was taken then.
        for _ in 0..3 {
            let admit = Admit::new(demand, &self.keys, &self.time, self.config.timeout, self.bans.gate());
            let answer = self.link.call(&admit.call(&admit.args()), self.config.timeout).await?;
            match admit.verdict(&answer) {
                Some(Verdict::Decided(decision)) => return Ok(Some(decision)),
                Some(Verdict::OtherPeriod(now) | Verdict::Late(now)) => self.time.correct(now),
                Some(Verdict::Settled) => return Ok(None),
                None => return Err(Failure::Unknown),
            }
        }
        Ok(None)
    }

    /// How the windows of a demand stand that draws nothing; `None` if the server does not say so in time.
    async fn look(&self, demand: &Demand<'_>) -> Option<Standings> {
        for _ in 0..3 {
            let admit = Admit::new(demand, &self.keys, &self.time, self.config.timeout, self.bans.gate());
            let answer = self.link.call(&admit.call(&admit.args()), self.config.timeout).await.ok()?;
            match admit.verdict(&answer)? {
                Verdict::Decided(_) => return admit.standings(&answer),
                Verdict::OtherPeriod(now) | Verdict::Late(now) => self.time.correct(now),
                Verdict::Settled => return None,
            }
        }
        None
    }

    /// Sends settlements; those that were sent owe nothing any more.
    async fn send(&self, batch: &[Settlement]) -> Result<(), Failure> {
        for part in batch.chunks(link::BATCH) {
            self.link.settle(part, &self.keys, self.time.by_hand()).await?;
            part.iter().for_each(|settlement| self.owed.remove(settlement.id));
        }
        Ok(())
    }

    /// Leaves a settlement to the keeper.
    fn post(&self, batch: impl IntoIterator<Item = Settlement>) {
        let mut outbox = self.outbox.lock();
        for settlement in batch {
            self.owed.remove(settlement.id);
            outbox.push(settlement);
        }
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        let unsent = self.shared.outbox.lock().len();
        if unsent > 0 {
            warn!(
                unsent,
                "settlements never reached the shared store: what they held stays held to the end of its period"
            );
        }
        drop(self.stop.lock().take());
    }
}

impl Store for RedisStore {
    async fn admit(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        let shared = &*self.shared;
        let demand = match demand.id {
            Some(_) => *demand,
            None => Demand::draws(demand.draws),
        };
        if demand.claims.is_empty() && demand.draws.is_empty() && demand.holds.is_empty() {
            return Ok(Decision::Granted);
        }
        let owes = demand.id.filter(|_| !demand.claims.is_empty() || !demand.holds.is_empty());
        // Before the call: should nobody hear its end, whoever settles must know that it may have taken something.
        owes.iter().for_each(|id| shared.owed.insert(*id));
        match shared.ask(&demand).await {
            Ok(Some(decision)) => {
                match decision {
                    Decision::Granted => shared.local.mirror(&demand),
                    Decision::Denied(_) => owes.iter().for_each(|id| shared.owed.remove(*id)),
                }
                Ok(decision)
            }
            Ok(None) | Err(Failure::NotSent) => {
                owes.iter().for_each(|id| shared.owed.remove(*id));
                shared.link.note_alone();
                shared.decide_alone(&demand).await
            }
            Err(Failure::Unknown) => {
                shared.link.note_alone();
                let decision = shared.decide_alone(&demand).await;
                // What is denied here is settled by nobody, but the server may have granted it.
                if let (Ok(Decision::Denied(_)), Some(id)) = (&decision, owes) {
                    shared.post([Settlement { id, outcome: Outcome::NeverSent, spent: None }]);
                }
                decision
            }
        }
    }

    /// Nothing is journaled here: what can't be sent waits for the server, and should this process end before, then
    /// holds stay held to the end of their period, and claims are free as soon as this gate counts as dead.
    async fn settle(&self, batch: &[Settlement]) -> Result<(), StoreError> {
        let shared = &*self.shared;
        shared.local.settle(batch).await?;
        let mut owed = Vec::new();
        for settlement in batch {
            let spent = shared.note_spent_alone(settlement).or_else(|| settlement.spent.clone());
            if shared.owed.contains(settlement.id) {
                owed.push(Settlement { spent, ..*settlement });
            }
        }
        match shared.send(&owed).await {
            Ok(()) => Ok(()),
            Err(Failure::Unknown) => Err(StoreError::Unreachable),
            Err(Failure::NotSent) => {
                shared.post(owed.into_iter().filter(|settlement| shared.owed.contains(settlement.id)));
                Ok(())
            }
        }
    }

    /// It waits for the server.
    fn settles_at_once(&self) -> bool {
        false
    }

    async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        let shared = &*self.shared;
        if draws.is_empty() {
            return Ok(Standings::default());
        }
        let looks: SmallVec<[Draw<'_>; 4]> = draws.iter().map(|draw| Draw { weight: 0, ..*draw }).collect();
        if let Some(standings) = shared.look(&Demand::draws(&looks)).await {
            return Ok(standings);
        }
        let replicas = shared.replicas();
        let shares: SmallVec<[LimitSpec; 4]> =
            looks.iter().map(|draw| draw.limit.shared_by(replicas)).collect();
        let looks: SmallVec<[Draw<'_>; 4]> =
            looks.iter().zip(&shares).map(|(draw, limit)| Draw { limit, ..*draw }).collect();
        shared.local.standings(&looks).await
    }

    async fn balances(&self, holds: &[Hold<'_>]) -> Result<Vec<Balance>, StoreError> {
        let shared = &*self.shared;
        if holds.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 0..2 {
            let looks = Admit::looks(holds, &shared.keys, &shared.time);
            let answer = shared.link.call(&looks.call(&looks.args()), shared.config.timeout).await;
            let answer = answer.map_err(|_| StoreError::Unreachable)?;
            if let Some(balances) = looks.balances(&answer) {
                return Ok(balances);
            }
            if let Some(Verdict::OtherPeriod(now)) = looks.verdict(&answer) {
                shared.time.correct(now);
            }
        }
        Err(StoreError::Unreachable)
    }

    async fn reset(&self, draws: &[Draw<'_>]) -> Result<(), StoreError> {
        let shared = &*self.shared;
        shared.local.reset(draws).await?;
        let windows = draws.iter().flat_map(|draw| {
            let windows = draw.limit.sliding().iter();
            windows.map(|window| shared.keys.counter(draw.limit, window, draw.subject))
        });
        shared.link.delete(windows.collect()).await.map_err(|_| StoreError::Unreachable)
    }

    /// What the server has answered outlives this process; whether it outlives the server is the server's setting.
    async fn persist(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) -> Result<(), StoreError> {
        let shared = &*self.shared;
        if answer.size() <= ANSWER_BYTES {
            let (keys, hand) = (shared.keys.claim_and_answer(key), shared.time.by_hand().to_string());
            let packed = answer::pack(&answer);
            let call = Call { script: &KEEP_ANSWER, keys: &keys, args: &[hand.as_bytes(), &packed] };
            // Not kept is not lost: whoever asks again is told that it was a duplicate.
            let _ = shared.link.call(&call, shared.config.timeout).await;
        }
        shared.local.keep_answer(key, answer).await
    }

    async fn kept_answer(&self, key: ClaimKey) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
        let shared = &*self.shared;
        let (keys, hand) = (shared.keys.claim_and_answer(key), shared.time.by_hand().to_string());
        let call = Call { script: &KEPT_ANSWER, keys: &keys, args: &[hand.as_bytes()] };
        match shared.link.call(&call, shared.config.timeout).await {
            Ok(redis::Value::BulkString(packed)) => Ok(answer::unpack(&packed).map(Arc::new)),
            Ok(_) => Ok(None),
            Err(_) => shared.local.kept_answer(key).await,
        }
    }

    fn bans(&self) -> &Bans {
        self.shared.local.bans()
    }

    /// In force here at once, whether the server can be told now or only later.
    async fn ban(&self, ban: Ban) -> Result<bool, StoreError> {
        if !self.shared.local.bans().put(ban.clone()) {
            return Ok(false);
        }
        self.shared.tell(ban.subject, Some(ban)).await;
        Ok(true)
    }

    async fn lift(&self, subject: Subject) -> Result<Option<Arc<Ban>>, StoreError> {
        let lifted = self.shared.local.bans().remove(subject);
        self.shared.tell(subject, None).await;
        Ok(lifted)
    }
}

#[cfg(test)]
mod tests;
