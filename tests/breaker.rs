//! Upstreams that are left alone: the breaker, retries, fallbacks, and what is switched by hand. The faults themselves stand
//! in faults.rs.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{
    Answer, Ask, BOTH, Gate, H2, OK_JSON, Scratch, Upstream, Via, Wire, a_moment, assert_refused, gate,
    unreachable, within,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinSet, block_in_place};

/// Opens after three failures in a row, for thirty seconds of the hand-moved clock; nothing is tried again.
const BREAKER: &str = "breaker: {consecutive_failures: 3, recovery: 30s}
retries: off
limits: {api: off, session: off, pages: off, tenant: off, api-user: off, ai: off}
timeouts: {first_byte: 300ms, between_bytes: 300ms, write: 500ms}
upstream_defaults: {connect_timeout: 300ms}
";
const TOKEN: &str = "a-token-for-tests";
const ADMIN: &str = "admin: {listen: '127.0.0.1:0', token: a-token-for-tests}\n";
const RECOVERY: Duration = Duration::from_secs(30);
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

fn settings(more: &str) -> String {
    format!("{BREAKER}{ADMIN}{more}")
}

/// A request that is read whole, then forwarded.
fn chat() -> Ask {
    Ask::chat()
}

/// A request that streams through.
fn upload() -> Ask {
    Ask::new("POST", "/upload").field("content-type", "application/octet-stream").body(vec![7; 100])
}

async fn metric(gate: &Gate, series: &str) -> f64 {
    let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {text}")).parse().expect("a number")
}

/// Waits for a counter to reach `wanted`, since requests are counted behind their answers; it must not pass it.
async fn assert_counted(gate: &Gate, series: &str, wanted: f64) {
    let counted = within(series, async {
        loop {
            let counted = metric(gate, series).await;
            if counted >= wanted {
                return counted;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(counted.await, wanted, "{series}");
}

async fn state(gate: &Gate) -> String {
    let stats = gate.admin_ask(&Ask::get("/api/security/stats")).await.json();
    stats["security"]["circuit_breaker"]["upstreams"][0]["state"].as_str().expect("a state").to_owned()
}

async fn post(gate: &Gate, path: &str, body: &str) -> Answer {
    let ask = Ask::post(path, body).field("authorization", format!("Bearer {TOKEN}"));
    gate.admin_ask(&ask).await
}

/// What is being served when nothing is.
async fn assert_at_rest(gate: &Gate) {
    within("all to be given back", async {
        while metric(gate, "tidegate_in_flight").await + metric(gate, "tidegate_open_admissions").await > 0.0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Takes requests and says nothing.
async fn silent() -> Upstream {
    Upstream::scripted(|mut peer| async move {
        peer.request().await;
        peer.ends().await;
    })
    .await
}

/// Closes instead of answering.
async fn hanging() -> Upstream {
    Upstream::scripted(|mut peer| async move { drop(peer.request().await) }).await
}

async fn trip(gate: &Gate) {
    for _ in 0..3 {
        gate.ask(Via::H1, &chat()).await;
    }
    assert_eq!(state(gate).await, "open");
}

/// An app that fails often by nature must not be left alone as soon as the rest, nor the rest as late as it.
#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_is_left_alone_by_its_own_rules() {
    let upstream = Upstream::answering(UNAVAILABLE).await;
    let own = format!(
        "upstreams: {{hardy: {{servers: 'http://{0}', breaker: {{consecutive_failures: 5, recovery: 7s}}}}}}\n\
         routes: [{{name: hardy, match: {{paths: ['/api/hardy']}}, upstream: hardy}}]\n",
        upstream.address()
    );
    let gate = gate(upstream.address(), &settings(&own));
    for (path, failures, wait) in [("/api/chat", 3, "30"), ("/api/hardy", 5, "7")] {
        let ask = Ask::post(path, r#"{"message":"hello"}"#);
        for _ in 0..failures {
            assert_eq!(gate.ask(Via::H1, &ask).await.field("x-tidegate-reason"), None, "{path}");
        }
        let refused = gate.ask(Via::H1, &ask).await;
        assert_refused(&refused, 503, "circuit_open");
        assert_eq!(refused.field("retry-after"), Some(wait), "{path}");
    }
}

/// A hundred callers that wait for an upstream to come back would knock it down again.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_at_once_exactly_one_probes() {
    let (fails, go) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
    let cues = (fails.clone(), go.clone());
    let upstream = Upstream::scripted(move |mut peer| {
        let (fails, go) = cues.clone();
        async move {
            while peer.request().await.is_some() {
                if fails.load(Ordering::SeqCst) {
                    peer.send(UNAVAILABLE).await;
                } else {
                    go.notified().await;
                    peer.send(OK_JSON).await;
                }
            }
        }
    })
    .await;
    let patient = settings("").replace("first_byte: 300ms", "first_byte: 10s");
    let gate = Arc::new(gate(
        upstream.address(),
        &format!("{patient}concurrency: {{total: 2000, address: 500, user: 500}}\n"),
    ));
    trip(&gate).await;
    fails.store(false, Ordering::SeqCst);
    gate.advance(RECOVERY);
    let mut asked = JoinSet::new();
    for _ in 0..100 {
        let gate = gate.clone();
        asked.spawn(async move { gate.ask(Via::H1, &chat()).await });
    }
    for _ in 0..99 {
        let refused = within("a refusal", asked.join_next()).await.expect("one of them").expect("no panic");
        assert_refused(&refused, 503, "circuit_open");
        assert_eq!(refused.field("retry-after"), Some("1"));
    }
    go.notify_one();
    let probe = within("the probe", asked.join_next()).await.expect("the last").expect("no panic");
    assert_eq!((probe.status, upstream.requests().len()), (200, 4));
    assert_eq!(state(&gate).await, "closed");
}

/// A client that leaves while it probes says nothing about the upstream; the next one probes.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_whose_client_leaves_is_free_again() {
    let asked = Arc::new(Notify::new());
    let (cue, requests) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
    let upstream = Upstream::scripted(move |mut peer| {
        let (cue, requests) = (cue.clone(), requests.clone());
        async move {
            while peer.request().await.is_some() {
                match requests.fetch_add(1, Ordering::SeqCst) {
                    0..3 => drop(peer.send(UNAVAILABLE).await),
                    3 => {
                        cue.notify_one();
                        peer.ends().await;
                        return;
                    }
                    _ => drop(peer.send(OK_JSON).await),
                }
            }
        }
    })
    .await;
    let patient = settings("").replace("first_byte: 300ms", "first_byte: 10s");
    let gate = gate(upstream.address(), &patient);
    trip(&gate).await;
    gate.advance(RECOVERY);
    let mut leaver = H2::to(gate.traffic()).await;
    let ask = chat();
    let mut asking = Box::pin(leaver.ask(&ask));
    tokio::select! {
        answer = &mut asking => panic!("{answer:?}"),
        () = within("the probe's arrival", asked.notified()) => {}
    }
    assert_refused(&gate.ask(Via::H1, &chat()).await, 503, "circuit_open");
    drop(asking);
    drop(leaver);
    within("the probe to be free", async {
        while gate.ask(Via::H1, &chat()).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_at_rest(&gate).await;
}

/// Callers must not wait for an upstream that is known to be down, nor pay for it: no limit of theirs is drawn on.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_answers_at_once_and_costs_nothing() {
    let upstream = Upstream::ok().await;
    let gate = gate(
        upstream.address(),
        &format!(
            "{ADMIN}limits: {{ai: {{windows: [5/min]}}, api: {{windows: [10000/min]}}, session: off}}\n"
        ),
    );
    assert_eq!(post(&gate, "/api/security/circuit-breaker/open", "").await.status, 200);
    let mut medians = Vec::new();
    // A machine with other work may need another try.
    while medians.len() < 10 && medians.last().is_none_or(|median| *median >= Duration::from_millis(2)) {
        let mut wire = Wire::to(gate.traffic()).await;
        let mut took: Vec<_> = Vec::new();
        for _ in 0..101 {
            let began = Instant::now();
            let answer = wire.ask(chat().bytes()).await;
            took.push(began.elapsed());
            assert_refused(&answer, 503, "circuit_open");
        }
        took.sort_unstable();
        medians.push(took[50]);
    }
    assert!(medians.last().is_some_and(|median| *median < Duration::from_millis(2)), "{medians:?}");
    upstream.assert_untouched();

    assert_eq!(post(&gate, "/api/security/circuit-breaker/auto", "").await.status, 200);
    for _ in 0..5 {
        assert_eq!(gate.ask(Via::H1, &chat()).await.status, 200);
    }
    assert_refused(&gate.ask(Via::H1, &chat()).await, 429, "rate_limited");
}

/// A slow model is no fault by default; where it is one, half a window of late answers must end the queueing.
#[tokio::test(flavor = "multi_thread")]
async fn late_first_bytes_open_it_where_that_is_set() {
    let upstream = Upstream::scripted(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(30)).await;
            peer.send(OK_JSON).await;
        }
    })
    .await;
    let slow = "{min_calls: 4, slow: {first_byte: 10ms, ratio: 0.5}}";
    let strict = settings("").replace("{consecutive_failures: 3, recovery: 30s}", slow);
    for (settings, last) in [(settings(""), 200), (strict, 503)] {
        let gate = gate(upstream.address(), &settings);
        for _ in 0..4 {
            assert_eq!(gate.ask(Via::H1, &chat()).await.status, 200);
        }
        assert_eq!(gate.ask(Via::H1, &chat()).await.status, last);
    }
}

/// What the app answers about a request is no fault of the app: callers who err must not shut others out.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_app_do_not_open_it() {
    for status in ["400 Bad Request", "404 Not Found", "429 Too Many Requests", "501 Not Implemented"] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let upstream = Upstream::answering(answer).await;
        let gate = gate(upstream.address(), &settings(""));
        for ask in [chat(), upload()] {
            for _ in 0..5 {
                assert_eq!(gate.ask(Via::H1, &ask).await.status.to_string(), status[..3]);
            }
        }
        assert_eq!(state(&gate).await, "closed", "{status}");
    }
}

/// An operator's word must count at once, be visible everywhere, and name who gave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_opens_and_closes_it() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), &settings(""));
    let opened = post(&gate, "/api/security/circuit-breaker/open?upstream=default", "").await.json();
    assert_eq!((&opened["circuit_breakers"][0]["mode"], &opened["kept"]), (&"open".into(), &false.into()));
    for via in BOTH {
        for ask in [chat(), upload()] {
            assert_refused(&gate.ask(via, &ask).await, 503, "circuit_open");
        }
    }
    upstream.assert_untouched();
    let stats = gate.admin_ask(&Ask::get("/api/security/stats")).await.json();
    let breaker = &stats["security"]["circuit_breaker"];
    assert_eq!(
        (&breaker["is_open"], &breaker["mode"], &breaker["reason"]),
        (&true.into(), &"open".into(), &"by_hand".into())
    );
    let health = gate.admin_ask(&Ask::get("/healthz")).await.json();
    assert_eq!(
        (&health["status"], &health["reasons"][0]["code"]),
        (&"degraded".into(), &"breaker_open".into())
    );

    post(&gate, "/api/security/circuit-breaker/close", "").await;
    assert_eq!(gate.ask(Via::H1, &chat()).await.status, 200);
    post(&gate, "/api/security/circuit-breaker/auto", "").await;
    let events = gate.events(r#""mode":"auto","mode_before":"closed""#).await;
    let by_hand = events.lines().filter(|line| line.contains(r#""cause":"by_hand""#));
    assert!(by_hand.clone().all(|line| line.contains(r#""client_address":"127.0.0.1""#)), "{events}");
    assert_eq!(by_hand.count(), 3, "{events}");
    assert_eq!(gate.admin_ask(&Ask::post("/api/security/circuit-breaker/open", "")).await.status, 401);
}

/// While the app is closed its users must hear why and until when, and the operator must still see.
#[tokio::test(flavor = "multi_thread")]
async fn maintenance_tells_callers_when_to_come_back() {
    let upstream = Upstream::ok().await;
    let gate = gate(
        upstream.address(),
        &settings("fallback: {answer: {status: 200, content_type: text/plain, body: later}}\n"),
    );
    let on =
        post(&gate, "/api/security/maintenance/on", r#"{"message":"Back at noon.","retry_after_s":600}"#)
            .await;
    assert_eq!(on.json()["maintenance"]["message"], "Back at noon.");
    for ask in [chat(), upload()] {
        let refused = gate.ask(Via::H1, &ask).await;
        assert_refused(&refused, 503, "maintenance");
        assert_eq!(refused.field("retry-after"), Some("600"));
        assert!(refused.text().contains("Back at noon."), "{}", refused.text());
    }
    assert_eq!(gate.ask(Via::H1, &Ask::get("/auth/rate-limit-status")).await.status, 200);
    assert_eq!(metric(&gate, "tidegate_maintenance").await, 1.0);
    assert_eq!(gate.admin_ask(&Ask::get("/healthz")).await.json()["reasons"][0]["code"], "maintenance");
    upstream.assert_untouched();
    post(&gate, "/api/security/maintenance/off", "").await;
    assert_eq!(gate.ask(Via::H1, &chat()).await.status, 200);
    assert!(gate.events(r#""after":"serving""#).await.contains("Back at noon."));
    for wrong in ["{", r#"{"message":""}"#, r#"{"massage":"x"}"#] {
        assert_eq!(post(&gate, "/api/security/maintenance/on", wrong).await.status, 400, "{wrong}");
    }
}

fn tidegate(gate: &Gate, state_dir: &str, arguments: &[&str]) -> (bool, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let admin = gate.admin().to_string();
    let program = program.args(arguments).args(["--admin", &admin]).env_clear().env("STATE_DIR", state_dir);
    let said = program.output().expect("the program runs");
    (said.status.success(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

/// What was switched in an incident must not be undone by a restart, nor by a file that broke.
#[tokio::test(flavor = "multi_thread")]
async fn commands_switch_and_a_restart_keeps_it() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let directory = scratch.path("state").display().to_string();
    let kept = format!("state_dir: '{directory}'\n");
    let command = |gate: &Gate, arguments: &[&str]| block_in_place(|| tidegate(gate, &directory, arguments));

    let first = gate(upstream.address(), &kept);
    let (done, said) = command(&first, &["breaker", "open", "--upstream", "default"]);
    assert!(done && said.contains("breaker of default: open, mode open"), "{said}");
    let (done, said) =
        command(&first, &["maintenance", "on", "--message", "Back soon.", "--retry-after", "1m30s"]);
    assert!(done && said.contains("maintenance: on"), "{said}");
    let (done, said) = command(&first, &["breaker", "close", "--upstream", "nonsense"]);
    assert!(!done && said.contains("known: default"), "{said}");
    drop(first);

    let second = gate(upstream.address(), &kept);
    let refused = second.ask(Via::H1, &chat()).await;
    assert_refused(&refused, 503, "maintenance");
    assert_eq!(refused.field("retry-after"), Some("90"));
    assert!(command(&second, &["maintenance", "off"]).0);
    assert_refused(&second.ask(Via::H1, &chat()).await, 503, "circuit_open");
    upstream.assert_untouched();
    assert!(command(&second, &["breaker", "auto"]).0);
    assert_eq!(second.ask(Via::H1, &chat()).await.status, 200);
    drop(second);

    std::fs::write(scratch.path("state").join("switches.json"), "{").expect("writes");
    let why = Gate::start(upstream.address(), &kept).err().expect("it does not start on a guess");
    assert!(why.contains("switches.json") && why.contains("remove it"), "{why}");
}

/// In an outage users should read what the operator wrote for it, and logs should still say what happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_answers_in_place_of_the_upstream() {
    let answer =
        "fallback: {answer: {status: 200, content_type: application/json, body: '{\"reply\":\"later\"}'}}\n";
    let gate = gate(unreachable().await, &settings(answer));
    for reason in ["upstream_unreachable", "upstream_unreachable", "upstream_unreachable", "circuit_open"] {
        for via in BOTH {
            // The breaker counts both.
            let told = gate.ask(via, &chat()).await;
            assert_eq!((told.status, told.text().as_str()), (200, r#"{"reply":"later"}"#), "{told:?}");
            assert_eq!(told.field("x-content-type-options"), Some("nosniff"));
            let marked = told.field("x-tidegate-fallback").expect("marked");
            assert!(["upstream_unreachable", "circuit_open"].contains(&marked), "{reason}: {marked}");
        }
    }
    assert_eq!(gate.ask(Via::H1, &upload()).await.field("x-tidegate-fallback"), Some("circuit_open"));
    let events = gate.ask(Via::H1, &chat().field("accept", "text/event-stream")).await;
    assert_refused(&events, 503, "circuit_open");
    assert_refused(&gate.ask(Via::H1, &Ask::post("/api/chat", "{")).await, 400, "invalid_json");
    assert_counted(&gate, r#"tidegate_fallbacks_total{by="answer",route="default"}"#, 9.0).await;
    assert!(gate.access_log("circuit_open").await.contains("upstream_unreachable"));
}

/// Where a second upstream stands ready, nobody should notice that the first is down; and nothing runs twice.
#[tokio::test(flavor = "multi_thread")]
async fn another_upstream_takes_over_what_the_first_never_saw() {
    let second = Upstream::ok().await;
    let fallback = format!("fallback: {{upstream: 'http://{}'}}\n", second.address());
    let gate_down = gate(unreachable().await, &settings(&fallback));
    for round in 0..8 {
        let ask = if round % 2 == 0 { chat() } else { upload() };
        let answer = gate_down.ask(Via::H1, &ask).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"reply":"k"}"#), "{round}: {answer:?}");
        let reason = if round < 3 { "upstream_unreachable" } else { "circuit_open" };
        assert_eq!(answer.field("x-tidegate-fallback"), Some(reason), "{round}");
    }
    assert_eq!(second.requests().len(), 8);
    assert_counted(&gate_down, r#"tidegate_fallbacks_total{by="upstream",route="default"}"#, 8.0).await;
    assert!(gate_down.access_log("default-fallback").await.contains(r#""status":200"#));

    let silent = silent().await;
    let gate_silent = gate(silent.address(), &settings(&fallback));
    assert_refused(&gate_silent.ask(Via::H1, &chat()).await, 504, "upstream_timeout");
    assert_eq!(second.requests().len(), 8, "a call that may have been made was made again");
}

/// A restart of the app takes a second; callers should not see it. What was sent must not be sent again.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_never_left_is_tried_again() {
    let retries = "retries: {max: 10, backoff: 100ms}\n";
    let settings =
        settings(retries).replacen("retries: off\n", "", 1).replace("first_byte: 300ms", "first_byte: 9s");
    let address = unreachable().await;
    let gate_restarting = gate(address, &settings);
    let late = async {
        a_moment().await;
        let listener = TcpListener::bind(address).await.expect("the port is still free");
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut app = Wire::over(stream);
        app.request(|_| ()).await.expect("a request");
        app.send(OK_JSON).await;
        app
    };
    let ask = chat();
    let (answer, _app) = tokio::join!(gate_restarting.ask(Via::H1, &ask), late);
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"reply":"k"}"#));
    assert_at_rest(&gate_restarting).await;
    assert!(metric(&gate_restarting, r#"tidegate_retries_total{upstream="default"}"#).await >= 1.0);

    let hangs = hanging().await;
    let gate_hanging = gate(hangs.address(), &settings);
    assert_refused(&gate_hanging.ask(Via::H1, &chat()).await, 502, "upstream_failed");
    assert_refused(&gate_hanging.ask(Via::H1, &Ask::get("/page")).await, 502, "upstream_failed");
    assert_eq!(hangs.requests().len(), 2);

    let again = hanging().await;
    let gate_idempotent = gate(
        again.address(),
        &settings.replace("max: 10, backoff: 100ms", "max: 2, backoff: 1ms, idempotent: true"),
    );
    assert_refused(&gate_idempotent.ask(Via::H1, &Ask::get("/page")).await, 502, "upstream_failed");
    assert_eq!(again.requests().len(), 3);
    assert_refused(&gate_idempotent.ask(Via::H1, &chat()).await, 502, "upstream_failed");
    assert_eq!(again.requests().len(), 4, "a POST is sent once");
}

/// Retries share the time that a first byte may take, and end with the client.
#[tokio::test(flavor = "multi_thread")]
async fn retries_end_in_time() {
    let retries = "retries: {max: 10, backoff: 1s}\n";
    let settings = settings(retries).replacen("retries: off\n", "", 1);
    let gate = gate(unreachable().await, &settings);
    let began = Instant::now();
    assert_refused(&gate.ask(Via::H1, &chat()).await, 504, "upstream_timeout");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut leaver = Wire::to(gate.traffic()).await;
    leaver.send(chat().bytes()).await;
    drop(leaver);
    assert_at_rest(&gate).await;
}
