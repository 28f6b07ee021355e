//! What may go wrong behind the gate, all of it in one place: for each fault, what the client is told, and what the event
//! log, the metrics and the breaker make of it. None leaves anything behind.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{
    Answer, Ask, BOTH, BlackHole, Gate, H2, NameServer, OK_JSON, PATIENCE, Peer, Upstream, Via, Wire,
    assert_refused, gate, unreachable, within,
};
use tokio::task::JoinSet;

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENT: &str = "9\r\ndata: a\n\n\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const SETTINGS: &str = "
timeouts: {first_byte: 300ms, between_bytes: 300ms, stream_idle: 300ms, write: 500ms}
upstream_defaults: {connect_timeout: 200ms}
retries: off
limits: {pages: off, api: off, ai: off, session: off, tenant: off, api-user: off}
";
/// Opens after three failures in a row, for thirty seconds of the hand-moved clock.
const BREAKER: &str = "breaker: {consecutive_failures: 3, recovery: 30s}\n";
const RECOVERY: Duration = Duration::from_secs(30);
/// What is held for a request, a connection or a stream, and has to be given back.
const HELD: [&str; 6] = [
    "tidegate_in_flight",
    "tidegate_connections",
    "tidegate_upstream_connections",
    "tidegate_streams",
    "tidegate_open_admissions",
    "tidegate_settle_queued",
];

/// Each fault by the path's last segment, with the status that the client sees and the reason that is written down. Of
/// those with status 200 the answer is cut short.
const FAULTS: [(&str, u16, &str); 13] = [
    ("refused", 502, "upstream_unreachable"),
    ("black-holed", 504, "upstream_timeout"),
    ("closed", 502, "upstream_failed"),
    ("silent", 504, "upstream_timeout"),
    ("byte-a-second", 504, "upstream_timeout"),
    ("garbage", 502, "upstream_failed"),
    ("many-fields", 502, "upstream_failed"),
    ("unavailable", 503, ""),
    ("cut", 200, "upstream_failed"),
    ("stalled", 200, "upstream_failed"),
    ("dripping", 200, "upstream_failed"),
    ("cut-stream", 200, "upstream_failed"),
    ("stalled-stream", 200, "stream_idle"),
];

/// Fails in the manner that the path asks for.
async fn fail(mut peer: Peer) {
    while let Some(request) = peer.request().await {
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        match request.line().rsplit('/').next().unwrap_or_default() {
            "well" => {
                peer.send(OK_JSON).await;
                continue;
            }
            "unavailable" => {
                peer.send(UNAVAILABLE).await;
                continue;
            }
            "garbage" => peer.send("SSH-2.0-OpenSSH_9.2\r\n\r\n").await,
            "many-fields" => {
                let many: String = (0..300).map(|i| format!("x-{i}: 1\r\n")).collect();
                peer.send(format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n")).await
            }
            "byte-a-second" => drip(&mut peer, OK_JSON).await,
            "dripping" => peer.send(half).await && drip(&mut peer, "wit").await,
            "cut" => peer.send(half).await,
            "cut-stream" => peer.send(format!("{STREAM}{EVENT}")).await,
            "silent" => peer.ends().await,
            "stalled" => peer.send(half).await && peer.ends().await,
            "stalled-stream" => peer.send(format!("{STREAM}{EVENT}")).await && peer.ends().await,
            _ => false,
        };
        return;
    }
}

/// Sends a byte a second.
async fn drip(peer: &mut Peer, text: &str) -> bool {
    for byte in text.bytes() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if !peer.send([byte]).await {
            return false;
        }
    }
    true
}

/// A request that is read whole, then forwarded; and one that streams through.
fn both(fault: &str) -> [Ask; 2] {
    let upload = Ask::new("POST", format!("/files/{fault}")).field("content-type", "text/csv");
    [Ask::post(format!("/api/chat/{fault}"), r#"{"message":"a"}"#), upload.body("a,b")]
}

/// An inspected call, a page, an upload and a WebSocket, which HTTP/2 has no way to ask for: whatever carries them.
fn asks(fault: &str) -> Vec<(Via, Ask)> {
    let path = format!("/api/chat/{fault}");
    let websocket = Ask::get(&path)
        .field("connection", "upgrade")
        .field("upgrade", "websocket")
        .field("sec-websocket-version", "13")
        .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let others = both(fault).into_iter().chain([Ask::get(&path)]);
    let mut asks: Vec<_> =
        BOTH.into_iter().flat_map(|via| others.clone().map(move |ask| (via, ask))).collect();
    asks.push((Via::H1, websocket));
    asks
}

async fn metrics(gate: &Gate) -> String {
    gate.admin_ask(&Ask::get("/metrics")).await.text()
}

async fn metric(gate: &Gate, series: &str) -> f64 {
    let text = metrics(gate).await;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
}

/// The state of the only breaker: 0 closed, 1 half-open, 2 open.
async fn state(gate: &Gate) -> f64 {
    metric(gate, r#"tidegate_breaker_state{upstream="default"}"#).await
}

/// The gauges that are not at 0.
async fn held(gate: &Gate) -> Vec<String> {
    let text = metrics(gate).await;
    let of =
        |name: &'static str| text.lines().filter(move |line| line.split([' ', '{']).next() == Some(name));
    for name in HELD {
        assert!(of(name).next().is_some(), "no {name} in\n{text}");
    }
    HELD.into_iter().flat_map(of).filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

/// Fails unless all gauges go back to 0 within a moment.
async fn must_come_to_rest(gate: &Gate, after: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = held(gate).await;
        if held.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "after {after}: {held:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What the breaker did, one line a move.
async fn moves(gate: &Gate, wanted: &str) -> Vec<String> {
    let events = gate.events(wanted).await;
    events.lines().filter(|line| line.contains("CIRCUIT_BREAKER")).map(str::to_owned).collect()
}

#[track_caller]
fn assert_told(what: &str, answer: &Answer, status: u16, reason: &str) {
    match status {
        200 => assert!(answer.status == 200 && !answer.text().is_empty(), "{what}: {answer:?}"),
        503 => assert_eq!((answer.status, answer.field("x-tidegate-reason")), (503, None), "{what}"),
        status => assert_refused(answer, status, reason),
    }
    // A stream that fell silent is told so in its last event, and is whole with it.
    assert_eq!(answer.whole, status != 200 || reason == "stream_idle", "{what}: {answer:?}");
}

/// One fault from the first failure to rest: told each time, written down, counted, and left alone after the third.
async fn goes_all_the_way(fault: &'static str, status: u16, reason: &'static str) {
    for ask in both(fault) {
        let what = format!("{fault}: {}", ask.target);
        let (upstream, hole) = (Upstream::scripted(fail).await, BlackHole::dig().await);
        let address = match fault {
            "refused" => unreachable().await,
            "black-holed" => hole.address,
            _ => upstream.address(),
        };
        let gate = gate(address, &format!("{SETTINGS}{BREAKER}"));
        for _ in 0..3 {
            assert_eq!(state(&gate).await, 0.0, "{what}");
            let answer = within(&what, gate.ask(Via::H1, &ask)).await;
            assert_told(&what, &answer, status, reason);
        }
        if !reason.is_empty() {
            let counted = format!(r#"tidegate_refusals_total{{reason="{reason}",route="default"}}"#);
            within(&counted, async {
                // Requests are counted behind their answers.
                while metric(&gate, &counted).await < 3.0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
            assert_eq!(metric(&gate, &counted).await, 3.0, "{what}");
            gate.access_log(&format!(r#""reason":"{reason}""#)).await;
        }
        let moves = moves(&gate, "CIRCUIT_BREAKER").await;
        assert_eq!(moves.len(), 1, "{what}: {moves:?}");
        for part in [r#""cause":"consecutive_failures""#, r#""upstream":"default""#, r#""after":"open""#] {
            assert!(moves[0].contains(part), "{what}: {part} in {moves:?}");
        }
        let opened =
            metric(&gate, r#"tidegate_breaker_transitions_total{to="open",upstream="default"}"#).await;
        assert_eq!((state(&gate).await, opened), (2.0, 1.0), "{what}");
        let calls = upstream.requests().len();
        assert_refused(&gate.ask(Via::H1, &ask).await, 503, "circuit_open");
        assert_eq!(upstream.requests().len(), calls, "{what}: the upstream was called");
        must_come_to_rest(&gate, &what).await;
    }
}

/// Whatever way an upstream fails, whichever way a request travels: the client hears which, the operator finds it, and the
/// breaker opens and says so once.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_told_and_opens_the_breaker() {
    let mut faults = JoinSet::new();
    for (fault, status, reason) in FAULTS {
        faults.spawn(goes_all_the_way(fault, status, reason));
    }
    faults.join_all().await;
}

/// An upstream that comes back only to fail again must cost one caller a recovery, and come back for all when it is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_upstream_is_probed_once_a_recovery() {
    let broken = Arc::new(AtomicBool::new(true));
    let now = broken.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let now = now.clone();
        async move {
            while peer.request().await.is_some() {
                peer.send(if now.load(Ordering::SeqCst) { UNAVAILABLE } else { OK_JSON }).await;
            }
        }
    })
    .await;
    let gate = gate(upstream.address(), &format!("{SETTINGS}{BREAKER}"));
    let ask = async || gate.ask(Via::H1, &Ask::chat()).await;
    for _ in 0..3 {
        ask().await;
    }
    for round in 0..3 {
        let refused = ask().await;
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("30")), "{round}");
        gate.advance(RECOVERY - Duration::from_millis(1));
        let refused = ask().await;
        assert_eq!((refused.field("retry-after"), refused.field("retry-after-ms")), (Some("1"), Some("1")));
        gate.advance(Duration::from_millis(1));
        // The state is what a call would find; it is written down when one does.
        let health = gate.admin_ask(&Ask::get("/api/security/stats")).await.text();
        assert!(health.contains("half_open"), "{health}");
        assert_eq!(ask().await.field("x-tidegate-reason"), None, "the probe");
        assert_eq!((state(&gate).await, upstream.requests().len()), (2.0, 4 + round));
    }
    broken.store(false, Ordering::SeqCst);
    gate.advance(RECOVERY);
    for _ in 0..2 {
        assert_eq!(ask().await.status, 200);
    }
    assert_eq!(state(&gate).await, 0.0);
    let moves = moves(&gate, "probe_succeeded").await;
    assert_eq!(moves.len(), 1 + 3 * 2 + 2, "{moves:#?}");
    must_come_to_rest(&gate, "flapping").await;
}

/// A name that nobody knows is an app that can't be reached; when it is known again the app has to be, without a hand. Once
/// known, it outlives its name server.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_gone_comes_back() {
    let upstream = Upstream::ok().await;
    let names = NameServer::start(1).await;
    let at = format!("http://app.test:{}", upstream.address().port());
    let settings = format!("upstream: {at}\nname_servers: ['{}']\n{SETTINGS}{BREAKER}", names.address);
    let gate = gate(upstream.address(), &settings);
    let ask = async || gate.ask(Via::H1, &Ask::chat()).await;
    for _ in 0..3 {
        assert_refused(&ask().await, 502, "upstream_unreachable");
    }
    assert_refused(&ask().await, 503, "circuit_open");
    let health = gate.admin_ask(&Ask::get("/healthz")).await.text();
    assert!(health.contains("upstream_unresolved") && health.contains("breaker_open"), "{health}");
    gate.events(r#""cause":"consecutive_failures""#).await;
    must_come_to_rest(&gate, "a name that is gone").await;

    names.say(&[Ipv4Addr::LOCALHOST]);
    names.asked_again().await;
    gate.advance(RECOVERY);
    assert_eq!(ask().await.status, 200);
    assert_eq!(state(&gate).await, 0.0);
    let moves = moves(&gate, "probe_succeeded").await;
    assert_eq!(moves.len(), 3, "{moves:#?}");

    names.say(&[]);
    names.asked_again().await;
    assert_eq!(ask().await.status, 200, "its last address stays in use");
    let health = gate.admin_ask(&Ask::get("/healthz")).await.text();
    assert!(health.contains("can't be looked up"), "{health}");
    must_come_to_rest(&gate, "a name that came back").await;
}

/// A gate behind which the path chooses the fault, and no breaker.
async fn failing_gate() -> (Gate, Upstream, BlackHole) {
    let (upstream, hole) = (Upstream::scripted(fail).await, BlackHole::dig().await);
    let route = |name: &str, address: SocketAddr| {
        format!(
            "- {{name: {name}, match: {{paths: ['/api/chat/{name}', '/files/{name}']}}, upstream: 'http://{address}'}}\n"
        )
    };
    let routes = [route("refused", unreachable().await), route("black-holed", hole.address)].concat();
    let settings = format!("{SETTINGS}breaker: off\nroutes:\n{routes}");
    (gate(upstream.address(), &settings), upstream, hole)
}

/// A place that a failed request keeps is gone for good: enough of them, and nobody is served.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_leaves_anything_behind() {
    let (gate, _upstream, _hole) = failing_gate().await;
    for (fault, status, _) in FAULTS.into_iter().chain([("well", 200, "")]) {
        for (via, ask) in asks(fault) {
            let what = format!("{fault}: {ask:?} over {via:?}");
            let answer = within(&what, answered(&gate, via, &ask)).await;
            // Over HTTP/2, a cut may overtake the head.
            assert!(answer == Some(status) || (answer.is_none() && status == 200), "{what}: {answer:?}");
        }
        must_come_to_rest(&gate, fault).await;
    }
}

/// The status of the answer, however it ends; `None` where there is none.
async fn answered(gate: &Gate, via: Via, ask: &Ask) -> Option<u16> {
    match via {
        Via::H1 => Some(gate.ask(via, ask).await.status),
        Via::H2 => Some(H2::to(gate.traffic()).await.ask(ask).await.ok()?.status),
    }
}

/// As above, where the client has had enough first.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_that_leaves_in_a_fault_leaves_anything_behind() {
    let (gate, upstream, _hole) = failing_gate().await;
    for fault in ["silent", "stalled", "stalled-stream"] {
        for (_, ask) in asks(fault).into_iter().filter(|(via, _)| *via == Via::H1) {
            let before = upstream.requests().len();
            let mut wire = Wire::to(gate.traffic()).await;
            wire.send(ask.bytes()).await;
            within("the upstream is asked", async {
                while upstream.requests().len() == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
            wire.reset();
        }
        must_come_to_rest(&gate, fault).await;
    }
}
