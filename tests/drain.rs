//! The end: what runs may finish, what is new goes elsewhere, and it does not take for ever.

mod common;

use std::time::{Duration, Instant};

use common::{Ask, Gate, H2, Upstream, Wire, gate, within};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};

fn stop(gate: Gate) -> JoinHandle<()> {
    spawn_blocking(move || drop(gate))
}

/// A restart must not cost anyone the answer that they wait for.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_finished() {
    let mut told = Vec::new();
    for ask in [Ask::chat(), Ask::get("/page")] {
        let (upstream, asked, go) = Upstream::on_cue().await;
        let gate = gate(upstream.address(), "drain: 8s\n");
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(ask.bytes()).await;
        within("the upstream's being asked", asked.notified()).await;
        let stopping = stop(gate);
        common::a_moment().await;
        go.notify_one();
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.whole), (200, true), "{}", ask.method);
        told.push((ask.method, answer.field("connection").map(str::to_owned)));
        within("the stop", stopping).await.expect("stops");
    }
    assert!(
        told.iter().all(|(_, word)| word.as_deref() == Some("close")),
        "the client is not told: {told:?}"
    );
}

/// An upstream that hangs must not keep the process alive.
#[tokio::test(flavor = "multi_thread")]
async fn the_drain_has_a_deadline() {
    let (upstream, asked, _go) = Upstream::on_cue().await;
    let gate = gate(upstream.address(), "drain: 300ms\n");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(Ask::chat().bytes()).await;
    within("the upstream's being asked", asked.notified()).await;
    let start = Instant::now();
    within("the stop", stop(gate)).await.expect("stops");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(!rest.starts_with("HTTP/1.1 200"), "{rest}");
}

/// Connections that idle have nothing to finish; and once it is over, nothing listens any more.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_stop() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "drain: 8s\n");
    let (address, mut wire) = (gate.traffic(), Wire::to(gate.traffic()).await);
    assert_eq!(wire.ask(Ask::get("/page").bytes()).await.status, 200);
    let start = Instant::now();
    within("the stop", stop(gate)).await.expect("stops");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(wire.ends().await);
    assert!(TcpStream::connect(address).await.is_err(), "something listens still");
}

/// A client that was just about to ask must not find its connection cut: it is served, and told to use another.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_an_idle_connection_is_served_still() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "drain: 8s\n");
    let (mut used, mut fresh) = (Wire::to(gate.traffic()).await, Wire::to(gate.traffic()).await);
    assert_eq!(used.ask(Ask::get("/page").bytes()).await.status, 200);
    common::a_moment().await;
    let stopping = stop(gate);
    common::a_moment().await;
    for wire in [&mut used, &mut fresh] {
        let answer = wire.ask(Ask::chat().bytes()).await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
        assert!(wire.ends().await);
    }
    within("the stop", stopping).await.expect("stops");
}

/// A head that has begun to arrive is a request; to cut it is to lose it.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_arrives_slowly_is_waited_for() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "drain: 8s\n");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send("GET /page HT").await;
    common::a_moment().await;
    let stopping = stop(gate);
    // Longer than a connection may idle.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let answer = wire.ask("TP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    within("the stop", stopping).await.expect("stops");
}

/// In HTTP/2 nobody reads `Connection`: without GOAWAY a client goes on using a connection that is about to end.
#[tokio::test(flavor = "multi_thread")]
async fn http2_connections_are_told_to_go_and_finish() {
    let (upstream, asked, go) = Upstream::on_cue().await;
    let gate = gate(upstream.address(), "drain: 8s\n");
    let address = gate.traffic();
    let mut h2 = H2::to(address).await;
    let (body, answer) = h2.open(&Ask::chat());
    body.send(r#"{"message":"hello"}"#.into()).await.expect("is read");
    drop(body);
    within("the upstream's being asked", asked.notified()).await;
    let stopping = stop(gate);
    common::a_moment().await;
    go.notify_one();
    let answer = within("an answer", answer).await.expect("no panic").expect("an answer");
    assert_eq!((answer.status, answer.whole), (200, true));
    let start = Instant::now();
    within("the stop", stopping).await.expect("stops");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(h2.ask(&Ask::get("/page")).await.is_err(), "the connection is used on");
}

/// Whoever sends traffic here has to hear that there will be no answer soon; that needs the admin port to the end.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_ends_at_once_and_new_connections_with_it() {
    let (upstream, asked, go) = Upstream::on_cue().await;
    let gate = gate(upstream.address(), "drain: 8s\n");
    let (traffic, admin) = (gate.traffic(), gate.admin());
    let waiting = tokio::spawn(async move { Wire::to(traffic).await.ask(Ask::chat().bytes()).await });
    within("the upstream's being asked", asked.notified()).await;
    assert_eq!(gate.admin_ask(&Ask::get("/readyz")).await.status, 200);
    let stopping = stop(gate);
    common::a_moment().await;
    let ready = Wire::to(admin).await.ask(Ask::get("/readyz").bytes()).await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("draining")));
    assert!(TcpStream::connect(traffic).await.is_err(), "something listens still");
    go.notify_one();
    assert_eq!(within("an answer", waiting).await.expect("no panic").status, 200);
    within("the stop", stopping).await.expect("stops");
}
