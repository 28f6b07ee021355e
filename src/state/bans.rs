//! The bans in force. They are looked at on every request, so this is memory, and asking costs nothing while nobody is
//! banned.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::RwLock;

use super::clock::{Clock, Timestamp};
use super::subject::Subject;

/// A ban, in force or remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub subject: Subject,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Until when it is remembered, so that the next one lasts longer; not before `until`.
    pub remembered_until: Timestamp,
    /// Bans in a row, this one counted.
    pub level: u8,
    /// Why, in a few words.
    pub reason: Box<str>,
    /// Whether an operator placed it.
    pub by_hand: bool,
}

/// All bans of this process, in force or remembered.
#[derive(Debug)]
pub struct Bans {
    clock: Clock,
    max: usize,
    table: RwLock<HashMap<Subject, Arc<Ban>, RandomState>>,
    /// How many are in the table: to know without its lock that there is none.
    count: AtomicUsize,
}

impl Bans {
    /// None yet; `max` is how many are kept.
    pub fn new(max: usize, clock: Clock) -> Self {
        Self { clock, max, table: RwLock::default(), count: AtomicUsize::new(0) }
    }

    /// The ban of `subject` that is in force.
    #[inline]
    pub fn in_force(&self, subject: Subject) -> Option<Arc<Ban>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let ban = self.table.read().get(&subject)?.clone();
        (self.clock.now() < ban.until).then_some(ban)
    }

    /// The ban of `subject`, in force or remembered.
    pub fn remembered(&self, subject: Subject) -> Option<Arc<Ban>> {
        let ban = self.table.read().get(&subject)?.clone();
        (self.clock.now() < ban.remembered_until).then_some(ban)
    }

    /// Every ban in force or remembered, those that end last first.
    pub fn all(&self) -> Vec<Arc<Ban>> {
        let now = self.clock.now();
        let table = self.table.read();
        let mut all: Vec<_> = table.values().filter(|ban| now < ban.remembered_until).cloned().collect();
        drop(table);
        all.sort_unstable_by_key(|ban| (std::cmp::Reverse(ban.until), ban.subject));
        all
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a ban in force, in place of an earlier one. Nobody who is banned makes room for another, so there may be none:
    /// then nothing happens, and the answer is false.
    pub fn put(&self, ban: Ban) -> bool {
        let now = self.clock.now();
        let mut table = self.table.write();
        if table.len() >= self.max && !table.contains_key(&ban.subject) {
            table.retain(|_, ban| now < ban.remembered_until);
            if table.len() >= self.max {
                table.retain(|_, ban| now < ban.until);
            }
        }
        let room = table.len() < self.max || table.contains_key(&ban.subject);
        if room {
            table.insert(ban.subject, Arc::new(ban));
        }
        self.count.store(table.len(), Ordering::Release);
        room
    }

    /// Takes the ban of `subject` away.
    pub fn remove(&self, subject: Subject) -> Option<Arc<Ban>> {
        let mut table = self.table.write();
        let removed = table.remove(&subject);
        self.count.store(table.len(), Ordering::Release);
        removed
    }

    /// Forgets what need not be remembered any more.
    pub fn sweep(&self) {
        let now = self.clock.now();
        let mut table = self.table.write();
        table.retain(|_, ban| now < ban.remembered_until);
        self.count.store(table.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::client::SubjectId;
    use crate::state::ManualClock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn ban(id: u128, since: Timestamp) -> Ban {
        let until = since.after(MINUTE);
        Ban {
            subject: Subject::user(SubjectId(id)),
            since,
            until,
            remembered_until: until.after(MINUTE),
            level: 1,
            reason: "rate_limited".into(),
            by_hand: false,
        }
    }

    /// A ban that ends early lets an attacker back in; one that never ends locks a user out.
    #[test]
    fn a_ban_ends_to_the_microsecond_and_is_remembered_for_a_while() {
        let hand = ManualClock::new(Timestamp::from_micros(7));
        let bans = Bans::new(9, hand.clock());
        let subject = Subject::user(SubjectId(1));
        assert!(bans.in_force(subject).is_none() && bans.put(ban(1, hand.clock().now())));
        hand.advance(MINUTE - Duration::from_micros(1));
        assert!(bans.in_force(subject).is_some() && bans.in_force(Subject::session(SubjectId(1))).is_none());
        hand.advance(Duration::from_micros(1));
        assert!(bans.in_force(subject).is_none() && bans.remembered(subject).is_some());
        hand.advance(MINUTE);
        assert!(bans.remembered(subject).is_none() && bans.all().is_empty());
    }

    /// A spray of addresses must neither grow the table without end nor free anyone who is banned.
    #[test]
    fn a_full_table_frees_nobody_who_is_banned() {
        let hand = ManualClock::new(Timestamp::from_micros(7));
        let bans = Bans::new(3, hand.clock());
        assert!((0..3).all(|id| bans.put(ban(id, hand.clock().now()))));
        assert!(!bans.put(ban(3, hand.clock().now())) && bans.put(ban(2, hand.clock().now())));
        assert_eq!(bans.all().len(), 3);
        hand.advance(MINUTE);
        assert!(bans.put(ban(3, hand.clock().now())), "those that are only remembered make room");
        assert_eq!(bans.all().len(), 1);
        assert!(bans.remove(Subject::user(SubjectId(3))).is_some() && bans.all().is_empty());
    }
}
