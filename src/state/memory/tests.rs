//! What only the memory store promises: bounds, and what gives way when they are met.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::proxy::client::SubjectId;
use crate::state::admission::Outcome;
use crate::state::{AdmissionId, LimitSpec, ManualClock, Timestamp, Window, suite};

const MINUTE: Duration = Duration::from_secs(60);
const SMALL: MemoryConfig = MemoryConfig {
    counters: 8 * 1024,
    marks: 16 * 1024,
    open: 4,
    claims: 64,
    answer_bytes: 64 * 1024,
    accounts: 8,
    bans: 8,
};

fn small() -> (MemoryStore, ManualClock) {
    let hand = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000));
    (MemoryStore::new(SMALL, hand.clock()), hand)
}

fn per_minute(name: &str, max: u64) -> LimitSpec {
    LimitSpec::new(name, [Window { length: MINUTE, max }]).unwrap()
}

/// The `n`th of many addresses, each in a /24 that a hundred share.
fn stranger(n: u32) -> Subject {
    Subject::address(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + (n / 100) * 256 + n % 100)))
}

impl MemoryStore {
    fn granted(&self, limit: &LimitSpec, subject: Subject) -> bool {
        self.decide(&Demand::draws(&[Draw::one(limit, subject)]))
            .is_ok_and(|(decision, _)| decision.is_granted())
    }
}

#[test]
fn the_suite_passes() {
    suite::run(|clock| MemoryStore::new(MemoryConfig::default(), clock));
}

/// Memory would grow with every address that an attacker makes up, and the one at its limit could free itself
/// by it.
#[test]
fn a_spray_neither_grows_memory_nor_frees_who_is_at_a_limit() {
    let (store, hand) = small();
    let ai = per_minute("ai", 5);
    let spent: Vec<_> = (0..500).map(|id| Subject::user(SubjectId(id << 64))).collect();
    for subject in &spent {
        assert_eq!((0..6).filter(|_| store.granted(&ai, *subject)).count(), 5);
    }
    for n in 0..60_000 {
        store.granted(&ai, stranger(n));
        if n % 1000 == 0 {
            hand.advance(Duration::from_millis(500));
        }
    }
    assert_eq!(spent.iter().filter(|subject| store.granted(&ai, **subject)).count(), 0);
    let stats = store.stats();
    assert!(stats.evicted > 40_000, "{stats:?}");
    let worst = SMALL.counters * SLOT_BYTES + SMALL.marks * 16;
    assert!(
        stats.counters <= SMALL.counters + SMALL.counters / 16 && stats.bytes <= worst + worst / 16,
        "{stats:?}"
    );
    hand.advance(Duration::from_secs(30));
    assert!(
        spent.iter().all(|subject| store.granted(&ai, *subject)),
        "and they are free when their time has come"
    );
}

/// Whoever has nearly spent a limit could start anew by having others draw once.
#[test]
fn those_with_the_least_drawn_are_forgotten_first() {
    let (store, _hand) = small();
    let ai = per_minute("ai", 5);
    let nearly: Vec<_> = (0..500).map(|id| Subject::user(SubjectId(id << 64))).collect();
    for subject in &nearly {
        assert_eq!((0..4).filter(|_| store.granted(&ai, *subject)).count(), 4);
    }
    for n in 0..60_000 {
        store.granted(&ai, stranger(n));
    }
    let kept = nearly
        .iter()
        .filter(|subject| store.granted(&ai, **subject) && !store.granted(&ai, **subject))
        .count();
    assert!(kept > 490, "only {kept} of 500 are remembered");
}

/// With everyone remembered at their limit, newcomers must neither pass uncounted nor push anyone out.
#[test]
fn newcomers_to_a_full_store_count_with_their_network() {
    let (store, hand) = small();
    let login = per_minute("login", 1);
    let granted = (0..60_000).filter(|n| store.granted(&login, stranger(*n))).count();
    let stats = store.stats();
    assert!(stats.folded > 40_000 && stats.evicted == 0, "{stats:?}");
    assert!(granted <= SMALL.counters + 512, "{granted} granted, of which each fills a counter");
    assert!(stats.counters <= SMALL.counters + 512, "{stats:?}: two for each shard beyond the cap");
    assert!((0..60_000).all(|n| !store.granted(&login, stranger(n))), "nobody gets a second draw");
    hand.advance(MINUTE);
    assert!(store.granted(&login, stranger(59_999)), "it ends when the minute does");
}

/// A client that is refused anyway could still push out others, by inventing a new key with each try.
#[test]
fn a_refused_client_pushes_nobody_out() {
    let (store, _hand) = small();
    let (pages, ai) = (per_minute("pages", 600), per_minute("ai", 1));
    for n in 0..60_000 {
        store.granted(&pages, stranger(n));
    }
    let spent = Subject::user(SubjectId(7));
    assert!(store.granted(&ai, spent));
    let before = store.stats();
    for id in 0..1000 {
        let draws = [Draw::one(&ai, Subject::session(SubjectId(id << 64))), Draw::one(&ai, spent)];
        assert!(!store.decide(&Demand::draws(&draws)).unwrap().0.is_granted());
    }
    assert_eq!(store.stats(), before);
}

/// One network with 2^16 /64s at hand could crowd out the whole world.
#[test]
fn a_spray_from_one_network_crowds_only_its_own_shard() {
    let (store, _hand) = small();
    let pages = per_minute("pages", 600);
    let v6 = |high: u128| Subject::address(IpAddr::V6(Ipv6Addr::from_bits(high << 64)));
    let world: Vec<_> = (0..4000).map(|n| v6(0x2001_0db8_0000_0000 + (n << 16))).collect();
    for subject in &world {
        store.granted(&pages, *subject);
    }
    for n in 0..20_000u128 {
        store.granted(&pages, v6(0x2a00_1234_5678_0000 + n));
    }
    let unknown = |subject: &&Subject| {
        let cells = [Draw::one(&pages, **subject)];
        let locked = store.lock(store.shards_of(&cells));
        store.cells(&cells, &store.shards_of(&cells), &locked).iter().all(|cell| cell.slot.is_none())
    };
    let forgotten = world.iter().filter(unknown).count();
    assert!(forgotten < 100, "{forgotten} of 4000 forgotten");
}

/// Memory taken by bursts is bounded as well; when it is gone, draws may leave late but none uncounted or for
/// ever.
#[test]
fn bursts_join_draws_when_marks_run_out_and_stay_within_the_limit() {
    let hand = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000));
    let store = MemoryStore::new(MemoryConfig { counters: 65_536, marks: 2048, ..SMALL }, hand.clock());
    let api = per_minute("api", 40);
    let subjects: Vec<_> = (0..512).map(|id| Subject::user(SubjectId(id << 64))).collect();
    let mut granted = vec![0; subjects.len()];
    for _ in 0..60 {
        hand.advance(Duration::from_millis(10));
        for (subject, granted) in subjects.iter().zip(&mut granted) {
            *granted += usize::from(store.granted(&api, *subject));
        }
    }
    let stats = store.stats();
    assert!(stats.joined > 0, "{stats:?}");
    assert!(stats.bytes <= stats.counters * SLOT_BYTES + 2048 * 16, "{stats:?}");
    let over = granted.iter().filter(|granted| **granted > 40).count();
    assert!(over as u64 <= stats.evicted, "{over} over the limit, {} forgotten", stats.evicted);
    hand.advance(MINUTE);
    assert!(subjects.iter().all(|subject| store.granted(&api, *subject)));
}

/// Memory once taken by a spray would be gone until the next restart.
#[test]
fn a_sweep_gives_back_what_has_expired_and_nothing_else() {
    let (store, hand) = small();
    let (short, long) =
        (per_minute("short", 5), LimitSpec::new("long", [Window { length: 10 * MINUTE, max: 5 }]));
    let (long, kept) = (long.unwrap(), Subject::user(SubjectId(7)));
    assert_eq!((0..6).filter(|_| store.granted(&long, kept)).count(), 5);
    for n in 0..60_000 {
        store.granted(&short, stranger(n));
    }
    store.sweep();
    assert!(store.stats().counters > SMALL.counters / 2, "nothing has expired yet");
    hand.advance(MINUTE);
    store.sweep();
    assert_eq!(store.stats().counters, 1);
    assert!(store.shards.iter().all(|shard| shard.lock().table_len() <= 64), "tables shrink");
    assert!(!store.granted(&long, kept), "what has not expired still counts");
    assert!(store.granted(&short, stranger(1)));
}

/// An admission that is never settled would stay open for ever, and one that finds no room must take nothing.
#[tokio::test]
async fn open_admissions_are_bounded_and_go_back_to_none() {
    let (store, _hand) = small();
    let ai = per_minute("ai", 6);
    let draws = [Draw::one(&ai, Subject::global())];
    let admit = |id| Demand { id: Some(AdmissionId(id)), ..Demand::draws(&draws) };
    for id in 0..4 {
        assert!(store.admit(&admit(id)).await.unwrap().is_granted());
    }
    assert_eq!(store.admit(&admit(4)).await, Err(StoreError::TooManyOpen));
    assert_eq!(store.standings(&draws).await.unwrap()[0].remaining, 2, "what failed took nothing");
    let settled = |id| Settlement { id: AdmissionId(id), outcome: Outcome::Served, spent: None };
    store.settle(&[settled(0), settled(0), settled(99)]).await.unwrap();
    assert_eq!(store.stats().open, 3);
    for id in 4..8 {
        let _ = store.admit(&admit(id)).await;
        store.settle(&[settled(id)]).await.unwrap();
    }
    store.settle(&(0..8).map(settled).collect::<Vec<_>>()).await.unwrap();
    assert!(!store.admit(&admit(8)).await.unwrap().is_granted());
    assert_eq!(store.stats().open, 0, "a refused demand is not open");
}

/// Threads that draw, evict and sweep at once must neither hang nor lose count of what is held.
#[test]
fn counts_stay_true_while_threads_draw_and_sweep() {
    let (store, hand) = small();
    let (store, api) = (Arc::new(store), per_minute("api", 300));
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (store, api) = (&store, &api);
            scope.spawn(move || {
                for n in 0..8000 {
                    let draws =
                        [stranger(n * 7 % 20_000 + thread), stranger(n % 50)].map(|s| Draw::one(api, s));
                    store.decide(&Demand::draws(&draws)).unwrap();
                }
            });
        }
        for _ in 0..50 {
            hand.advance(Duration::from_secs(5));
            store.sweep();
        }
    });
    hand.advance(MINUTE);
    store.sweep();
    let stats = store.stats();
    assert_eq!((stats.counters, stats.bytes), (0, 0));
}
