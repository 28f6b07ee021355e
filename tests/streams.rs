//! Streams of events: at once, untouched, alive while they are silent, and ended so that their readers know why.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    Ask, BOTH, Gate, H2, OK_JSON, Peer, Upstream, Via, Wire, a_moment, assert_refused, gate, within,
};
use http_body_util::BodyExt;
use tokio::sync::{Notify, mpsc};

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const LINES: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
const UNLIMITED: &str = "limits: {pages: off, api: off, ai: off, session: off, tenant: off, api-user: off}\n";
const BRISK: &str = "streams: {heartbeat: 100ms}\n";
const SHORT: &str = "streams: {heartbeat: off}\ntimeouts: {stream_idle: 300ms}\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Sends the parts of a stream, each after its pause in milliseconds, then its end.
async fn played(head: &'static str, parts: &'static [(u64, &'static str)]) -> Upstream {
    Upstream::scripted(move |mut peer| async move {
        peer.request().await;
        peer.send(head).await;
        for (pause, part) in parts {
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            peer.send(chunk(part)).await;
        }
        peer.send("0\r\n\r\n").await;
    })
    .await
}

/// Begins a stream with `first`, then says nothing.
async fn stuck(head: &'static str, first: &'static str) -> Upstream {
    Upstream::scripted(move |mut peer| async move {
        peer.request().await;
        peer.send(format!("{head}{}", chunk(first))).await;
        peer.ends().await;
    })
    .await
}

fn streamed(path: &str) -> Ask {
    Ask::post(path, r#"{"model":"m","messages":[],"stream":true}"#)
}

async fn metric(gate: &Gate, series: &str) -> String {
    let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).to_owned()
}

/// Proxies and browsers drop connections that are silent for long; a comment within an event would break it.
#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_bridged_between_events_and_not_within_them() {
    let upstream =
        played(EVENTS, &[(350, "data: a\n\n"), (350, "data: b"), (350, "c\n"), (350, "\ndata: d\n\n")]).await;
    let gate = gate(upstream.address(), BRISK);
    for via in BOTH {
        let answer = gate.ask(via, &streamed("/api/chat")).await;
        let text = answer.text();
        assert!(text.starts_with(":\n\n:\n\n") && text.contains("data: a\n\n:\n\n:\n\n"), "{via:?} {text:?}");
        assert!(text.ends_with("data: bc\n\ndata: d\n\n"), "{via:?} {text:?}");
        assert_eq!(text.replace(":\n\n", ""), "data: a\n\ndata: bc\n\ndata: d\n\n", "{via:?}");
        assert!(answer.whole);
    }
    let sent: u64 = metric(&gate, "tidegate_stream_heartbeats_total").await.parse().expect("a number");
    assert!((8..=14).contains(&sent), "{sent} heartbeats");
}

/// A comment in a stream of JSON lines breaks the reader; one where they were switched off surprises it.
#[tokio::test(flavor = "multi_thread")]
async fn no_heartbeats_where_there_may_be_none() {
    const CODED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n";
    const COUNTED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 29\r\n\r\n9\r\ndata: a\n\n\r\n";
    const FAILED: &str =
        "HTTP/1.1 500 Oops\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let cases = [
        (LINES, BRISK),
        (CODED, BRISK),
        (COUNTED, BRISK),
        (FAILED, BRISK),
        (EVENTS, "streams: {heartbeat: off}\n"),
    ];
    for (head, settings) in cases {
        let upstream = played(head, &[(0, "data: a\n\n"), (350, "")]).await;
        let gate = gate(upstream.address(), settings);
        let text = gate.ask(Via::H1, &streamed("/api/chat")).await.text();
        assert!(!text.contains(":\n\n"), "{head}: {text:?}");
    }
}

/// A word that waits for the next one is not a stream.
#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_next_is_sent() {
    let go = Arc::new(Notify::new());
    let cue = go.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let cue = cue.clone();
        async move {
            peer.request().await;
            peer.send(EVENTS).await;
            for number in 0..50 {
                peer.send(chunk(&format!("data: {number}\n\n"))).await;
                cue.notified().await;
            }
            peer.send("0\r\n\r\n").await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");

    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(streamed("/api/chat").bytes()).await;
    for number in 0..50 {
        wire.read_until(format!("data: {number}\n\n").as_bytes()).await;
        go.notify_one();
    }

    let mut h2 = H2::to(gate.traffic()).await;
    let head = h2.head(&streamed("/api/chat")).await.expect("an answer");
    assert_eq!(head.headers()["x-accel-buffering"], "no");
    let mut body = head.into_body();
    for number in 0..50 {
        let frame = within("an event", body.frame()).await.expect("more").expect("whole");
        assert_eq!(frame.into_data().expect("data"), format!("data: {number}\n\n"));
        go.notify_one();
    }
}

/// Whatever the pieces: what arrives is what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn streams_arrive_byte_by_byte_as_they_were_sent() {
    let sent: String =
        (0..4000).map(|n| format!("id: {n}\r\ndata: {}\r\n\r\n", "ä".repeat(n % 37))).collect();
    let stream: Arc<str> = format!("\u{FEFF}{sent}").into();
    let script = stream.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let script = script.clone();
        async move {
            peer.request().await;
            peer.send(EVENTS).await;
            for (turn, piece) in script.as_bytes().chunks(997).enumerate() {
                let head = format!("{:x}\r\n", piece.len());
                peer.send([head.as_bytes(), piece, b"\r\n"].concat()).await;
                if turn % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            peer.send("0\r\n\r\n").await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        let answer = gate.ask(via, &streamed("/api/chat")).await;
        assert!(answer.whole && answer.body == stream.as_bytes(), "{via:?}: {} bytes", answer.body.len());
    }
}

/// A client that is not told takes half an answer for the whole, and an operator finds no trace of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fell_silent_ends_with_an_error_that_its_reader_knows() {
    let cases = [
        (EVENTS, "data: a\n\n", "/v1/chat/completions", "data: {\"error\":{"),
        (EVENTS, "data: a\r\n\r\n", "/v1/messages", "event: error\r\ndata: {\"type\":\"error\""),
        (EVENTS, "data: a\n\n", "/api/chat", "event: error\ndata: {\"type\":\"about:blank\""),
        (EVENTS, "data: a\n\n", "/v1beta/models/m:streamGenerateContent", "data: {\"error\":{\"code\":504"),
        (LINES, "{\"message\":{}}\n", "/api/generate", "{\"error\":\"The upstream fell silent"),
    ];
    for (head, first, path, last) in cases {
        let upstream = stuck(head, first).await;
        let gate = gate(upstream.address(), SHORT);
        for via in BOTH {
            let answer = gate.ask(via, &streamed(path)).await;
            let text = answer.text();
            let rest = text.strip_prefix(first).unwrap_or_else(|| panic!("{via:?} {path}: {text:?}"));
            assert!(
                rest.starts_with(last) && rest.contains("timeouts.stream_idle"),
                "{via:?} {path}: {rest:?}"
            );
            assert!(answer.whole && rest.ends_with('\n'), "{via:?} {path}: {rest:?}");
        }
        let log = gate.access_log("stream_idle").await;
        assert!(log.contains("\"status\":200"), "{log}");
        assert_eq!(metric(&gate, "tidegate_streams").await, "0");
        assert_eq!(metric(&gate, "tidegate_streams_ended_total{end=\"stream_idle\"}").await, "2");
    }
}

/// A blank line behind half an event would hand it out as a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fell_silent_within_an_event_is_cut() {
    let upstream = stuck(EVENTS, "data: a\n\ndata: {\"half\":").await;
    let gate = gate(upstream.address(), SHORT);
    for via in BOTH {
        let answer = gate.ask(via, &streamed("/v1/chat/completions")).await;
        assert_eq!((answer.text().as_str(), answer.whole), ("data: a\n\ndata: {\"half\":", false), "{via:?}");
    }
    gate.access_log("stream_idle").await;
    assert_eq!(metric(&gate, "tidegate_streams").await, "0");
}

/// A stream that never pauses would dodge a limit that is looked at in pauses only.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_never_ends_is_ended() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        peer.send(EVENTS).await;
        // In large pieces: the client's library gives a connection up that brings it too many small ones.
        while peer.send(chunk(&"data: a\n\n".repeat(2000))).await {}
    })
    .await;
    let gate = gate(upstream.address(), "timeouts: {stream_total: 500ms}\n");
    for via in BOTH {
        let answer = gate.ask(via, &streamed("/v1/chat/completions")).await;
        let text = answer.text();
        assert!(
            answer.whole && text.contains("stream_total"),
            "{via:?} {}",
            &text[text.len().saturating_sub(300)..]
        );
    }
}

/// A restart must look like one, not like the end of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_told_that_the_gate_stops() {
    let upstream = stuck(EVENTS, "data: a\n\n").await;
    let gate = gate(upstream.address(), "drain: 1s\n");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(streamed("/v1/chat/completions").bytes()).await;
    wire.read_until(b"data: a\n\n").await;
    let mut h2 = H2::to(gate.traffic()).await;
    let mut body = h2.head(&streamed("/v1/chat/completions")).await.expect("an answer").into_body();
    body.frame().await.expect("an event").expect("whole");
    let stopping = tokio::task::spawn_blocking(move || drop(gate));
    let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(rest.contains("data: {\"error\":{") && rest.contains("draining"), "{rest:?}");
    assert!(rest.ends_with("0\r\n\r\n"), "the end is not orderly: {rest:?}");
    let rest = within("the last event", body.collect()).await.expect("an orderly end").to_bytes();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.starts_with("data: {\"error\":{") && rest.contains("draining"), "{rest:?}");
    within("the stop", stopping).await.expect("stops");
}

/// A browser tab in the background stops reading: its window is full, and neither a heartbeat nor a last event finds room.
/// That must put off no deadline, or each such tab holds a call to the model for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_window_is_full_puts_off_no_deadline() {
    const FIRST: &str = "data: a\n\n";
    let cases = [
        // A flood, which has to end when the stream has lasted long enough.
        (true, "timeouts: {stream_total: 400ms, write: 9s, stream_idle: 9s}\nstreams: {heartbeat: off}\n"),
        // A silence, in which heartbeats can't be written.
        (false, "timeouts: {write: 400ms, stream_idle: 9s}\nstreams: {heartbeat: 100ms}\n"),
        // A silence that has to end, though nobody can be told.
        (false, "timeouts: {write: 300ms, stream_idle: 300ms}\nstreams: {heartbeat: off}\n"),
        (false, "timeouts: {stream_total: 300ms, write: 9s}\nstreams: {heartbeat: off}\n"),
    ];
    for (floods, settings) in cases {
        let (closed, mut closings) = mpsc::unbounded_channel();
        let upstream = Upstream::scripted(move |mut peer| {
            let closed = closed.clone();
            async move {
                peer.request().await;
                peer.send(format!("{EVENTS}{}", chunk(FIRST))).await;
                while floods && peer.send(chunk(FIRST)).await {}
                peer.rest().await;
                let _ = closed.send(());
            }
        })
        .await;
        let gate = gate(upstream.address(), settings);
        let mut h2 = H2::with_window(gate.traffic(), FIRST.len() as u32).await;
        let begun = Instant::now();
        let answer = h2.head(&streamed("/v1/chat/completions")).await.expect("an answer");
        within(settings, closings.recv()).await.expect("the upstream runs");
        assert!(begun.elapsed() < Duration::from_secs(6), "{settings}: {:?}", begun.elapsed());
        within("the stream's end", async {
            while metric(&gate, "tidegate_streams").await != "0" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(metric(&gate, "tidegate_streams_ended_total{end=\"client_gone\"}").await, "1");
        // Who comes back must not take the beginning for the whole.
        let rest = within("the rest", answer.into_body().collect()).await;
        assert!(rest.is_err(), "{settings}: {rest:?}");
        // The connection serves on.
        let page = within("another answer", h2.head(&streamed("/v1/chat/completions"))).await;
        assert_eq!(page.expect("an answer").status(), 200, "{settings}");
    }
}

/// Who reads again in time has lost nothing: neither events nor the signs of life in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_window_opens_again_has_lost_nothing() {
    let upstream = played(EVENTS, &[(0, "data: a\n\n"), (700, "data: b\n\n"), (0, "data: c\n\n")]).await;
    let gate = gate(upstream.address(), BRISK);
    let mut h2 = H2::with_window(gate.traffic(), 9).await;
    let body = h2.head(&streamed("/api/chat")).await.expect("an answer").into_body();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let text = within("the rest", body.collect()).await.expect("whole").to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("data: a\n\n:\n\n"), "no heartbeat: {text:?}");
    assert_eq!(text.replace(":\n\n", ""), "data: a\n\ndata: b\n\ndata: c\n\n");
}

/// How a stream comes about.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// By `stream` in the body.
    Asked,
    /// By `Accept`.
    Accepted,
    /// Nobody asked, and the app streams.
    Unasked,
    WebSocket,
}

impl Kind {
    fn ask(self) -> Ask {
        match self {
            Kind::Asked => streamed("/v1/chat/completions"),
            Kind::Accepted => Ask::get("/events").field("accept", "text/event-stream"),
            Kind::Unasked => Ask::chat(),
            Kind::WebSocket => Ask::get("/live")
                .field("connection", "upgrade")
                .field("upgrade", "websocket")
                .field("sec-websocket-version", "13")
                .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        }
    }

    /// Opens one, which lasts until it is dropped.
    async fn open(self, gate: &Gate, ask: &Ask) -> Wire {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(ask.bytes()).await;
        let status = wire.head().await.expect("an answer").line;
        let wanted = if let Kind::WebSocket = self { " 101 " } else { " 200 " };
        assert!(status.contains(wanted), "{self:?}: {status}");
        wire
    }
}

/// Streams without end; how many were begun.
async fn endless() -> (Upstream, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let count = count.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.line().ends_with("/page") {
                    peer.send(OK_JSON).await;
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                let websocket = request.line().ends_with("/live");
                peer.send(if websocket { switch.to_owned() } else { format!("{EVENTS}{}", chunk("data: a\n\n")) })
                    .await;
                peer.rest().await;
                return;
            }
        }
    })
    .await;
    (upstream, begun)
}

/// A page that opens one stream more with each reload must not take every place there is, nor those of plain requests.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_capped_by_subject_and_apart_from_requests() {
    let caps = "concurrency: {total: 20, address: 2, user: 2, streams: {total: 3, address: 3, user: 2, session: 1}}\n";
    for kind in [Kind::Asked, Kind::Accepted, Kind::Unasked, Kind::WebSocket] {
        let (upstream, begun) = endless().await;
        let gate = gate(upstream.address(), &format!("{UNLIMITED}{caps}"));
        let of =
            |user: &str, session: &str| kind.ask().field("x-api-key", user).field("x-session-id", session);
        let refused = async |ask: &Ask, status: u16, reason: &str, key: &str| {
            let before = begun.load(Ordering::SeqCst);
            let answer = gate.ask(Via::H1, ask).await;
            assert_refused(&answer, status, reason);
            assert!(answer.text().contains(key), "{kind:?}: {}", answer.text());
            assert_eq!(answer.field("retry-after"), Some("1"));
            let heard = begun.load(Ordering::SeqCst) - before;
            assert_eq!(heard, usize::from(matches!(kind, Kind::Unasked)), "{kind:?} {key}");
        };
        let first = kind.open(&gate, &of("a", "1")).await;
        refused(&of("a", "1"), 429, "stream_limited", "concurrency.streams.session").await;
        let second = kind.open(&gate, &of("a", "2")).await;
        refused(&of("a", "3"), 429, "stream_limited", "concurrency.streams.user").await;
        let third = kind.open(&gate, &of("b", "4")).await;
        refused(&of("b", "5"), 503, "overloaded", "concurrency.streams.total").await;
        // Three streams, and two requests at once are allowed: those have places of their own.
        for _ in 0..3 {
            let page = Ask::get("/page").field("x-api-key", "a");
            assert_eq!(gate.ask(Via::H1, &page).await.status, 200, "{kind:?}");
        }
        gate.events("stream_limited").await;
        drop(second);
        let again = within("a place", async {
            loop {
                let mut wire = Wire::to(gate.traffic()).await;
                wire.send(of("a", "2").bytes()).await;
                let status = wire.head().await.expect("an answer").line;
                if !status.contains(" 429 ") && !status.contains(" 503 ") {
                    assert!(status.contains(" 200 ") || status.contains(" 101 "), "{kind:?}: {status}");
                    break wire;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        drop((first, third, again));
    }
}

/// New caps are tried on real traffic first: what would be refused goes on, and is told.
#[tokio::test(flavor = "multi_thread")]
async fn caps_on_streams_can_be_tried_in_shadow() {
    let caps =
        "concurrency: {streams: {total: 9, address: 1, user: 9, session: 9}}\nobserve: [concurrency]\n";
    for kind in [Kind::Asked, Kind::Unasked] {
        let (upstream, _) = endless().await;
        let gate = gate(upstream.address(), &format!("{UNLIMITED}{caps}"));
        let first = kind.open(&gate, &kind.ask()).await;
        drop(kind.open(&gate, &kind.ask()).await);
        let log = gate.access_log("stream_limited").await;
        assert!(log.contains(r#""would_refuse":["stream_limited"]"#), "{kind:?}: {log}");
        drop(first);
        a_moment().await;
    }
}

/// Health has to say that places run out before they have.
#[tokio::test(flavor = "multi_thread")]
async fn health_says_that_streams_are_near_their_cap() {
    let (upstream, _) = endless().await;
    let gate = gate(upstream.address(), &format!("{UNLIMITED}concurrency: {{streams: {{total: 1}}}}\n"));
    let held = Kind::Asked.open(&gate, &Kind::Asked.ask()).await;
    let health = gate.admin_ask(&Ask::get("/healthz")).await.text();
    assert!(
        health.contains("streams_near_limit") && health.contains("concurrency.streams.total"),
        "{health}"
    );
    drop(held);
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Fin,
    Reset,
    H2Reset,
}

/// Tells when its connection was closed: before an answer, in a silent stream, or in one that flows.
async fn watching(begins: bool, flows: bool) -> (Upstream, Arc<Notify>, mpsc::UnboundedReceiver<Instant>) {
    let (closed, closings) = mpsc::unbounded_channel();
    let asked = Arc::new(Notify::new());
    let cue = asked.clone();
    let upstream = Upstream::scripted(move |mut peer: Peer| {
        let (closed, cue) = (closed.clone(), cue.clone());
        async move {
            peer.request().await;
            cue.notify_one();
            if begins {
                peer.send(format!("{EVENTS}{}", chunk("data: a\n\n"))).await;
            }
            while flows && peer.send(chunk("data: a\n\n")).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            peer.ends().await;
            let _ = closed.send(Instant::now());
        }
    })
    .await;
    (upstream, asked, closings)
}

/// Asks, leaves, and says when.
async fn leave(gate: &Gate, how: Leaving, begins: bool, asked: &Notify) -> Instant {
    let ask = streamed("/v1/chat/completions");
    if let Leaving::H2Reset = how {
        let mut h2 = H2::to(gate.traffic()).await;
        if begins {
            let mut body = h2.head(&ask).await.expect("an answer").into_body();
            let first: Option<Bytes> = body.frame().await.and_then(|f| f.expect("whole").into_data().ok());
            assert!(first.is_some());
            asked.notified().await;
        } else {
            tokio::select! {
                answer = h2.head(&ask) => panic!("{answer:?}"),
                () = asked.notified() => {}
            }
        }
        // The stream alone was given up; its connection is still there.
        let left = Instant::now();
        tokio::time::sleep(Duration::from_millis(150)).await;
        return left;
    }
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(ask.bytes()).await;
    within("the upstream's being asked", asked.notified()).await;
    if begins {
        wire.read_until(b"data: a\n\n").await;
    }
    match how {
        Leaving::Reset => wire.reset(),
        _ => drop(wire),
    }
    Instant::now()
}

/// Every second that a model writes for nobody is paid for.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_stream_ends_the_call() {
    for (begins, flows) in [(false, false), (true, false), (true, true)] {
        let (upstream, asked, mut closings) = watching(begins, flows).await;
        let gate = gate(upstream.address(), UNLIMITED);
        for how in [Leaving::Fin, Leaving::Reset, Leaving::H2Reset] {
            let what = format!("{how:?}, begins: {begins}, flows: {flows}");
            let mut took = Vec::new();
            // A busy machine may keep any one of them waiting.
            while took.len() < 5 && took.iter().all(|took| *took > Duration::from_millis(100)) {
                let left = leave(&gate, how, begins, &asked).await;
                let closed = within(&what, closings.recv()).await.expect("the upstream runs");
                took.push(closed.saturating_duration_since(left));
            }
            assert!(took.iter().any(|took| *took <= Duration::from_millis(100)), "{what}: {took:?}");
        }
        assert_eq!(metric(&gate, "tidegate_streams").await, "0");
    }
}

/// A coded stream can be given no heartbeat, and coding holds its events back; other answers may well be coded.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_asked_for_uncoded() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), UNLIMITED);
    let coded = |ask: Ask| ask.field("accept-encoding", "gzip");
    gate.ask(Via::H1, &coded(streamed("/v1/chat/completions"))).await;
    gate.ask(Via::H1, &coded(Ask::get("/events").field("accept", "text/event-stream"))).await;
    gate.ask(Via::H1, &coded(Ask::post("/v1/chat/completions", r#"{"messages":[]}"#))).await;
    gate.ask(Via::H1, &coded(Ask::get("/page"))).await;
    let seen: Vec<_> =
        upstream.requests().iter().map(|r| r.head.field("accept-encoding").map(str::to_owned)).collect();
    assert_eq!(seen, [None, None, Some("gzip".to_owned()), Some("gzip".to_owned())]);
}
