//! The fields that hold text are found however a client spells, nests or encodes them, and pass untouched where they fit.

mod common;

use common::{Ask, BOTH, Upstream, Via, assert_refused, gate};

/// One character more than a person may type.
fn long() -> String {
    "x".repeat(4001)
}

fn form(target: &str, body: String) -> Ask {
    Ask::new("POST", target).field("content-type", "application/x-www-form-urlencoded").body(body)
}

/// Go upstreams read `Message` for `message`: spelt so, a text of any length would reach the model.
#[tokio::test(flavor = "multi_thread")]
async fn a_field_in_another_case_is_the_same_field() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        for name in ["Message", "MESSAGE", "me\u{17f}\u{17f}age", r"Mes\u0053age", "ChatInput", "QUESTION"] {
            let ask = Ask::post("/api/data", format!(r#"{{"{name}":"{}"}}"#, long()));
            assert_refused(&gate.ask(via, &ask).await, 422, "text_too_long");
        }
        for twice in [r#"{"message":"a","Message":"b"}"#, r#"{"messages":[{"content":"a","CONTENT":"b"}]}"#] {
            assert_refused(&gate.ask(via, &Ask::post("/api/data", twice)).await, 400, "invalid_json");
        }
        gate.forget_draws();
    }
    upstream.assert_untouched();
    for honest in [r#"{"may":1,"May":2}"#, r#"{"vocab":{"message":1,"Message":2}}"#] {
        assert_eq!(gate.ask(Via::H1, &Ask::post("/api/data", honest)).await.status, 200, "{honest}");
    }
}

/// Each app has its own shape of message; one that the defaults don't know is not capped at all.
#[tokio::test(flavor = "multi_thread")]
async fn the_defaults_know_what_chat_apps_send() {
    let upstream = Upstream::ok().await;
    // Both kinds at one cap, so that one length shows which places are looked at.
    let gate = gate(upstream.address(), "text: {chat: {max: 50}, model: {max: 50}}\n");
    let shapes = [
        ("Rasa", "/webhooks/rest/webhook", r#"{"sender":"a","message":"$"}"#),
        ("n8n", "/webhook/a/chat", r#"{"action":"sendMessage","sessionId":"s","chatInput":"$"}"#),
        ("n8n, items", "/webhook/a", r#"[{"sessionId":"s","chatInput":"$"}]"#),
        ("Flowise", "/api/v1/prediction/f", r#"{"question":"$","history":[]}"#),
        (
            "Flowise, history",
            "/api/v1/prediction/f",
            r#"{"question":"a","history":[{"role":"userMessage","content":"$"}]}"#,
        ),
        (
            "Flowise 1, history",
            "/api/v1/prediction/f",
            r#"{"question":"a","history":[{"type":"userMessage","message":"$"}]}"#,
        ),
        ("Dify", "/v1/chat-messages", r#"{"inputs":{},"query":"$","user":"u"}"#),
        ("Dify, inputs", "/v1/completion-messages", r#"{"inputs":{"topic":"$"},"user":"u"}"#),
        ("LibreChat", "/api/agents/chat/openAI", r#"{"text":"$","sender":"User"}"#),
        ("Botpress", "/api/v1/bots/b/converse/u", r#"{"type":"text","text":"$"}"#),
        ("Botpress, payload", "/api/chat", r#"{"payload":{"type":"text","text":"$"}}"#),
        (
            "Vercel AI SDK",
            "/api/chat",
            r#"{"id":"c","messages":[{"role":"user","parts":[{"type":"text","text":"$"}]}]}"#,
        ),
        ("Open WebUI", "/api/chat/completions", r#"{"messages":[{"role":"user","content":"$"}]}"#),
        ("LangServe", "/chain/invoke", r#"{"input":"$"}"#),
        ("LangServe, members", "/chain/invoke", r#"{"input":{"topic":"$"}}"#),
        (
            "LangServe, messages",
            "/chain/stream",
            r#"{"input":{"messages":[{"type":"human","content":"$"}]}}"#,
        ),
        ("LangServe, batch", "/chain/batch", r#"{"inputs":["a","$"]}"#),
        ("TGI", "/generate", r#"{"inputs":"$","parameters":{}}"#),
        ("Gemini", "/v1beta/models/m:generateContent", r#"{"contents":[{"parts":[{"text":"$"}]}]}"#),
        ("Gemini, one part", "/v1beta/models/m:generateContent", r#"{"contents":{"parts":{"text":"$"}}}"#),
        ("Anthropic", "/v1/messages", r#"{"system":[{"type":"text","text":"$"}],"messages":[]}"#),
        (
            "OpenAI Responses",
            "/v1/responses",
            r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"$"}]}]}"#,
        ),
        ("messages deeper down", "/api/assistant", r#"{"data":{"messages":[{"content":"$"}]}}"#),
        ("a string", "/api/chat", r#""$""#),
        ("strings", "/api/data", r#"["a","$"]"#),
        ("messages", "/api/chat", r#"[{"role":"user","content":"a"},{"role":"user","content":"$"}]"#),
    ];
    for (app, path, body) in shapes {
        for (length, status) in [(50, 200), (51, 422)] {
            let answer = gate.ask(Via::H1, &Ask::post(path, body.replace('$', &"x".repeat(length)))).await;
            assert_eq!(answer.status, status, "{app}: {length}: {}", answer.text());
        }
        gate.forget_draws();
    }
}

/// A form is how plain web pages send what was typed; its fields have the same caps, and the app gets it byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn forms_are_held_to_the_same_caps() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let long = long();
    for via in BOTH {
        for path in ["/api/chat", "/contact"] {
            for body in [
                format!("a=1&message={long}"),
                format!("MESS%41GE={long}"),
                format!("message[]={long}"),
                format!("message={}", "%C3%A9".repeat(4001)),
                format!("user.input={long}"),
            ] {
                assert_refused(&gate.ask(via, &form(path, body)).await, 422, "text_too_long");
            }
            gate.forget_draws();
            for body in [
                "message=a&message=b",
                "a=100%",
                "a=1;message=b",
                "message=%ff",
                "message%00=x",
                "message=%e9&a",
            ] {
                assert_refused(&gate.ask(via, &form(path, body.into())).await, 400, "invalid_form");
            }
            gate.forget_draws();
        }
        let untyped = Ask::new("POST", "/contact").body(format!("message={long}"));
        assert_refused(&gate.ask(via, &untyped).await, 422, "text_too_long");
        let charset = Ask::new("POST", "/contact")
            .field("content-type", "application/x-www-form-urlencoded; charset=ibm037")
            .body("message=a");
        assert_refused(&gate.ask(via, &charset).await, 415, "unsupported_charset");
        let large = form("/contact", format!("file={}", "x".repeat(1 << 20)));
        assert_refused(&gate.ask(via, &large).await, 413, "body_too_large");
        gate.forget_draws();
    }
    upstream.assert_untouched();

    for (body, unsized_body) in
        [("message=a+b%20%c3%A9&tag=1&tag=2&latin=%e9&x[y]=;&&=\n", false), ("a=1", true)]
    {
        for via in BOTH {
            let ask = form("/contact", body.into());
            let ask = if unsized_body { ask.with_unsized_body() } else { ask };
            assert_eq!(gate.ask(via, &ask).await.status, 200, "{body}");
            assert_eq!(upstream.last().body, body.as_bytes());
        }
    }
}

/// So is a form that comes in parts, as `curl -F` and pages with a file to send have it.
#[tokio::test(flavor = "multi_thread")]
async fn forms_in_parts_are_held_to_the_same_caps() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let part = |header: &str, content: &str| {
        format!("--b7\r\nContent-Disposition: form-data; {header}\r\n\r\n{content}\r\n")
    };
    let upload = |path: &str, parts: &[String]| {
        let body = format!("{}--b7--\r\n", parts.concat());
        Ask::new("POST", path).field("content-type", "multipart/form-data; boundary=b7").body(body)
    };
    let message = |text: &str| part("name=\"message\"", text);
    let file = |length| part("name=\"f\"; filename=\"a.txt\"", &"x".repeat(length));
    let cases = [
        (vec![message(&long())], 422, "text_too_long"),
        (vec![part("name=\"MESSAGE\"", &long())], 422, "text_too_long"),
        (vec![part("name=\"message[]\"", &long())], 422, "text_too_long"),
        (vec![message(&"é".repeat(4001))], 422, "text_too_long"),
        (vec![file(100_000), message(&long())], 422, "text_too_long"),
        (vec![message(&"x".repeat((1 << 20) + 1))], 413, "body_too_large"),
        (vec![file(2_000_000), message(&long())], 422, "text_too_long"),
        (vec![message("a"), message("b")], 400, "invalid_form"),
        (vec![message("a"), part("name=\"Message\"", "b")], 400, "invalid_form"),
        (
            vec![part("name=\"message\"\r\nContent-Type: text/plain; charset=utf-16", "a")],
            415,
            "unsupported_charset",
        ),
    ];
    for (parts, status, code) in cases {
        for via in BOTH {
            for path in ["/api/chat", "/contact"] {
                for ask in [upload(path, &parts), upload(path, &parts).with_unsized_body()] {
                    assert_refused(&gate.ask(via, &ask).await, status, code);
                    gate.forget_draws();
                }
            }
        }
    }
    let latin = Ask {
        body: Some(
            b"--b7\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\n\xe9\r\n--b7--".to_vec(),
        ),
        ..upload("/api/chat", &[])
    };
    assert_refused(&gate.ask(Via::H1, &latin).await, 400, "invalid_form");
    assert!(
        upstream.requests().iter().all(|request| request.body.is_empty()),
        "the app took a part for the whole"
    );

    let utf8 = part("name=\"message\"\r\nContent-Type: text/plain;charset=UTF-8", &"é".repeat(4000));
    let honest = [
        utf8,
        part("name=\"tag\"", "1"),
        part("name=\"tag\"", "2"),
        part("name=\"note\"", &"y".repeat(5000)),
    ];
    for path in ["/api/chat", "/contact"] {
        let ask = upload(path, &honest);
        assert_eq!(gate.ask(Via::H1, &ask).await.status, 200);
        assert_eq!(Some(upstream.last().body), ask.body);
    }
}

/// What an app is sent that is no JSON must reach it, whatever its first letter; what it may read as JSON is JSON.
#[tokio::test(flavor = "multi_thread")]
async fn other_bodies_are_what_they_say_unless_they_are_json() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let typed = |path: &str, kind: &str, body: &[u8]| match kind {
        "" => Ask::new("POST", path).body(body),
        kind => Ask::new("POST", path).field("content-type", kind).body(body),
    };
    let lines = b"{\"index\":{}}\n{\"message\":\"a\"}\n\n{\"message\":\"a\"}\n";
    let large = [&b"[12:30] hello\n"[..], &b"[12:31] hi\n".repeat(200_000)].concat();
    for (kind, body) in [
        ("text/plain", &b"[12:30] hello {name}"[..]),
        ("text/plain; charset=iso-8859-1", b"[12:30] caf\xe9 hello everybody"),
        ("text/plain", b"[1] see \"x\"\n[2] see below"),
        ("text/csv", b"[a],{b}\n1,2\n"),
        ("application/octet-stream", b"{ hello }"),
        ("application/octet-stream", b"[\xff\x00\x01"),
        ("application/x-ndjson", lines),
        ("application/jsonl", lines),
        ("text/plain", &large),
        ("text/csv", &large),
    ] {
        for via in BOTH {
            let answer = gate.ask(via, &typed("/data", kind, body)).await;
            assert_eq!(answer.status, 200, "{kind} {:?}: {}", &body[..body.len().min(40)], answer.text());
            assert!(upstream.requests().pop().is_some_and(|came| came.body == body), "{kind}");
            gate.forget_draws();
        }
    }
    let long = format!("{{\"message\":\"{}\"}}", long());
    for (path, kind, body, status, code) in [
        ("/data", "text/plain", r#"{"message":"#.into(), 400, "invalid_json"),
        ("/data", "text/plain", r#"{"n":NaN,"message":"<svg>"}"#.into(), 400, "invalid_json"),
        ("/data", "text/plain", r#"["a",]"#.into(), 400, "invalid_json"),
        ("/data", "", "[12:30] hello".into(), 400, "invalid_json"),
        ("/data", "application/json", "[12:30] hello".into(), 400, "invalid_json"),
        ("/data", "application/x-www-form-urlencoded", "[12:30] hello".into(), 400, "invalid_json"),
        ("/api/chat", "text/plain", "[12:30] hello".into(), 400, "invalid_json"),
        ("/v1/chat/completions", "application/octet-stream", "{x}".into(), 400, "invalid_json"),
        ("/api/chat", "application/x-ndjson", "{\"a\":1}\nx".into(), 400, "invalid_json"),
        (
            "/data",
            "application/octet-stream",
            r#"{"a":1,"message":"a","message":"b"}"#.into(),
            400,
            "invalid_json",
        ),
        (
            "/data",
            "application/x-ndjson",
            "{\"a\":1}\n{\"message\":1,\"message\":2}".into(),
            400,
            "invalid_json",
        ),
        ("/data", "application/octet-stream", "{\"a\":1} {\"message\":\"b\"}".into(), 400, "invalid_json"),
        ("/data", "text/csv", long.clone(), 422, "text_too_long"),
        ("/data", "application/octet-stream", long.clone(), 422, "text_too_long"),
        ("/data", "application/octet-stream", format!("{long} and more"), 422, "text_too_long"),
        ("/data", "application/x-ndjson", format!("{{}}\n{long}\n"), 422, "text_too_long"),
        ("/api/chat", "application/x-ndjson", format!("{{}}\n{long}\n"), 422, "text_too_long"),
        ("/data", "application/octet-stream; charset=utf-16", "{}".into(), 415, "unsupported_charset"),
    ] {
        for via in BOTH {
            assert_refused(&gate.ask(via, &typed(path, kind, body.as_bytes())).await, status, code);
            gate.forget_draws();
        }
    }
    let sent = b"{\"message\":\"<svg>\"}\r\n{\"message\":\"a\"}\n{\"message\":\"b<svg>\"} x";
    let wanted = b"{\"message\":\"&lt;svg>\"}\r\n{\"message\":\"a\"}\n{\"message\":\"b&lt;svg>\"} x";
    assert_eq!(gate.ask(Via::H1, &typed("/data", "application/x-ndjson", sent)).await.status, 200);
    assert_eq!(upstream.last().body, wanted);
    // Files keep the rules for files.
    let program = typed("/data", "application/octet-stream", b"\x7fELF\x02");
    assert_refused(&gate.ask(Via::H1, &program).await, 415, "upload_type_denied");
}

/// `curl -d '{…}'` calls JSON a form: it has to work as before, and to be inspected as both.
#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_called_a_form_is_both() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let honest = r#"{"message":"9 % of it; that's <1 & more"}"#;
    assert_eq!(gate.ask(Via::H1, &form("/api/chat", honest.into())).await.status, 200);
    for body in [format!(r#"{{"message":"{}"}}"#, long()), format!(r#"{{"x":"&message={}"}}"#, long())] {
        assert_refused(&gate.ask(Via::H1, &form("/api/chat", body)).await, 422, "text_too_long");
    }
}

/// A chat that streams its answer by GET takes its message from the query.
#[tokio::test(flavor = "multi_thread")]
async fn queries_of_chats_are_held_to_the_same_caps() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let stream = |query: &str| Ask::get(format!("/chat/stream?{query}")).field("accept", "text/event-stream");
    for via in BOTH {
        for query in [format!("message={}", long()), format!("a=1&Chat%49nput={}", long())] {
            assert_refused(&gate.ask(via, &stream(&query)).await, 422, "text_too_long");
            let plain = Ask::get(format!("/chat/stream?{query}"));
            assert_refused(&gate.ask(via, &plain).await, 422, "text_too_long");
            let post = Ask::post(format!("/api/chat?{query}"), "{}");
            assert_refused(&gate.ask(via, &post).await, 422, "text_too_long");
        }
        assert_refused(&gate.ask(via, &stream("message=a&message=b")).await, 400, "invalid_form");
        gate.forget_draws();
    }
    upstream.assert_untouched();
    for ask in [stream("message=a%20b&x=100%&x=2"), Ask::get(format!("/search?message={}", long()))] {
        assert_eq!(gate.ask(Via::H1, &ask).await.status, 200, "{}", ask.target);
        assert_eq!(upstream.last().line(), format!("GET {}", ask.target));
    }
}
