//! Gates that share a store: exactly the limit while it is there, at most the limit while it is not, and no request
//! that fails or waits because of it.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    Ask, Gate, Load, Program, RedisServer, Scratch, Upstream, Via, Wire, a_moment, free_port, gate, within,
};
use futures_util::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::task::block_in_place;

/// Settings of a gate that shares `redis`, with as many AI calls as `windows` says and no other limit in the way.
fn sharing(redis: &str, windows: &str) -> String {
    let off = ["pages", "api", "api-user", "session", "tenant"].map(|name| format!("{name}: off, ")).concat();
    format!("redis: {{{redis}}}\nlimits: {{{off}ai: {{windows: ['{windows}']}}}}\n")
}

/// So patient that a busy machine fails no call.
fn patient(server: &RedisServer) -> String {
    format!("url: '{}', timeout: 5s", server.url())
}

fn hurried(server: &RedisServer) -> String {
    format!("url: '{}'", server.url())
}

async fn started(servers: impl FnOnce() -> RedisServer) -> RedisServer {
    block_in_place(servers)
}

/// How many of so many calls, made at once and to each gate in turn, were served; all others were refused by the limit.
async fn served(gates: &[Gate], calls: usize) -> usize {
    let ask = Ask::chat();
    let calls = (0..calls).map(|n| gates[n % gates.len()].ask(Via::H1, &ask));
    let statuses: Vec<_> = join_all(calls).await.into_iter().map(|answer| answer.status).collect();
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

/// What health says of the store.
async fn store_of(gate: &Gate) -> String {
    let health = gate.admin_ask(&Ask::get("/healthz")).await.json();
    let degraded =
        health["reasons"].as_array().is_some_and(|all| all.iter().any(|one| one["code"] == "store_away"));
    let redis = health["services"]["redis"].as_str().unwrap_or_default().to_owned();
    assert_eq!(degraded, redis == "disconnected", "{health}");
    redis
}

async fn until_store_is(gate: &Gate, state: &str) {
    within(state, async {
        while store_of(gate).await != state {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until a gate has heard of so many.
async fn until_gates_are(gate: &Gate, count: usize) {
    let line = format!("tidegate_shared_store_gates {count}");
    within(&line, async {
        while !gate.admin_ask(&Ask::get("/metrics")).await.text().contains(&line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Replicas that each let the whole limit through are no limit.
#[tokio::test(flavor = "multi_thread")]
async fn gates_together_serve_exactly_the_limit() {
    let (server, upstream) = (started(RedisServer::start).await, Upstream::ok().await);
    for count in [2, 3] {
        let settings = sharing(&format!("{}, prefix: of-{count}", patient(&server)), "20/min");
        let gates: Vec<_> = (0..count).map(|_| gate(upstream.address(), &settings)).collect();
        assert_eq!(served(&gates, 60).await, 20);
        gates.iter().for_each(|gate| gate.advance(Duration::from_secs(60)));
        assert_eq!(served(&gates, 60).await, 20, "a minute later");
    }
}

/// An outage must not be an opportunity, nor close the app.
#[tokio::test(flavor = "multi_thread")]
async fn gates_together_serve_at_most_the_limit_without_the_store() {
    let (mut server, upstream) = (started(RedisServer::start).await, Upstream::ok().await);
    let settings = sharing(&hurried(&server), "21/min");
    let gates: Vec<_> = (0..2).map(|_| gate(upstream.address(), &settings)).collect();
    for gate in &gates {
        until_gates_are(gate, 2).await;
    }
    server.kill();
    for gate in &gates {
        until_store_is(gate, "disconnected").await;
    }
    assert_eq!(served(&gates, 60).await, 20);
    block_in_place(|| server.resume());
    for gate in &gates {
        until_store_is(gate, "connected").await;
    }
    // One that never heard of others takes what it was told.
    let told = sharing(&format!("url: 'redis://127.0.0.1:{}', replicas: 3", free_port()), "21/min");
    let alone = [gate(upstream.address(), &told)];
    assert_eq!(store_of(&alone[0]).await, "disconnected");
    assert_eq!(served(&alone, 30).await, 7);
}

/// Whatever becomes of the store, those who use the app must not notice.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_store_is_killed_frozen_flushed_and_restarted() {
    let (mut server, upstream) = (started(RedisServer::start).await, Upstream::ok().await);
    let gate = gate(upstream.address(), &sharing(&hurried(&server), "1000000/min"));
    let load = Load::on(gate.traffic());
    let some_more = async || {
        let seen = load.answered();
        within("answers", async {
            while load.answered() < seen + 50 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    some_more().await;
    server.freeze();
    until_store_is(&gate, "disconnected").await;
    some_more().await;
    server.thaw();
    until_store_is(&gate, "connected").await;
    some_more().await;
    server.kill();
    until_store_is(&gate, "disconnected").await;
    some_more().await;
    block_in_place(|| server.resume());
    until_store_is(&gate, "connected").await;
    some_more().await;
    block_in_place(|| server.tell(&["FLUSHALL"])).expect("it answers");
    block_in_place(|| server.tell(&["SCRIPT", "FLUSH"])).expect("it answers");
    some_more().await;
    assert_eq!(load.failures().await, Vec::<String>::new());
    until_store_is(&gate, "connected").await;
}

/// After the first second of a freeze nobody waits for the store any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_store_adds_less_than_five_milliseconds() {
    let (server, upstream) = (started(RedisServer::start).await, Upstream::ok().await);
    let gate = gate(upstream.address(), &sharing(&hurried(&server), "1000000/min"));
    let p99 = async || {
        // On one connection, which serves no thousand requests.
        let (mut wire, mut took) = (Wire::to(gate.traffic()).await, Vec::new());
        for _ in 0..300 {
            let started = Instant::now();
            assert_eq!(wire.ask(Ask::chat().bytes()).await.status, 200);
            took.push(started.elapsed());
        }
        took.sort_unstable();
        took[297]
    };
    // Others use this machine, too: what is slow once is not slow by itself.
    let mut added = Duration::MAX;
    for _ in 0..3 {
        let before = p99().await;
        server.freeze();
        let frozen = Instant::now();
        while frozen.elapsed() < Duration::from_secs(1) {
            p99().await;
        }
        assert_eq!(store_of(&gate).await, "disconnected");
        added = added.min(p99().await.saturating_sub(before));
        server.thaw();
        until_store_is(&gate, "connected").await;
    }
    assert!(added < Duration::from_millis(5), "{added:?}");
}

/// A store behind Sentinels has no one address: the gate has to find the new master by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_followed_and_no_request_fails() {
    let upstream = Upstream::ok().await;
    let mut master = started(RedisServer::start).await;
    let (host, port) = ("127.0.0.1", master.port.to_string());
    let replica = started(|| RedisServer::start_with(&["--replicaof", host, &port])).await;
    block_in_place(|| {
        replica.wait_until("follow", |replica| {
            let answer = replica.tell(&["INFO", "replication"]).unwrap_or_default();
            String::from_utf8_lossy(&answer).contains("master_link_status:up")
        });
    });
    let sentinel = started(|| RedisServer::start_sentinel(master.port)).await;
    block_in_place(|| {
        sentinel.wait_until("know the replica", |sentinel| {
            let answer = sentinel.tell(&["SENTINEL", "replicas", "tidegate"]).unwrap_or_default();
            String::from_utf8_lossy(&answer).contains(&format!("127.0.0.1:{}", replica.port))
        });
    });
    let found = format!("sentinels: ['127.0.0.1:{}'], master: tidegate", sentinel.port);
    let gate = gate(upstream.address(), &sharing(&found, "1000000/min"));
    assert_eq!(store_of(&gate).await, "connected");
    let load = Load::on(gate.traffic());
    a_moment().await;
    master.kill();
    until_store_is(&gate, "disconnected").await;
    until_store_is(&gate, "connected").await;
    a_moment().await;
    assert_eq!(load.failures().await, Vec::<String>::new());
    let keys = block_in_place(|| replica.tell(&["ROLE"])).expect("it answers");
    assert!(String::from_utf8_lossy(&keys).contains("master"), "it serves now");
}

/// Whoever sits between the gate and its store must not read or forge what they say; and the password is nobody's
/// business.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_and_the_password_is_never_shown() {
    let (upstream, scratch) = (Upstream::ok().await, Scratch::new());
    let write = |name: &str, pem: String| {
        std::fs::write(scratch.path(name), pem).expect("writes");
        scratch.path(name).display().to_string()
    };
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), Issuer::new(params, key))
    };
    let ((ca, issuer), (stranger, _)) = (authority("ours"), authority("theirs"));
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let (ca, stranger) = (write("ca.pem", ca), write("stranger.pem", stranger));
    let (key, certificate) =
        (write("key.pem", key.serialize_pem()), write("certificate.pem", certificate.pem()));

    let port = free_port();
    let tls = port.to_string();
    let _server = started(|| {
        RedisServer::start_with(&[
            "--tls-port",
            &tls,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
            "--user",
            "tide",
            "on",
            ">hunter2",
            "~*",
            "&*",
            "+@all",
        ])
    })
    .await;
    let of = |password: &str, ca: &str| {
        let redis = format!("url: 'rediss://tide:{password}@localhost:{port}/0', ca: '{ca}', timeout: 5s");
        gate(upstream.address(), &sharing(&redis, "2/min"))
    };
    let sound = of("hunter2", &ca);
    assert_eq!(store_of(&sound).await, "connected");
    assert_eq!(served(&[sound], 6).await, 2);
    for (password, ca) in [("hunter2", &stranger), ("hunter3", &ca)] {
        let gate = of(password, ca);
        assert_eq!(store_of(&gate).await, "disconnected");
        for path in ["/healthz", "/api/security/stats", "/metrics"] {
            let answer = gate.admin_ask(&Ask::get(path)).await;
            assert!(!answer.text().contains("hunter"), "{}", answer.text());
        }
    }
}

/// The program itself, twice, by nothing but the environment.
#[tokio::test(flavor = "multi_thread")]
async fn two_programs_with_one_redis_url_serve_exactly_the_limit() {
    let (server, upstream) = (started(|| RedisServer::start_locked("hunter2")).await, Upstream::ok().await);
    let (scratch, upstream) = (Scratch::new(), format!("http://{}", upstream.address()));
    let file = scratch.path("settings.yaml").display().to_string();
    std::fs::write(&file, "redis: {timeout: 5s}\nlimits: {session: off}\n").expect("writes");
    let url = server.url();
    let start = || {
        let (traffic, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let arguments =
            ["run", "-c", &file, "--upstream", &upstream, "--listen", &traffic, "--admin", &admin];
        let environment = [("REDIS_URL", url.as_str()), ("RATE_LIMIT_AI_PER_MINUTE", "12")];
        let program = Program::start(&arguments, &environment);
        let said = program.says("the shared store is there");
        assert!(!said.contains("hunter2"), "{said}");
        (program, traffic.parse().expect("an address"))
    };
    let programs: Arc<[_]> = block_in_place(|| [start(), start()]).into();
    for (_, traffic) in programs.iter() {
        within("accepting", async {
            while tokio::net::TcpStream::connect(traffic).await.is_err() {
                a_moment().await;
            }
        })
        .await;
    }
    let calls = (0..40).map(|n| {
        let (_, traffic) = &programs[n % 2];
        async move { Wire::to(*traffic).await.ask(Ask::chat().bytes()).await.status }
    });
    let statuses = join_all(calls).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 12, "{statuses:?}");
}
