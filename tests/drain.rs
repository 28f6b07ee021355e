//! The end: what runs may finish, what is new goes elsewhere, and it does not take for ever.

mod common;

use std::time::{Duration, Instant};

use common::{Ask, Gate, Upstream, Wire, gate, within};
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
