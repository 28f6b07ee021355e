//! What streams through: uploads, downloads, WebSockets and events, unaltered and at once.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Ask, BOTH, H2, Upstream, Via, Wire, a_moment, assert_refused, gate, within};
use tokio::sync::Notify;

/// A multipart upload of one picture of `length` odd bytes.
fn upload(length: usize) -> Ask {
    let file = b"\x89PNG\r\n\x1a\n".iter().copied().chain((0..).map(|i| (i % 251) as u8)).take(length);
    let start =
        b"--b7\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\r\n".iter().copied();
    let body: Vec<u8> = start.chain(file).chain(b"\r\n--b7--\r\n".iter().copied()).collect();
    Ask::new("POST", "/upload").field("content-type", "multipart/form-data; boundary=b7").body(body)
}

/// A file that arrives altered, or not at all above some buffer's size, is lost.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_as_they_were_sent() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for length in [0, 100, 65_400, 65_536, 5 << 20] {
        for via in BOTH {
            for ask in [upload(length), upload(length).with_unsized_body()] {
                let what = format!("{via:?} {length} unsized: {}", ask.unsized_body);
                assert_eq!(gate.ask(via, &ask).await.status, 200, "{what}");
                let request = upstream.requests().pop().expect("a request");
                assert!(
                    Some(&request.body) == ask.body.as_ref(),
                    "{what}: {} bytes arrived",
                    request.body.len()
                );
                assert_eq!(
                    request.head.field("content-type"),
                    Some("multipart/form-data; boundary=b7"),
                    "{what}"
                );
            }
        }
    }
}

/// An upload that is held back whole would need memory for every uploader at once.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_reach_the_app_while_they_are_sent() {
    let begun = Arc::new(Notify::new());
    let cue = begun.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let cue = cue.clone();
        async move {
            peer.head().await;
            peer.read_until(&[b'1'; 1000]).await;
            cue.notify_one();
            peer.read_until(b"the end").await;
            peer.send(common::OK_JSON).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    let mut wire = Wire::to(gate.traffic()).await;
    let start = [b"\0\0\0\x18ftypisom", &[b'1'; 200_000][..]].concat();
    wire.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: video/mp4\r\nContent-Length: 200019\r\n\r\n").await;
    wire.send(&start).await;
    within("the first part's arrival", begun.notified()).await;
    wire.send("the end").await;
    assert_eq!(wire.answer().await.status, 200);

    let mut h2 = H2::to(gate.traffic()).await;
    let (feed, answer) = h2.open(&Ask::new("POST", "/upload").field("content-type", "video/mp4"));
    feed.send(start.into()).await.expect("the stream is open");
    within("the first part's arrival over h2c", begun.notified()).await;
    feed.send("the end".into()).await.expect("the stream is open");
    drop(feed);
    assert_eq!(within("an answer", answer).await.expect("no panic").expect("an answer").status, 200);
}

/// Chunks must not carry an upload past its cap, nor may the app take the part for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_counted_as_they_flow() {
    for via in BOTH {
        let upstream = Upstream::ok().await;
        let gate = gate(upstream.address(), "caps: {body: {other: 256KiB}}\n");
        assert_refused(&gate.ask(via, &upload(300_000)).await, 413, "body_too_large");
        upstream.assert_untouched();
        let answer = gate.ask(via, &upload(3 << 20).with_unsized_body()).await;
        assert_eq!(
            (answer.status, answer.field("x-tidegate-reason")),
            (413, Some("body_too_large")),
            "{via:?}"
        );
        assert!(
            upstream.requests().iter().all(|request| request.body.is_empty()),
            "the app took a part for the whole"
        );
    }
}

/// Downloads and pages of every size and framing come whole.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_arrive_as_they_were_sent() {
    for length in [0, 1, 65_536, 5 << 20] {
        let body: Vec<u8> = (0..length).map(|i: usize| (i % 253) as u8).collect();
        let plain =
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes(), &body].concat();
        let mut chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(10_007) {
            chunked.extend(
                format!("{:x}\r\n", piece.len()).bytes().chain(piece.iter().copied()).chain(*b"\r\n"),
            );
        }
        chunked.extend(b"0\r\n\r\n");
        for answer in [plain, chunked] {
            let upstream = Upstream::answering(answer).await;
            let gate = gate(upstream.address(), "");
            for via in BOTH {
                let answer = gate.ask(via, &Ask::get("/file")).await;
                assert!(
                    answer.whole && answer.body == body,
                    "{via:?} {length}: {} bytes came",
                    answer.body.len()
                );
            }
        }
    }
}

/// Resumed and conditional downloads, and what the app says beside its answers, work as without a gate.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_pages_pass_both_ways() {
    let answer = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-1/9\r\netag: \"a\"\r\ncontent-encoding: gzip\r\n\
        cache-control: max-age=5\r\nvary: accept\r\ncontent-length: 2\r\n\r\nhi";
    let upstream = Upstream::answering(answer).await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        let ask = Ask::get("/file?a=1&b=%20")
            .field("range", "bytes=0-1")
            .field("cookie", "a=1")
            .field("accept", "x/y");
        let answer = gate.ask(via, &ask).await;
        assert_eq!((answer.status, answer.text().as_str()), (206, "hi"));
        for (name, value) in
            [("content-range", "bytes 0-1/9"), ("etag", "\"a\""), ("content-encoding", "gzip")]
        {
            assert_eq!(answer.field(name), Some(value));
        }
        let request = upstream.requests().pop().expect("a request");
        assert_eq!(request.line(), "GET /file?a=1&b=%20");
        for (name, value) in [("range", "bytes=0-1"), ("cookie", "a=1"), ("accept", "x/y")] {
            assert_eq!(request.head.field(name), Some(value));
        }
    }
}

/// A file that breaks off must not look whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_looks_broken() {
    for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
        let upstream = Upstream::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n186a0\r\nhalf of it")).await;
            a_moment().await;
        })
        .await;
        let gate = gate(upstream.address(), "");
        for via in BOTH {
            let answer = gate.ask(via, &Ask::get("/file")).await;
            assert!(answer.status == 502 || !answer.whole, "{via:?} {framing}: {answer:?}");
        }
    }
}

/// An upload that breaks off must not reach the app as a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_looks_broken() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let (plain, chunked) = (upload(200_000).bytes(), upload(200_000).with_unsized_body().bytes());
    for bytes in [&plain[..150_000], &chunked[..150_000]] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(bytes).await;
        wire.half_close().await;
        wire.rest().await;
    }
    a_moment().await;
    assert!(
        upstream.requests().iter().all(|request| request.body.is_empty()),
        "the app took a part for the whole"
    );
}

/// Events that wait in a buffer make a chat that stutters: each has to arrive before the next is sent.
#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_at_once() {
    let read = Arc::new(Notify::new());
    let cue = read.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let cue = cue.clone();
        async move {
            while peer.request().await.is_some() {
                peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
                for number in 0..5 {
                    let event = format!("data: {number}\n\n");
                    peer.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
                    cue.notified().await;
                }
                peer.send("0\r\n\r\n").await;
            }
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    for ask in [Ask::get("/events"), Ask::chat(), Ask::post("/v1/chat/completions", r#"{"stream":true}"#)] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(ask.bytes()).await;
        for number in 0..5 {
            wire.read_until(format!("data: {number}\n\n").as_bytes()).await;
            read.notify_one();
        }
        wire.read_until(b"0\r\n\r\n").await;

        let mut h2 = H2::to(gate.traffic()).await;
        let mut body = h2.head(&ask).await.expect("an answer begins").into_body();
        for number in 0..5 {
            let frame = within("an event over h2c", http_body_util::BodyExt::frame(&mut body)).await;
            let data = frame.expect("a frame").expect("no error").into_data().expect("data");
            assert_eq!(data, format!("data: {number}\n\n"));
            read.notify_one();
        }
    }
}

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn websocket(target: &str) -> Ask {
    Ask::get(target)
        .field("connection", "Upgrade")
        .field("upgrade", "websocket")
        .field("sec-websocket-version", "13")
        .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .field("sec-websocket-protocol", "chat")
        .field("origin", "http://localhost")
}

async fn echo() -> Upstream {
    Upstream::scripted(|mut peer| async move {
        peer.request().await;
        peer.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {ACCEPT}\r\nsec-websocket-protocol: chat\r\nserver: uvicorn\r\n\r\n\u{1}hello"
        ))
        .await;
        loop {
            let line = peer.read_until(b"\n").await;
            if line == b"bye\n" {
                return;
            }
            peer.send(line).await;
        }
    })
    .await
}

/// Live chats run over WebSockets: bytes pass both ways, whoever speaks first, until either side ends it.
#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_both_ways() {
    let upstream = echo().await;
    let gate = gate(upstream.address(), "");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(websocket("/ws?room=1").bytes()).await;
    let head = wire.head().await.expect("an answer");
    assert!(head.line.starts_with("HTTP/1.1 101 "), "{head:?}");
    assert_eq!(head.field("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(head.field("sec-websocket-protocol"), Some("chat"));
    assert!(head.field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{head:?}");
    assert!(head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{head:?}");
    assert_eq!(
        (head.field("content-length"), head.field("transfer-encoding"), head.field("server")),
        (None, None, None)
    );
    wire.read_until(b"\x01hello").await;
    for message in ["\u{81}\u{5}first\n", "second\n"] {
        wire.send(message).await;
        wire.read_until(message.as_bytes()).await;
    }
    let long = [vec![b'z'; 300_000], b"\n".to_vec()].concat();
    let echoed = async {
        wire.send(&long).await;
        wire.read_until(b"\n").await
    }
    .await;
    assert!(echoed == long, "{} bytes of {} came back", echoed.len(), long.len());
    wire.send("bye\n").await;
    assert!(wire.ends().await, "the tunnel outlives the app's end");

    let request = upstream.request().head;
    assert_eq!(request.line, "GET /ws?room=1 HTTP/1.1");
    assert!(
        request.field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")),
        "{request:?}"
    );
    assert_eq!(request.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
}

/// An app that refuses the upgrade answers as any page does.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_websocket_is_a_plain_answer() {
    let upstream = Upstream::answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let gate = gate(upstream.address(), "");
    let answer = gate.ask(Via::H1, &websocket("/ws")).await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
}

/// A socket that nobody speaks on holds memory on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_websocket_ends() {
    let upstream = echo().await;
    let gate = gate(upstream.address(), "timeouts: {tunnel_idle: 1s}\n");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(websocket("/ws").bytes()).await;
    wire.read_until(b"\x01hello").await;
    // Speaking keeps it alive past the limit.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        wire.send("ping\n").await;
        wire.read_until(b"ping\n").await;
    }
    assert!(wire.ends().await);
}

/// An app that never takes up a WebSocket must not hold its client for as long as a tunnel may be silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_not_taken_up_ends() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        std::future::pending().await
    })
    .await;
    let gate = gate(upstream.address(), "timeouts: {first_byte: 300ms}\n");
    assert_refused(&gate.ask(Via::H1, &websocket("/ws")).await, 504, "upstream_timeout");
    gate.access_log("upstream_timeout").await;
}

/// Words that keep a tunnel awake must not keep it for ever; and it outlives what an answer may take.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_websocket_ends_at_last() {
    let upstream = echo().await;
    let settings = "timeouts: {tunnel_total: 1500ms, first_byte: 200ms, between_bytes: 200ms}\n";
    let gate = gate(upstream.address(), settings);
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(websocket("/ws").bytes()).await;
    wire.read_until(b"\x01hello").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        wire.send("ping\n").await;
        wire.read_until(b"ping\n").await;
    }
    let end = within("the end of the tunnel", async {
        while wire.send("ping\n").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    end.await;
}

/// A client that leaves in a download must not leave the app sending for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_leaves_ends_the_download() {
    let gone = Arc::new(Notify::new());
    let cue = gone.clone();
    let upstream = Upstream::scripted(move |mut peer| {
        let cue = cue.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while peer.send("5\r\nhello\r\n").await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cue.notify_one();
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    for ask in [Ask::get("/file"), Ask::chat()] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(ask.bytes()).await;
        wire.read_until(b"hello").await;
        drop(wire);
        within("the upstream's being let go", gone.notified()).await;
    }
}

/// `python -m http.server` and many a script end an answer by closing: it is whole all the same.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_end_with_the_connection_are_whole() {
    for start in ["HTTP/1.0 200 OK\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n"] {
        let upstream = Upstream::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send(format!("{start}content-type: text/plain\r\n\r\n{}", "line\n".repeat(40_000))).await;
        })
        .await;
        let gate = gate(upstream.address(), "");
        for via in BOTH {
            for ask in [Ask::get("/file"), Ask::chat()] {
                let answer = gate.ask(via, &ask).await;
                let got = (answer.status, answer.body.len(), answer.whole);
                assert_eq!(got, (200, 200_000, true), "{via:?} {} {start:?}", ask.method);
            }
        }
    }
}

/// Fields of the upstream's connection are errors in HTTP/2, and lies in HTTP/1.1.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_the_upstreams_connection_stay_on_it() {
    let fields = "connection: keep-alive, x-hop\r\nkeep-alive: timeout=77\r\nx-hop: 1\r\nproxy-connection: keep-alive\r\n";
    let mut passed = Vec::new();
    for framing in ["content-length: 2\r\n\r\nhi", "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"] {
        let upstream = Upstream::answering(format!("HTTP/1.1 200 OK\r\n{fields}{framing}")).await;
        let gate = gate(upstream.address(), "");
        for via in BOTH {
            for ask in [Ask::get("/file"), Ask::chat()] {
                let answer = gate.ask(via, &ask).await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "hi"), "{via:?} {}", ask.method);
                let hop = ["keep-alive", "x-hop", "proxy-connection", "transfer-encoding", "connection"];
                let hop = if via == Via::H2 { &hop[..] } else { &hop[..3] };
                let names = hop.iter().filter(|name| answer.field(name).is_some());
                passed.extend(names.map(|name| format!("{via:?} {} {name}", ask.method)));
            }
        }
    }
    assert!(passed.is_empty(), "{passed:?}");
}

/// Browsers split cookies over HTTP/2; an app that speaks HTTP/1 reads one field (RFC 9113 section 8.2.3).
#[tokio::test(flavor = "multi_thread")]
async fn split_cookies_become_one_field() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for ask in [Ask::get("/page"), Ask::chat()] {
        let ask = ask.field("cookie", "a=1").field("cookie", "session_id=s1").field("cookie", "b=2");
        assert_eq!(gate.ask(Via::H2, &ask).await.status, 200);
        let head = upstream.requests().pop().expect("a request").head;
        assert_eq!(head.all("cookie"), ["a=1; session_id=s1; b=2"], "{}", ask.method);
    }
}

/// A path or query that is altered is another resource; a signed one is refused.
#[tokio::test(flavor = "multi_thread")]
async fn targets_pass_as_they_are() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let targets = [
        "/",
        "/a/",
        "/a%20b/%C3%A9?q=%C3%A9+x%20y&q=&&=1&x[]=2",
        "/v1beta/models/gemini:generateContent?alt=sse",
        "/files/a@b,c=d!$'()*~-_.+:x",
        "/?https://elsewhere.example/../x//y;z",
        "/a?",
    ];
    for target in targets {
        for via in BOTH {
            let answer = gate.ask(via, &Ask::get(target)).await;
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            assert_eq!(
                upstream.requests().pop().expect("a request").line(),
                format!("GET {target}"),
                "{via:?}"
            );
        }
    }
}

/// An app is named by its host as often as by its address.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_can_be_named() {
    let upstream = Upstream::ok().await;
    let settings = format!("upstream: http://localhost:{}\n", upstream.address().port());
    let gate = gate(upstream.address(), &settings);
    for ask in [Ask::chat(), Ask::get("/page")] {
        assert_eq!(gate.ask(Via::H1, &ask).await.status, 200, "{}", ask.method);
    }
}
