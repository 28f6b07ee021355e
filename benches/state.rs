//! What the stores cost a request. Budget: 3 draws over 5 windows in 1 µs, 2 M single draws a second on 2 threads; on the
//! disk 1 M; shared, 80 % of what a bare script of the same shape does.

#[path = "../tests/common/redis_server.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod redis_server;

use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redis_server::RedisServer;
use tidegate::config::Span;
use tidegate::proxy::client::SubjectId;
use tidegate::state::admission::{Admissions, Admitted, Outcome};
use tidegate::state::embedded::{EmbeddedConfig, EmbeddedStore, OnFailure};
use tidegate::state::inflight::Inflight;
use tidegate::state::settle::SettleActor;
use tidegate::state::{
    Clock, Demand, Draw, LimitSpec, MemoryConfig, MemoryStore, RedisFile, RedisStore, Store, Subject, Window,
};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn limit(name: &str, windows: &[(Duration, u64)]) -> LimitSpec {
    LimitSpec::new(name, windows.iter().map(|&(length, max)| Window { length, max })).unwrap()
}

fn user(id: u64) -> Subject {
    // Digests are spread; a multiplied counter is spread enough.
    Subject::user(SubjectId(u128::from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(id)))
}

/// The memory store never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!(),
    }
}

fn draw(store: &impl Store, draws: &[Draw<'_>]) -> bool {
    ready(store.admit(&Demand::draws(black_box(draws)))).unwrap().is_granted()
}

fn store() -> MemoryStore {
    MemoryStore::new(MemoryConfig::default(), Clock::system())
}

fn admit(c: &mut Criterion) {
    let huge = u64::MAX;
    let pages = limit("pages", &[(MINUTE, huge)]);
    let hot = store();
    c.bench_function("admit/1 draw, 1 window", |b| b.iter(|| draw(&hot, &[Draw::one(&pages, user(1))])));

    let (api, by_user, ai) = (
        limit("api", &[(MINUTE, huge), (HOUR, huge)]),
        limit("user", &[(MINUTE, huge)]),
        limit("ai", &[(MINUTE, huge), (HOUR, huge)]),
    );
    let mut n = 0;
    c.bench_function("admit/3 draws, 5 windows", |b| {
        b.iter(|| {
            n = (n + 1) % 64;
            draw(
                &hot,
                &[Draw::one(&api, user(n)), Draw::one(&by_user, user(n + 64)), Draw::one(&ai, user(n + 128))],
            )
        })
    });

    let five = limit("five", &[(HOUR, 5)]);
    c.bench_function("admit/refused", |b| b.iter(|| draw(&hot, &[Draw::one(&five, user(1))])));

    let draws = [Draw::one(&api, user(1)), Draw::one(&by_user, user(65)), Draw::one(&ai, user(129))];
    c.bench_function("standings/5 windows", |b| b.iter(|| ready(hot.standings(black_box(&draws))).unwrap()));

    let exact = limit("exact", &[(Duration::from_millis(1), 256)]);
    c.bench_function("admit/exact window that turns over", |b| {
        b.iter(|| draw(&hot, &[Draw::one(&exact, user(1))]))
    });
}

fn crowd(c: &mut Criterion) {
    let pages = limit("pages", &[(HOUR, 600)]);
    let crowded = store();
    for id in 0..1_000_000 {
        draw(&crowded, &[Draw::one(&pages, user(id))]);
    }
    let mut n = 0;
    c.bench_function("admit/one of 900 k", |b| {
        b.iter(|| {
            n = (n + 7_919) % 900_000;
            draw(&crowded, &[Draw::one(&pages, user(100_000 + n))])
        })
    });
    let mut id = 1_000_000;
    c.bench_function("admit/newcomer to a full store", |b| {
        b.iter(|| {
            id += 1;
            draw(&crowded, &[Draw::one(&pages, user(id))])
        })
    });
}

/// Not timed: what a million subjects take when each has drawn once, five times, and 21 times.
fn memory(_: &mut Criterion) {
    let (exact, store, before) = (limit("exact", &[(HOUR, 256)]), store(), resident());
    for draws in [1, 4, 16] {
        for round in 0..draws {
            (0..1_000_000).for_each(|id| assert!(draw(&store, &[Draw::one(&exact, user(id))]), "{round}"));
        }
        println!("1 M subjects: {:.1} MB resident, {:?}", (resident() - before) / 1e6, store.stats());
    }
    let started = Instant::now();
    store.sweep();
    println!("sweep of a full store: {:?}", started.elapsed());
}

fn threads(c: &mut Criterion) {
    const EACH: u64 = 1_000_000;
    let pages = limit("pages", &[(MINUTE, u64::MAX)]);
    let shared = store();
    let mut group = c.benchmark_group("2 threads");
    group.throughput(Throughput::Elements(2 * EACH)).sample_size(10);
    group.bench_function("1 M single draws each", |b| {
        b.iter(|| {
            std::thread::scope(|scope| {
                for thread in 0..2 {
                    let (shared, pages) = (&shared, &pages);
                    scope.spawn(move || {
                        for n in 0..EACH {
                            draw(shared, &[Draw::one(pages, user((n * 31 + thread) % 10_000))]);
                        }
                    });
                }
            })
        })
    });
}

/// A store on the disk, in `directory`.
fn on_disk(directory: &Path) -> EmbeddedStore {
    let config = EmbeddedConfig {
        directory: directory.into(),
        implied: false,
        on_failure: OnFailure::Refuse,
        memory: MemoryConfig::default(),
    };
    let store = EmbeddedStore::new(config, Clock::system());
    assert!(store.open(Duration::ZERO).unwrap().is_none());
    store
}

fn embedded(c: &mut Criterion) {
    const EACH: u64 = 300_000;
    let directory = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
    let (pages, api, ai) = (
        limit("pages", &[(MINUTE, u64::MAX)]),
        limit("api", &[(MINUTE, u64::MAX), (HOUR, u64::MAX)]),
        limit("ai", &[(MINUTE, u64::MAX), (HOUR, u64::MAX)]),
    );
    let store = on_disk(&directory);
    let draws = [Draw::one(&api, user(1)), Draw::one(&pages, user(65)), Draw::one(&ai, user(129))];
    c.bench_function("embedded/3 draws, 5 windows", |b| b.iter(|| draw(&store, &draws)));
    c.bench_function("embedded/3 draws, 5 windows, persisted", |b| {
        b.iter(|| {
            draw(&store, &draws);
            ready(store.persist()).unwrap();
        })
    });
    c.bench_function("embedded/nothing to persist", |b| b.iter(|| ready(store.persist()).unwrap()));
    let mut group = c.benchmark_group("embedded, 2 threads");
    group.throughput(Throughput::Elements(2 * EACH)).sample_size(10);
    for persisted in [false, true] {
        let name = if persisted { "single draws, each persisted" } else { "single draws" };
        group.bench_function(name, |b| {
            b.iter(|| {
                std::thread::scope(|scope| {
                    for thread in 0..2 {
                        let (store, pages) = (&store, &pages);
                        scope.spawn(move || {
                            for n in 0..EACH {
                                draw(store, &[Draw::one(pages, user((n * 31 + thread) % 10_000))]);
                                if persisted {
                                    ready(store.persist()).unwrap();
                                }
                            }
                        });
                    }
                })
            })
        });
    }
    group.finish();
    println!("journal and checkpoints: {:?}", store.kept());
    store.close();
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Not timed by Criterion: what it takes to keep a million counters and to bring them back.
fn recovery(_: &mut Criterion) {
    let directory = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
    let exact = limit("exact", &[(HOUR, 256)]);
    let before = resident();
    let store = on_disk(&directory);
    let started = Instant::now();
    for id in 0..1_000_000 {
        assert!(draw(&store, &[Draw::one(&exact, user(id))]));
        ready(store.persist()).unwrap();
    }
    println!(
        "1 M subjects on the disk: drawn in {:?}, {:.1} MB resident",
        started.elapsed(),
        (resident() - before) / 1e6
    );
    let started = Instant::now();
    store.close();
    let bytes = std::fs::metadata(directory.join("tidegate.db")).unwrap().len();
    println!(
        "the last checkpoint and close: {:?}; {:.1} MB of database",
        started.elapsed(),
        bytes as f64 / 1e6
    );
    drop(store);
    let started = Instant::now();
    let store = on_disk(&directory);
    println!("opened with 1 M counters: {:?}, {:?}", started.elapsed(), store.stats().counters);
    drop(store);
    std::fs::remove_dir_all(&directory).unwrap();
}

fn settle(c: &mut Criterion) {
    let store = Arc::new(store());
    let (settler, actor) = SettleActor::start(Arc::clone(&store), 65_536).unwrap();
    let admissions = Admissions::new(Arc::clone(&store), settler);
    c.bench_function("admit and settle/no draws", |b| {
        b.iter_custom(|rounds| {
            let mut busy = Duration::ZERO;
            for _ in 0..rounds.div_ceil(1000) {
                let started = Instant::now();
                for _ in 0..1000 {
                    if let Ok(Admitted::Granted(admission)) = ready(admissions.admit(Demand::default())) {
                        admission.settle(Outcome::Served);
                    }
                }
                busy += started.elapsed();
                // Let the actor drain: what is measured is the request's share.
                #[allow(clippy::disallowed_methods, reason = "this thread is the bench's own")]
                std::thread::sleep(Duration::from_millis(3));
            }
            busy.mul_f64(rounds as f64 / (rounds.div_ceil(1000) * 1000) as f64)
        })
    });
    let stats = actor.shutdown(Duration::from_secs(5));
    assert_eq!((stats.lost, store.stats().open), (0, 0));

    let inflight = Arc::new(Inflight::new());
    c.bench_function("inflight/acquire and drop", |b| {
        b.iter(|| inflight.try_acquire(black_box(user(1)), 100))
    });
}

/// The simplest script that counts a sliding window exactly: all or nothing, by the server's clock, what is left and how
/// long to wait.
const BARE: &str = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) \
                    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2]) \
                    local n = redis.call('ZCARD', KEYS[1]) \
                    if n >= tonumber(ARGV[1]) then \
                    local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES') \
                    return {0, 0, oldest[2] + ARGV[2] - now} end \
                    redis.call('ZADD', KEYS[1], now, t[1] .. t[2] .. n) redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
                    return {1, ARGV[1] - n - 1, 0}";

/// Not timed by criterion: draws a second that a server decides for 64 callers on 2 threads, by the store and by the bare
/// script in turn.
fn shared(_: &mut Criterion) {
    const CALLERS: u64 = 64;
    const EACH: u64 = 400;
    let server = RedisServer::start();
    let file = RedisFile {
        url: Some(server.url().into()),
        ca: None,
        sentinels: Vec::new(),
        master: String::new(),
        sentinel_password: None,
        prefix: "bench".to_owned(),
        timeout: Span::from_secs(5),
        replicas: 0,
        outage_reserve: 0,
    };
    let config = file.build().unwrap();
    let store = Arc::new(RedisStore::new(config, MemoryConfig::default(), Clock::system()));
    store.start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg(BARE);
    let digest: String = runtime.block_on(load.query_async(&mut connection.clone())).unwrap();
    let pages = Arc::new(limit("pages", &[(MINUTE, 200)]));
    let rate = |round: u64, is_bare: bool| {
        let started = Instant::now();
        runtime.block_on(async {
            let mut callers = tokio::task::JoinSet::new();
            for caller in 0..CALLERS {
                let (store, pages, digest) = (store.clone(), pages.clone(), digest.clone());
                let mut connection = connection.clone();
                callers.spawn(async move {
                    for n in 0..EACH {
                        let id = (round * 7 + caller * 131 + n * 17) % 2000;
                        if is_bare {
                            let mut call = redis::cmd("EVALSHA");
                            call.arg(&digest).arg(1).arg(format!("bare:{id}")).arg(200).arg(60_000);
                            let _: (u64, u64, u64) = call.query_async(&mut connection).await.unwrap();
                        } else {
                            store.admit(&Demand::draws(&[Draw::one(&pages, user(id))])).await.unwrap();
                        }
                    }
                });
            }
            callers.join_all().await;
        });
        (CALLERS * EACH) as f64 / started.elapsed().as_secs_f64()
    };
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..7 {
        rates[0].push(rate(round, false));
        rates[1].push(rate(round, true));
    }
    let [ours, bare] = rates.map(|mut rates| {
        rates.sort_unstable_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!(
        "shared store, 2 threads: {ours:.0} draws/s, {:.0} % of a bare script's {bare:.0}",
        100.0 * ours / bare
    );
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0
}

// `memory` first, while nothing that was freed before blurs what is resident.
criterion_group!(benches, memory, recovery, admit, crowd, threads, embedded, settle, shared);
criterion_main!(benches);
