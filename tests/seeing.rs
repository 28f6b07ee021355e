//! What an operator sees: metrics, health, stats, logs, events; who may see it; and what nobody may see.

mod common;

use std::collections::BTreeMap;

use common::{Ask, BOTH, Gate, Upstream, Via, Wire, gate};
use serde_json::Value;

/// A Prometheus exposition as samples by name and labels; fails where it is none.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(comment.starts_with("HELP ") || comment.starts_with("TYPE "), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let name = series.split('{').next().unwrap_or_default();
        assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{line}");
        assert!(series.contains('{') == series.ends_with('}'), "{line}");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert_eq!(samples.insert(series.to_owned(), value), None, "twice: {series}");
    }
    samples
}

async fn metrics(gate: &Gate) -> String {
    let answer = gate.admin_ask(&Ask::get("/metrics")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
    answer.text()
}

/// The sum over all series of a name that carry all of these labels.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |series: &str| {
        series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
    };
    samples(text).iter().filter(|(series, _)| fits(series)).map(|(_, value)| value).sum()
}

/// Sends what will be the last line of both logs, and waits for it.
async fn logs(gate: &Gate) -> (String, String) {
    let last = Ask::get("/last-of-all").host("last.example");
    assert_eq!(gate.ask(Via::H1, &last).await.status, 421);
    (gate.access_log("/last-of-all").await, gate.events("/last-of-all").await)
}

/// An alert on refusals needs counters that move with each, whatever the protocol.
#[tokio::test(flavor = "multi_thread")]
async fn counters_move_with_each_request() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let before = metrics(&gate).await;
    for via in BOTH {
        assert_eq!(gate.ask(via, &Ask::chat()).await.status, 200);
        assert_eq!(gate.ask(via, &Ask::get("/page")).await.status, 200);
        assert_eq!(gate.ask(via, &Ask::get("/page").host("evil.example")).await.status, 421);
    }
    logs(&gate).await;
    let after = metrics(&gate).await;
    let moved = |name: &str, labels: &[&str]| sum(&after, name, labels) - sum(&before, name, labels);
    assert_eq!(moved("tidegate_requests_total", &[]), 7.0);
    assert_eq!(moved("tidegate_requests_total", &["status_class=\"2xx\""]), 4.0);
    assert_eq!(moved("tidegate_refusals_total", &["reason=\"host_denied\""]), 3.0);
    assert_eq!(moved("tidegate_request_duration_seconds_count", &[]), 7.0);
    assert_eq!(sum(&after, "tidegate_in_flight", &[]), 0.0, "a gauge that does not come back");
    assert_eq!(sum(&after, "tidegate_open_admissions", &[]), 0.0, "an admission that was never settled");
}

/// A request that Pingora refuses by itself must be counted as well, or an attack goes unseen.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_counted() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let broken = [
        "GET /page HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n{",
        "\0\0\0\r\n\r\n",
    ];
    for request in broken {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(request).await;
        wire.half_close().await;
        wire.rest().await;
    }
    common::a_moment().await;
    let text = metrics(&gate).await;
    let counted = sum(&text, "tidegate_refusals_total", &["reason=\"malformed_request\""]);
    let abandoned = sum(&text, "tidegate_heads_abandoned_total", &[]);
    assert!(counted + abandoned >= 3.0, "{counted} refused, {abandoned} abandoned\n{text}");
}

/// Labels that clients can invent fill the memory of whatever scrapes them.
#[tokio::test(flavor = "multi_thread")]
async fn clients_invent_no_labels() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "hosts: ['*']\n");
    let series = samples(&metrics(&gate).await).len();
    for number in 0..20 {
        let name = format!("invented{number}");
        let ask = Ask::get(format!("/{name}?{name}"))
            .host(format!("{name}.example"))
            .field("x-api-key", name.as_str());
        let ask = ask.field("user-agent", name.as_str()).field("x-session-id", name.as_str());
        assert_eq!(gate.ask(BOTH[number % 2], &ask).await.status, 200);
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(format!("INVENTED{number} /page HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        wire.half_close().await;
        wire.rest().await;
    }
    let text = metrics(&gate).await;
    assert!(!text.to_ascii_lowercase().contains("invented"), "{text}");
    assert!(samples(&text).len() < series + 30, "{series} series became {}", samples(&text).len());
}

/// Dashboards and probes of these apps read these shapes already.
#[tokio::test(flavor = "multi_thread")]
async fn shapes_are_those_that_clients_read() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let shapes: [(&str, &[&str]); 6] = [
        ("/healthz", &["/status", "/version", "/services", "/environment", "/reasons"]),
        ("/health", &["/status", "/version", "/services/sse_connections", "/services/active_sessions"]),
        (
            "/metrics.json",
            &[
                "/connections/total",
                "/connections/active",
                "/connections/sessions",
                "/connections/oldest_connection_age",
                "/rate_limits/per_minute",
                "/rate_limits/per_hour",
                "/system/version",
                "/system/debug_mode",
            ],
        ),
        (
            "/api/security/stats",
            &[
                "/security/rate_limiter/total_users_tracked",
                "/security/rate_limiter/blocked_users",
                "/security/rate_limiter/ai_calls_per_minute_limit",
                "/security/cost_tracker/daily_cost",
                "/security/cost_tracker/utilization/cost_percent",
                "/security/circuit_breaker/is_open",
                "/security/circuit_breaker/failure_count",
                "/security/circuit_breaker/mode",
            ],
        ),
        ("/", &["/security/rate_limiter", "/security/cost_tracker", "/security/circuit_breaker"]),
        ("/readyz", &["/status"]),
    ];
    for (path, pointers) in shapes {
        let answer = gate.admin_ask(&Ask::get(path).field("accept", "application/json")).await;
        assert_eq!((answer.status, answer.field("x-content-type-options")), (200, Some("nosniff")), "{path}");
        let body = answer.json();
        let missing: Vec<_> = pointers.iter().filter(|pointer| body.pointer(pointer).is_none()).collect();
        assert!(missing.is_empty(), "{path} lacks {missing:?}: {body}");
    }
    let health = gate.admin_ask(&Ask::get("/healthz")).await.json();
    assert_eq!((&health["status"], &health["reasons"]), (&"healthy".into(), &Value::Array(Vec::new())));
    let stats = gate.admin_ask(&Ask::get("/api/security/stats")).await.json();
    assert_eq!(stats["security"]["rate_limiter"]["ai_calls_per_minute_limit"], 5);
    let page = gate.admin_ask(&Ask::get("/").field("accept", "text/html,*/*;q=0.8")).await;
    assert!(page.field("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
    assert!(page.field("content-security-policy").is_some());
    assert_eq!(gate.admin_ask(&Ask::get("/no-such-page")).await.status, 404);
}

/// An operator under load asks who makes it, and who is held off; and no key may be found in the answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_callers_and_those_held_off_are_told() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {ai: {windows: [2/min]}}\n");
    for _ in 0..3 {
        gate.ask(Via::H1, &Ask::chat()).await;
    }
    gate.ask(Via::H1, &Ask::get("/page").field("authorization", "Bearer a-canary")).await;
    logs(&gate).await;
    let top = gate.admin_ask(&Ask::get("/api/security/top?limit=2")).await.json();
    let [first, second] = &top.as_array().expect("a list")[..] else { panic!("{top}") };
    assert_eq!((&first["identifier"], &first["requests"]), (&"127.0.0.1".into(), &4.into()), "{top}");
    assert_eq!(second["identifier"].as_str().map(str::len), Some(16), "{top}");
    assert!(first["last_request"].as_str().is_some_and(|at| at.starts_with("2026-")), "{top}");
    let limiter = async || {
        let stats = gate.admin_ask(&Ask::get("/api/security/stats")).await.json();
        ["total_users_tracked", "blocked_users"].map(|name| stats["security"]["rate_limiter"][name].clone())
    };
    assert_eq!(limiter().await, [2, 1]);
    gate.advance(std::time::Duration::from_secs(61));
    assert_eq!(limiter().await, [2, 0]);
}

/// The admin port must tell nothing to another machine, nor to a web page that a local browser shows.
#[tokio::test(flavor = "multi_thread")]
async fn only_this_machine_reads_without_the_token() {
    let upstream = Upstream::ok().await;
    let gate =
        gate(upstream.address(), "admin: {listen: '127.0.0.1:0', token: 0123456789abcdef0123456789abcdef}\n");
    let stats = || Ask::get("/api/security/stats");
    let port = gate.admin().port();
    for host in ["localhost".to_owned(), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(gate.admin_ask(&stats().host(host)).await.status, 200);
    }
    let denied = [
        stats().host("evil.example"),
        stats().host("127.0.0.1.evil.example"),
        stats().field("x-forwarded-for", "198.51.100.1"),
        stats().field("forwarded", "for=198.51.100.1"),
        stats().field("origin", "https://evil.example"),
        stats().field("authorization", "Bearer wrong"),
        stats().field("authorization", "Bearer 0123456789abcdef0123456789abcdeF"),
    ];
    for ask in denied {
        let status = gate.admin_ask(&ask).await.status;
        assert!(status == 401 || status == 403, "{status} for {} {:?}", ask.host, ask.fields);
    }
    let token = "Bearer 0123456789abcdef0123456789abcdef";
    let far =
        stats().host("gate.example").field("x-forwarded-for", "198.51.100.1").field("authorization", token);
    assert_eq!(gate.admin_ask(&far).await.status, 200);
}

/// Whatever changes something needs the token, from this machine too: any page can make a browser POST to localhost.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_changes_without_the_token() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for path in
        ["/", "/metrics", "/api/security/stats", "/api/security/circuit-breaker/open", "/api/security/bans"]
    {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let answer = gate.admin_ask(&Ask::new(method, path).body("{}")).await;
            assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.status);
        }
    }
}

/// The app's own paths must not be the gate's, nor the gate's be reachable through the front door.
#[tokio::test(flavor = "multi_thread")]
async fn admin_pages_are_not_on_the_traffic_port() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for path in ["/metrics", "/healthz", "/api/security/stats"] {
        assert_eq!(
            gate.ask(Via::H1, &Ask::get(path)).await.text(),
            r#"{"reply":"k"}"#,
            "{path} is the app's"
        );
    }
}

/// Each request leaves one line that a machine can read, and no client can write lines of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_one_line_for_each_request() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let agent = "agent\"},{\"forged\":\"line";
    for via in BOTH {
        let answer = gate.ask(via, &Ask::chat().field("user-agent", agent)).await;
        let id = answer.field("x-request-id").expect("an id").to_owned();
        gate.access_log(&id).await;
    }
    gate.ask(Via::H1, &Ask::get("/page?a=%0aforged").host("evil.example")).await;
    let (access, _) = logs(&gate).await;
    let lines: Vec<Value> =
        access.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(lines.len(), 4, "{access}");
    assert!(lines.iter().all(|line| line.get("forged").is_none() && line["status"].is_u64()), "{access}");
    assert_eq!((&lines[0]["method"], &lines[0]["status"]), (&"POST".into(), &200.into()), "{access}");
}

/// Tools that read Apache's format go on working.
#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_can_be_combined() {
    let scratch = common::Scratch::new();
    let file = scratch.path("combined.log");
    let upstream = Upstream::ok().await;
    let settings =
        format!("log: {{access: {{to: '{}', format: combined}}, events: {{to: off}}}}\n", file.display());
    let gate = gate(upstream.address(), &settings);
    gate.ask(Via::H1, &Ask::get("/page?a=1").field("user-agent", "a \"quoted\" agent")).await;
    let text = common::within("a line", async {
        loop {
            match std::fs::read_to_string(&file) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    assert!(
        text.starts_with("127.0.0.1 - - [") && text.contains("] \"GET /page?a=1 HTTP/1.1\" 200 13 "),
        "{text}"
    );
    assert!(!text.contains("\"a \"quoted\" agent\""), "quotes are not escaped: {text}");
}

/// Whoever watches for attacks reads one JSON object a line, with who, what and why.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_raise_events() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {ai: {windows: [1/min]}}\n");
    gate.ask(Via::H1, &Ask::chat().field("origin", "https://evil.example")).await;
    gate.ask(Via::H2, &Ask::post("/api/chat", "{")).await;
    for _ in 0..2 {
        gate.ask(
            Via::H1,
            &Ask::chat().field("authorization", "Bearer sk-canary").field("user-agent", "probe/1"),
        )
        .await;
    }
    let (_, text) = logs(&gate).await;
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let found: Vec<_> = events
        .iter()
        .map(|e| (e["event"].as_str().unwrap_or(""), e["reason"].as_str().unwrap_or("")))
        .collect();
    let wanted = [
        ("SECURITY_ALERT", "origin_denied"),
        ("VALIDATION_ERROR", "invalid_json"),
        ("RATE_LIMIT_EXCEEDED", "rate_limited"),
        ("SECURITY_ALERT", "host_denied"),
    ];
    assert_eq!(found, wanted, "{text}");
    let limited = &events[2];
    assert_eq!(
        (&limited["client_address"], &limited["user_agent"]),
        (&"127.0.0.1".into(), &"probe/1".into())
    );
    for key in ["ts", "user", "route", "request_id", "path", "method"] {
        assert!(limited[key].as_str().is_some_and(|value| !value.is_empty()), "{key}: {limited}");
    }
}

/// A secret that anyone but its owner can read is lost: one canary in every place that a secret may stand in.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_found_nowhere() {
    // One that looks like a key, and one that only its place tells.
    let (key, word) = ("sk-ant-api03-CANARYcanary1234567890abcdefXYZ", "CANARYhunter2");
    let upstream = Upstream::scripted(move |mut peer| async move {
        while let Some(request) = peer.request().await {
            let reply = match request.line().split(' ').nth(1).unwrap_or_default() {
                path if path.starts_with("/garbage") => format!("ERROR key {key} {word}\r\n\r\n"),
                path if path.starts_with("/field") => format!("HTTP/1.1 200 OK\r\nbad {key} {word}\r\n\r\n"),
                path if path.starts_with("/cut") => {
                    format!("HTTP/1.1 500 Oops {word}\r\ncontent-length: 999\r\n\r\n{key}")
                }
                _ => common::OK_JSON.to_owned(),
            };
            let whole = reply == common::OK_JSON;
            peer.send(reply).await;
            if !whole {
                return;
            }
        }
    })
    .await;
    let places = "client: {key_headers: [x-api-key, x-customer], key_parameters: [key, customer]}\n";
    let gate = gate(upstream.address(), places);
    let secrets = |ask: Ask| {
        ask.field("authorization", format!("Bearer {word}"))
            .field("x-api-key", word)
            .field("cookie", format!("session_id={word}; other={word}"))
            .field("x-customer", word)
            .field("x-session-id", word)
            .field("x-device-id", word)
            .field("x-anything", word)
            .field("user-agent", format!("agent (Bearer {key}) {key}"))
            .field("referer", format!("http://localhost/{key}?token={word}&customer={word}"))
    };
    let query = format!(
        "?key={word}&api_key={word}&token={word}&access_token={word}&password={word}&customer={word}&q={key}"
    );
    let body = format!(r#"{{"message":"{word} {key}","api_key":"{word}","{word}":1,"sessionId":"{word}"}}"#);
    let twice = format!(r#"{{"{word}":1,"{word}":2}}"#);
    let long = format!(r#"{{"message":"{}"}}"#, word.repeat(400));
    let asks = [
        Ask::get(format!("/page{query}")),
        Ask::get(format!("/page/{key}{query}")),
        Ask::post(format!("/api/chat{query}"), body.as_str()),
        Ask::post(format!("/v1/chat/completions{query}"), twice.as_str()),
        Ask::post(format!("/v1/messages{query}"), twice.as_str()),
        Ask::post(format!("/api/chat{query}"), long),
        Ask::post(format!("/api/data{query}"), format!("{word}{key}")),
        Ask::post(format!("/api/data/%zz{key}{query}"), body.as_str()),
        Ask::get(format!("/page{query}")).host("evil.example"),
        Ask::post(format!("/api/chat{query}"), body.as_str())
            .field("origin", format!("https://{word}.example")),
        Ask::post(format!("/garbage{query}"), body.as_str()),
        Ask::post(format!("/field{query}"), body.as_str()),
        Ask::post(format!("/cut{query}"), body.as_str()),
        Ask::get(format!("/garbage{query}")),
        Ask::get(format!("/cut{query}")),
        Ask::get("/auth/rate-limit-status"),
    ];
    let mut found = Vec::new();
    let mut look = |place: String, text: &str| {
        for line in text.lines().filter(|line| line.contains("CANARY") || line.contains("canary")) {
            found.push(format!("{place}: {}", line.chars().take(400).collect::<String>()));
        }
    };
    for ask in asks {
        for via in BOTH {
            let answer = gate.ask(via, &secrets(ask.clone())).await;
            gate.forget_draws();
            let relayed = answer.status == 500;
            let own: String =
                answer.fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            look(format!("{via:?} {} {} fields", ask.method, ask.target), &own);
            if !relayed {
                look(format!("{via:?} {} {} body", ask.method, ask.target), &answer.text());
            }
        }
    }
    // The sixth of these is refused for its rate, under the secret's own name.
    for _ in 0..6 {
        look("429".into(), &gate.ask(Via::H1, &secrets(Ask::chat())).await.text());
    }
    // The caller gets this back, as it was sent; nobody else does.
    let named =
        gate.ask(Via::H1, &secrets(Ask::get("/page").host("evil.example")).field("x-request-id", key)).await;
    assert_eq!(named.status, 421);
    let (access, events) = logs(&gate).await;
    look("access log".into(), &access);
    look("events".into(), &events);
    for path in ["/metrics", "/metrics.json", "/api/security/stats", "/healthz"] {
        look(path.into(), &gate.admin_ask(&Ask::get(path)).await.text());
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}
