//! What would act in a page leaves the gate inert, wherever it stands; everything around it leaves byte for byte.

mod common;

use common::{Ask, BOTH, Gate, Upstream, Via, assert_refused, gate};

fn form(target: &str, body: &str) -> Ask {
    Ask::new("POST", target).field("content-type", "application/x-www-form-urlencoded").body(body)
}

/// The body that reaches the upstream when `ask` is sent.
async fn forwarded(gate: &Gate, upstream: &Upstream, via: Via, ask: &Ask) -> String {
    let answer = gate.ask(via, ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = upstream.last();
    let length = request.head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    assert_eq!(length.map(|(_, value)| value.parse()), Some(Ok(request.body.len())), "Content-Length");
    gate.forget_draws();
    String::from_utf8(request.body).expect("UTF-8")
}

/// A message that runs in the next reader's page takes over their session; the rest of the body is the app's business.
#[tokio::test(flavor = "multi_thread")]
async fn json_leaves_as_it_came_but_for_what_acts() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let cases = [
        (
            r#"{ "message" : "hi <script>alert(1)</script>", "n":1E5 }"#,
            r#"{ "message" : "hi &lt;script>alert(1)&lt;/script>", "n":1E5 }"#,
        ),
        (
            r#"{"message":"\u00e9\n\ud83d\ude00\u003cScript\u003e\/"}"#,
            r#"{"message":"\u00e9\n\ud83d\ude00&lt;Script\u003e\/"}"#,
        ),
        (r#"{"MESSAGE":"<img src=x onerror=alert(1)>"}"#, r#"{"MESSAGE":"&lt;img src=x onerror=alert(1)>"}"#),
        (r#"{"message":"a\u200bb\u202ec"}"#, r#"{"message":"abc"}"#),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"<svg onload=x>"}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"&lt;svg onload=x>"}]}]}"#,
        ),
        (r#"["<script>","x"]"#, r#"["&lt;script>","x"]"#),
    ];
    for via in BOTH {
        for (sent, wanted) in cases {
            for ask in [Ask::post("/api/chat", sent), Ask::post("/api/chat", sent).with_unsized_body()] {
                assert_eq!(forwarded(&gate, &upstream, via, &ask).await, wanted);
            }
            // What was made inert stays as it is.
            assert_eq!(forwarded(&gate, &upstream, via, &Ask::post("/api/chat", wanted)).await, wanted);
        }
    }
    for honest in [
        r#"{"message":"Vec<String>, a < b, <div class=\"x\">, <stdio.h> & 'quotes' – \u0041"}"#,
        r#"{"blob":"<script>"}"#,
    ] {
        assert_eq!(forwarded(&gate, &upstream, Via::H1, &Ask::post("/api/chat", honest)).await, honest);
    }
}

/// Two harmless parts make one attack in an app that joins them.
#[tokio::test(flavor = "multi_thread")]
async fn an_attack_in_parts_is_seen_whole() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let split = [
        (r#"{"message":["<scr","ipt>alert(1)"]}"#, r#"{"message":["&lt;scr","ipt>alert(1)"]}"#),
        (r#"{"message":["<img src=x","onerror=x>"]}"#, r#"{"message":["&lt;img src=x","onerror=x>"]}"#),
        (
            r#"{"message":[{"text":"<scr"},{"content":"-"},["-"],{"text":"ip"},"t>"]}"#,
            r#"{"message":[{"text":"&lt;scr"},{"content":"-"},["-"],{"text":"ip"},"t>"]}"#,
        ),
        (r#"{"message":["a","<","script>"]}"#, r#"{"message":["a","&lt;","script>"]}"#),
    ];
    for (sent, wanted) in split {
        assert_eq!(forwarded(&gate, &upstream, Via::H1, &Ask::post("/api/chat", sent)).await, wanted);
    }
    let (sent, wanted) = ("message[]=%3Cscr&message[]=ipt%3E", "message[]=%26lt%3Bscr&message[]=ipt%3E");
    assert_eq!(forwarded(&gate, &upstream, Via::H1, &form("/api/chat", sent)).await, wanted);
    let honest = r#"{"messages":[{"content":"is 1 <"},{"content":"script kiddies"}]}"#;
    assert_eq!(forwarded(&gate, &upstream, Via::H1, &Ask::post("/api/chat", honest)).await, honest);
}

/// The same message by form, query or path does the same harm.
#[tokio::test(flavor = "multi_thread")]
async fn forms_queries_and_paths_are_looked_at_alike() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        let sent = "a=%3Cscript%3E&message=1+%3cscript%3E+%C3%A9&b=<script>";
        let wanted = "a=%3Cscript%3E&message=1+%26lt%3Bscript%3E+%C3%A9&b=<script>";
        assert_eq!(forwarded(&gate, &upstream, via, &form("/contact", sent)).await, wanted);
        for (ask, line) in [
            (
                Ask::get("/chat/stream?a=1&message=%3Cscript%3E+x&b").field("accept", "text/event-stream"),
                "GET /chat/stream?a=1&message=%26lt%3Bscript%3E+x&b",
            ),
            (
                Ask::get("/search/%3Cscript%3Ex?q=%3Cscript%3E"),
                "GET /search/%26lt%3Bscript%3Ex?q=%3Cscript%3E",
            ),
            (Ask::get("/files/a%E2%80%8Bb%3Cc"), "GET /files/a%E2%80%8Bb%3Cc"),
            (Ask::get("/files/50%25+x%20y"), "GET /files/50%25+x%20y"),
        ] {
            assert_eq!(gate.ask(via, &ask).await.status, 200, "{}", ask.target);
            assert_eq!(upstream.last().line(), line);
            gate.forget_draws();
        }
    }
}

/// A field is sanitized for where it ends up, or a spoken text says "ampersand lt" and a rich one loses its bold.
#[tokio::test(flavor = "multi_thread")]
async fn each_field_has_its_sink_and_action() {
    let upstream = Upstream::ok().await;
    let settings = "sanitize:
  fields:
    /bio: {sink: rich, action: sanitize}
    /note: {sink: markdown, action: sanitize}
    /title: {sink: plain, action: sanitize}
    /name: {sink: html, action: escape}
    /query: {sink: html, action: observe}
    /comment: {sink: html, action: reject}
";
    let gate = gate(upstream.address(), settings);
    let cases = [
        ("/api/data", r#"{"bio":"<b>x</b><script>y</script>"}"#, r#"{"bio":"<b>x</b>"}"#),
        ("/api/data", r#"{"note":"`<script>` <script>"}"#, r#"{"note":"`<script>` &lt;script>"}"#),
        ("/api/data", r#"{"title":"<b>x</b> < 1"}"#, r#"{"title":"x < 1"}"#),
        ("/api/data", r#"{"name":"<b>\"&"}"#, r#"{"name":"&lt;b&gt;&quot;&amp;"}"#),
        ("/api/chat", r#"{"query":"<script>"}"#, r#"{"query":"<script>"}"#),
        ("/v1/audio/speech", r#"{"input":"Say <b>hello</b> & 1 < 2"}"#, r#"{"input":"Say hello & 1 < 2"}"#),
        (
            "/v1/audio/speech",
            r#"{"input":"A List<String>, <break time=\"1s\"/> then <i>b</i>"}"#,
            r#"{"input":"A List<String>, <break time=\"1s\"/> then b"}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"messages":[{"content":"<script>"}]}"#,
            r#"{"messages":[{"content":"<script>"}]}"#,
        ),
    ];
    for (path, sent, wanted) in cases {
        assert_eq!(forwarded(&gate, &upstream, Via::H1, &Ask::post(path, sent)).await, wanted);
    }
    let asked = upstream.requests().len();
    for via in BOTH {
        for body in [r#"{"comment":"<script>"}"#, r#"{"comment":["<scr","ipt>"]}"#] {
            assert_refused(&gate.ask(via, &Ask::post("/api/data", body)).await, 422, "threat_detected");
        }
    }
    assert_eq!(upstream.requests().len(), asked);
    assert_eq!(gate.ask(Via::H1, &Ask::post("/api/data", r#"{"comment":"a < b"}"#)).await.status, 200);
}

/// An app that nobody has heard of shows its prompts to people as likely as it hands them to a model: only where the path
/// is a model's is there no page to think of.
#[tokio::test(flavor = "multi_thread")]
async fn only_known_models_get_what_acts() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for body in
        [r#"{"prompt":"<script>"}"#, r#"{"messages":[{"content":"<script>"}]}"#, r#"{"input":"<script>"}"#]
    {
        let wanted = body.replace('<', "&lt;");
        for path in ["/api/data", "/ask", "/webhook/a", "/api/chat"] {
            assert_eq!(forwarded(&gate, &upstream, Via::H1, &Ask::post(path, body)).await, wanted, "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/messages", "/api/generate"] {
            assert_eq!(forwarded(&gate, &upstream, Via::H1, &Ask::post(path, body)).await, body, "{path}");
        }
    }
}

/// A length is that of what was typed: what is written for safety must not refuse an honest text.
#[tokio::test(flavor = "multi_thread")]
async fn lengths_are_counted_before() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "text: {chat: {max: 16}}\n");
    let body = r#"{"message":"<script><script>"}"#;
    let wanted = r#"{"message":"&lt;script>&lt;script>"}"#;
    assert_eq!(forwarded(&gate, &upstream, Via::H1, &Ask::post("/api/chat", body)).await, wanted);
}

/// Whoever watches has to see the attempt, by whom and of what kind; switched off, nothing is touched.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_told_and_counted() {
    let upstream = Upstream::ok().await;
    let watched = gate(upstream.address(), "");
    let attack = Ask::post("/api/chat", r#"{"message":"<img onerror=x> hunter2"}"#);
    assert_eq!(watched.ask(Via::H1, &attack).await.status, 200);
    let events = watched.events("threat_detected").await;
    for wanted in ["SECURITY_ALERT", r#""action":"sanitized""#, "handler", r#""route":"default""#] {
        assert!(events.contains(wanted), "{wanted}: {events}");
    }
    assert!(!events.contains("hunter2"), "{events}");
    let model = Ask::post("/v1/chat/completions", r#"{"messages":[{"content":"<script>"}]}"#);
    assert_eq!(watched.ask(Via::H1, &model).await.status, 200);
    let metrics = watched.admin_ask(&Ask::get("/metrics")).await.text();
    for series in [
        r#"{kind="handler",route="default",sink="html"} 1"#,
        r#"{kind="markup",route="default",sink="model"} 1"#,
    ] {
        assert!(metrics.contains(&format!("tidegate_sanitized_total{series}")), "{series}");
    }
    assert_eq!(
        watched.events("threat_detected").await.matches("threat_detected").count(),
        1,
        "models are not told of"
    );

    let off = gate(upstream.address(), "sanitize: off\n");
    let body = r#"{"message":"<script>"}"#;
    assert_eq!(forwarded(&off, &upstream, Via::H1, &Ask::post("/api/chat", body)).await, body);
}

/// A body of many small parts must cost no more than its length: one caller would hold up everybody.
#[tokio::test(flavor = "multi_thread")]
async fn many_parts_cost_no_more_than_one() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let parts = vec![r#""<svg>""#; 40_000].join(",");
    let ask = Ask::post("/api/chat", format!(r#"{{"message":[{parts}]}}"#));
    // Where each edit walks through all parts, this takes minutes.
    let answer = common::within("an answer", gate.ask(Via::H1, &ask)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!upstream.last().body.contains(&b'<'));
}
