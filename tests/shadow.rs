//! Shadow mode: what would be refused goes on to the app, and is told in log, events and metrics.

mod common;

use common::{Ask, BOTH, Gate, Upstream, Via, assert_refused, gate};
use serde_json::Value;

/// A request that a guard refuses, and the settings under which it does.
struct Case {
    guard: &'static str,
    settings: &'static str,
    ask: Ask,
    reason: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |guard, settings, ask, reason| Case { guard, settings, ask, reason };
    let page = || Ask::get("/page");
    let posted =
        |kind: &str, body: &str| Ask::new("POST", "/api/data").field("content-type", kind).body(body);
    let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(4001));
    let preflight =
        page().field("origin", "https://evil.example").field("access-control-request-method", "POST");
    let preflight = Ask { method: "OPTIONS", ..preflight };
    let form = "multipart/form-data; boundary=b7";
    let file =
        "--b7\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../a.png\"\r\n\r\n1\r\n--b7--\r\n";
    let late =
        ["--b7\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n", &"x".repeat(300_000), "\r\n", file]
            .concat();
    let script = Ask::post("/api/chat", "<svg onload=alert(1)>");
    let script = Ask { fields: vec![("content-type".into(), "image/png".into())], ..script };
    let rejecting = "sanitize: {chat: {sink: html, action: reject}}\n";
    vec![
        case("uploads", "", posted(form, &late), "upload_name_denied"),
        case("hosts", "", page().host("evil.example"), "host_denied"),
        case("addresses", "addresses: {deny: [127.0.0.0/8]}\n", page(), "address_denied"),
        case("caps", "caps: {uri: 10}\n", Ask::get("/a-long-path"), "uri_too_long"),
        case("origin", "", Ask::chat().field("origin", "https://evil.example"), "origin_denied"),
        case("cors", "cors: {allowed_origins: ['https://app.example']}\n", preflight, "origin_denied"),
        case("uploads", "", posted(form, file), "upload_name_denied"),
        case("uploads", "", posted("multipart/form-data", file), "malformed_upload"),
        case("uploads", "", script, "upload_type_denied"),
        case("json", "", Ask::post("/api/data", r#"{"a":1,"a":2}"#), "invalid_json"),
        case("json", "", posted("application/x-www-form-urlencoded", "message=1&message=2"), "invalid_form"),
        case("json", "", posted("application/json; charset=latin1", "{}"), "unsupported_charset"),
        case("json", "", Ask::chat().field("content-encoding", "gzip"), "unsupported_encoding"),
        case("text", "", Ask::post("/api/data", long), "text_too_long"),
        case("sanitize", rejecting, Ask::post("/api/data", r#"{"message":"<script>"}"#), "threat_detected"),
    ]
}

/// The lines of both logs that tell of refusals that were only noted.
async fn told(gate: &Gate, reason: &str) -> (Value, Vec<Value>) {
    let access = gate.access_log("would_refuse").await;
    let events = gate.events(r#""action":"observed""#).await;
    let line = access.lines().find(|line| line.contains("would_refuse")).expect("a line");
    let read = |line| serde_json::from_str::<Value>(line).expect("a line is a JSON object");
    let events = events.lines().map(read).filter(|event| event["reason"] == reason);
    (read(line), events.collect())
}

/// Who tries settings on real traffic must break nothing, and must see what they would have broken.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_guard_observes_goes_on_and_is_told() {
    for Case { guard, settings, ask, reason } in cases() {
        for via in BOTH {
            let upstream = Upstream::ok().await;
            let enforcing = gate(upstream.address(), settings);
            let answer = enforcing.ask(via, &ask).await;
            assert_eq!(answer.field("x-tidegate-reason"), Some(reason), "{guard}: {}", answer.text());
            assert!(
                upstream.requests().is_empty() || ask.body.as_ref().is_some_and(|body| body.len() > 65_536)
            );

            for mode in [format!("observe: [{guard}]\n"), "mode: observe\n".to_owned()] {
                let upstream = Upstream::ok().await;
                let gate = gate(upstream.address(), &format!("{mode}{settings}"));
                let answer = gate.ask(via, &ask).await;
                assert_eq!(answer.status, 200, "{guard}, {mode}: {}", answer.text());
                assert_eq!(upstream.request().body, ask.body.clone().unwrap_or_default(), "{guard}, {mode}");
                let (line, events) = told(&gate, reason).await;
                assert_eq!(line["would_refuse"][0], reason, "{guard}, {mode}: {line}");
                assert_eq!(line.get("reason"), None, "{guard}, {mode}: {line}");
                assert_eq!(events.len(), 1, "{guard}, {mode}: {events:?}");
                let metrics = gate.admin_ask(&Ask::get("/metrics")).await.text();
                let series =
                    format!("tidegate_observed_refusals_total{{reason=\"{reason}\",route=\"default\"}} 1\n");
                assert!(metrics.contains(&series), "{guard}, {mode}: no {series}");
                assert!(!metrics.contains("tidegate_refusals_total{"), "{guard}, {mode}");
            }
        }
    }
}

/// A limit that is only tried must let the request over it pass, and must not count it.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_drawn_from_and_refuse_nobody() {
    for (limit, ask) in [("pages", Ask::get("/page")), ("ai", Ask::chat())] {
        let upstream = Upstream::ok().await;
        let settings = format!("observe: [limits]\nlimits: {{{limit}: {{windows: [2/min]}}}}\n");
        let gate = gate(upstream.address(), &settings);
        for _ in 0..4 {
            assert_eq!(gate.ask(Via::H1, &ask).await.status, 200, "{limit}");
        }
        assert_eq!(upstream.requests().len(), 4);
        gate.ask(Via::H1, &Ask::get("/page").host("last.example")).await;
        let log = gate.access_log("last.example").await;
        assert_eq!(log.matches(r#""would_refuse":["rate_limited"]"#).count(), 2, "{log}");
        let asked = gate.ask(Via::H1, &Ask::get("/auth/rate-limit-status")).await.json();
        let limits = asked["limits"].as_array().expect("limits");
        let standing = limits.iter().find(|standing| standing["name"] == limit).expect("the limit");
        assert_eq!((&standing["limit"], &standing["remaining"]), (&2.into(), &0.into()), "{asked}");
    }
}

/// Requests in flight beyond a cap that is only observed must not wait or fail.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_beyond_an_observed_cap_go_on() {
    let (upstream, arrived, go_on) = Upstream::on_cue().await;
    let settings = "observe: [concurrency]\nconcurrency: {address: 1}\n";
    let gate = gate(upstream.address(), settings);
    let ask = Ask::chat();
    let both = async { tokio::join!(gate.ask(Via::H1, &ask), gate.ask(Via::H2, &ask)) };
    let cues = async {
        for _ in 0..2 {
            arrived.notified().await;
        }
        for _ in 0..2 {
            go_on.notify_one();
            tokio::task::yield_now().await;
        }
        go_on.notify_waiters();
    };
    let ((first, second), ()) = common::within("both", async { tokio::join!(both, cues) }).await;
    assert_eq!([first.status, second.status], [200, 200]);
    let (line, events) = told(&gate, "concurrency_limited").await;
    assert_eq!((line["would_refuse"][0].as_str(), events.len()), (Some("concurrency_limited"), 1));
}

/// What observes must not take along a neighbour that enforces, nor what protects the gate itself.
#[tokio::test(flavor = "multi_thread")]
async fn all_else_is_enforced() {
    let upstream = Upstream::ok().await;
    let others = gate(upstream.address(), "observe: [hosts, text]\n");
    let evil = Ask::chat().host("evil.example").field("origin", "https://other.example");
    assert_refused(&others.ask(Via::H1, &evil).await, 403, "origin_denied");
    let log = others.access_log("origin_denied").await;
    assert!(log.contains(r#""would_refuse":["host_denied"]"#), "{log}");

    let own = gate(upstream.address(), "mode: observe\ncaps: {body: {json: 10}}\n");
    for (ask, status, reason) in [
        (Ask::chat(), 413, "body_too_large"),
        (Ask::get("/a/../.."), 400, "invalid_path"),
        (Ask::get("/page").body("hidden"), 400, "malformed_request"),
        (Ask::new("TRACE", "/page"), 405, "method_denied"),
    ] {
        assert_refused(&own.ask(Via::H1, &ask).await, status, reason);
    }
    upstream.assert_untouched();
}

/// An operator tries a route in shadow while the rest stays guarded, or guards one while the rest is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_a_mode_of_its_own() {
    for (top, own, refused) in [("observe", "enforce", [false, true]), ("enforce", "observe", [true, false])]
    {
        let upstream = Upstream::ok().await;
        let settings =
            format!("mode: {top}\nroutes: [{{name: own, match: {{paths: [/own]}}, mode: {own}}}]\n");
        let gate = gate(upstream.address(), &settings);
        for (path, refused) in ["/page", "/own"].into_iter().zip(refused) {
            let answer = gate.ask(Via::H1, &Ask::get(path).host("evil.example")).await;
            assert_eq!(answer.status, if refused { 421 } else { 200 }, "{top}: {path}");
        }
    }
}

/// A page that CORS only observes must read what the app itself lets it read.
#[tokio::test(flavor = "multi_thread")]
async fn observed_pages_get_the_apps_own_cors() {
    let answer =
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://other.example\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let settings = "observe: [cors]\ncors: {allowed_origins: ['https://app.example']}\n";
    let gate = gate(upstream.address(), settings);
    for origin in ["https://other.example", "https://app.example"] {
        let answer = gate.ask(Via::H1, &Ask::get("/page").field("origin", origin)).await;
        assert_eq!(answer.all("access-control-allow-origin"), [origin]);
    }
}

/// Texts of a body that is too long for an observed cap are still sanitized, and its session still counts.
#[tokio::test(flavor = "multi_thread")]
async fn an_observed_text_is_still_sanitized_and_counted() {
    let upstream = Upstream::ok().await;
    let settings = "observe: [text]\ntext: {chat: {max: 5}}\nlimits: {session: {windows: [1/min]}}\n";
    let gate = gate(upstream.address(), settings);
    let ask = Ask::post("/api/data", r#"{"message":"<script>","sessionId":"s-1"}"#);
    assert_eq!(gate.ask(Via::H1, &ask).await.status, 200);
    let sent = String::from_utf8(upstream.request().body).expect("UTF-8");
    assert!(!sent.contains("<script>"), "{sent}");
    assert_refused(&gate.ask(Via::H1, &ask).await, 429, "rate_limited");

    let shown = common::gate(upstream.address(), "observe: [sanitize]\n");
    assert_eq!(shown.ask(Via::H1, &ask).await.status, 200);
    assert_eq!(upstream.last().body, ask.body.clone().unwrap_or_default());
    let events = shown.events("threat_detected").await;
    assert!(events.contains(r#""action":"observed""#), "{events}");
}
