//! Heads that can't be read at all: answered, logged, counted and told like any other refusal.

mod common;

use common::{Ask, Gate, Upstream, Via, Wire, assert_refused, gate};

/// What a head is, its bytes, and what it is refused with.
type Case = (&'static str, Vec<u8>, u16, &'static str);

fn cases() -> Vec<Case> {
    let head = |line: &str, fields: &str| format!("{line}\r\nHost: localhost\r\n{fields}\r\n").into_bytes();
    let long = |bytes| "a".repeat(bytes);
    vec![
        ("CONNECT", head("CONNECT localhost:22 HTTP/1.1", ""), 405, "method_denied"),
        ("CONNECT to a path", head("CONNECT /x HTTP/1.1", ""), 405, "method_denied"),
        ("a target of 70 KB", head(&format!("GET /x?{} HTTP/1.1", long(70_000)), ""), 414, "uri_too_long"),
        ("a target of 300 KB", head(&format!("GET /{} HTTP/1.1", long(300_000)), ""), 414, "uri_too_long"),
        ("300 fields", head("GET /x HTTP/1.1", &"X-A: 1\r\n".repeat(300)), 431, "headers_too_large"),
        (
            "300 KB of a field",
            head("GET /x HTTP/1.1", &format!("X-A: {}\r\n", long(300_000))),
            431,
            "headers_too_large",
        ),
        ("a quote in the query", head("GET /x?q=\"a\" HTTP/1.1", ""), 400, "malformed_request"),
        ("no colon", head("GET /x HTTP/1.1", "X-A\r\n"), 400, "malformed_request"),
        ("another version", head("GET /x HTTP/2.0", ""), 400, "malformed_request"),
        ("no HTTP", b"\x16\x03\x01\x02\0\x01\0".to_vec(), 400, "malformed_request"),
    ]
}

/// The sum of all series whose name and labels start like this.
async fn counted(gate: &Gate, series: &str) -> f64 {
    let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
    let lines = text.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Whoever debugs a client, or counts attacks, would otherwise look for these requests in vain.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_heads_are_refused_logged_and_counted() {
    let upstream = Upstream::ok().await;
    for (what, bytes, status, reason) in cases() {
        let gate = gate(upstream.address(), "");
        let answer = Wire::to(gate.traffic()).await.ask(&bytes).await;
        assert_refused(&answer, status, reason);
        for field in ["x-content-type-options", "content-security-policy"] {
            assert!(answer.field(field).is_some(), "{what}: no {field}");
        }
        let id = answer.field("x-request-id").unwrap_or_default();
        assert_eq!(id.len(), 32, "{what}");
        assert_eq!(answer.field("connection"), Some("close"), "{what}");
        let line = gate.access_log(id).await;
        assert_eq!(line.lines().count(), 1, "{what}: {line}");
        assert!(line.contains(&format!("\"status\":{status}")), "{what}: {line}");
        assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{what}: {line}");
        assert!(line.len() < 4096, "{what}: {} bytes", line.len());
        assert_eq!(gate.events(id).await.lines().count(), 1, "{what}");
        let series = format!("tidegate_refusals_total{{reason=\"{reason}\"");
        assert_eq!(counted(&gate, &series).await, 1.0, "{what}");
        assert_eq!(counted(&gate, "tidegate_heads_abandoned_total").await, 0.0, "{what}");
        assert_eq!(counted(&gate, "tidegate_in_flight").await, 0.0, "{what}");
    }
    upstream.assert_untouched();
}

/// What is known of such a request is logged, and its secrets are not.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_heads_are_logged_without_secrets() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let bytes =
        b"GET /v1/models?key=swordfish-12345&q=\"x\" HTTP/1.1\r\nHost: a.example\r\nUser-Agent: odd\r\n\r\n";
    let answer = Wire::to(gate.traffic()).await.ask(bytes).await;
    assert_eq!(answer.json()["error"]["reason"], "malformed_request");
    assert!(answer.text().contains("percent-encoded"), "{}", answer.text());
    let line = gate.access_log("malformed_request").await;
    for part in
        ["\"path\":\"/v1/models\"", "\"host\":\"a.example\"", "\"user_agent\":\"odd\"", "\"method\":\"GET\""]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(
        !line.contains("swordfish") && !gate.events("malformed_request").await.contains("swordfish"),
        "{line}"
    );
}

/// A bare 405 over HTTP/2 would be a refusal that no log knows.
#[tokio::test(flavor = "multi_thread")]
async fn connect_over_h2_is_refused_like_any_other() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let answer = gate.ask(Via::H2, &Ask::new("CONNECT", "").host("localhost:22")).await;
    assert_refused(&answer, 405, "method_denied");
    gate.access_log("method_denied").await;
    upstream.assert_untouched();
}
