//! No way round the guards: what two parsers could read differently, and every other spelling of a request.

mod common;

use std::time::Duration;

use common::{Ask, BOTH, H2, Upstream, Via, Wire, assert_refused, gate, within};

/// Follows each refused request: what a desynchronised gate would serve next.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /api/data HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}").into_bytes()
}

fn get(line: &str, fields: &str) -> Vec<u8> {
    format!("{line}\r\n{fields}\r\n").into_bytes()
}

/// Where a gate and an app see different borders between requests, one user's request becomes another's.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused_and_nothing_after_them_is_served() {
    let chunk = "2\r\n{}\r\n0\r\n\r\n";
    let host = "Host: localhost\r\n";
    let with = |field: &[u8]| [b"GET /page HTTP/1.1\r\nHost: localhost\r\n", field, b"\r\n\r\n"].concat();
    let cases = [
        ("both framings", post("Content-Length: 12\r\nTransfer-Encoding: chunked\r\n", chunk)),
        ("both framings, other order", post("Transfer-Encoding: chunked\r\nContent-Length: 12\r\n", chunk)),
        ("the same length twice", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}")),
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 44\r\n", "{}")),
        ("a list of lengths", post("Content-Length: 2, 2\r\n", "{}")),
        ("a signed length", post("Content-Length: +2\r\n", "{}")),
        ("a hexadecimal length", post("Content-Length: 0x2\r\n", "{}")),
        ("an empty length", post("Content-Length: \r\n", "")),
        ("a huge length", post("Content-Length: 18446744073709551618\r\n", "{}")),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", chunk)),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n", chunk)),
        (
            "chunked in two fields",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunk),
        ),
        ("chunked before identity", post("Transfer-Encoding: chunked, identity\r\n", chunk)),
        ("nearly chunked", post("Transfer-Encoding: xchunked\r\n", chunk)),
        ("chunked after a vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", chunk)),
        ("chunked in quotes", post("Transfer-Encoding: \"chunked\"\r\n", chunk)),
        ("an underscore framing", post("Transfer_Encoding: chunked\r\nContent-Length: 2\r\n", "{}")),
        ("space before the colon", post("Content-Length : 2\r\n", "{}")),
        ("a folded field", post("X-A: 1\r\n Content-Length: 44\r\nContent-Length: 2\r\n", "{}")),
        ("a bare LF after a field", post("X-A: 1\nContent-Length: 2\r\n", "{}")),
        (
            "a bare LF before the body",
            b"POST /api/data HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\n\n{}".to_vec(),
        ),
        ("a bare CR in a field", post("X-A: 1\rContent-Length: 44\r\nContent-Length: 2\r\n", "{}")),
        (
            "1.0 with chunks",
            b"POST /api/data HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec(),
        ),
        ("a chunk size in 0x", post("Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n")),
        ("a negative chunk", post("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n")),
        ("a chunk too long", post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff2\r\n{}\r\n0\r\n\r\n")),
        ("a chunk without its end", post("Transfer-Encoding: chunked\r\n", "2\r\n{}0\r\n\r\n")),
        ("a chunk line that ends in LF", post("Transfer-Encoding: chunked\r\n", "2\n{}\r\n0\r\n\r\n")),
        ("GET with a length", get("GET /page HTTP/1.1", &format!("{host}Content-Length: 5\r\n"))),
        ("GET with chunks", get("GET /page HTTP/1.1", &format!("{host}Transfer-Encoding: chunked\r\n"))),
        ("no Host", get("GET /page HTTP/1.1", "X-A: 1\r\n")),
        ("two Hosts", get("GET /page HTTP/1.1", &format!("{host}{host}"))),
        ("two hosts in one", get("GET /page HTTP/1.1", "Host: localhost, evil.example\r\n")),
        ("a Host with a path", get("GET /page HTTP/1.1", "Host: localhost/x\r\n")),
        ("a Host with a user", get("GET /page HTTP/1.1", "Host: a@localhost\r\n")),
        ("a target elsewhere", get("GET http://evil.example/page HTTP/1.1", host)),
        ("a target with a user", get("GET http://localhost@evil.example/page HTTP/1.1", host)),
        ("a space in the target", get("GET /page /x HTTP/1.1", host)),
        ("two spaces", get("GET  /page HTTP/1.1", host)),
        ("a tab", get("GET\t/page HTTP/1.1", host)),
        ("no version", get("GET /page", host)),
        ("an unknown version", get("GET /page HTTP/1.2", host)),
        ("version 2", get("GET /page HTTP/2.0", host)),
        ("CONNECT", get("CONNECT localhost:22 HTTP/1.1", host)),
        ("TRACE", get("TRACE /page HTTP/1.1", host)),
        ("an odd method", get("G{T /page HTTP/1.1", host)),
        ("a NUL in a value", with(b"X-A: a\0b")),
        ("a control character in a value", with(b"X-A: a\x01b")),
        ("a space in a name", with(b"X A: 1")),
        ("an empty name", with(b": 1")),
        ("no colon", with(b"X-A")),
        ("high bytes in a name", with(b"X-\xc3\xa9: 1")),
        ("Host dropped by Connection", with(b"Connection: close, host")),
        ("a length dropped by Connection", post("Connection: content-length\r\nContent-Length: 2\r\n", "{}")),
        ("a strange expectation", post("Expect: 200-ok\r\nContent-Length: 2\r\n", "{}")),
    ];
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let mut failures = Vec::new();
    for (why, bytes) in cases {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send([bytes.as_slice(), SMUGGLED.as_bytes()].concat()).await;
        wire.half_close().await;
        let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
        let seen: Vec<_> = upstream.requests().iter().map(|r| r.head.line.clone()).collect();
        let answers = answer.split("HTTP/1.1 ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if !answer.starts_with("HTTP/1.1 4") || answers.count() != 1 || !seen.is_empty() {
            failures.push(format!("{why}: {:?} upstream: {seen:?}", answer.lines().next()));
        }
        gate.forget_draws();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    upstream.assert_untouched();
}

/// Strictness must not reach what real clients send.
#[tokio::test(flavor = "multi_thread")]
async fn unusual_but_clear_requests_are_served() {
    let cases = [
        ("an empty line first", b"\r\nGET /page HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("an absolute target", get("GET http://localhost/page HTTP/1.1", "Host: localhost\r\n")),
        ("names in capitals", get("GET /page HTTP/1.1", "HOST: LOCALHOST\r\nACCEPT: */*\r\n")),
        ("no space after the colon", get("GET /page HTTP/1.1", "Host:localhost\r\nX-A:\r\n")),
        ("an empty body", post("Content-Length: 0\r\n", "")),
        ("Chunked in capitals", post("Transfer-Encoding: Chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        ("a chunk extension", post("Transfer-Encoding: chunked\r\n", "2;a=b\r\n{}\r\n0\r\n\r\n")),
        ("a trailer", post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n")),
        ("UTF-8 in a value", get("GET /page HTTP/1.1", "Host: localhost\r\nX-Name: J\u{f6}rg\r\n")),
        ("a DELETE without a body", get("DELETE /a HTTP/1.1", "Host: localhost\r\n")),
    ];
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for (count, (why, bytes)) in cases.into_iter().enumerate() {
        let answer = Wire::to(gate.traffic()).await.ask(bytes).await;
        assert_eq!((answer.status, upstream.requests().len()), (200, count + 1), "{why}: {}", answer.text());
        let head = upstream.requests().pop().expect("a request").head;
        let framings = (head.all("content-length").len(), head.all("transfer-encoding").len());
        assert!(framings == (0, 0) || framings.0 + framings.1 == 1, "{why}: {head:?}");
    }
}

/// Spellings of `/api/chat` that apps or their servers take for the same.
const SPELLINGS: [&str; 13] = [
    "/api/chat",
    "//api/chat",
    "/api//chat",
    "/./api/chat",
    "/api/x/../chat",
    "/api/%2e/chat",
    "/api/x/%2E%2e/chat",
    "/api/x/.%2e/chat",
    "/api%2fchat",
    "/api%2Fchat",
    "/%61pi/ch%61t",
    "/api/chat;jsessionid=1",
    "/api;v=1/chat",
];

/// Another spelling of a path must not lead past its limit, and the app must see what was checked.
#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_path_is_one_path() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {ai: {windows: [1/min]}}\n");
    for via in BOTH {
        for spelling in SPELLINGS {
            gate.forget_draws();
            let answer = gate.ask(via, &Ask::post(spelling, "{}")).await;
            assert_eq!(answer.status, 200, "{via:?} {spelling}: {}", answer.text());
            assert_eq!(
                upstream.requests().last().expect("a request").line(),
                "POST /api/chat",
                "{via:?} {spelling}"
            );
            assert_eq!(gate.ask(via, &Ask::chat()).await.status, 429, "{via:?} {spelling} is not counted");
        }
        for spelling in ["/api/chat/", "/API/CHAT", "/Api/Chat/"] {
            assert_eq!(
                gate.ask(via, &Ask::post(spelling, "{}")).await.status,
                429,
                "{via:?} {spelling} is not counted"
            );
        }
    }
}

/// A rule for a path that another spelling escapes protects nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_path_takes_its_route() {
    let upstream = Upstream::ok().await;
    let route = "routes: [{name: staff, match: {paths: ['/admin/*']}, addresses: {deny: [127.0.0.0/8]}}]\n";
    let strict = gate(upstream.address(), route);
    let spellings = [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin/x",
        "/%61dmin/x",
        "/a/../admin/x",
        "/admin%2fx",
        "/admin;a/x",
        "/ADMIN/x",
    ];
    for via in BOTH {
        for spelling in &spellings[..8] {
            assert_refused(&strict.ask(via, &Ask::get(*spelling)).await, 403, "address_denied");
        }
    }
    upstream.assert_untouched();
    let folding = gate(upstream.address(), &format!("{route}paths: {{case: insensitive}}\n"));
    for spelling in spellings {
        assert_refused(&folding.ask(Via::H1, &Ask::get(spelling)).await, 403, "address_denied");
    }
    upstream.assert_untouched();
    let twice = strict.ask(Via::H1, &Ask::get("/%2561dmin/x")).await;
    assert_eq!((twice.status, upstream.request().line()), (200, "GET /%2561dmin/x"), "decoded twice");
}

/// JSON is JSON to many frameworks whatever the type says: Flask's `force=True`, Express with `type: '*/*'`.
#[tokio::test(flavor = "multi_thread")]
async fn json_is_inspected_under_any_type() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let types = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "multipart/form-data; boundary=x",
        "image/png",
        "application/jsonp",
        "",
    ];
    let bodies = ["", " \r\n\t", "\u{feff}"]
        .map(|start| format!(r#"{start}{{"a":1,"a":2,"b":"long enough to be judged by its start"}}"#));
    for kind in types {
        for body in &bodies {
            for (method, path) in [("POST", "/api/chat"), ("POST", "/anything"), ("PUT", "/anything")] {
                for via in BOTH {
                    let ask = Ask::new(method, path).body(body.as_str());
                    let ask = if kind.is_empty() { ask } else { ask.field("content-type", kind) };
                    for ask in [ask.clone(), ask.with_unsized_body()] {
                        assert_refused(&gate.ask(via, &ask).await, 400, "invalid_json");
                        gate.forget_draws();
                    }
                }
            }
        }
    }
    upstream.assert_untouched();
}

/// White space, or nothing at all, that comes in a packet of its own must not hide what follows it.
#[tokio::test(flavor = "multi_thread")]
async fn json_that_does_not_come_first_is_inspected() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let body = r#"{"a":1,"a":2}"#;
    let mut passed = Vec::new();
    for path in ["/anything", "/api/chat", "/v1/chat/completions"] {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            for blanks in [0, 1, 100, 70_000] {
                let ask = Ask::new("POST", path).field("content-type", kind).body(" ".repeat(blanks) + body);
                let bytes = ask.bytes();
                let mut wire = Wire::to(gate.traffic()).await;
                for cut in [&bytes[..bytes.len() - body.len()], body.as_bytes()] {
                    wire.send(cut).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                passed.push((Via::H1, path, kind, blanks, wire.answer().await.status));

                let mut h2 = H2::to(gate.traffic()).await;
                let (feed, answer) = h2.open(&ask);
                feed.send(" ".repeat(blanks).into()).await.expect("the stream is open");
                tokio::time::sleep(Duration::from_millis(20)).await;
                // The gate may have refused it by now.
                let _ = feed.send(body.into()).await;
                drop(feed);
                let answer = within("an answer", answer).await.expect("no panic").expect("an answer");
                passed.push((Via::H2, path, kind, blanks, answer.status));
                gate.forget_draws();
            }
        }
    }
    passed.retain(|(.., status)| *status != 400);
    assert!(passed.is_empty(), "not inspected: {passed:#?}");
    assert!(upstream.requests().iter().all(|request| request.body.is_empty()), "a body arrived");
}

/// Compressed or re-encoded bodies would reach the app unread.
#[tokio::test(flavor = "multi_thread")]
async fn codings_that_hide_a_body_are_refused() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        for coding in ["gzip", "br", "deflate", "zstd", "x-gzip", "GZIP", "identity, gzip", "unheard-of"] {
            for path in ["/api/chat", "/upload"] {
                let ask = Ask::new("POST", path).field("content-encoding", coding).body("\x1f");
                assert_refused(&gate.ask(via, &ask).await, 415, "unsupported_encoding");
                gate.forget_draws();
            }
        }
        for charset in ["utf-16", "UTF-16LE", "utf-7", "iso-8859-1", "\"utf-32\""] {
            let kind = format!("application/json; x=y; charset={charset}");
            let ask = Ask::new("POST", "/api/chat").field("content-type", kind).body("{}");
            assert_refused(&gate.ask(via, &ask).await, 415, "unsupported_charset");
            gate.forget_draws();
        }
    }
    upstream.assert_untouched();
}

/// An Upgrade field was once a way to switch body guards off: it must be a way to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_field_switches_nothing_off() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for kind in ["websocket", "h2c", "anything"] {
        let upgrading = |ask: Ask| {
            ask.field("connection", "Upgrade")
                .field("upgrade", kind)
                .field("sec-websocket-version", "13")
                .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        };
        for body in [r#"{"a":1,"a":2}"#, "{"] {
            let answer = gate.ask(Via::H1, &upgrading(Ask::post("/api/chat", body))).await;
            assert!((400..500).contains(&answer.status), "{kind}: {answer:?}");
        }
        let foreign = upgrading(Ask::chat()).field("origin", "https://evil.example");
        assert_refused(&gate.ask(Via::H1, &foreign).await, 403, "origin_denied");
        gate.forget_draws();
    }
    upstream.assert_untouched();
    let mut h2c = Ask::get("/page").field("connection", "Upgrade, HTTP2-Settings").field("upgrade", "h2c");
    h2c = h2c.field("http2-settings", "AAMAAABkAAQAAP__");
    let answer = gate.ask(Via::H1, &h2c).await;
    if answer.status == 200 {
        let head = upstream.request().head;
        assert_eq!((head.field("upgrade"), head.field("http2-settings")), (None, None), "{head:?}");
    }
    assert!([200, 400].contains(&answer.status), "{answer:?}");
}

/// Apps believe these fields; only what the gate itself knows may stand in them.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_choose_neither_address_nor_identity_nor_method() {
    let lies = [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-client-ip",
        "x-user-id",
        "x-user-email",
        "x-remote-user",
        "remote-user",
        "x-forwarded-user",
        "x-auth-request-email",
        "x-openwebui-user-id",
        "x-openwebui-user-role",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        // CGI and WSGI turn both spellings into one variable.
        "x_user_id",
        "x_forwarded_for",
        "x_http_method_override",
        "x_openwebui_user_role",
    ];
    for via in BOTH {
        let upstream = Upstream::ok().await;
        let gate = gate(upstream.address(), "");
        for ask in [Ask::get("/page"), Ask::chat()] {
            let ask = lies
                .iter()
                .fold(ask, |ask, name| ask.field(*name, "canary-lie"))
                .field("x-kept", "canary-kept");
            let answer = gate.ask(via, &ask).await;
            assert_eq!(answer.status, 200, "{via:?}: {}", answer.text());
            let head = upstream.requests().pop().expect("a request").head;
            let believed: Vec<_> =
                head.fields.iter().filter(|(_, value)| value.contains("canary-lie")).collect();
            assert!(believed.is_empty(), "{via:?} {}: {believed:?}", ask.method);
            assert_eq!(head.field("x-kept"), Some("canary-kept"));
            assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"), "{via:?}: {head:?}");
            assert_eq!(
                (head.field("x-forwarded-proto"), head.field("x-forwarded-host")),
                (Some("http"), Some("localhost"))
            );
            assert!(head.field("forwarded").is_none_or(|value| value.contains("for=127.0.0.1")), "{head:?}");
            assert_eq!(
                head.field("host"),
                Some("localhost"),
                "the app builds its links from the host that was asked for"
            );
            assert!(head.field("x-request-id").is_some_and(|id| id.len() >= 8), "{head:?}");
        }
    }
}

/// Behind a trusted proxy its word counts, and the chain grows by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed_and_passed_on() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "client: {trusted_proxies: [127.0.0.1]}\n");
    let ask = Ask::chat()
        .field("x-forwarded-for", "6.6.6.6, 198.51.100.7")
        .field("x-forwarded-proto", "https")
        .field("x-user-id", "u1")
        .field("x-request-id", "from-the-proxy-1");
    assert_eq!(gate.ask(Via::H1, &ask).await.status, 200);
    let head = upstream.request().head;
    let chain = head.field("x-forwarded-for").unwrap_or_default();
    assert!(chain.ends_with("198.51.100.7, 127.0.0.1") || chain == "198.51.100.7", "{chain}");
    assert_eq!((head.field("x-forwarded-proto"), head.field("x-user-id")), (Some("https"), Some("u1")));
    assert_eq!(head.field("x-request-id"), Some("from-the-proxy-1"));
}

/// Fields that speak for one connection must not travel on; nor may a client make the gate drop what it relies on.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_one_connection_stay_on_it() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for ask in [Ask::get("/page"), Ask::chat()] {
        let ask = ask
            .field("connection", "keep-alive, hop-private")
            .field("hop-private", "1")
            .field("keep-alive", "timeout=5")
            .field("te", "trailers")
            .field("proxy-authorization", "Basic eDp5")
            .field("proxy-connection", "keep-alive");
        assert_eq!(gate.ask(Via::H1, &ask).await.status, 200);
        let head = upstream.requests().pop().expect("a request").head;
        for name in ["hop-private", "keep-alive", "proxy-authorization", "proxy-connection"] {
            assert_eq!(head.field(name), None, "{} {name}", ask.method);
        }
        assert_ne!(head.field("connection"), Some("keep-alive, hop-private"), "{}", ask.method);
    }
}

/// A redirect to the app's own address would lead browsers past the gate.
#[tokio::test(flavor = "multi_thread")]
async fn redirects_lead_back_to_the_gate() {
    let upstream = Upstream::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let own = request.head.field("x-own").unwrap_or_default().to_owned();
            peer.send(format!("HTTP/1.1 302 Found\r\nlocation: {own}\r\ncontent-length: 0\r\n\r\n")).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), "");
    let own = format!("http://{}/login?next=a", upstream.address());
    for via in BOTH {
        for ask in [Ask::get("/page"), Ask::chat()] {
            let answer = gate.ask(via, &ask.clone().field("x-own", own.as_str())).await;
            let location = answer.field("location").expect("a location");
            assert!(location == "http://localhost/login?next=a" || location == "/login?next=a", "{location}");
            let elsewhere = gate.ask(via, &ask.field("x-own", "https://idp.example/login")).await;
            assert_eq!(elsewhere.field("location"), Some("https://idp.example/login"));
            gate.forget_draws();
        }
    }
}

/// Chunk framing makes one byte of a body cost kilobytes: whoever sends little else is no faster than one who drips.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_framing_is_cut() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "timeouts: {body_idle: 1s}\n");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send("POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("1;a={}\r\n \r\n", "b".repeat(4000));
    // 4 MB, of which a thousand bytes are body: far more than any honest start of a body takes.
    for _ in 0..1000 {
        if !wire.send(&chunk).await {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(answer.contains(" 408 "), "4 MB of framing passed for a body: {answer}");
    upstream.assert_untouched();
}
