//! The door: how many may connect, how long a head may take, and which protocol a connection speaks.

mod common;

use std::time::{Duration, Instant};

use common::{Ask, Gate, H2, Upstream, Via, Wire, gate, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks until a place is free again: a place is given back a moment after its connection closed.
async fn served_again(gate: &Gate) {
    within("a free place", async {
        loop {
            let mut wire = Wire::to(gate.traffic()).await;
            wire.send(Ask::get("/page").bytes()).await;
            if wire.head().await.is_some_and(|head| head.line.contains(" 200 ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Whether the gate turns a new connection away: with a 503, or with nothing at all.
async fn is_turned_away(gate: &Gate) -> bool {
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(Ask::get("/page").bytes()).await;
    wire.head().await.is_none_or(|head| head.line.contains(" 503 "))
}

/// Idle connections must not use up memory and descriptors, nor one address all places.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_capped_in_total_and_by_address() {
    let upstream = Upstream::ok().await;
    for settings in ["connections: {max: 2}\n", "connections: {per_address: 2}\n"] {
        let gate = gate(upstream.address(), settings);
        let mut first = Wire::to(gate.traffic()).await;
        let mut second = Wire::to(gate.traffic()).await;
        assert_eq!(first.ask(Ask::get("/page").bytes()).await.status, 200);
        assert_eq!(second.ask(Ask::get("/page").bytes()).await.status, 200);
        assert!(is_turned_away(&gate).await, "{settings}");
        drop(first);
        served_again(&gate).await;
        assert_eq!(second.ask(Ask::get("/page").bytes()).await.status, 200, "the other connection suffers");
    }
}

/// The admin port must be there just when the traffic port is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_door_leaves_the_admin_port_open() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "connections: {max: 1}\n");
    let mut holder = Wire::to(gate.traffic()).await;
    assert_eq!(holder.ask(Ask::get("/page").bytes()).await.status, 200);
    assert!(is_turned_away(&gate).await);
    assert_eq!(gate.admin_ask(&Ask::get("/healthz")).await.status, 200);
}

/// Drips a head that never ends; how long the gate bore it.
async fn drip(wire: &mut Wire) -> Duration {
    let start = Instant::now();
    wire.send("GET /page HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
    while start.elapsed() < common::PATIENCE {
        if !wire.send("a").await {
            return start.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    panic!("the head still drips after {:?}", start.elapsed());
}

/// Slowloris: each byte in time, the head never whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_cut_off() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "connections: {head_timeout: 400ms}\n");
    let mut fresh = Wire::to(gate.traffic()).await;
    let borne = drip(&mut fresh).await;
    assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&borne), "{borne:?}");

    let mut reused = Wire::to(gate.traffic()).await;
    assert_eq!(reused.ask(Ask::get("/page").bytes()).await.status, 200);
    let borne = drip(&mut reused).await;
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(3)).contains(&borne),
        "on a reused connection: {borne:?}"
    );

    let start = Instant::now();
    let mut silent = Wire::to(gate.traffic()).await;
    silent.rest().await;
    assert!(start.elapsed() < Duration::from_secs(3), "a silent connection lives on");
    assert_eq!(upstream.requests().len(), 1);
}

/// The deadline is the head's: a body or an answer that takes longer has its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_head_deadline_ends_with_the_head() {
    let upstream = Upstream::scripted(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            peer.send(common::OK_JSON).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "connections: {head_timeout: 200ms}\n");
    let bytes = Ask::chat().bytes();
    let mut wire = Wire::to(gate.traffic()).await;
    for _ in 0..2 {
        wire.send(&bytes[..bytes.len() - 4]).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        wire.send(&bytes[bytes.len() - 4..]).await;
        assert_eq!(wire.answer().await.status, 200);
    }
}

/// A head without end must not fill memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_cut_off() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for start in ["GET /page HTTP/1.1\r\nHost: localhost\r\nX-Long: ", "GET /"] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(start).await;
        let mut taken = 0;
        while wire.send(&[b'a'; 16_384]).await {
            taken += 16_384;
            assert!(taken < 32 << 20, "{taken} bytes of a head were taken");
        }
    }
    upstream.assert_untouched();
}

/// Connections that wait for a next request that never comes are closed.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_end() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "connections: {idle_timeout: 1s}\n");
    let mut wire = Wire::to(gate.traffic()).await;
    assert_eq!(wire.ask(Ask::get("/page").bytes()).await.status, 200);
    let start = Instant::now();
    assert!(wire.ends().await);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    let mut h2 = TcpStream::connect(gate.traffic()).await.expect("connects");
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sends");
    let mut rest = Vec::new();
    // A reset is as good an end as any.
    let _ = within("the end of an idle h2 connection", h2.read_to_end(&mut rest)).await;
}

/// Long-lived connections must end some day, or a balancer never moves them.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_so_many_requests() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "connections: {requests: 3}\n");
    let mut wire = Wire::to(gate.traffic()).await;
    for request in 1..=3 {
        // Both carriages count.
        let ask = if request == 2 { Ask::chat() } else { Ask::get("/page") };
        let answer = wire.ask(ask.bytes()).await;
        let closes = answer.field("connection") == Some("close");
        assert_eq!((answer.status, closes), (200, request == 3), "request {request}");
    }
    assert!(wire.ends().await);
}

/// One port, two protocols, told apart by their first bytes, however few of them come at once.
#[tokio::test(flavor = "multi_thread")]
async fn protocols_are_told_apart_however_slowly_they_begin() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for cut in [1, 2, 3, 4, 10, 23] {
        let mut wire = Wire::to(gate.traffic()).await;
        let bytes = Ask::get("/page").bytes();
        wire.send(&bytes[..cut]).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(wire.ask(&bytes[cut..]).await.status, 200, "h1 cut after {cut}");

        let mut h2 = TcpStream::connect(gate.traffic()).await.expect("connects");
        h2.set_nodelay(true).expect("a TCP socket");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        h2.write_all(&preface[..cut]).await.expect("sends");
        tokio::time::sleep(Duration::from_millis(30)).await;
        h2.write_all(&preface[cut..]).await.expect("sends");
        let mut frame = [0; 9];
        within("a frame", h2.read_exact(&mut frame))
            .await
            .unwrap_or_else(|e| panic!("h2 cut after {cut}: {e}"));
        assert_eq!(frame[3], 4, "h2 cut after {cut}: SETTINGS come first");
    }
    // `PRI` and `POST` begin alike.
    assert_eq!(gate.ask(Via::H1, &Ask::post("/api/data", "{}")).await.status, 200);
}

/// Many requests at once on one connection each get their own answer.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_do_not_mix() {
    let upstream = Upstream::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    let mut h2 = H2::to(gate.traffic()).await;
    let calls: Vec<_> = (0..20).map(|_| h2.open(&Ask::post("/api/data", ""))).collect();
    for (number, (feed, answer)) in calls.into_iter().enumerate().rev() {
        let body = format!("{{\"n\":{number}}}");
        feed.send(body.clone().into()).await.expect("the stream is open");
        drop(feed);
        let answer = within("an answer", answer).await.expect("no panic").expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, body));
    }
}

/// Where HTTP/2 is switched off, its preface is just a bad request.
#[tokio::test(flavor = "multi_thread")]
async fn h2c_can_be_switched_off() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "connections: {h2c: false}\n");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest:?}");
    assert_eq!(gate.ask(Via::H1, &Ask::get("/page")).await.status, 200);
}
