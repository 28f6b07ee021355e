//! What was spent and is held, by budget and subject.

mod rows;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::super::budget::{Hold, Period};
use super::super::clock::Timestamp;
use super::super::record::{AccountKey as Key, Change, Changes, Raise};
use super::super::transaction::Balance;

pub(super) const SHARDS: usize = 64;

/// Of what may be spent in a period, how much an account may spend before it has to ask again.
const LEASE: u64 = 64;

/// One period of an account.
#[derive(Clone, Copy, Debug)]
struct Page {
    period: Period,
    max: u64,
    spent: u64,
    held: u64,
    /// Of what is held, how much is for requests of another process, which may have ended.
    inherited: u64,
    /// What may be spent and held, so that a power cut forgets none of it; and what was asked for.
    ceiling: u64,
    asked: u64,
}

#[derive(Debug)]
struct Account {
    page: Page,
    /// The period before that one with anything in it: what is under way since then is settled there.
    earlier: Option<Page>,
    /// The number of the last change that the row had seen when it was kept.
    seen: u64,
}

#[derive(Debug, Default)]
struct Shard {
    accounts: HashMap<Key, Account, RandomState>,
    /// Since it was last cut.
    changed: bool,
}

/// A hold that was granted: what it takes to settle it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    account: Key,
    period: Period,
    max: u64,
    amount: u64,
}

impl Held {
    /// As a change of its account.
    pub(super) fn change(&self) -> Change {
        let Self { account, period, max, amount } = *self;
        Change::Held { account, period, max, amount }
    }
}

/// All accounts.
pub(super) struct Accounts {
    shards: [Mutex<Shard>; SHARDS],
    seeds: RandomState,
    count: AtomicUsize,
    max: usize,
}

/// The shards of a demand's holds, locked.
pub(super) struct Locked<'a> {
    shards: SmallVec<[(usize, MutexGuard<'a, Shard>); 4]>,
    accounts: &'a Accounts,
}

impl Page {
    fn empty(period: Period, max: u64) -> Self {
        Self { period, max, spent: 0, held: 0, inherited: 0, ceiling: 0, asked: 0 }
    }

    /// What it overshot, which the next period has to bear.
    fn debt(&self) -> u64 {
        self.spent.saturating_sub(self.max)
    }

    /// What is spent or may be.
    fn taken(&self) -> u64 {
        self.spent.saturating_add(self.held)
    }

    /// Asks for more in good time. A ticket: what is taken already is not covered yet.
    fn cover(&mut self, account: Key, amount: u64, changes: &Changes) -> Option<u64> {
        let feed = changes.feed()?;
        let (taken, lease) = (self.taken(), (self.max / LEASE).max(amount.saturating_mul(4)));
        let wanted = taken.saturating_add(lease).min(self.max).max(taken);
        let scarce = self.asked.saturating_sub(taken) < lease / 2 && wanted > self.asked;
        let uncovered = taken > self.ceiling;
        if !scarce && !uncovered {
            return None;
        }
        self.asked = self.asked.max(wanted);
        let raise = Raise { account, period: self.period, max: self.max, to: self.asked };
        let ticket = feed.raise(raise);
        uncovered.then_some(ticket)
    }

    fn balance(&self, now: Timestamp) -> Balance {
        let reset = self.period.end.since(now);
        Balance { max: self.max, spent: self.spent, held: self.held, reset }
    }
}

impl Account {
    /// Its page for `period`, which is the newest: begun with the debt of the last one if need be.
    fn page(&mut self, period: Period, max: u64) -> &mut Page {
        if self.page.period.start < period.start {
            let last = self.page;
            self.page = Page { spent: last.debt(), ..Page::empty(period, max) };
            self.earlier = Some(last);
        }
        self.page.max = max;
        &mut self.page
    }

    /// Turns what was held since `start` into what was spent.
    fn settle(&mut self, start: Timestamp, held: u64, spent: u64) {
        match &mut self.earlier {
            Some(page) if page.period.start == start && self.page.period.start != start => {
                let debt = page.debt();
                page.held = page.held.saturating_sub(held);
                page.spent = page.spent.saturating_add(spent);
                self.page.spent = self.page.spent.saturating_add(page.debt() - debt);
            }
            // Longer ago than is remembered: it is spent all the same.
            _ => {
                if self.page.period.start == start {
                    self.page.held = self.page.held.saturating_sub(held);
                }
                self.page.spent = self.page.spent.saturating_add(spent);
            }
        }
    }

    /// Whether nothing is lost if it is forgotten at `now`.
    fn is_over(&self, now: Timestamp) -> bool {
        let held = self.page.held + self.earlier.map_or(0, |page| page.held);
        self.page.period.end <= now && self.page.debt() == 0 && held == 0
    }
}

impl Accounts {
    pub(super) fn new(max: usize) -> Self {
        let seeds = RandomState::new();
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, seeds, count: AtomicUsize::new(0), max }
    }

    /// Locks the shards of `holds`, lowest first, so that no two transactions wait for each other.
    pub(super) fn lock(&self, holds: &[Hold<'_>]) -> Locked<'_> {
        let mut ids: SmallVec<[usize; 4]> = holds.iter().map(|hold| self.shard_of(&key(hold))).collect();
        ids.sort_unstable();
        ids.dedup();
        let shards = ids.into_iter().map(|id| (id, self.shards[id].lock())).collect();
        Locked { shards, accounts: self }
    }

    /// Turns holds into what was spent; `spent` in their order, as much as was held where it says nothing.
    pub(super) fn settle(
        &self,
        held: &[Held],
        spent: impl Fn(usize, u64) -> u64,
        now: u64,
        changes: &Changes,
    ) {
        for (at, held) in held.iter().enumerate() {
            let key = held.account;
            let mut shard = self.shards[self.shard_of(&key)].lock();
            let shard = &mut *shard;
            let Some(account) = shard.accounts.get_mut(&key) else { continue };
            let (start, spent) = (held.period.start, spent(at, held.amount));
            account.settle(start, held.amount, spent);
            if account.page.taken() > account.page.ceiling {
                account.page.cover(key, 0, changes);
            }
            shard.changed = true;
            changes.put(now, &Change::Settled { account: key, start, held: held.amount, spent });
        }
    }

    /// How the budget of `hold` stands.
    pub(super) fn balance(&self, hold: &Hold<'_>, now: Timestamp) -> Balance {
        self.lock(std::slice::from_ref(hold)).look(hold, now).balance(now)
    }

    /// Forgets accounts of which nothing matters any more. Takes each lock in turn.
    pub(super) fn sweep(&self, now: Timestamp) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.accounts.len();
            shard.accounts.retain(|_, account| !account.is_over(now));
            let gone = before - shard.accounts.len();
            shard.changed |= gone > 0;
            self.count.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn shard_of(&self, key: &Key) -> usize {
        (self.seeds.hash_one(key) >> 32) as usize % SHARDS
    }
}

fn key(hold: &Hold<'_>) -> Key {
    (hold.budget.counter(), hold.subject)
}

fn same_account(a: &Hold<'_>, b: &Hold<'_>) -> bool {
    key(a) == key(b)
}

impl Locked<'_> {
    fn shard(&mut self, key: &Key) -> Option<&mut Shard> {
        let id = self.accounts.shard_of(key);
        self.shards.iter_mut().find(|(other, _)| *other == id).map(|(_, shard)| &mut **shard)
    }

    /// The page of `hold` as it would be now.
    fn look(&mut self, hold: &Hold<'_>, now: Timestamp) -> Page {
        let (period, max) = (hold.budget.period(now), hold.budget.max());
        let key = key(hold);
        match self.shard(&key).and_then(|shard| shard.accounts.get_mut(&key)) {
            Some(account) => *account.page(period, max),
            None => Page::empty(period, max),
        }
    }

    /// The hold that does not fit, and how its budget stands; of several, the one whose period lasts longest.
    pub(super) fn exceeded(&mut self, holds: &[Hold<'_>], now: Timestamp) -> Option<(usize, Balance)> {
        let mut worst: Option<(usize, Balance)> = None;
        for (at, hold) in holds.iter().enumerate().filter(|(_, hold)| hold.amount > 0) {
            let balance = self.look(hold, now).balance(now);
            let same = holds[..at].iter().filter(|other| same_account(other, hold));
            let amount = same.fold(hold.amount, |sum, other| sum.saturating_add(other.amount));
            let longer = worst.is_none_or(|(_, worst)| balance.reset > worst.reset);
            if amount > balance.remaining() && longer {
                worst = Some((at, balance));
            }
        }
        worst
    }

    /// Whether there is room for the accounts that `holds` would open.
    pub(super) fn has_room(&mut self, holds: &[Hold<'_>]) -> bool {
        let unknown = |hold: &&Hold<'_>| {
            let key = key(hold);
            self.shard(&key).is_none_or(|shard| !shard.accounts.contains_key(&key))
        };
        let new = holds.iter().filter(unknown).count();
        new == 0 || self.accounts.len() + new <= self.accounts.max
    }

    /// Holds, all of which fit. Also answers a ticket to wait by, if a power cut could still forget any of it.
    pub(super) fn hold(
        &mut self,
        holds: &[Hold<'_>],
        now: Timestamp,
        changes: &Changes,
    ) -> (SmallVec<[Held; 4]>, Option<u64>) {
        let (mut held, mut wait) = (SmallVec::new(), None);
        let accounts = self.accounts;
        for hold in holds {
            let (period, max, key) = (hold.budget.period(now), hold.budget.max(), key(hold));
            let Some(shard) = self.shard(&key) else { continue };
            shard.changed = true;
            let page = shard.open(key, period, max, &accounts.count).page(period, max);
            page.held = page.held.saturating_add(hold.amount);
            wait = wait.max(page.cover(key, hold.amount, changes));
            // Where the clock was asked on the other side of midnight, the hold is in the account's newest period.
            held.push(Held { account: key, period: page.period, max, amount: hold.amount });
        }
        (held, wait)
    }
}

impl Shard {
    /// The account of `key`, made if need be.
    fn open(&mut self, key: Key, period: Period, max: u64, count: &AtomicUsize) -> &mut Account {
        self.accounts.entry(key).or_insert_with(|| {
            count.fetch_add(1, Ordering::Relaxed);
            Account { page: Page::empty(period, max), earlier: None, seen: 0 }
        })
    }
}
