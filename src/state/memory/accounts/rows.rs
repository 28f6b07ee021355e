//! Accounts as they are kept, and how they come back.

use super::super::super::codec::{Reader, put_u64, put_varint};
use super::super::super::record::{Change, Changes, Raise, put_account, put_period};
use super::{Account, Accounts, Key, Page, Period, SHARDS, Timestamp};

impl Page {
    fn write(&self, into: &mut Vec<u8>) {
        put_period(into, self.period);
        put_u64(into, self.max);
        put_varint(into, self.spent);
        put_varint(into, self.held);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (period, max) = (reader.period()?, reader.u64()?);
        let (spent, held) = (reader.varint()?, reader.varint()?);
        Some(Self { spent, held, inherited: held, ..Self::empty(period, max) })
    }
}

impl Account {
    /// Its page of the period that began at `start`, or else the newest.
    fn page_of(&mut self, start: Timestamp) -> &mut Page {
        match &mut self.earlier {
            Some(page) if page.period.start == start && self.page.period.start != start => page,
            _ => &mut self.page,
        }
    }

    fn settle_inherited(&mut self, start: Timestamp, held: u64, spent: u64) {
        let page = self.page_of(start);
        page.inherited = page.inherited.saturating_sub(held);
        self.settle(start, held, spent);
    }
}

impl Accounts {
    /// Writes the accounts of a shard, unless none has changed since this was asked last or `all` are wanted. `last` is
    /// asked for the number of the last change while none is made.
    pub(in super::super) fn write(
        &self,
        shard: usize,
        all: bool,
        last: impl FnOnce() -> u64,
        into: &mut Vec<u8>,
    ) -> Option<u64> {
        let mut shard = self.shards.get(shard)?.lock();
        if !std::mem::take(&mut shard.changed) && !all {
            return None;
        }
        for (key, account) in &shard.accounts {
            put_account(into, *key);
            account.page.write(into);
            into.push(account.earlier.is_some().into());
            account.earlier.iter().for_each(|page| page.write(into));
        }
        Some(last())
    }

    /// Takes an account back that had seen all changes up to `seen`. What is held in it was another process's.
    pub(in super::super) fn restore(&self, reader: &mut Reader<'_>, seen: u64) -> Option<()> {
        let (key, page) = (reader.account()?, Page::read(reader)?);
        let earlier = if reader.flag()? { Some(Page::read(reader)?) } else { None };
        let mut shard = self.shards[self.shard_of(&key)].lock();
        *shard.open(key, page.period, page.max, &self.count) = Account { page, earlier, seen };
        Some(())
    }

    /// Holds again what another process held as change `number`, unless the row has seen it. Whether it was held.
    pub(in super::super) fn hold_again(
        &self,
        number: u64,
        key: Key,
        period: Period,
        max: u64,
        amount: u64,
    ) -> bool {
        let mut shard = self.shards[self.shard_of(&key)].lock();
        shard.changed = true;
        let account = shard.open(key, period, max, &self.count);
        if account.seen >= number {
            return false;
        }
        account.page(period, max);
        let page = account.page_of(period.start);
        page.held = page.held.saturating_add(amount);
        page.inherited = page.inherited.saturating_add(amount);
        true
    }

    /// Settles again what another process settled as change `number`, unless the row has seen it. Whether it was settled.
    pub(in super::super) fn settle_again(
        &self,
        number: u64,
        key: Key,
        start: Timestamp,
        held: u64,
        spent: u64,
    ) -> bool {
        let mut shard = self.shards[self.shard_of(&key)].lock();
        shard.changed = true;
        let Some(account) = shard.accounts.get_mut(&key).filter(|account| account.seen < number) else {
            return false;
        };
        account.settle_inherited(start, held, spent);
        true
    }

    /// Spends whatever another process held, which has ended: nobody knows any more how its calls went.
    pub(in super::super) fn spend_inherited(&self, now: u64, changes: &Changes) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut changed = false;
            for (key, account) in &mut shard.accounts {
                for page in [account.earlier, Some(account.page)].into_iter().flatten() {
                    let (start, held) = (page.period.start, page.inherited);
                    if held > 0 {
                        changed = true;
                        account.settle_inherited(start, held, held);
                        changes.put(now, &Change::Settled { account: *key, start, held, spent: held });
                    }
                }
            }
            shard.changed |= changed;
        }
    }

    /// Has it that all was spent that might have been, where a power cut may have forgotten what was.
    pub(in super::super) fn spend_ceiling(&self, raise: &Raise) {
        let mut shard = self.shards[self.shard_of(&raise.account)].lock();
        shard.changed = true;
        let page = shard.open(raise.account, raise.period, raise.max, &self.count);
        let page = page.page(raise.period, raise.max);
        if page.period.start == raise.period.start {
            page.spent = page.spent.max(raise.to.saturating_sub(page.held));
        }
    }

    /// Up to `raise.to`, a power cut forgets nothing any more.
    pub(in super::super) fn raised(&self, raise: &Raise) {
        let mut shard = self.shards[self.shard_of(&raise.account)].lock();
        let Some(account) = shard.accounts.get_mut(&raise.account) else { return };
        if account.page.period.start == raise.period.start {
            account.page.ceiling = account.page.ceiling.max(raise.to);
            account.page.asked = account.page.asked.max(raise.to);
        }
    }

    /// All that was asked for and may still matter.
    pub(in super::super) fn ceilings(&self) -> Vec<Raise> {
        let mut ceilings = Vec::new();
        for shard in &self.shards {
            ceilings.extend(shard.lock().accounts.iter().filter(|(_, account)| account.page.asked > 0).map(
                |(key, Account { page, .. })| Raise {
                    account: *key,
                    period: page.period,
                    max: page.max,
                    to: page.asked,
                },
            ));
        }
        ceilings
    }

    pub(in super::super) const SHARDS: usize = SHARDS;
}
