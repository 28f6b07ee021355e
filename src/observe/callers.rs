//! Who asks most, and who is at a limit (O2): exact for whoever asks often, in memory that is bounded whatever clients
//! invent.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::Record;
use super::stamp::rfc3339;
use crate::guard::Reason;
use crate::proxy::client::SubjectId;
use crate::state::clock::Timestamp;

/// A caller that has been silent for this long is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Requests of different callers rarely meet at one lock.
const SHARDS: usize = 64;
/// 65,536 callers in all, at about 64 bytes each.
const SHARD_CALLERS: usize = 1024;
/// Of how many callers the one with the fewest requests makes room in a full shard: a spray of strangers pushes out
/// strangers.
const CANDIDATES: usize = 8;

/// A caller as limits know it: the key presented, else the address (of IPv6 its /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(SubjectId),
    V4(IpAddr),
    V6(Ipv6Addr),
}

impl Who {
    fn of(record: &Record<'_>) -> Self {
        match (record.user, record.client_address) {
            (Some(user), _) => Self::User(user),
            (None, IpAddr::V6(address)) => {
                Self::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
            }
            (None, address) => Self::V4(address),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(digest) => digest.fmt(f),
            Self::V4(address) => address.fmt(f),
            Self::V6(network) => write!(f, "{network}/64"),
        }
    }
}

struct Caller {
    requests: u64,
    seen: Timestamp,
    /// Until then, a limit that it met refuses it.
    held: Timestamp,
}

/// All callers that are remembered.
pub(super) struct Callers {
    shards: [Mutex<HashMap<Who, Caller, ahash::RandomState>>; SHARDS],
    hasher: ahash::RandomState,
}

/// One of the callers that ask most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopCaller {
    /// Digest of the user; without a key, the address.
    pub identifier: String,
    /// Requests since it was first seen.
    pub requests: u64,
    /// When it last asked.
    pub last_request: Timestamp,
}

impl TopCaller {
    /// When it last asked, as RFC 3339 writes it.
    pub fn last_request_text(&self) -> String {
        rfc3339(self.last_request)
    }
}

impl Callers {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: ahash::RandomState::new() }
    }

    /// Notes a request.
    pub(super) fn seen(&self, record: &Record<'_>) {
        let who = Who::of(record);
        let place = self.hasher.hash_one(who) as usize % SHARDS;
        let Some(shard) = self.shards.get(place) else { return };
        let mut shard = shard.lock();
        if shard.len() >= SHARD_CALLERS && !shard.contains_key(&who) {
            let least = shard.iter().take(CANDIDATES).min_by_key(|(_, caller)| caller.requests);
            if let Some(who) = least.map(|(who, _)| *who) {
                shard.remove(&who);
            }
        }
        let new = || Caller { requests: 0, seen: record.at, held: Timestamp::from_micros(0) };
        let caller = shard.entry(who).or_insert_with(new);
        caller.requests += 1;
        caller.seen = caller.seen.max(record.at);
        if let Some(refusal) = record.refusal.filter(|refusal| refusal.reason == Reason::RateLimited) {
            let wait = refusal.quota.as_ref().map_or(Duration::ZERO, |quota| quota.reset);
            caller.held = caller.held.max(record.at.after(wait));
        }
    }

    /// How many are known, and how many of them a limit holds off now. Forgets those that have been silent for a day.
    pub(super) fn counts(&self, now: Timestamp) -> (u64, u64) {
        let (mut known, mut held) = (0, 0);
        for shard in &self.shards {
            shard.lock().retain(|_, caller| {
                let stays = now.since(caller.seen) < IDLE;
                known += u64::from(stays);
                held += u64::from(stays && caller.held > now);
                stays
            });
        }
        (known, held)
    }

    /// The user whose digest is shown so.
    pub(super) fn user_shown(&self, digest: &str) -> Option<SubjectId> {
        let known = |who: &Who| match who {
            Who::User(user) => (user.shown() == *digest.as_bytes()).then_some(*user),
            _ => None,
        };
        self.shards.iter().find_map(|shard| shard.lock().keys().find_map(known))
    }

    /// Those that ask most, most first, and of equals the latest.
    pub(super) fn top(&self, most: usize) -> Vec<TopCaller> {
        let mut top: Vec<(u64, Timestamp, Who)> = Vec::new();
        for shard in &self.shards {
            top.extend(shard.lock().iter().map(|(who, caller)| (caller.requests, caller.seen, *who)));
            top.sort_unstable_by_key(|(requests, seen, _)| std::cmp::Reverse((*requests, *seen)));
            top.truncate(most);
        }
        let shown = |(requests, last_request, who): (u64, Timestamp, Who)| TopCaller {
            identifier: who.to_string(),
            requests,
            last_request,
        };
        top.into_iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use crate::guard::{Quota, Refusal};

    const NOON: Timestamp = Timestamp::from_micros(1_709_208_000_000_000);

    fn by(address: &str, at: Timestamp) -> Record<'static> {
        Record { client_address: address.parse().expect("an address"), user: None, at, ..record() }
    }

    /// An operator under load has to see who makes it, by the name that the events have.
    #[test]
    fn who_asks_most_comes_first() {
        let callers = Callers::new();
        let user = Some(SubjectId(0x0123_4567_89ab_cdef << 64));
        for second in 0..3 {
            let at = NOON.after(Duration::from_secs(second));
            callers.seen(&Record { user, ..by("192.0.2.1", at) });
            callers.seen(&by(["192.0.2.2", "2001:db8::1", "2001:db8::2"][second as usize], at));
        }
        let top = callers.top(2);
        let shown: Vec<_> = top.iter().map(|top| (top.identifier.as_str(), top.requests)).collect();
        assert_eq!(shown, [("0123456789abcdef", 3), ("2001:db8::/64", 2)]);
        assert_eq!(top[0].last_request, NOON.after(Duration::from_secs(2)));
        assert_eq!((callers.counts(NOON), callers.counts(NOON.after(IDLE * 2))), ((3, 0), (0, 0)));
    }

    /// Someone who asks why a user complains has to see that a limit holds them off, and until when it does.
    #[test]
    fn who_is_at_a_limit_is_counted_until_it_is_over() {
        let callers = Callers::new();
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let quota = Quota { limit: "ai".into(), max: 5, remaining: 0, window: minute, reset: minute };
        let refusal = Refusal {
            quota: Some(quota.into()),
            ..Refusal::new(Reason::RateLimited, "The limit ai allows 5 in 60s.", "limits.ai")
        };
        callers.seen(&Record { refusal: Some(&refusal), ..by("192.0.2.1", NOON) });
        callers.seen(&by("192.0.2.2", NOON));
        callers.seen(&by("192.0.2.1", NOON.after(second)));
        assert_eq!(callers.counts(NOON.after(second)), (2, 1));
        assert_eq!(callers.counts(NOON.after(minute)), (2, 0));
    }

    /// A spray of addresses must not take all memory, nor push out whoever makes the load.
    #[test]
    fn strangers_push_out_strangers() {
        let callers = Callers::new();
        for _ in 0..100 {
            callers.seen(&by("192.0.2.1", NOON));
        }
        for number in 0..2 * (SHARDS * SHARD_CALLERS) as u32 {
            let client_address = IpAddr::V4((0x0a00_0000 + number).into());
            callers.seen(&Record { client_address, ..by("192.0.2.1", NOON) });
        }
        let (known, _) = callers.counts(NOON);
        assert!(known <= (SHARDS * SHARD_CALLERS) as u64, "{known}");
        assert_eq!(callers.top(1)[0].identifier, "192.0.2.1");
    }
}
