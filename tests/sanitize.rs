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

fn part(parameters: &str, content: &[u8]) -> Vec<u8> {
    let header = format!("--b7\r\nContent-Disposition: form-data; {parameters}\r\n\r\n");
    [header.as_bytes(), content, b"\r\n"].concat()
}

fn multipart(parts: &[Vec<u8>]) -> Vec<u8> {
    [&parts.concat()[..], b"--b7--\r\n"].concat()
}

fn upload(target: &str, body: &[u8]) -> Ask {
    Ask::new("POST", target).field("content-type", "multipart/form-data; boundary=b7").body(body)
}

/// A picture of `length` bytes, with which a form is of any size.
fn picture(length: usize) -> Vec<u8> {
    let filling = (0..length).map(|i| (i % 249) as u8);
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".iter().copied().chain(filling).collect()
}

/// `curl -F message=…` and every page with a file to send carry the message in a part: there it does the same harm.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_forms_are_looked_at_alike() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let file = |length| part("name=\"f\"; filename=\"a.png\"", &picture(length));
    let message = |text: &str| part("name=\"message\"", text.as_bytes());
    let cases = [
        (vec![message("1 <script> é")], vec![message("1 &lt;script> é")]),
        (
            vec![message("a\u{200b}b\r\n<svg\r\n"), part("name=\"x\"", b"<svg>")],
            vec![message("ab\r\n&lt;svg\r\n"), part("name=\"x\"", b"<svg>")],
        ),
        (
            vec![part("name=\"user.input\"; filename=\"\"", b"x <svg>")],
            vec![part("name=\"user.input\"; filename=\"\"", b"x &lt;svg>")],
        ),
        (
            vec![part("name=\"=?utf-8?B?bWVzc2FnZQ==?=\"", b"<svg>")],
            vec![part("name=\"=?utf-8?B?bWVzc2FnZQ==?=\"", b"&lt;svg>")],
        ),
        (
            vec![part("name=\"message[]\"", b"<scr"), file(10), part("name=\"message[]\"", b"ipt>")],
            vec![part("name=\"message[]\"", b"&lt;scr"), file(10), part("name=\"message[]\"", b"ipt>")],
        ),
        (vec![file(300_000), message("<img onerror=x>")], vec![file(300_000), message("&lt;img onerror=x>")]),
        (vec![message("<svg>"), file(3_000_000)], vec![message("&lt;svg>"), file(3_000_000)]),
        // The text begins within what is looked at ahead, and ends behind it.
        (
            vec![file(65_000), message(&format!("{}<svg>", "x".repeat(3000))), file(2_000_000)],
            vec![file(65_000), message(&format!("{}&lt;svg>", "x".repeat(3000))), file(2_000_000)],
        ),
        (
            vec![file(3_000_000), message("a < b, Vec<String>")],
            vec![file(3_000_000), message("a < b, Vec<String>")],
        ),
        (
            vec![part("name=\"message\"; filename=\"a.txt\"", b"a <svg>")],
            vec![part("name=\"message\"; filename=\"a.txt\"", b"a <svg>")],
        ),
    ];
    for (sent, wanted) in cases {
        let (sent, wanted) = (multipart(&sent), multipart(&wanted));
        for via in BOTH {
            for path in ["/api/chat", "/contact"] {
                for ask in [upload(path, &sent), upload(path, &sent).with_unsized_body()] {
                    let answer = gate.ask(via, &ask).await;
                    assert_eq!(answer.status, 200, "{via:?}: {}", answer.text());
                    let came = upstream.requests().pop().expect("a request");
                    let lossy =
                        |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
                    assert!(came.body == wanted, "{via:?} {}: {}", came.body.len(), lossy(&came.body));
                    let length =
                        came.head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                    let length = length.map(|(_, value)| value.parse::<usize>().expect("a number"));
                    assert!(length.is_none_or(|length| length == wanted.len()), "{length:?}");
                    assert!(length.is_some() || ask.unsized_body, "an app that takes no chunks");
                    gate.forget_draws();
                }
            }
        }
    }
}

/// What comes too late to be changed must not pass, nor what becomes another form by being changed.
#[tokio::test(flavor = "multi_thread")]
async fn parts_that_can_not_be_made_harmless_are_refused() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "sanitize: {fields: {/comment: {sink: html, action: reject}}}\n");
    let file = || part("name=\"f\"; filename=\"a.png\"", &picture(3_000_000));
    let message = |text: &str| part("name=\"message\"", text.as_bytes());
    let hidden = "x\r\n-\u{200b}-b7\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\n<svg>";
    let late = multipart(&[file(), message("<svg>")]);
    let joined =
        multipart(&[part("name=\"message[]\"", b"<scr"), file(), part("name=\"message[]\"", b"ipt>")]);
    let asks = [
        (upload("/api/chat", &late), true),
        (upload("/api/chat", &late).with_unsized_body(), false),
        (upload("/api/chat", &joined), true),
        (upload("/api/chat", &joined).with_unsized_body(), true),
        (upload("/api/chat", &multipart(&[message(hidden)])), true),
        (upload("/api/chat", &multipart(&[message("--\u{200b}b7")])), true),
        (upload("/api/chat", &multipart(&[part("name=\"comment\"", b"<svg>")])), true),
    ];
    for (ask, refused) in asks {
        for via in BOTH {
            let answer = gate.ask(via, &ask).await;
            match refused {
                true => assert_refused(&answer, 422, "threat_detected"),
                false => assert_eq!(answer.status, 200, "{}", answer.text()),
            }
            gate.forget_draws();
        }
    }
    let came = upstream.requests();
    let whole = came.iter().filter(|request| request.body.ends_with(b"--b7--\r\n")).count();
    assert_eq!(whole, 2, "the app took a part for the whole");
    assert!(
        came.iter().all(|request| !request.body.ends_with(b"<svg>\r\n--b7--\r\n")),
        "it came as it was sent"
    );
}

/// Shadow mode lets a form through as it came, and tells; what a form's texts hold is told when it streams, too.
#[tokio::test(flavor = "multi_thread")]
async fn parts_are_observed() {
    let upstream = Upstream::ok().await;
    let file = |length| part("name=\"f\"; filename=\"a.exe\"", &picture(length));
    for length in [10, 3_000_000] {
        let form = multipart(&[
            file(length),
            part("name=\"message\"", &[b"<svg>".repeat(900), b"x".to_vec()].concat()),
        ]);
        let watched = gate(upstream.address(), "mode: observe\n");
        assert_eq!(watched.ask(Via::H1, &upload("/api/chat", &form)).await.status, 200);
        assert!(upstream.requests().pop().is_some_and(|came| came.body == form));
        let log = watched.access_log("would_refuse").await;
        assert!(log.contains("upload_type_denied") && log.contains("text_too_long"), "{log}");
        assert!(watched.events("threat_detected").await.contains(r#""action":"observed""#));
        // Files that are only observed hide no text.
        let half = gate(upstream.address(), "observe: [uploads]\n");
        let form = multipart(&[file(length), part("name=\"message\"", b"<svg>")]);
        let answer = half.ask(Via::H1, &upload("/api/chat", &form).with_unsized_body()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(upstream.requests().pop().is_some_and(|came| came.body.ends_with(b"&lt;svg>\r\n--b7--\r\n")));
        assert!(half.events("threat_detected").await.contains(r#""action":"sanitized""#));
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
