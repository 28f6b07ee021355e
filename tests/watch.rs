//! What the gate tells by itself: health with reasons, sessions, hourly summaries, alerts.

mod common;

use std::time::Duration;

use common::{Ask, Gate, Upstream, Via, gate, unreachable, within};
use serde_json::Value;

async fn asked(gate: &Gate, path: &str) -> Value {
    let answer = gate.admin_ask(&Ask::get(path)).await;
    assert_eq!(answer.status, 200);
    answer.json()
}

/// The codes of what is wrong, in order.
async fn ailments(gate: &Gate) -> Vec<String> {
    let health = asked(gate, "/healthz").await;
    let reasons = health["reasons"].as_array().expect("a list");
    let status = if reasons.is_empty() { "healthy" } else { "degraded" };
    assert_eq!(health["status"], status);
    reasons.iter().map(|reason| reason["code"].as_str().expect("a code").to_owned()).collect()
}

/// Waits for a line with all of these in the event log.
async fn event(gate: &Gate, parts: &[&str]) -> Value {
    let events = gate.events(parts[0]).await;
    let line = events.lines().find(|line| parts.iter().all(|part| line.contains(part)));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no {parts:?} in {events}"))).expect("JSON")
}

/// An orchestrator's operator sees why, and sees it end.
#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_is_wrong_until_it_is_over() {
    let gate = gate(unreachable().await, "");
    assert_eq!(ailments(&gate).await, [""; 0]);
    assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 502);
    gate.access_log("upstream_unreachable").await;
    assert_eq!(ailments(&gate).await, ["upstream_degraded", "upstream_unreachable"]);
    within("health to come back", async {
        while ailments(&gate).await != [""; 0] {
            // The watch looks at the clock each second.
            gate.advance(Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await;
}

/// What is nearly full is told before it refuses anybody.
#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_is_nearly_full() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let gate =
        gate(upstream.address(), "connections: {max: 4}\nconcurrency: {total: 2}\nlimits: {ai: off}\n");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = common::Wire::to(gate.traffic()).await;
        wire.send(Ask::chat().bytes()).await;
        held.push(wire);
    }
    within("both requests in flight", async {
        while ailments(&gate).await != ["in_flight_near_limit"] {
            common::a_moment().await;
        }
    })
    .await;
    for _ in 0..2 {
        held.push(common::Wire::to(gate.traffic()).await);
    }
    within("four connections", async {
        while ailments(&gate).await != ["in_flight_near_limit", "connections_near_limit"] {
            common::a_moment().await;
        }
    })
    .await;
}

/// An operator who asks how many people are chatting is told so.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_counted() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "routes: [{name: talk, match: {paths: [/api/chat]}}]\n");
    for (session, messages) in [("a-session", 3), ("b-session", 1)] {
        for _ in 0..messages {
            gate.ask(Via::H1, &Ask::chat().field("x-session-id", session)).await;
        }
        gate.ask(Via::H2, &Ask::get("/page").field("x-session-id", session)).await;
    }
    gate.advance(Duration::from_secs(90));
    gate.ask(Via::H2, &Ask::chat().field("x-session-id", "b-session")).await;
    gate.ask(Via::H1, &Ask::get("/no-session")).await;
    gate.access_log("/no-session").await;
    let sessions = asked(&gate, "/api/sessions/stats").await["sessions"].clone();
    assert_eq!((&sessions["active"], &sessions["started"]), (&2.into(), &2.into()));
    assert_eq!(sessions["oldest_age"], 90.0);
    assert_eq!(sessions["routes"], serde_json::json!({"default": 1, "talk": 1}));
    assert_eq!(sessions["messages"], serde_json::json!({"average": 2.5, "max": 3}));
    assert_eq!(asked(&gate, "/metrics.json").await["connections"]["sessions"], 2);
    assert_eq!(asked(&gate, "/healthz").await["services"]["active_sessions"], 2);
    gate.advance(Duration::from_secs(1800));
    assert_eq!(asked(&gate, "/metrics.json").await["connections"]["sessions"], 0);
}

/// Whoever reads the log in the morning sees what the night was like.
#[tokio::test(flavor = "multi_thread")]
async fn each_hour_is_summed_up() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for _ in 0..6 {
        gate.ask(Via::H1, &Ask::chat()).await;
    }
    gate.access_log("rate_limited").await;
    gate.advance(Duration::from_secs(3600));
    let summary = event(&gate, &["\"SUMMARY\""]).await;
    assert_eq!(
        (&summary["requests"], &summary["errors"], &summary["refused"]),
        (&6.into(), &0.into(), &1.into())
    );
    assert_eq!(summary["refusals"], serde_json::json!({"rate_limited": 1}));
    assert_eq!(summary["top_routes"], serde_json::json!([{"route": "default", "requests": 6}]));
    assert_eq!(summary["window_s"], 3600);
    assert!(
        summary["p50_ms"].as_f64() <= summary["p95_ms"].as_f64() && summary["p95_ms"].as_f64() > Some(0.0)
    );
}

/// An attack that nobody watches is told, once, by what is configured, and not at all where it is switched off.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_the_ordinary_is_told() {
    let upstream = Upstream::ok().await;
    let strict = gate(upstream.address(), "watch: {refusals_per_minute: 1}\n");
    let deaf = gate(upstream.address(), "watch: off\n");
    for gate in [&strict, &deaf] {
        for _ in 0..12 {
            assert_eq!(gate.ask(Via::H1, &Ask::get("/").host("evil.example")).await.status, 421);
        }
        gate.advance(Duration::from_secs(300));
    }
    let alert = event(&strict, &["refusals_high", "SECURITY_ALERT"]).await;
    assert_eq!(
        (&alert["value"], &alert["threshold"], &alert["window_s"]),
        (&2.into(), &1.into(), &300.into())
    );
    for gate in [&strict, &deaf] {
        gate.advance(Duration::from_secs(3600));
        let events = gate.events("SUMMARY").await;
        assert_eq!(
            events.matches("refusals_high").count(),
            usize::from(std::ptr::eq(gate, &strict)),
            "{events}"
        );
    }
}
