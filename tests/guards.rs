//! Every guard, over HTTP/1.1 and HTTP/2: what it refuses, how it says so, and that the upstream hears nothing of it.

mod common;

use std::time::Duration;

use common::{Answer, Ask, BOTH, Gate, H2, OK_JSON, Upstream, Via, Wire, assert_refused, gate, within};

/// A request that has to be refused.
struct Case {
    why: &'static str,
    settings: &'static str,
    ask: Ask,
    status: u16,
    reason: &'static str,
}

fn case(why: &'static str, settings: &'static str, ask: Ask, status: u16, reason: &'static str) -> Case {
    Case { why, settings, ask, status, reason }
}

fn head_cases() -> Vec<Case> {
    let page = || Ask::get("/page");
    let trusting = "client: {trusted_proxies: [127.0.0.0/8]}\naddresses: {deny: [203.0.113.0/24]}\n";
    let many = (0..101).fold(page(), |ask, i| ask.field(format!("x-{i}"), "1"));
    let bulky = (0..5).fold(page(), |ask, i| ask.field(format!("x-{i}"), "v".repeat(8000)));
    vec![
        case("a strange host", "", page().host("evil.example"), 421, "host_denied"),
        case("a host that only starts well", "", page().host("localhost.evil.example"), 421, "host_denied"),
        case(
            "a host off the list",
            "hosts: [chat.example]\n",
            page().host("www.chat.example"),
            421,
            "host_denied",
        ),
        case("a path above the root", "", Ask::get("/a/../../etc/passwd"), 400, "invalid_path"),
        case("an encoded NUL", "", Ask::get("/a%00b"), 400, "invalid_path"),
        case("a broken escape", "", Ask::get("/a%zz"), 400, "invalid_path"),
        case("an encoded backslash", "", Ask::get("/a%5c..%5cb"), 400, "invalid_path"),
        case("a denied network", "addresses: {deny: [127.0.0.0/8]}\n", page(), 403, "address_denied"),
        case("not on the allow list", "addresses: {allow: [10.0.0.0/8]}\n", page(), 403, "address_denied"),
        case(
            "denied behind a proxy",
            trusting,
            page().field("x-forwarded-for", "203.0.113.9"),
            403,
            "address_denied",
        ),
        case(
            "an address that the client made up",
            "addresses: {allow: [10.0.0.0/8]}\n",
            page()
                .field("x-forwarded-for", "10.0.0.1")
                .field("forwarded", "for=10.0.0.1")
                .field("x-real-ip", "10.0.0.1"),
            403,
            "address_denied",
        ),
        case(
            "a foreign page's POST",
            "",
            Ask::chat().field("origin", "https://evil.example"),
            403,
            "origin_denied",
        ),
        case("a page without origin", "", Ask::chat().field("origin", "null"), 403, "origin_denied"),
        case(
            "a cross-site POST",
            "",
            Ask::chat().field("sec-fetch-site", "cross-site"),
            403,
            "origin_denied",
        ),
        case(
            "a foreign referer",
            "",
            Ask::chat().field("referer", "https://evil.example/x"),
            403,
            "origin_denied",
        ),
        case(
            "a foreign DELETE",
            "",
            Ask::new("DELETE", "/a").field("origin", "http://evil.example"),
            403,
            "origin_denied",
        ),
        case(
            "a preflight from elsewhere",
            "cors: {allowed_origins: ['https://app.example']}\n",
            preflight("https://evil.example"),
            403,
            "origin_denied",
        ),
        case("TRACE", "", Ask::new("TRACE", "/page"), 405, "method_denied"),
        case("a long target", "", Ask::get(format!("/{}", "a".repeat(9000))), 414, "uri_too_long"),
        case("a long query", "", Ask::get(format!("/?q={}", "a".repeat(9000))), 414, "uri_too_long"),
        case("a GET with a body", "", page().body("hidden"), 400, "malformed_request"),
        case("many fields", "", many, 431, "headers_too_large"),
        case("long fields", "", bulky, 431, "headers_too_large"),
    ]
}

fn body_cases() -> Vec<Case> {
    let json = |body: &[u8]| Ask::post("/api/data", body);
    let speech = |path: &str, field: &str| Ask::post(path, format!(r#"{{"{field}":"{}"}}"#, "e".repeat(501)));
    let deep = ["[".repeat(2000), "]".repeat(2000)].concat();
    let chat = |text: String| Ask::post("/api/chat", format!(r#"{{"message":"{text}"}}"#));
    let parts = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"{}"}}]}}]}}"#,
        "p".repeat(4001)
    );
    let mut cases = vec![
        case("too large", "caps: {body: {json: 1KiB}}\n", json(&vec![b' '; 1025]), 413, "body_too_large"),
        case("over the default", "", json(&vec![b' '; (1 << 20) + 1]), 413, "body_too_large"),
        case("too deep", "", json(deep.as_bytes()), 400, "invalid_json"),
        case("gzip", "", json(b"{}").field("content-encoding", "gzip"), 415, "unsupported_encoding"),
        case(
            "gzip in disguise",
            "",
            json(b"{}").field("content-encoding", "identity, GZIP"),
            415,
            "unsupported_encoding",
        ),
        case(
            "another charset",
            "",
            Ask::new("POST", "/api/data").field("content-type", "application/json; charset=UTF-7").body("{}"),
            415,
            "unsupported_charset",
        ),
        case("a long message", "", chat("x".repeat(4001)), 422, "text_too_long"),
        case("a long message in escapes", "", chat(r"\u00e9".repeat(4001)), 422, "text_too_long"),
        case("a long message in emoji", "", chat("\u{1f30a}".repeat(4001)), 422, "text_too_long"),
        case(
            "a long part",
            "text: {model: {max: 4000}}\n",
            Ask::post("/api/chat", parts),
            422,
            "text_too_long",
        ),
        case(
            "a long n8n message",
            "",
            Ask::post("/webhook/a", format!(r#"{{"chatInput":"{}"}}"#, "x".repeat(4001))),
            422,
            "text_too_long",
        ),
        case("a long OpenAI speech", "", speech("/v1/audio/speech", "input"), 422, "text_too_long"),
        case(
            "a long ElevenLabs speech",
            "",
            speech("/v1/text-to-speech/voice", "text"),
            422,
            "text_too_long",
        ),
    ];
    let broken: [&[u8]; 16] = [
        br#"{"a":1,"a":2}"#,
        br#"{"a":1,"\u0061":2}"#,
        br#"{"a":{"b":1,"b":1}}"#,
        br#"{"a":1,}"#,
        br#"[1,]"#,
        br#"{'a':1}"#,
        br#"{"a":01}"#,
        br#"{"a":NaN}"#,
        br#"{"a":1} {"a":2}"#,
        br#"{"a":"#,
        br#"{"a":1/**/}"#,
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        br#"{"a":"\ud800"}"#,
        b"{\"a\":\"\n\"}",
        b"\xff\xfe{\0}\0",
    ];
    cases.extend(broken.map(|body| case("broken JSON", "", json(body), 400, "invalid_json")));
    cases
}

fn preflight(origin: &str) -> Ask {
    Ask::new("OPTIONS", "/api/chat").field("origin", origin).field("access-control-request-method", "POST")
}

/// The fields of features.md H1, on an answer of the gate's own over plain HTTP.
#[track_caller]
fn assert_secure(answer: &Answer, what: &str) {
    let wanted = [
        ("x-content-type-options", Some("nosniff")),
        ("x-frame-options", Some("DENY")),
        ("referrer-policy", Some("strict-origin-when-cross-origin")),
        ("content-security-policy", Some("default-src 'self'")),
        ("x-xss-protection", Some("1; mode=block")),
        ("strict-transport-security", None),
        ("server", None),
    ];
    for (name, value) in wanted {
        assert_eq!(answer.field(name), value, "{what}: {name}");
    }
    for name in ["permissions-policy", "cross-origin-opener-policy", "cross-origin-resource-policy"] {
        assert!(answer.field(name).is_some(), "{what}: no {name}");
    }
}

/// The key that a refusal names has to be one that a config file may hold.
fn names_a_known_setting(answer: &Answer) -> bool {
    let text = answer.text();
    let Some((_, named)) = text.split_once("(set by ") else { return true };
    let key: String =
        named.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')).collect();
    let nested =
        key.split('.').rev().fold("~unlikely~".to_owned(), |inner, name| format!("{{{name}: {inner}}}"));
    let told =
        Gate::start(([127, 0, 0, 1], 9).into(), &nested[1..nested.len() - 1]).err().unwrap_or_default();
    !told.contains("unknown key")
}

async fn assert_cases(cases: Vec<Case>) {
    let mut failures = Vec::new();
    for case in cases {
        let upstream = Upstream::ok().await;
        let gate = gate(upstream.address(), case.settings);
        for via in BOTH {
            let answer = gate.ask(via, &case.ask).await;
            let got =
                (answer.status, answer.field("x-tidegate-reason").unwrap_or("none"), upstream.connections());
            if got != (case.status, case.reason, 0) {
                let body = case.ask.body.as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(&body[..body.len().min(40)]);
                failures.push(format!(
                    "{}: {via:?} {} {:.60} {body}: {got:?}",
                    case.why, case.ask.method, case.ask.target
                ));
                continue;
            }
            assert_refused(&answer, case.status, case.reason);
            assert_secure(&answer, case.why);
            if !names_a_known_setting(&answer) {
                failures.push(format!(
                    "{}: {via:?}: names a setting that is none: {}",
                    case.why,
                    answer.text()
                ));
            }
        }
    }
    assert!(failures.is_empty(), "(status, reason, upstream connections):\n{}", failures.join("\n"));
}

/// What the head gives away must be refused on the head: right code, right fields, nothing sent on.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_break_a_rule_are_refused() {
    assert_cases(head_cases()).await;
}

/// What only the body gives away must be refused before the upstream has seen a byte.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_a_rule_are_refused() {
    assert_cases(body_cases()).await;
}

/// Chunks must not carry a body past its cap.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unsaid_length_has_the_same_cap() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "caps: {body: {json: 64KiB}}\n");
    for via in BOTH {
        let ask = Ask::post("/api/data", common::json_of(80_000)).with_unsized_body();
        assert_refused(&gate.ask(via, &ask).await, 413, "body_too_large");
    }
    upstream.assert_untouched();
}

/// Guards that refuse what is harmless are switched off, all of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_no_rule_passes() {
    let upstream = Upstream::ok().await;
    let text = |text: &str| Ask::post("/api/chat", format!(r#"{{"message":"{text}"}}"#));
    let typed = |kind: &str| Ask::new("POST", "/api/data").field("content-type", kind).body(r#"{"a":1}"#);
    let passing = [
        Ask::get("/page?q=a%20b&x=%2Fetc%2Fpasswd"),
        Ask::get("/page").host("127.0.0.1"),
        Ask::get("/page").host("[::1]:8080"),
        Ask::get("/page").host("LOCALHOST:8080"),
        Ask::get("/page").field("origin", "https://elsewhere.example"),
        Ask::new("OPTIONS", "/page"),
        Ask::chat().field("origin", "http://localhost"),
        Ask::chat().field("sec-fetch-site", "same-origin").field("origin", "https://behind-a-proxy.example"),
        Ask::chat().field("sec-fetch-site", "none"),
        Ask::chat().field("referer", "http://localhost/chat"),
        text(&"x".repeat(4000)),
        text(&"\u{1f30a}".repeat(4000)),
        text(&r"\ud83c\udf0a".repeat(4000)),
        text("SELECT * FROM users; <script>alert(1)</script> are what I ask about"),
        typed("application/json; charset=utf-8"),
        typed("application/json; charset=\"UTF-8\""),
        typed("application/vnd.api+json"),
        typed("application/json").field("content-encoding", "identity"),
        Ask::post("/v1/audio/speech", format!(r#"{{"input":"{}"}}"#, "e".repeat(500))),
        Ask::post(
            "/v1/chat/completions",
            format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(100_000)),
        ),
        Ask::post("/api/data", r#"[{"same":1},{"same":1},null,-0.5e+10,"\u0000"]"#),
        Ask::post("/api/data", "  \r\n\t{}\n"),
    ];
    let gate = gate(upstream.address(), "");
    for ask in passing {
        for via in BOTH {
            gate.forget_draws();
            let answer = gate.ask(via, &ask).await;
            let body = String::from_utf8_lossy(ask.body.as_deref().unwrap_or_default())
                .chars()
                .take(60)
                .collect::<String>();
            assert_eq!(
                answer.status,
                200,
                "{via:?} {} {} {:?} {body}: {}",
                ask.method,
                ask.target,
                ask.fields,
                answer.text()
            );
        }
    }
}

/// An SDK that can't read the refusal raises the wrong exception, or retries what can't succeed.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_shape_that_the_client_reads() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let broken = |path: &str| Ask::post(path, r#"{"a":1,"a":2}"#);
    for via in BOTH {
        for path in [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/responses",
            "/openai/v1/chat/completions",
        ] {
            let answer = gate.ask(via, &broken(path)).await;
            assert_refused(&answer, 400, "invalid_json");
            assert_eq!(answer.field("content-type"), Some("application/json"), "{path}");
            let error = &answer.json()["error"];
            assert_eq!(
                (&error["type"], &error["code"]),
                (&"invalid_request_error".into(), &"invalid_json".into()),
                "{path}"
            );
            assert!(error["message"].is_string() && error["param"].is_null(), "{path}: {error}");
            gate.forget_draws();
        }
        let answer = gate.ask(via, &broken("/v1/messages").field("anthropic-version", "2023-06-01")).await;
        assert_refused(&answer, 400, "invalid_json");
        let body = answer.json();
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&"error".into(), &"invalid_request_error".into()),
            "{body}"
        );
        assert!(body["error"]["message"].is_string(), "{body}");
        for path in ["/api/chat", "/api/data", "/webhook/a"] {
            let answer = gate.ask(via, &broken(path)).await;
            assert_refused(&answer, 400, "invalid_json");
            assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{path}");
            let body = answer.json();
            assert_eq!(body["status"], 400, "{body}");
            assert!(["type", "title", "detail"].iter().all(|key| body[key].is_string()), "{body}");
        }
    }
}

/// Whoever reads a refusal wants to know which field, which rule and which setting; a log must not get the value.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_field_rule_and_setting_but_not_the_value() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let secret = "hunter2-".repeat(600);
    let ask = Ask::post("/api/chat", format!(r#"{{"message":"{secret}"}}"#));
    let text = gate.ask(Via::H1, &ask).await.text();
    assert!(text.contains("message") && text.contains("4000") && text.contains("text.chat"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let text = gate.ask(Via::H1, &Ask::post("/api/data", vec![b' '; 2 << 20])).await.text();
    assert!(text.contains("caps.body.json") && text.contains("1048576"), "{text}");
}

/// A body that drips for ever would hold a place for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_a_408() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "timeouts: {request_body: 300ms}\n");
    for drips in [false, true] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(&Ask::chat().body(vec![b' '; 1000]).bytes()[..200]).await;
        for _ in 0..10 {
            if drips {
                tokio::time::sleep(Duration::from_millis(50)).await;
                wire.send(" ").await;
            }
        }
        assert_refused(&wire.answer().await, 408, "body_timeout");
        assert!(wire.ends().await);
    }

    let mut h2 = H2::to(gate.traffic()).await;
    let (feed, answer) = h2.open(&Ask::post("/api/chat", ""));
    feed.send(r#"{"message""#.into()).await.expect("the stream is open");
    let answer = within("a refusal", answer).await.expect("no panic").expect("an answer");
    assert_refused(&answer, 408, "body_timeout");
    upstream.assert_untouched();
}

/// After a head was refused nothing on the connection can be trusted: what follows could be its body.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_ends_the_connection() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for ask in [Ask::chat().field("origin", "null"), Ask::get("/page").host("evil.example")] {
        let mut wire = Wire::to(gate.traffic()).await;
        let answer = wire.ask(ask.bytes()).await;
        assert_eq!(answer.field("connection"), Some("close"), "{} {}", ask.method, answer.status);
        assert!(wire.ends().await, "the connection goes on after {}", answer.status);
    }
}

/// Reading a refused upload to its end would make refusals a way to keep the gate busy.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_is_drained_for_a_bounded_time() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let mut wire = Wire::to(gate.traffic()).await;
    let head = "POST /api/data HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000000000\r\n\r\n";
    wire.send(head).await;
    let mut taken = 0;
    let piece = vec![b'x'; 65_536];
    while wire.send(&piece).await {
        taken += piece.len();
        assert!(taken < 64 << 20, "the gate still reads a refused body after {taken} bytes");
    }
    upstream.assert_untouched();
}

/// An app's pages work as before, only safer: fields are added, what tells too much goes, nothing stands twice.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_upstream_are_dressed() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nserver: uvicorn\r\nx-powered-by: Express\r\n\
        x-frame-options: SAMEORIGIN\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-own: kept\r\ncontent-length: 2\r\n\r\nhi";
    let upstream = Upstream::answering(page).await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        for ask in [Ask::get("/page"), Ask::chat()] {
            let answer = gate.ask(via, &ask).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
            assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
            assert_eq!(
                answer.field("x-frame-options"),
                Some("SAMEORIGIN"),
                "the upstream's word counts by default"
            );
            assert_eq!(answer.field("referrer-policy"), Some("strict-origin-when-cross-origin"));
            assert_eq!(answer.field("x-xss-protection"), Some("1; mode=block"));
            assert!(
                answer.field("content-security-policy").is_some()
                    && answer.field("permissions-policy").is_some()
            );
            assert_eq!((answer.field("server"), answer.field("x-powered-by")), (None, None));
            assert_eq!(answer.field("strict-transport-security"), None, "HSTS over plain HTTP");
            assert_eq!((answer.all("set-cookie"), answer.field("x-own")), (vec!["a=1", "b=2"], Some("kept")));
            assert!(answer.field("x-request-id").is_some_and(|id| !id.is_empty()));
        }
    }
}

/// Behind a TLS proxy the browser must learn to stay on TLS; strangers must not be able to switch that on.
#[tokio::test(flavor = "multi_thread")]
async fn hsts_is_sent_behind_a_trusted_tls_proxy() {
    let upstream = Upstream::ok().await;
    let ask = Ask::get("/page").field("x-forwarded-proto", "https");
    let trusting = gate(upstream.address(), "client: {trusted_proxies: [127.0.0.1]}\n");
    let answer = trusting.ask(Via::H1, &ask).await;
    assert_eq!(answer.field("strict-transport-security"), Some("max-age=31536000; includeSubDomains"));
    let wary = gate(upstream.address(), "");
    assert_eq!(wary.ask(Via::H1, &ask).await.field("strict-transport-security"), None);
}

/// One switch for an app that sets all of this itself.
#[tokio::test(flavor = "multi_thread")]
async fn security_headers_can_be_switched_off() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "security_headers: off\n");
    let answer = gate.ask(Via::H1, &Ask::get("/page")).await;
    assert_eq!((answer.field("x-frame-options"), answer.field("content-security-policy")), (None, None));
}

/// A front end on another origin works if and only if it is listed, refusals included.
#[tokio::test(flavor = "multi_thread")]
async fn cors_speaks_for_listed_origins_only() {
    let liberal = OK_JSON.replace("\r\n\r\n", "\r\naccess-control-allow-origin: *\r\n\r\n");
    let upstream = Upstream::answering(liberal).await;
    let listed = "cors: {allowed_origins: ['https://app.example'], allow_credentials: true}\n";
    let cors = gate(upstream.address(), listed);
    for via in BOTH {
        cors.forget_draws();
        let before = upstream.requests().len();
        let answer = cors.ask(via, &preflight("https://app.example")).await;
        assert_eq!(
            (answer.status, answer.field("access-control-allow-origin")),
            (204, Some("https://app.example"))
        );
        assert_eq!(answer.field("access-control-allow-credentials"), Some("true"));
        assert!(answer.field("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        assert_eq!(upstream.requests().len(), before, "the preflight was forwarded");

        for ask in [Ask::chat(), Ask::post("/api/data", "{")] {
            let answer = cors.ask(via, &ask.field("origin", "https://app.example")).await;
            assert_eq!(
                answer.field("access-control-allow-origin"),
                Some("https://app.example"),
                "{}",
                answer.status
            );
            let vary = answer.all("vary").join(",").to_ascii_lowercase();
            assert!(vary.contains("origin"), "{}: vary: {vary}", answer.status);
        }
        let stranger = cors.ask(via, &Ask::get("/page").field("origin", "https://evil.example")).await;
        assert_eq!((stranger.status, stranger.field("access-control-allow-origin")), (200, None));
    }
    let silent = gate(upstream.address(), "");
    let answer = silent.ask(Via::H1, &Ask::get("/page").field("origin", "https://any.example")).await;
    assert_eq!(
        answer.field("access-control-allow-origin"),
        Some("*"),
        "with no list, the upstream's fields pass"
    );
    let wildcard = "cors: {allowed_origins: ['*'], allow_credentials: true}\n";
    let error = Gate::start(upstream.address(), wildcard).err().expect("`*` with credentials is refused");
    assert!(error.contains("cors.allowed_origins"), "{error}");
}

/// A page of another site must not open a WebSocket with its visitor's cookies.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_websocket_is_refused() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let ask = Ask::get("/ws")
        .field("connection", "Upgrade")
        .field("upgrade", "websocket")
        .field("sec-websocket-version", "13")
        .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .field("origin", "https://evil.example");
    assert_refused(&gate.ask(Via::H1, &ask).await, 403, "origin_denied");
    upstream.assert_untouched();
}

/// One caller must not hold every place at the upstream; when the gate is full, that is not the caller's fault.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_capped() {
    let key = |key: &str| Ask::post("/api/data", "{}").field("x-api-key", key);
    let cases = [
        ("concurrency: {address: 1}\n", Ask::chat(), 429, "concurrency_limited"),
        ("concurrency: {user: 1}\n", key("one"), 429, "concurrency_limited"),
        ("concurrency: {total: 1}\n", Ask::get("/page"), 503, "overloaded"),
    ];
    for (settings, next, status, reason) in cases {
        let (upstream, asked, go) = Upstream::on_cue().await;
        let gate = gate(upstream.address(), settings);
        let mut holder = Wire::to(gate.traffic()).await;
        holder.send(key("one").bytes()).await;
        within("the upstream's being asked", asked.notified()).await;
        for via in BOTH {
            let answer = gate.ask(via, &next).await;
            assert_refused(&answer, status, reason);
            assert!(answer.field("retry-after").is_some(), "{settings}");
        }
        go.notify_one();
        assert_eq!(holder.answer().await.status, 200, "{settings}");
        drop(holder);
        // The place is given back behind the answer.
        tokio::time::sleep(Duration::from_millis(50)).await;
        go.notify_one();
        assert_eq!(gate.ask(Via::H1, &next).await.status, 200, "the place was not given back: {settings}");
    }
}

/// HTTP/2 must not smuggle in what HTTP/1 could not carry.
#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_h2_head_is_refused() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    assert_refused(&gate.ask(Via::H2, &Ask::get("/page").body("hidden")).await, 400, "malformed_request");
    let two_hosts = gate.ask(Via::H2, &Ask::get("/page").field("host", "other.example")).await;
    assert_eq!(two_hosts.status, 400, "{two_hosts:?}");
    upstream.assert_untouched();
}
