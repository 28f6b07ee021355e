//! The exchange's contract (design.md): what naive loops between a client and an upstream get wrong.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{
    Ask, BOTH, H2, OK_JSON, Upstream, Via, Wire, a_moment, assert_refused, gate, json_of, unreachable, within,
};
use tokio::sync::Notify;

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const HASTY: &str = "timeouts: {first_byte: 300ms, between_bytes: 300ms, write: 500ms}\n";

/// A browser would take `103 Early Hints` for the answer, or wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn early_hints_do_not_hide_the_answer() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
    let upstream = Upstream::answering(format!("HTTP/1.1 102 Processing\r\n\r\n{hints}{OK_JSON}")).await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        let answer = gate.ask(via, &Ask::chat()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"reply":"k"}"#), "{via:?}");
        assert!(answer.informational.iter().all(|status| [102, 103].contains(status)), "{answer:?}");
    }
}

/// Half an answer that ends cleanly is stored and shown as the whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_in_a_chunk_looks_cut() {
    let seen = Arc::new(Notify::new());
    let cue = seen.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let cue = cue.clone();
        async move {
            peer.request().await;
            peer.send(format!("{STREAM}9\r\ndata: a\n\n\r\n40\r\ndata: b")).await;
            cue.notified().await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");

    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(Ask::chat().bytes()).await;
    wire.read_until(b"data: a").await;
    seen.notify_one();
    let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(!rest.ends_with("0\r\n\r\n"), "the cut is disguised as an end: {rest:?}");

    seen.notify_one();
    let answer = gate.ask(Via::H2, &Ask::chat()).await;
    assert!(answer.status == 502 || !answer.whole, "the cut is disguised as an end: {answer:?}");
}

/// As above, where the length was announced.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_shorter_than_announced_looks_short() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    })
    .await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        let answer = gate.ask(via, &Ask::chat()).await;
        assert!(answer.status == 502 || !answer.whole, "{via:?}: {answer:?}");
    }
}

/// A script that shuts its sending side after the request (`nc -N`) would pay for an answer that it never gets.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_is_still_answered() {
    let shut = Arc::new(Notify::new());
    let cue = shut.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let cue = cue.clone();
        async move {
            peer.request().await;
            cue.notified().await;
            peer.send(OK_JSON).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(Ask::chat().bytes()).await;
    wire.half_close().await;
    a_moment().await;
    shut.notify_one();
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.whole), (200, true), "{answer:?}");
}

/// A client that pipelines would get the second answer for the first question, or none at all.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_pipelined_requests_is_served_then_the_connection_closes() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let mut wire = Wire::to(gate.traffic()).await;
    let (first, second) = (Ask::chat().bytes(), Ask::post("/api/chat/second", r#"{"message":"2"}"#).bytes());
    wire.send([first, second].concat()).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")), "{answer:?}");
    assert!(wire.ends().await, "the connection goes on after a pipelined request");
    assert_eq!(upstream.request().line(), "POST /api/chat");
}

/// Bytes of the next request that come while the upstream thinks must not cancel a call that costs money.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_next_request_does_not_cancel_the_first() {
    let (asked, sent) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let cues = (asked.clone(), sent.clone());
    let upstream = Upstream::scripted(move |mut peer| {
        let (asked, sent) = cues.clone();
        async move {
            peer.request().await;
            asked.notify_one();
            sent.notified().await;
            peer.send(OK_JSON).await;
            peer.ends().await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(Ask::chat().bytes()).await;
    within("the upstream's being asked", asked.notified()).await;
    wire.send(Ask::get("/next").bytes()).await;
    a_moment().await;
    sent.notify_one();
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.whole), (200, true), "{answer:?}");
    assert_eq!(
        answer.field("connection"),
        Some("close"),
        "the client is not told that its next request is lost"
    );
    assert!(wire.ends().await, "the connection goes on after an early request");
    assert_eq!(upstream.request().line(), "POST /api/chat");
}

/// Without reuse every message would pay for a new connection to the app.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_upstream_are_reused() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        assert_eq!(gate.ask(via, &Ask::chat()).await.status, 200);
        a_moment().await;
    }
    assert_eq!(upstream.connections(), 1);
}

/// uvicorn and Node close idle connections after 5 s: the next message must find its way all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_upstream_closed_meanwhile_is_not_used() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        peer.send(OK_JSON).await;
    })
    .await;
    let gate = gate(upstream.address(), "");
    for _ in 0..3 {
        assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
        a_moment().await;
    }
    assert_eq!(upstream.requests().len(), 3);
}

/// A call that the upstream may have begun is paid for: sent again, it is paid for twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_died_on_a_reused_connection_is_not_repeated() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        peer.send(OK_JSON).await;
        peer.request().await;
    })
    .await;
    let gate = gate(upstream.address(), "");
    assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
    a_moment().await;
    let second = gate.ask(Via::H1, &Ask::post("/api/chat/second", r#"{"message":"2"}"#)).await;
    assert_refused(&second, 502, "upstream_failed");
    let seconds =
        upstream.requests().iter().filter(|request| request.line() == "POST /api/chat/second").count();
    assert_eq!(seconds, 1);
}

/// Bytes left over from one answer would be read as the next caller's answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_sends_too_much_reaches_nobody_else() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let upstream = Upstream::answering(format!("{OK_JSON}{poison}")).await;
    let gate = gate(upstream.address(), "");
    for via in [Via::H1, Via::H1, Via::H2] {
        let answer = gate.ask(via, &Ask::chat()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"reply":"k"}"#));
        a_moment().await;
    }
}

/// A body where none may be breaks the framing of everything that follows on the connection.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_have_none() {
    for (status, fields) in [("204 No Content", ""), ("304 Not Modified", "content-length: 4242\r\n")] {
        let upstream = Upstream::answering(format!("HTTP/1.1 {status}\r\n{fields}\r\n")).await;
        let gate = gate(upstream.address(), "");
        let mut wire = Wire::to(gate.traffic()).await;
        for _ in 0..2 {
            let answer = wire.ask(Ask::chat().bytes()).await;
            assert_eq!(answer.status.to_string(), status[..3], "{answer:?}");
            assert_eq!(answer.field("transfer-encoding"), None, "{status}");
        }
        let answer = gate.ask(Via::H2, &Ask::chat()).await;
        assert_eq!(
            (answer.status.to_string().as_str(), answer.body.len(), answer.whole),
            (&status[..3], 0, true)
        );
    }
}

/// HEAD announces a length and sends nothing: on pages, and on paths that are inspected.
#[tokio::test(flavor = "multi_thread")]
async fn head_tells_the_length_and_sends_no_body() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4242\r\n\r\n")
            .await;
    let gate = gate(upstream.address(), "");
    for path in ["/page", "/webhook/abc"] {
        let mut wire = Wire::to(gate.traffic()).await;
        for _ in 0..2 {
            let answer = wire.ask(Ask::new("HEAD", path).bytes()).await;
            assert_eq!((answer.status, answer.field("content-length")), (200, Some("4242")), "{path}");
        }
        let answer = gate.ask(Via::H2, &Ask::new("HEAD", path)).await;
        assert_eq!((answer.status, answer.body.len(), answer.whole), (200, 0, true), "{path}");
    }
}

/// What follows the body must neither spoil it nor be taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_do_not_spoil_the_answer() {
    let body = "5\r\nhello\r\n0\r\nx-checksum: 5d41\r\n\r\n";
    let upstream =
        Upstream::answering(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}")).await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        let answer = gate.ask(via, &Ask::chat().field("te", "trailers")).await;
        assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "hello", true), "{via:?}");
        assert!(
            answer.trailers.iter().all(|(name, value)| name == "x-checksum" && value == "5d41"),
            "{answer:?}"
        );
    }
}

/// Nobody asked to leave HTTP: the bytes that follow are nobody's protocol.
#[tokio::test(flavor = "multi_thread")]
async fn an_unasked_101_is_a_failure() {
    let upgrade =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x01\x02\x03";
    let upstream = Upstream::answering(upgrade).await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        assert_refused(&gate.ask(via, &Ask::chat()).await, 502, "upstream_failed");
        assert_refused(&gate.ask(via, &Ask::get("/page")).await, 502, "upstream_failed");
    }
}

/// One client that never reads could hold memory and an upstream connection for as long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_stops_is_cut_and_the_upstream_let_go() {
    for via in BOTH {
        let (taken, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let cues = (taken.clone(), gone.clone());
        let upstream = Upstream::scripted(move |mut peer| {
            let (taken, gone) = cues.clone();
            async move {
                peer.request().await;
                peer.send(STREAM).await;
                let piece = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
                while peer.send(&piece).await {
                    taken.fetch_add(piece.len(), Ordering::Relaxed);
                }
                gone.notify_one();
            }
        })
        .await;
        let gate = gate(upstream.address(), HASTY);
        let mut wire = Wire::to(gate.traffic()).await;
        let mut h2 = H2::with_window(gate.traffic(), 65_535).await;
        let _unread = match via {
            Via::H1 => {
                wire.send(Ask::chat().bytes()).await;
                None
            }
            Via::H2 => Some(h2.head(&Ask::chat()).await.expect("an answer begins")),
        };
        within(&format!("the upstream's being let go over {via:?}"), gone.notified()).await;
        let taken = taken.load(Ordering::Relaxed);
        assert!(
            taken < 32 << 20,
            "{via:?}: {taken} bytes were read from the upstream for a client that read none"
        );
    }
}

/// A caller has to learn that the model hangs, before their own patience ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_is_a_504() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        peer.ends().await;
    })
    .await;
    let gate = gate(upstream.address(), HASTY);
    for via in BOTH {
        assert_refused(&gate.ask(via, &Ask::chat()).await, 504, "upstream_timeout");
        assert_refused(&gate.ask(via, &Ask::get("/page")).await, 504, "upstream_timeout");
    }
}

/// A job that takes its two minutes must not force the same patience upon every other request.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_wait_longer() {
    let upstream = Upstream::scripted(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(700)).await;
            peer.send(OK_JSON).await;
        }
    })
    .await;
    let patient = "routes: [{name: jobs, match: {paths: ['/jobs/*']}, timeouts: {first_byte: 10s}}]\n";
    let gate = gate(upstream.address(), &format!("{HASTY}{patient}"));
    for ask in [|path: &str| Ask::post(path, r#"{"message":"a"}"#), |path: &str| Ask::get(path)] {
        assert_refused(&gate.ask(Via::H1, &ask("/other")).await, 504, "upstream_timeout");
        assert_eq!(gate.ask(Via::H1, &ask("/jobs/1")).await.status, 200);
    }
    // Pingora carries what is not looked into.
    let upload = |path: &str| Ask::new("POST", path).field("content-type", "text/csv").body("a,b");
    assert_refused(&gate.ask(Via::H1, &upload("/other")).await, 504, "upstream_timeout");
    assert_eq!(gate.ask(Via::H1, &upload("/jobs/1")).await.status, 200);
}

/// Each 1xx is a sign of life, but not an answer: no number of them puts the deadline off.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_only_hints_is_a_504() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        while peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), HASTY);
    for via in BOTH {
        let answer = gate.ask(via, &Ask::chat()).await;
        assert_eq!(
            (answer.status, answer.field("x-tidegate-reason")),
            (504, Some("upstream_timeout")),
            "{via:?}"
        );
    }
}

/// Streams may be silent for longer than other answers, but neither for ever nor endless.
#[tokio::test(flavor = "multi_thread")]
async fn streams_have_limits_of_their_own() {
    let event = "9\r\ndata: a\n\n\r\n";
    let upstream = Upstream::scripted(move |mut peer| async move {
        let Some(request) = peer.request().await else { return };
        peer.send(format!("{STREAM}{event}")).await;
        let pause = if request.line().contains("silent") { 30_000 } else { 600 };
        loop {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if !peer.send(event).await {
                return;
            }
        }
    })
    .await;
    let settings =
        "timeouts: {first_byte: 300ms, between_bytes: 300ms, stream_idle: 1200ms, stream_total: 2s}\n";
    let gate = gate(upstream.address(), settings);
    let mut failures = Vec::new();
    for path in ["/api/chat/live", "/api/chat/silent", "/events/live", "/events/silent"] {
        let ask =
            if path.starts_with("/events") { Ask::get(path) } else { Ask::post(path, r#"{"message":"a"}"#) };
        let start = std::time::Instant::now();
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(ask.bytes()).await;
        let ended = tokio::time::timeout(Duration::from_secs(5), wire.answer()).await;
        let events = ended.map(|answer| answer.text().matches("data: a").count());
        let wanted = if path.ends_with("live") { 2..=5 } else { 1..=1 };
        if !events.as_ref().is_ok_and(|events| wanted.contains(events)) {
            failures.push(format!("{path}: {events:?} events in {:?}", start.elapsed()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// An upstream that stalls in its answer must not hold the caller for ever, nor make half an answer look whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_stalls_is_cut() {
    for path in ["/api/chat", "/plain"] {
        let upstream = Upstream::scripted(|mut peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
            peer.ends().await;
        })
        .await;
        let gate = gate(upstream.address(), HASTY);
        let ask = if path == "/plain" { Ask::get(path) } else { Ask::post(path, r#"{"message":"a"}"#) };
        for via in BOTH {
            let answer = gate.ask(via, &ask).await;
            assert_eq!(
                (answer.status, answer.text().as_str(), answer.whole),
                (200, "half", false),
                "{via:?} {path}"
            );
        }
    }
}

/// An app that is down is not the caller's fault, and not a hanging one either.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_a_502() {
    let gate = gate(unreachable().await, "");
    for via in BOTH {
        assert_refused(&gate.ask(via, &Ask::chat()).await, 502, "upstream_unreachable");
        assert_refused(&gate.ask(via, &Ask::get("/page")).await, 502, "upstream_unreachable");
    }
}

/// What is not HTTP must neither reach the client nor hang it.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_from_the_upstream_is_a_502() {
    let many: String = (0..300).map(|i| format!("x-{i}: 1\r\n")).collect();
    let nonsense = [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        "HTTP/1.1 OK 200\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"),
        String::new(),
    ];
    for answer in nonsense {
        let upstream = Upstream::scripted({
            let answer = answer.clone();
            move |mut peer| {
                let answer = answer.clone();
                async move {
                    peer.request().await;
                    peer.send(answer).await;
                }
            }
        })
        .await;
        let gate = gate(upstream.address(), HASTY);
        for via in BOTH {
            let refusal = gate.ask(via, &Ask::chat()).await;
            let start = &answer[..answer.len().min(60)];
            assert_eq!(
                refusal.field("x-tidegate-reason"),
                Some("upstream_failed"),
                "{via:?} {start:?}: {refusal:?}"
            );
            assert_refused(&refusal, 502, "upstream_failed");
        }
    }
}

/// An upstream may say no before it has read all (a 401 before a large prompt): its word has to arrive.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_body_was_read_arrives() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
        peer.rest().await;
    })
    .await;
    let gate = gate(upstream.address(), "caps: {body: {json: 4MiB}}\n");
    for via in BOTH {
        let answer = gate.ask(via, &Ask::post("/api/data", json_of(3 << 20))).await;
        assert_eq!((answer.status, answer.text().as_str()), (401, "no"), "{via:?}");
    }
}

/// A body that arrives altered, or not at all above some buffer's size, is a corrupted message.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_arrive_as_they_were_sent() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "caps: {body: {json: 2MiB}}\n");
    let mut sent = Vec::new();
    for via in BOTH {
        for length in [0, 1024, 65_535, 65_536, 65_537, 1 << 20] {
            let sized = match length {
                0 => Ask::new("POST", "/api/data").body(""),
                _ => Ask::post("/api/data", json_of(length)),
            };
            for ask in [sized.clone(), sized.with_unsized_body()] {
                gate.forget_draws();
                let answer = gate.ask(via, &ask).await;
                let what = format!("{via:?} {length} unsized: {}", ask.unsized_body);
                assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"reply":"k"}"#), "{what}");
                sent.push((what, ask.body.unwrap_or_default()));
            }
        }
    }
    let received = upstream.requests();
    assert_eq!(received.len(), sent.len());
    for (request, (what, body)) in received.iter().zip(&sent) {
        assert!(request.body == *body, "{what}: {} bytes of {} arrived", request.body.len(), body.len());
    }
}

/// curl waits a second for the invitation before it sends a large body; other clients wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_invited_when_it_is_wanted() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for (path, body) in [("/api/chat", json_of(3000)), ("/upload", vec![7; 3000])] {
        let mut wire = Wire::to(gate.traffic()).await;
        let kind = if path == "/upload" { "application/octet-stream" } else { "application/json" };
        let head = Ask::new("POST", path)
            .field("content-type", kind)
            .field("expect", "100-continue")
            .body(body.clone());
        let head = head.bytes();
        wire.send(&head[..head.len() - body.len()]).await;
        assert_eq!(wire.head().await.expect("an invitation").line, "HTTP/1.1 100 Continue", "{path}");
        wire.send(&body).await;
        assert_eq!(wire.answer().await.status, 200, "{path}");
        assert!(upstream.requests().last().expect("a request").body == body, "{path}");
    }
}

/// Inviting a body that is refused anyway wastes the client's upload; what it then sends would be the next request.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_refused_is_not_invited() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "caps: {body: {json: 1KiB}}\n");
    let expecting = |ask: Ask| ask.field("expect", "100-continue").body(json_of(3000)).bytes();
    let cases = [
        (expecting(Ask::post("/api/data", "")), "HTTP/1.1 413"),
        (expecting(Ask::post("/api/data", "").host("evil.example")), "HTTP/1.1 421"),
    ];
    for (bytes, start) in cases {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(&bytes[..bytes.len() - 3000]).await;
        let answer = wire.answer().await;
        assert_eq!((format!("HTTP/1.1 {}", answer.status).as_str(), answer.informational.len()), (start, 0));
        assert!(wire.ends().await, "the connection goes on: what follows could be the body or a request");
    }
    upstream.assert_untouched();
}

/// Old health checkers and `ab` speak HTTP/1.0, which knows no chunks.
#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_a_plain_body_and_a_close() {
    let upstream = Upstream::answering(format!("{STREAM}9\r\ndata: a\n\n\r\n0\r\n\r\n")).await;
    let gate = gate(upstream.address(), "");
    let body = r#"{"message":"hi"}"#;
    let post = format!(
        "POST /api/chat HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for request in [post, "GET /page HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned()] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(&request).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "data: a\n\n"), "{request}");
        assert_eq!(answer.field("transfer-encoding"), None, "{request}");
        assert!(wire.ends().await, "{request}");
    }
}

/// A client that leaves in the middle of its body has asked nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_body_reaches_nobody() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let bytes = Ask::chat().bytes();
    let chunked = Ask::chat().with_unsized_body().bytes();
    for unfinished in [&bytes[..bytes.len() - 5], &chunked[..chunked.len() - 5]] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(unfinished).await;
        wire.half_close().await;
        let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
    }
    upstream.assert_untouched();
}
