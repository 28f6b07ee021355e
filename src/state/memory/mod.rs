//! The store in this process's memory: exact, sharded, and bounded whatever is sprayed at it.

mod accounts;
mod claims;
mod kept;
mod open;
mod shard;

use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashSet, RandomState};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

pub(super) use self::kept::{Answered, Table};

use self::accounts::Accounts;
use self::claims::Claims;
use self::open::{OpenAdmissions, Taken};
use self::shard::{Caps, Key, Pinned, Rank, SLOT_BYTES, Shard};
use super::admission::Settlement;
use super::bans::{Ban, Bans};
use super::budget::Hold;
use super::claim::{Claim, ClaimKey, KeptAnswer};
use super::clock::{Clock, micros};
use super::limit::Sliding;
use super::record::{Change, Changes};
use super::subject::Subject;
use super::tally::Tally;
use super::transaction::{Balance, Decision, Demand, Denial, Draw, Standing, Standings};
use super::{Store, StoreError};

const SHARDS: usize = 256;

/// Slots swept under one lock.
const SWEEP_STEP: usize = 256;

/// How much a [`MemoryStore`] may remember.
///
/// Limits hold 119 × `counters` + 16 × `marks` + 40 × `open` bytes at most: 154 MB with the defaults, which with what
/// the allocator strews came to 196 MB resident at the worst tried. A subject that draws once takes one counter
/// (112 bytes) for each window, and no marks. A claim takes some 120 bytes, an account some 200, a ban some 150.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Windows of subjects. When all are taken, expired ones go first, then those with the least drawn, never
    /// one that is at its limit; a newcomer that finds no room is counted with its network, or else with all
    /// such newcomers.
    pub counters: usize,
    /// Draws remembered on their own beyond each counter's first. When all are taken, draws of one counter
    /// are joined, so that some leave their window late, none early.
    pub marks: usize,
    /// Admissions granted and not yet settled. When all are taken, demands that need settling fail.
    pub open: usize,
    /// Claims. When all are taken, the oldest whose requests have ended are forgotten.
    pub claims: usize,
    /// Bytes of answers that are kept for claims. When all are taken, the oldest are forgotten.
    pub answer_bytes: usize,
    /// Accounts of budgets. When all are taken, demands that would open another fail.
    pub accounts: usize,
    /// Bans, in force or remembered. When all are in force, nobody else is banned.
    pub bans: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            counters: 1_000_000,
            marks: 2_000_000,
            open: 65_536,
            claims: 200_000,
            answer_bytes: 64 << 20,
            accounts: 200_000,
            bans: 200_000,
        }
    }
}

/// What a [`MemoryStore`] holds now, and has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Windows of subjects that are remembered.
    pub counters: usize,
    /// Bytes they take, nearly.
    pub bytes: usize,
    /// Admissions granted and not yet settled.
    pub open: usize,
    /// Claims that stand.
    pub claims: usize,
    /// Accounts of budgets.
    pub accounts: usize,
    /// Bans, in force or remembered.
    pub bans: usize,
    /// Counters forgotten before their time, for want of room.
    pub evicted: u64,
    /// Draws counted with others' for want of room.
    pub folded: u64,
    /// Draws whose time was joined with another's for want of room.
    pub joined: u64,
}

/// Counts limits in memory.
pub struct MemoryStore {
    clock: Clock,
    seeds: RandomState,
    shards: Box<[Mutex<Shard>; SHARDS]>,
    caps: Caps,
    open: OpenAdmissions,
    claims: Claims,
    accounts: Accounts,
    bans: Bans,
    /// Subjects whose bans have changed since they were last cut; held while a ban changes.
    banned: Mutex<AHashSet<Subject>>,
    changes: Changes,
    /// Held by whoever moves counters within their shards, or wants that nobody does.
    tending: Mutex<()>,
}

type Shards = SmallVec<[u8; 8]>;

type Locked<'a> = SmallVec<[(u8, MutexGuard<'a, Shard>); 4]>;

/// One window of one draw, on its way through a transaction.
struct Cell<'d> {
    draw: usize,
    subject: Subject,
    window: &'d Sliding,
    weight: u64,
    /// Index into the locked shards.
    shard: usize,
    hash: u64,
    key: Key,
    slot: Option<u32>,
}

type Cells<'d> = SmallVec<[Cell<'d>; 6]>;

struct Refusal {
    standing: Standing,
    retry_after: Option<Duration>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(config: MemoryConfig, clock: Clock) -> Self {
        Self::recorded(config, clock, Changes::NONE)
    }

    /// An empty store that tells of each change.
    pub(super) fn recorded(config: MemoryConfig, clock: Clock, changes: Changes) -> Self {
        let caps = Caps { slots: config.counters.div_ceil(SHARDS).max(2), heap: config.marks / SHARDS * 16 };
        let shards = Box::new(std::array::from_fn(|_| Mutex::default()));
        Self {
            seeds: RandomState::new(),
            shards,
            caps,
            open: OpenAdmissions::new(config.open),
            claims: Claims::new(config.claims, config.answer_bytes, changes.feed().is_some()),
            accounts: Accounts::new(config.accounts),
            bans: Bans::new(config.bans, clock.clone()),
            banned: Mutex::default(),
            changes,
            tending: Mutex::default(),
            clock,
        }
    }

    /// Forgets what has expired and gives its memory back. Takes each lock for some microseconds at a time;
    /// meant for a timer, some seconds apart. Limits are as exact without it.
    pub fn sweep(&self) {
        let tending = self.tending.lock();
        for shard in self.shards.iter() {
            let mut from = 0;
            while shard.lock().sweep(from, SWEEP_STEP, self.clock.now().as_micros(), &self.seeds) {
                from += SWEEP_STEP;
            }
            shard.lock().compact(&self.seeds);
        }
        drop(tending);
        self.claims.sweep(self.clock.now().as_micros());
        self.accounts.sweep(self.clock.now());
        self.bans.sweep();
    }

    /// Counts what is held. Takes every lock in turn; meant for a scrape.
    pub fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats {
            open: self.open.len(),
            claims: self.claims.len(),
            accounts: self.accounts.len(),
            bans: self.bans.len(),
            ..MemoryStats::default()
        };
        for shard in self.shards.iter() {
            let shard = shard.lock();
            stats.counters += shard.len();
            stats.bytes += shard.len() * SLOT_BYTES + shard.heap();
            stats.evicted += shard.evicted;
            stats.folded += shard.folded;
            stats.joined += shard.joined;
        }
        stats
    }

    fn shard_of(&self, subject: Subject) -> u8 {
        (self.seeds.hash_one(subject.neighbourhood()) >> 56) as u8
    }

    /// The shards of all draws, in their order.
    fn shards_of(&self, draws: &[Draw<'_>]) -> Shards {
        draws.iter().map(|draw| self.shard_of(draw.subject)).collect()
    }

    /// Locks the shards, lowest first, so that no two transactions wait for each other.
    fn lock(&self, mut shards: Shards) -> Locked<'_> {
        shards.sort_unstable();
        shards.dedup();
        shards.into_iter().map(|id| (id, self.shards[usize::from(id)].lock())).collect()
    }

    /// Finds every window of every draw.
    fn cells<'d>(&self, draws: &'d [Draw<'_>], shards: &Shards, locked: &Locked<'_>) -> Cells<'d> {
        let mut cells = Cells::new();
        for ((draw, Draw { limit, subject, weight }), id) in draws.iter().enumerate().zip(shards) {
            let Some(shard) = locked.iter().position(|(other, _)| other == id) else { continue };
            for window in limit.sliding() {
                let key = Key::new(window, *subject);
                let hash = self.seeds.hash_one(key);
                let slot = locked.get(shard).and_then(|(_, shard)| shard.find(hash, &key));
                cells.push(Cell { draw, subject: *subject, window, weight: *weight, shard, hash, key, slot });
            }
        }
        cells
    }

    /// Decides, and answers a ticket to wait by if a power cut could still forget what was held.
    fn decide(&self, demand: &Demand<'_>) -> Result<(Decision, Option<u64>), StoreError> {
        let Demand { id, claims, draws, holds } = *demand;
        let (claims, holds) = if id.is_some() { (claims, holds) } else { Default::default() };
        let shards = self.shards_of(draws);
        // Always in this order.
        let mut claimed = self.claims.lock(claims);
        let mut locked = self.lock(shards.clone());
        let mut accounts = self.accounts.lock(holds);
        // Read under the locks: the marks of a tally must be in the order of time.
        let time = self.clock.now();
        let now = time.as_micros();
        if let Some((claim, by)) = claimed.taken(claims, now) {
            return Ok((Decision::Denied(Denial::Claimed { claim, by }), None));
        }
        let mut cells = self.cells(draws, &shards, &locked);
        let mut worst = None;
        for at in 0..cells.len() {
            note(&mut worst, check(&cells, at, &mut locked, now));
        }
        if worst.is_none() {
            if let Some((hold, balance)) = accounts.exceeded(holds, time) {
                return Ok((Decision::Denied(Denial::Spent { hold, balance }), None));
            }
            if !accounts.has_room(holds) {
                return Err(StoreError::TooManyAccounts);
            }
            // Only now, so that a caller who is refused anyway pushes nobody out.
            self.seat(&mut cells, &mut locked, now, &mut worst);
        }
        if let Some(Refusal { standing, retry_after }) = worst {
            return Ok((Decision::Denied(Denial::Limited { standing, retry_after }), None));
        }
        self.commit(&cells, &mut locked, now);
        self.claims.take(claims, &mut claimed, now);
        let (held, wait) = accounts.hold(holds, time, &self.changes);
        self.changes.record(now, |recorder| {
            for cell in cells.iter().filter(|cell| cell.weight > 0) {
                recorder.drawn(cell.window, cell.key.subject(), cell.weight);
            }
            for Claim { key, content, keep } in claims {
                let until = now.saturating_add(micros(*keep));
                recorder.put(&Change::Claimed { key: *key, content: *content, until });
            }
            held.iter().for_each(|held| recorder.put(&held.change()));
        });
        if let Some(id) = id.filter(|_| !claims.is_empty() || !holds.is_empty()) {
            let claims = claims.iter().map(|claim| claim.key).collect();
            self.open.note(id, Taken { claims, holds: held });
        }
        Ok((Decision::Granted, wait))
    }

    /// As [`Store::admit`], with a ticket to wait by if a power cut could still forget what was held.
    pub(super) fn admit_now(&self, demand: &Demand<'_>) -> Result<(Decision, Option<u64>), StoreError> {
        if let Some(id) = demand.id
            && !self.open.open(id)
        {
            return Err(StoreError::TooManyOpen);
        }
        let decided = self.decide(demand);
        if let (Some(id), false) =
            (demand.id, decided.as_ref().is_ok_and(|(decision, _)| decision.is_granted()))
        {
            self.open.close(id);
        }
        decided
    }

    /// Takes the draws and claims of a demand that another store has granted, whatever is left here: what is known if
    /// that store goes away.
    pub(in crate::state) fn mirror(&self, demand: &Demand<'_>) {
        let Demand { id, claims, draws, .. } = *demand;
        let open = id.filter(|id| !claims.is_empty() && self.open.open(*id));
        let claims = if open.is_some() { claims } else { &[] };
        let mut claimed = self.claims.lock(claims);
        let shards = self.shards_of(draws);
        let mut locked = self.lock(shards.clone());
        let now = self.clock.now().as_micros();
        let mut cells = self.cells(draws, &shards, &locked);
        self.seat(&mut cells, &mut locked, now, &mut None);
        for at in 0..cells.len() {
            // For what has left the windows to be forgotten.
            check(&cells, at, &mut locked, now);
        }
        self.commit(&cells, &mut locked, now);
        if let Some(id) = open {
            self.claims.take(claims, &mut claimed, now);
            let keys = claims.iter().map(|claim| claim.key).collect();
            self.open.note(id, Taken { claims: keys, holds: SmallVec::new() });
        }
    }

    /// Gives each newcomer a slot: its own, else its network's, else that of the rest, which then may refuse
    /// it.
    fn seat(&self, cells: &mut Cells<'_>, locked: &mut Locked<'_>, now: u64, worst: &mut Option<Refusal>) {
        for at in 0..cells.len() {
            if cells.get(at).is_none_or(|cell| cell.slot.is_some() || cell.weight == 0) {
                continue;
            }
            let pinned = pinned(cells, at);
            let Some(cell) = cells.get_mut(at) else { continue };
            let Some((_, shard)) = locked.get_mut(cell.shard) else { continue };
            let mut subject = cell.subject;
            let mut rank = Rank::Own;
            while cell.slot.is_none() {
                // An equal draw earlier in this demand may have made it.
                cell.slot = shard.find(cell.hash, &cell.key).or_else(|| {
                    shard.create((cell.hash, cell.key), rank, self.caps, now, &pinned, &self.seeds)
                });
                if cell.slot.is_some() || rank == Rank::Rest {
                    break;
                }
                subject = subject.aggregate();
                rank = if subject == Subject::REST { Rank::Rest } else { Rank::Network };
                cell.key = Key::new(cell.window, subject);
                cell.hash = self.seeds.hash_one(cell.key);
            }
            if rank != Rank::Own {
                shard.folded += 1;
                note(worst, check(cells, at, locked, now));
            }
        }
    }

    fn commit(&self, cells: &Cells<'_>, locked: &mut Locked<'_>, now: u64) {
        for (at, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.weight > 0) {
            let (Some((_, shard)), Some(slot)) = (locked.get_mut(cell.shard), cell.slot) else { continue };
            let pinned = || pinned(cells, at);
            shard.draw(slot, (now, cell.weight), cell.window, self.caps, pinned, &self.seeds);
        }
    }
}

/// The slots of the other windows in the same shard.
fn pinned(cells: &Cells<'_>, at: usize) -> Pinned {
    let Some(shard) = cells.get(at).map(|cell| cell.shard) else { return Pinned::new() };
    cells.iter().filter(|cell| cell.shard == shard).filter_map(|cell| cell.slot).collect()
}

/// How `cell` stands, by a tally that may hold draws that have left the window.
fn standing(cell: &Cell<'_>, tally: &Tally, now: u64) -> Standing {
    let length = cell.window.length;
    let reset = tally.whole_at(length).unwrap_or(now).saturating_sub(now);
    Standing::new(cell.draw, cell.window, tally.used_at(now, length), Duration::from_micros(reset))
}

/// Whether the window of the `at`th cell has room for its weight, beside what earlier cells take from the
/// same window.
fn check(cells: &Cells<'_>, at: usize, locked: &mut Locked<'_>, now: u64) -> Option<Refusal> {
    let cell = cells.get(at).filter(|cell| cell.weight > 0)?;
    let same =
        |other: &&Cell<'_>| other.hash == cell.hash && other.key == cell.key && other.shard == cell.shard;
    let earlier = cells.iter().take(at).filter(same);
    let weight = earlier.fold(cell.weight, |sum, other| sum.saturating_add(other.weight));
    let (_, shard) = locked.get_mut(cell.shard)?;
    let tally = match cell.slot {
        Some(slot) => shard.fresh_tally(slot, now, cell.window.length)?,
        None => &Tally::EMPTY,
    };
    if weight <= cell.window.max.saturating_sub(tally.used()) {
        return None;
    }
    let until = tally.fits_at(weight, cell.window);
    let retry_after = until.map(|until| Duration::from_micros(until.saturating_sub(now)));
    let mut standing = standing(cell, tally, now);
    standing.reset = retry_after.unwrap_or(standing.reset);
    Some(Refusal { standing, retry_after })
}

/// Keeps the refusal that lasts longest: a caller who waits that long meets none of the others.
fn note(worst: &mut Option<Refusal>, refusal: Option<Refusal>) {
    let lasts = |refusal: &Refusal| refusal.retry_after.unwrap_or(Duration::MAX);
    if let Some(refusal) = refusal
        && worst.as_ref().is_none_or(|worst| lasts(&refusal) > lasts(worst))
    {
        *worst = Some(refusal);
    }
}

impl Store for MemoryStore {
    async fn admit(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        self.admit_now(demand).map(|(decision, _)| decision)
    }

    async fn settle(&self, batch: &[Settlement]) -> Result<(), StoreError> {
        let now = self.clock.now().as_micros();
        for Settlement { id, outcome, spent } in batch {
            let Some(taken) = self.open.close(*id) else { continue };
            for key in &taken.claims {
                self.claims.end(*key, outcome.keeps_claims(), now, &self.changes);
            }
            let spent = |at: usize, held| {
                let known = spent.as_ref().and_then(|spent| spent.get(at).copied());
                if outcome.spends() { known.unwrap_or(held) } else { 0 }
            };
            self.accounts.settle(&taken.holds, spent, now, &self.changes);
        }
        Ok(())
    }

    fn settles_at_once(&self) -> bool {
        true
    }

    async fn standings(&self, draws: &[Draw<'_>]) -> Result<Standings, StoreError> {
        let shards = self.shards_of(draws);
        let locked = self.lock(shards.clone());
        let now = self.clock.now().as_micros();
        let mut standings = Standings::default();
        for cell in self.cells(draws, &shards, &locked) {
            let tally = cell.slot.and_then(|slot| locked.get(cell.shard)?.1.tally(slot));
            standings.push(standing(&cell, tally.unwrap_or(&Tally::EMPTY), now));
        }
        Ok(standings)
    }

    async fn balances(&self, holds: &[Hold<'_>]) -> Result<Vec<Balance>, StoreError> {
        let now = self.clock.now();
        Ok(holds.iter().map(|hold| self.accounts.balance(hold, now)).collect())
    }

    async fn reset(&self, draws: &[Draw<'_>]) -> Result<(), StoreError> {
        let shards = self.shards_of(draws);
        let mut locked = self.lock(shards.clone());
        let cells = self.cells(draws, &shards, &locked);
        for cell in &cells {
            if let (Some(slot), Some((_, shard))) = (cell.slot, locked.get_mut(cell.shard)) {
                shard.clear(slot);
            }
        }
        self.changes.record(self.clock.now().as_micros(), |recorder| {
            for Cell { window, subject, .. } in cells.iter().filter(|cell| cell.slot.is_some()) {
                recorder.put(&Change::Cleared { counter: window.counter, subject: *subject });
            }
        });
        Ok(())
    }

    /// Memory outlives nothing, and promises nothing.
    async fn persist(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn keep_answer(&self, key: ClaimKey, answer: Arc<KeptAnswer>) -> Result<(), StoreError> {
        self.claims.keep_answer(key, answer);
        Ok(())
    }

    async fn kept_answer(&self, key: ClaimKey) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
        Ok(self.claims.kept_answer(key, self.clock.now().as_micros()))
    }

    fn bans(&self) -> &Bans {
        &self.bans
    }

    async fn ban(&self, ban: Ban) -> Result<bool, StoreError> {
        let mut banned = self.banned.lock();
        let put = self.bans.put(ban.clone());
        if put && self.changes.feed().is_some() {
            banned.insert(ban.subject);
            self.changes.put(self.clock.now().as_micros(), &Change::Banned(ban));
        }
        Ok(put)
    }

    async fn lift(&self, subject: Subject) -> Result<Option<Arc<Ban>>, StoreError> {
        let mut banned = self.banned.lock();
        let lifted = self.bans.remove(subject);
        if lifted.is_some() && self.changes.feed().is_some() {
            banned.insert(subject);
            self.changes.put(self.clock.now().as_micros(), &Change::Lifted(subject));
        }
        Ok(lifted)
    }
}

#[cfg(test)]
mod tests;
