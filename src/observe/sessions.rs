//! Sessions as they come and go: how many, how old, how busy, on which routes. Memory is bounded whatever clients invent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::{HashMap, hash_map::Entry};
use parking_lot::Mutex;

use crate::proxy::client::SubjectId;
use crate::state::clock::Timestamp;

/// A session that has been silent for this long is over (S2).
const IDLE: Duration = Duration::from_secs(30 * 60);

/// Requests of different sessions rarely meet at one lock.
const SHARDS: usize = 64;
/// 65,536 sessions in all, at about 64 bytes each.
const SHARD_SESSIONS: usize = 1024;
/// Of how many sessions the one that was silent for longest makes room in a full shard.
const CANDIDATES: usize = 8;

/// All sessions that are remembered.
pub(super) struct Sessions {
    shards: [Mutex<HashMap<SubjectId, Session, ahash::RandomState>>; SHARDS],
    started: AtomicU64,
}

struct Session {
    began: Timestamp,
    seen: Timestamp,
    messages: u64,
    route: Option<Arc<str>>,
}

/// What can be told of the sessions that were seen in the last 30 minutes, the active ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionStats {
    /// Active ones.
    pub active: u64,
    /// Begun since the process started, those that were forgotten and came again counted anew.
    pub started: u64,
    /// Age of the oldest; zero if there is none.
    pub oldest: Duration,
    /// Active ones by the route that each took last, most first; without a route: `none`.
    pub routes: Vec<(Arc<str>, u64)>,
    /// Messages of all active ones together: requests that change state or call a model.
    pub messages: u64,
    /// Most messages of one.
    pub most_messages: u64,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), started: AtomicU64::new(0) }
    }

    /// Notes a request of a session.
    pub(super) fn seen(&self, id: SubjectId, now: Timestamp, route: Option<&Arc<str>>, message: bool) {
        // The id is a digest, so its bits are as good as a hash.
        let Some(shard) = self.shards.get((id.0 >> 64) as usize % SHARDS) else { return };
        let mut shard = shard.lock();
        if shard.len() >= SHARD_SESSIONS && !shard.contains_key(&id) {
            let stalest = shard.iter().take(CANDIDATES).min_by_key(|(_, session)| session.seen);
            if let Some(id) = stalest.map(|(id, _)| *id) {
                shard.remove(&id);
            }
        }
        let session = match shard.entry(id) {
            Entry::Occupied(entry) if now.since(entry.get().seen) < IDLE => entry.into_mut(),
            entry => {
                self.started.fetch_add(1, Ordering::Relaxed);
                entry.insert(Session { began: now, seen: now, messages: 0, route: None }).into_mut()
            }
        };
        session.seen = session.seen.max(now);
        session.messages += u64::from(message);
        if let Some(route) = route
            && session.route.as_ref().is_none_or(|known| !Arc::ptr_eq(known, route))
        {
            session.route = Some(route.clone());
        }
    }

    /// Counts the active ones, and forgets the others.
    pub(super) fn stats(&self, now: Timestamp) -> SessionStats {
        let mut stats = SessionStats { started: self.started.load(Ordering::Relaxed), ..Default::default() };
        let none: Arc<str> = "none".into();
        let mut routes: HashMap<Arc<str>, u64> = HashMap::new();
        for shard in &self.shards {
            shard.lock().retain(|_, session| {
                let active = now.since(session.seen) < IDLE;
                if active {
                    stats.active += 1;
                    stats.oldest = stats.oldest.max(now.since(session.began));
                    stats.messages += session.messages;
                    stats.most_messages = stats.most_messages.max(session.messages);
                    *routes.entry_ref(session.route.as_ref().unwrap_or(&none)).or_default() += 1;
                }
                active
            });
        }
        stats.routes = routes.into_iter().collect();
        stats.routes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_micros(1_709_208_000_000_000);

    fn id(number: u64) -> SubjectId {
        SubjectId(u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(number))
    }

    /// An operator who asks how many people are chatting, where and how much, must not be told a guess.
    #[test]
    fn sessions_are_counted_while_they_last() {
        let sessions = Sessions::new();
        let (chat, page): (Arc<str>, Arc<str>) = ("chat".into(), "page".into());
        for _ in 0..5 {
            sessions.seen(id(1), NOON, Some(&chat), true);
        }
        let later = NOON.after(Duration::from_secs(600));
        sessions.seen(id(2), later, Some(&chat), true);
        sessions.seen(id(3), later, Some(&chat), true);
        sessions.seen(id(3), later, Some(&page), false);
        let stats = sessions.stats(later);
        assert_eq!((stats.active, stats.started, stats.oldest), (3, 3, Duration::from_secs(600)));
        assert_eq!((stats.messages, stats.most_messages), (7, 5));
        assert_eq!(stats.routes, [(chat, 2), (page, 1)]);
        // The first has been silent for too long; when it comes again, it is a new one.
        let idle = NOON.after(IDLE);
        assert_eq!(sessions.stats(idle).active, 2);
        sessions.seen(id(1), idle, None, true);
        let stats = sessions.stats(idle);
        assert_eq!((stats.active, stats.started, stats.most_messages), (3, 4, 1));
    }

    /// Whoever invents a session with each request would otherwise take all memory.
    #[test]
    fn invented_sessions_are_bounded_and_recent_ones_stay() {
        let sessions = Sessions::new();
        let spray = 2 * (SHARDS * SHARD_SESSIONS) as u64;
        for number in 0..spray {
            sessions.seen(id(number), NOON.after(Duration::from_micros(number)), None, true);
        }
        let stats = sessions.stats(NOON);
        assert!(stats.active <= (SHARDS * SHARD_SESSIONS) as u64, "{}", stats.active);
        assert!(stats.active > (SHARDS * SHARD_SESSIONS / 2) as u64, "{}", stats.active);
        assert_eq!(stats.started, spray);
    }
}
