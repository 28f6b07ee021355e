//! The suite over a real server, and what only this store promises.

#[path = "../../../tests/common/redis_server.rs"]
#[allow(dead_code, reason = "the black-box tests use the rest")]
mod redis_server;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use redis_server::RedisServer;
use smallvec::smallvec;

use super::*;
use crate::config::Span;
use crate::proxy::client::SubjectId;
use crate::state::budget::{BudgetSpec, Calendar};
use crate::state::claim::Claim;
use crate::state::{AdmissionId, Denial, Window, suite};

const MINUTE: Duration = Duration::from_secs(60);

/// So patient that a busy machine fails no call.
const PATIENT: Span = Span::from_secs(10);

/// As patient as a gate is.
const HURRIED: Span = Span::from_millis(20);

fn file(server: &RedisServer, timeout: Span) -> RedisFile {
    RedisFile {
        url: Some(server.url().into()),
        ca: None,
        sentinels: Vec::new(),
        master: "tidegate".to_owned(),
        sentinel_password: None,
        prefix: "test".to_owned(),
        timeout,
        replicas: 0,
        outage_reserve: 0,
    }
}

fn open(file: &RedisFile, clock: Clock) -> RedisStore {
    let store = RedisStore::new(file.build().unwrap(), MemoryConfig::default(), clock);
    store.start().unwrap();
    assert_eq!(store.link().away, None);
    store
}

/// A gate's store.
fn store(server: &RedisServer, timeout: Span) -> RedisStore {
    open(&file(server, timeout), Clock::system())
}

fn per_minute(max: u64) -> LimitSpec {
    LimitSpec::new("ai", [Window { length: MINUTE, max }]).unwrap()
}

fn user(id: u128) -> Subject {
    Subject::user(SubjectId(id))
}

fn claim(key: u128) -> Claim {
    Claim { key: ClaimKey(key), content: 1, keep: MINUTE }
}

fn budget() -> BudgetSpec {
    BudgetSpec::new("day", 1000, Calendar::Day, "UTC").unwrap()
}

async fn granted(store: &RedisStore, limit: &LimitSpec, subject: Subject) -> bool {
    store.admit(&Demand::draws(&[Draw::one(limit, subject)])).await.unwrap().is_granted()
}

async fn held(store: &RedisStore, budget: &BudgetSpec) -> u64 {
    let hold = Hold { budget, subject: user(1), amount: 0 };
    store.balances(&[hold]).await.unwrap()[0].held
}

/// Waits until `holds`, for what the keeper does in the background.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn the_suite_passes() {
    let server = RedisServer::start();
    let made = AtomicU32::new(0);
    suite::run(|clock| {
        let prefix = format!("suite-{}", made.fetch_add(1, Ordering::Relaxed));
        open(&RedisFile { prefix, ..file(&server, PATIENT) }, clock)
    });
}

/// Replicas that each let the whole limit through are no limit; nor is one that its own clock puts in another minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_whose_clocks_differ_grant_exactly_the_limit() {
    let server = RedisServer::start();
    let fast = Clock::fast_by(Duration::from_secs(7200));
    let gates = [store(&server, PATIENT), open(&file(&server, PATIENT), fast), store(&server, PATIENT)];
    let (gates, limit) = (Arc::new(gates), Arc::new(per_minute(100)));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500 {
        let (gates, limit) = (gates.clone(), limit.clone());
        tasks.spawn(async move { granted(&gates[n % 3], &limit, user(1)).await });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|granted| *granted).count(), 100);
    let waits = async |gate: &RedisStore| match gate
        .admit(&Demand::draws(&[Draw::one(&limit, user(1))]))
        .await
        .unwrap()
    {
        Decision::Denied(Denial::Limited { retry_after, .. }) => retry_after.unwrap(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (waits(&gates[0]).await, waits(&gates[1]).await);
    assert!(second <= first && first <= MINUTE && first - second < Duration::from_secs(20));
    // A day's budget is that of the server's day, whichever day a gate believes in.
    let day = budget();
    gates[1].shared.time.correct(0);
    let holds = [Hold { budget: &day, subject: user(1), amount: 10 }];
    let demand = Demand { id: Some(AdmissionId(7)), holds: &holds, ..Demand::default() };
    assert!(gates[1].admit(&demand).await.unwrap().is_granted());
    assert_eq!(held(&gates[0], &day).await, 10);
    gates[1].shared.time.correct(0);
    let untouched = Hold { budget: &day, subject: user(2), amount: 0 };
    assert!(gates[1].balances(&[untouched]).await.unwrap()[0].reset > Duration::ZERO, "the day that it is");
}

/// A webhook that two gates get at once would be run twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_at_once_over_two_gates_one_is_granted() {
    let server = RedisServer::start();
    let gates = Arc::new([store(&server, PATIENT), store(&server, PATIENT)]);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let gates = gates.clone();
        tasks.spawn(async move {
            let claims = [claim(7)];
            let demand = Demand { id: Some(AdmissionId(n)), claims: &claims, ..Demand::default() };
            gates[n as usize % 2].admit(&demand).await.unwrap().is_granted()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|granted| *granted).count(), 1);
}

/// An answer that was too late to be heard, and then settled, would hold money and claims for ever.
#[tokio::test]
async fn an_admit_after_its_own_end_takes_nothing() {
    let server = RedisServer::start();
    let (store, day, id) = (store(&server, PATIENT), budget(), AdmissionId(7));
    let holds = [Hold { budget: &day, subject: user(1), amount: 10 }];
    let (claims, limit) = ([claim(7)], per_minute(5));
    let draws = [Draw::one(&limit, user(1))];
    let demand = Demand { id: Some(id), claims: &claims, draws: &draws, holds: &holds };
    let settlement = Settlement { id, outcome: Outcome::NeverSent, spent: None };
    store.shared.owed.insert(id);
    store.settle(std::slice::from_ref(&settlement)).await.unwrap();
    assert!(matches!(store.shared.ask(&demand).await, Ok(None)), "it has ended already");
    assert_eq!(held(&store, &day).await, 0);
    assert_eq!(store.standings(&draws).await.unwrap()[0].remaining, 5);

    // Asked again while it is under way, it takes nothing more; settled again, it gives nothing more back.
    let again = Demand { id: Some(AdmissionId(8)), ..demand };
    for _ in 0..3 {
        assert!(store.admit(&again).await.unwrap().is_granted());
    }
    assert_eq!((held(&store, &day).await, store.standings(&draws).await.unwrap()[0].remaining), (10, 4));
    for _ in 0..3 {
        store.shared.owed.insert(AdmissionId(8));
        let spent = Settlement { id: AdmissionId(8), outcome: Outcome::Served, spent: Some(smallvec![7]) };
        store.settle(&[spent]).await.unwrap();
    }
    let hold = Hold { budget: &day, subject: user(1), amount: 0 };
    let balance = store.balances(&[hold]).await.unwrap()[0];
    assert_eq!((balance.spent, balance.held), (7, 0));
}

/// A server that was frozen would count, once it goes on, what its gates gave up long ago.
#[tokio::test]
async fn what_comes_after_its_deadline_is_refused() {
    let server = RedisServer::start();
    let store = store(&server, PATIENT);
    let (limit, time) = (per_minute(5), ServerTime::new(Clock::system()));
    let draws = [Draw::one(&limit, user(1))];
    time.correct(1);
    let late = Admit::new(&Demand::draws(&draws), &store.shared.keys, &time, MINUTE, 0);
    let answer = store.shared.link.call(&late.call(&late.args()), MINUTE).await.unwrap();
    assert!(matches!(late.verdict(&answer), Some(Verdict::Late(_))));
    assert_eq!(store.standings(&draws).await.unwrap()[0].remaining, 5);
}

/// Claims and holds of calls that got no answer must come free, and a server that is frozen must hold nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_holds_nobody_up_and_keeps_nothing() {
    let server = RedisServer::start();
    let (store, day) = (store(&server, HURRIED), budget());
    let holds = [Hold { budget: &day, subject: user(1), amount: 10 }];
    let limit = per_minute(1_000_000);
    let (under_way, claims) = ([claim(7)], [claim(8)]);
    let claiming = |id, claims| Demand { id: Some(AdmissionId(id)), claims, ..Demand::default() };
    until("it is claimed there", async || {
        store.admit(&claiming(100, &under_way)).await.unwrap();
        store.shared.owed.contains(AdmissionId(100)) && store.link().away.is_none()
    })
    .await;
    server.freeze();
    // Not known to be granted there, and refused here: nobody else would release it.
    assert!(store.admit(&claiming(101, &claims)).await.unwrap().is_granted());
    assert!(!store.admit(&claiming(102, &claims)).await.unwrap().is_granted());
    assert_eq!(
        store.shared.outbox.lock().iter().map(|settlement| settlement.id.0).collect::<Vec<_>>(),
        [102]
    );
    for id in 0..20 {
        let id = AdmissionId(id);
        let demand = Demand { id: Some(id), holds: &holds, ..Demand::default() };
        assert_eq!(store.admit(&demand).await, Err(StoreError::BudgetsAway));
        // As the admission does when it is dropped.
        let _ = store.settle(&[Settlement { id, outcome: Outcome::NeverSent, spent: None }]).await;
    }
    assert!(store.link().away.is_some_and(|why| why.contains("does not answer")));
    let ended = Settlement { id: AdmissionId(100), outcome: Outcome::UpstreamFailed, spent: None };
    assert_eq!(store.settle(&[ended]).await, Ok(()), "a server that is away must not hold up what follows");
    let mut took = Vec::new();
    for n in 0..2000 {
        let started = Instant::now();
        assert!(granted(&store, &limit, user(n % 7)).await);
        took.push(started.elapsed());
    }
    took.sort_unstable();
    assert!(took[1980] < Duration::from_millis(5), "{:?}", took[1980]);
    server.thaw();
    until("it heals", async || store.link().away.is_none()).await;
    until("the claim is free", async || store.admit(&claiming(103, &under_way)).await.unwrap().is_granted())
        .await;
    until("all is given back", async || store.balances(&[holds[0]]).await.is_ok_and(|all| all[0].held == 0))
        .await;
}

/// With the server gone, two gates must not let through more than the limit, nor either of them nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_server_each_gate_grants_its_share() {
    let mut server = RedisServer::start();
    let gates = [store(&server, HURRIED), store(&server, HURRIED)];
    until("both are seen", async || gates.iter().all(|gate| gate.replicas() == 2)).await;
    let (before, limit) = (per_minute(7), per_minute(10));
    for _ in 0..7 {
        // However busy this machine is: what is drawn is drawn, there or here.
        granted(&gates[0], &before, user(9)).await;
    }
    server.kill();
    for gate in &gates {
        until("it is away", async || {
            granted(gate, &limit, user(2)).await;
            gate.link().away.is_some()
        })
        .await;
    }
    for gate in &gates {
        let mut count = 0;
        for _ in 0..20 {
            count += usize::from(granted(gate, &limit, user(1)).await);
        }
        assert_eq!(count, 5);
    }
    assert!(!granted(&gates[0], &before, user(9)).await, "what it granted before counts");
    let claims = [claim(7)];
    let claim = |id| Demand { id: Some(AdmissionId(id)), claims: &claims, ..Demand::default() };
    assert!(gates[0].admit(&claim(1)).await.unwrap().is_granted());
    assert!(!gates[0].admit(&claim(2)).await.unwrap().is_granted());
    let day = budget();
    let holds = [Hold { budget: &day, subject: user(1), amount: 1 }];
    let demand = Demand { id: Some(AdmissionId(3)), holds: &holds, ..Demand::default() };
    assert_eq!(gates[0].admit(&demand).await, Err(StoreError::BudgetsAway));
    assert!(gates[0].balances(&holds).await.is_err() && gates[0].reset(&[]).await.is_ok());
    server.resume();
    for gate in &gates {
        until("it heals", async || gate.link().away.is_none()).await;
    }
    until("one count for both", async || {
        for gate in gates.iter().cycle().take(20) {
            granted(gate, &limit, user(3)).await;
        }
        let draws = [Draw::one(&limit, user(3))];
        gates[0].standings(&draws).await.unwrap()[0].max == 10 && gates[0].link().away.is_none()
    })
    .await;
}

/// An operator who accepts some spending during an outage must get no more than that, and have it on the bill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserve_is_spent_without_the_server_and_charged_afterwards() {
    let mut server = RedisServer::start();
    let gate =
        open(&RedisFile { outage_reserve: 20, replicas: 2, ..file(&server, HURRIED) }, Clock::system());
    let (day, reset) = (budget(), per_minute(1));
    let holds = [Hold { budget: &day, subject: user(1), amount: 10 }];
    let demand = |id| Demand { id: Some(AdmissionId(id)), holds: &holds, ..Demand::default() };
    server.kill();
    until("it is away", async || {
        granted(&gate, &reset, user(9)).await;
        gate.link().away.is_some()
    })
    .await;
    for id in 0..10 {
        assert!(gate.admit(&demand(id)).await.unwrap().is_granted());
    }
    assert!(matches!(gate.admit(&demand(10)).await, Ok(Decision::Denied(Denial::Spent { .. }))));
    let settlement = |id: u128, outcome, spent| Settlement { id: AdmissionId(id), outcome, spent };
    let known = |id| settlement(id, Outcome::Served, Some(smallvec![7]));
    let batch: Vec<_> = (0..8).map(known).chain([settlement(8, Outcome::ClientGone, None)]).collect();
    for _ in 0..2 {
        gate.settle(&batch).await.unwrap();
    }
    gate.settle(&[settlement(9, Outcome::NeverSent, None)]).await.unwrap();
    server.resume();
    until("it is charged", async || {
        gate.balances(&holds).await.is_ok_and(|all| (all[0].spent, all[0].held) == (66, 0))
    })
    .await;
}

fn ban(store: &RedisStore, id: u128) -> Ban {
    let since = store.shared.time.local();
    let until = since.after(MINUTE);
    let remembered_until = until.after(MINUTE);
    Ban {
        subject: user(id),
        since,
        until,
        remembered_until,
        level: 3,
        reason: "rate_limited".into(),
        by_hand: true,
    }
}

/// Who is banned at one gate would go on at the next; who was freed would stay out; and a server that lost its data
/// would free everyone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_are_heard_of_by_all_and_survive_the_server() {
    let mut server = RedisServer::start();
    let fast = open(&file(&server, PATIENT), Clock::fast_by(Duration::from_secs(7200)));
    let gates = [store(&server, PATIENT), fast];
    let hears = async |gate: &RedisStore, id: u128, banned: bool| {
        until("it is heard of", async || gate.bans().in_force(user(id)).is_some() == banned).await;
    };
    for id in 1..=3 {
        assert!(gates[0].ban(ban(&gates[0], id)).await.unwrap());
        hears(&gates[1], id, true).await;
    }
    let (here, there) =
        (gates[0].bans().in_force(user(1)).unwrap(), gates[1].bans().in_force(user(1)).unwrap());
    assert_eq!((here.level, &here.reason, here.by_hand), (there.level, &there.reason, there.by_hand));
    let left = |gate: &RedisStore, ban: &Ban| ban.until.since(gate.shared.time.local());
    assert!(left(&gates[0], &here).abs_diff(left(&gates[1], &there)) < Duration::from_secs(2));
    assert!(gates[1].lift(user(1)).await.unwrap().is_some());
    hears(&gates[0], 1, false).await;
    let late = store(&server, PATIENT);
    assert!(late.bans().in_force(user(2)).is_some() && late.bans().in_force(user(1)).is_none());

    assert!(server.tell(&["FLUSHALL"]).is_some());
    until("it is told again", async || {
        let fresh = RedisStore::new(
            file(&server, PATIENT).build().unwrap(),
            MemoryConfig::default(),
            Clock::system(),
        );
        fresh.start().unwrap();
        fresh.bans().in_force(user(2)).is_some()
    })
    .await;
    assert!(gates.iter().all(|gate| gate.bans().in_force(user(3)).is_some()));

    server.kill();
    until("it is away", async || {
        granted(&gates[0], &per_minute(1), user(1)).await;
        gates[0].link().away.is_some()
    })
    .await;
    assert!(
        gates[0].ban(ban(&gates[0], 4)).await.unwrap() && gates[0].lift(user(3)).await.unwrap().is_some()
    );
    assert!(gates[0].bans().in_force(user(2)).is_some() && gates[0].bans().in_force(user(4)).is_some());
    server.resume();
    hears(&gates[1], 4, true).await;
    hears(&gates[1], 3, false).await;
    hears(&gates[1], 2, true).await;
    assert!(gates[0].bans().in_force(user(4)).is_some() && gates[0].bans().in_force(user(3)).is_none());
}

/// A gate that was killed would keep what it had in hand claimed for ever; one that lives must not lose it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_a_gate_that_died_are_free() {
    let server = RedisServer::start();
    let (dies, lives) = (store(&server, PATIENT), store(&server, PATIENT));
    let claims = [claim(7)];
    let claim = |id| Demand { id: Some(AdmissionId(id)), claims: &claims, ..Demand::default() };
    assert!(dies.admit(&claim(1)).await.unwrap().is_granted());
    assert!(!lives.admit(&claim(2)).await.unwrap().is_granted());
    let gate = dies.shared.bans.gate().to_be_bytes();
    drop(dies);
    // As long ago as nobody waits for in a test.
    let keys = [lives.shared.keys.gates()];
    let forget = script::Script::for_test("return redis.call('ZADD', KEYS[1], 1, ARGV[1])");
    until("it is free", async || {
        let call = Call { script: &forget, keys: &keys, args: &[&gate] };
        lives.shared.link.call(&call, MINUTE).await.unwrap();
        lives.admit(&claim(3)).await.unwrap().is_granted()
    })
    .await;
}

/// What a script leaves behind for ever fills the server.
#[tokio::test]
async fn every_key_expires_but_the_few_that_do_not_grow() {
    let server = RedisServer::start();
    let (store, day, limit) = (store(&server, PATIENT), budget(), per_minute(5));
    let draws = [Draw::one(&limit, user(1))];
    let (claims, holds) = ([claim(7)], [Hold { budget: &day, subject: user(1), amount: 10 }]);
    let demand = Demand { id: Some(AdmissionId(7)), claims: &claims, draws: &draws, holds: &holds };
    assert!(store.admit(&demand).await.unwrap().is_granted());
    assert!(store.ban(ban(&store, 1)).await.unwrap());
    let answer = KeptAnswer { status: 200, headers: Vec::new(), body: "x".into() };
    store.keep_answer(claims[0].key, Arc::new(answer)).await.unwrap();
    let lasting = "local out = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
                   if redis.call('PTTL', key) < 0 then out[#out + 1] = key end end \
                   table.sort(out) return {redis.call('DBSIZE'), table.concat(out, ' ')}";
    let lasting = script::Script::for_test(lasting);
    let look = async || {
        let call = Call { script: &lasting, keys: &[], args: &[] };
        let answer = store.shared.link.call(&call, MINUTE).await.unwrap();
        <(u32, String) as redis::FromRedisValue>::from_redis_value(answer).unwrap()
    };
    assert_eq!(look().await, (9, "test:bans test:epoch test:gates".to_owned()));
    store.settle(&[Settlement { id: AdmissionId(7), outcome: Outcome::Served, spent: None }]).await.unwrap();
    assert_eq!(look().await, (9, "test:bans test:epoch test:gates".to_owned()));
}

/// A password in an error, a dump or a log is a password lost.
#[test]
fn settings_that_cannot_be_used_are_refused_without_showing_the_url() {
    let server = RedisServer::new("redis-server", None);
    let file = |url: &str| RedisFile { url: Some(url.to_owned().into()), ..file(&server, HURRIED) };
    let fault = |file: RedisFile| file.build().map(|_| ()).unwrap_err();
    for url in [
        "http://:hunter2@h",
        "redis://:hunter2@h:99999",
        "rediss://:hunter2@h#insecure",
        "hunter2",
        "unix:///h",
    ] {
        let fault = fault(file(url));
        assert!(fault.key == "url" && !fault.message.contains("hunter2"), "{fault}");
        assert!(!format!("{:?}", file(url)).contains("hunter2"));
    }
    let good = || file("redis://:hunter2@h");
    assert_eq!(fault(RedisFile { url: None, ..good() }).key, "url");
    assert_eq!(fault(RedisFile { prefix: "a b".into(), ..good() }).key, "prefix");
    assert_eq!(fault(RedisFile { timeout: Span::from_secs(0), ..good() }).key, "timeout");
    assert_eq!(fault(RedisFile { outage_reserve: 101, ..good() }).key, "outage_reserve");
    assert_eq!(fault(RedisFile { ca: Some("/ca.pem".into()), ..good() }).key, "ca");
    assert_eq!(fault(RedisFile { sentinels: vec!["h".into()], ..good() }).key, "sentinels");
    let sentinels = vec!["10.0.0.1:26379".to_owned(), "[::1]:26379".to_owned()];
    assert!(RedisFile { url: None, sentinels, ..good() }.build().is_ok());
}
