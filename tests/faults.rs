//! What may go wrong behind the gate, one after another: each has its answer, and none leaves anything behind.

mod common;

use std::time::{Duration, Instant};

use common::{Ask, BOTH, Gate, H2, OK_JSON, PATIENCE, Peer, Upstream, Via, Wire, gate, unreachable, within};

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENT: &str = "9\r\ndata: a\n\n\r\n";
const SETTINGS: &str = "
timeouts: {first_byte: 300ms, between_bytes: 300ms, stream_idle: 300ms}
breaker: off
limits: {pages: off, api: off, ai: off, session: off, tenant: off, api-user: off}
";
/// What is held for a request, a connection or a stream, and has to be given back.
const HELD: [&str; 6] = [
    "tidegate_in_flight",
    "tidegate_connections",
    "tidegate_upstream_connections",
    "tidegate_streams",
    "tidegate_open_admissions",
    "tidegate_settle_queued",
];

/// Each fault by the path's last segment, and the status that the client sees.
const FAULTS: [(&str, u16); 10] = [
    ("refused", 502),
    ("closed", 502),
    ("garbage", 502),
    ("many-fields", 502),
    ("silent", 504),
    ("cut", 200),
    ("stalled", 200),
    ("cut-stream", 200),
    ("stalled-stream", 200),
    ("well", 200),
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
            "garbage" => peer.send("SSH-2.0-OpenSSH_9.2\r\n\r\n").await,
            "many-fields" => {
                let many: String = (0..300).map(|i| format!("x-{i}: 1\r\n")).collect();
                peer.send(format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n")).await
            }
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

/// An inspected call, a page, an upload and a WebSocket, which HTTP/2 has no way to ask for: whatever carries them.
fn asks(fault: &str) -> Vec<(Via, Ask)> {
    let path = format!("/api/chat/{fault}");
    let websocket = Ask::get(&path)
        .field("connection", "upgrade")
        .field("upgrade", "websocket")
        .field("sec-websocket-version", "13")
        .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let upload = Ask::new("POST", &path).field("content-type", "text/csv").body("a,b");
    let others = [Ask::post(&path, r#"{"message":"a"}"#), Ask::get(&path), upload];
    let mut asks: Vec<_> = BOTH.into_iter().flat_map(|via| others.clone().map(|ask| (via, ask))).collect();
    asks.push((Via::H1, websocket));
    asks
}

/// The gauges that are not at 0.
async fn held(gate: &Gate) -> Vec<String> {
    let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
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

async fn failing_gate() -> (Gate, Upstream) {
    let upstream = Upstream::scripted(fail).await;
    let down = unreachable().await;
    let routes = format!(
        "routes: [{{name: down, match: {{paths: ['/api/chat/refused']}}, upstream: 'http://{down}'}}]\n"
    );
    (gate(upstream.address(), &format!("{SETTINGS}{routes}")), upstream)
}

/// A place that a failed request keeps is gone for good: enough of them, and nobody is served.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_leaves_anything_behind() {
    let (gate, _upstream) = failing_gate().await;
    for (fault, status) in FAULTS {
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
    let (gate, upstream) = failing_gate().await;
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
