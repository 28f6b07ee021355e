//! Uploads: what is refused, when the app hears of it, and how long a slow sender is waited for.

mod common;

use std::time::{Duration, Instant};

use common::{Ask, BOTH, Gate, H2, Upstream, Via, Wire, a_moment, assert_refused, gate, json_of, within};
use tidegate::guard::Reason;
use tokio::time::sleep;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// One part of a form, with these parameters behind the name of its field.
fn part(parameters: &str, content: &[u8]) -> Vec<u8> {
    let header = format!("--b7\r\nContent-Disposition: form-data; name=\"f\"{parameters}\r\n\r\n");
    [header.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Ask {
    let body = [&parts.concat()[..], b"--b7--\r\n"].concat();
    Ask::new("POST", "/upload").field("content-type", "multipart/form-data; boundary=b7").body(body)
}

fn raw(method: &'static str, target: &str, kind: &str, body: &[u8]) -> Ask {
    Ask::new(method, target).field("content-type", kind).body(body)
}

/// A picture of `length` bytes.
fn picture(length: usize) -> Vec<u8> {
    let filling = (0..length - PNG.len()).map(|i| (i % 249) as u8);
    PNG.iter().copied().chain(filling).collect()
}

/// A caption, a picture by name, one without a name, and one that is the body itself: what chats are sent has to arrive
/// byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn honest_uploads_arrive() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let small = form(&[part("", b"look at this"), part("; filename=\"cat (1).png\"", PNG)]);
    let large =
        form(&[part("; filename=\"k\u{e4}tzchen.png\"", &picture(300_000)), part("; filename=\"\"", b"")]);
    let raw_small = raw("PUT", "/files/cat.png", "image/png", PNG);
    let raw_large = raw("POST", "/upload", "image/png", &picture(300_000));
    let unknown = raw("POST", "/rpc", "application/grpc", &[0; 100_000]);
    for ask in [small, large, raw_small, raw_large, unknown] {
        for via in BOTH {
            for ask in [ask.clone(), ask.clone().with_unsized_body()] {
                let answer = gate.ask(via, &ask).await;
                assert_eq!(answer.status, 200, "{via:?} {} {}", ask.target, answer.text());
                let came = upstream.requests().pop().expect("a request");
                assert!(Some(&came.body) == ask.body.as_ref(), "{via:?}: {} bytes came", came.body.len());
            }
        }
    }
}

/// The app may act on an upload's head alone: of one that is refused within its first 64 KiB it must hear nothing.
#[tokio::test(flavor = "multi_thread")]
async fn refused_uploads_never_reach_the_app() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "uploads: {part: 20KiB, parts: 3}\n");
    let behind = |bad| form(&[part("; filename=\"a.png\"", &picture(15_000)), bad]);
    let no_boundary = Ask::new("POST", "/upload").field("content-type", "multipart/form-data").body("--b7--");
    for (ask, reason) in [
        (behind(part("; filename=\"a.png\"", b"<script>alert(1)</script>")), Reason::UploadTypeDenied),
        (behind(part("; filename=\"a.exe\"", b"MZ\x90\0")), Reason::UploadTypeDenied),
        (behind(part("; filename=\"../a.png\"", PNG)), Reason::UploadNameDenied),
        (behind(part("; filename=\"a.php.png\"", PNG)), Reason::UploadNameDenied),
        (behind(part("; filename=\"a.png\"", &picture(20_481))), Reason::UploadTooLarge),
        (form(&[part("", b"1"), part("", b"2"), part("", b"3"), part("", b"4")]), Reason::UploadTooLarge),
        (behind(part("; filename=\"a\"; filename=\"b\"", PNG)), Reason::MalformedUpload),
        (
            behind(b"--b7\nContent-Disposition: form-data; name=\"f\"\n\n1\n".to_vec()),
            Reason::MalformedUpload,
        ),
        (no_boundary, Reason::MalformedUpload),
        (raw("POST", "/upload", "image/png", b"<svg onload=alert(1)>"), Reason::UploadTypeDenied),
        (raw("POST", "/api/chat", "image/png", b"<svg onload=alert(1)>"), Reason::UploadTypeDenied),
        (raw("PUT", "/a.png", "application/octet-stream", b"\x7fELF\x02"), Reason::UploadTypeDenied),
        (raw("POST", "/upload", "image/png", &picture(20_481)), Reason::UploadTooLarge),
    ] {
        for via in BOTH {
            for ask in [ask.clone(), ask.clone().with_unsized_body()] {
                let answer = gate.ask(via, &ask).await;
                assert_refused(&answer, reason.status().as_u16(), reason.code());
            }
        }
    }
    upstream.assert_untouched();
    gate.events("upload_name_denied").await;
}

/// What comes behind the first 64 KiB is looked at, too: the app must not take the part for the whole, and the client
/// must be told.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_looked_at_to_their_end() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let fine = || part("; filename=\"a.png\"", &picture(400_000));
    let mut cut = form(&[fine()]);
    cut.body.iter_mut().for_each(|body| body.truncate(300_000));
    for (ask, reason) in [
        (form(&[fine(), part("; filename=\"b.png\"", b"<html>")]), Reason::UploadTypeDenied),
        (form(&[fine(), part("; filename=\"..\"", PNG)]), Reason::UploadNameDenied),
        (form(&[part("; filename=\"a.png\"", &picture((5 << 20) + 1))]), Reason::UploadTooLarge),
        (cut, Reason::MalformedUpload),
    ] {
        for via in BOTH {
            for ask in [ask.clone(), ask.clone().with_unsized_body()] {
                let answer = gate.ask(via, &ask).await;
                assert_refused(&answer, reason.status().as_u16(), reason.code());
            }
        }
    }
    a_moment().await;
    assert!(
        upstream.requests().iter().all(|request| request.body.is_empty()),
        "the app took a part for the whole"
    );
}

/// An app with rules of its own, or one that takes other files, has to be able to say so for its route.
#[tokio::test(flavor = "multi_thread")]
async fn routes_have_rules_of_their_own() {
    let upstream = Upstream::ok().await;
    let settings = "routes:\n- {name: any, match: {paths: [/any]}, uploads: {types: off}}\n\
        - {name: zip, match: {paths: [/zip]}, uploads: {types: [zip]}}\n\
        - {name: free, match: {paths: [/free]}, uploads: off}\n\
        - {name: blind, match: {paths: [/blind]}, inspect: off}\n";
    let gate = gate(upstream.address(), settings);
    let at = |target: &str, name: &str, content: &[u8]| Ask {
        target: target.into(),
        ..form(&[part(&format!("; filename=\"{name}\""), content)])
    };
    for (target, name, content, status) in [
        ("/any", "a.exe", &b"MZ\x90\0"[..], 200),
        ("/any", "../a.exe", b"MZ", 400),
        ("/zip", "a.zip", b"PK\x03\x04", 200),
        ("/zip", "a.png", PNG, 415),
        ("/free", "../a.exe", b"MZ", 200),
        ("/blind", "../a.exe", b"MZ", 200),
        ("/other", "a.zip", b"PK\x03\x04", 415),
    ] {
        let answer = gate.ask(Via::H1, &at(target, name, content)).await;
        assert_eq!(answer.status, status, "{target} {name}: {}", answer.text());
    }
}

/// Files are sent after asking first, too: curl does so from 1 MiB on, and waits.
#[tokio::test(flavor = "multi_thread")]
async fn expectations_are_met() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let ask = form(&[part("; filename=\"a.png\"", &picture(200_000))]).field("expect", "100-continue");
    let bytes = ask.bytes();
    let body = ask.body.as_ref().expect("a body");
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(&bytes[..bytes.len() - body.len()]).await;
    let invitation = wire.head().await.expect("an invitation");
    assert!(invitation.line.starts_with("HTTP/1.1 100 "), "{invitation:?}");
    wire.send(body).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, upstream.request().body == *body), (200, true));
}

const SLOW: &str = "timeouts: {body_idle: 600ms}\ncaps: {body: {min_rate: 1000B}}\n";

/// How long the gate waits for a body of which `start` came and then `drip` every 50 ms.
async fn given_up(gate: &Gate, via: Via, start: &[u8], drip: &'static [u8]) -> Duration {
    let ask = Ask::new("POST", "/upload").field("content-type", "image/png");
    let begun = Instant::now();
    let answer = match via {
        Via::H1 => {
            let mut wire = Wire::to(gate.traffic()).await;
            wire.send(ask.field("content-length", "1000000").bytes()).await;
            wire.send(start).await;
            loop {
                tokio::select! {
                    answer = wire.answer() => break answer,
                    () = sleep(Duration::from_millis(50)) => {}
                }
                wire.send(drip).await;
            }
        }
        Via::H2 => {
            let mut h2 = H2::to(gate.traffic()).await;
            let (feed, mut answer) = h2.open(&ask);
            feed.send(start.to_vec().into()).await.expect("the stream is open");
            loop {
                tokio::select! {
                    answer = &mut answer => break answer.expect("no panic").expect("an answer"),
                    () = sleep(Duration::from_millis(50)) => {}
                }
                // The gate may have ended the stream meanwhile.
                let _ = feed.send(drip.into()).await;
            }
        }
    };
    assert_refused(&answer, 408, "body_timeout");
    begun.elapsed()
}

/// Three hundred dripping uploads would hold three hundred connections to the app for ever.
#[tokio::test(flavor = "multi_thread")]
async fn dripping_uploads_are_ended() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), SLOW);
    for via in BOTH {
        for start in [PNG.to_vec(), picture(200_000)] {
            for drip in [&b""[..], b"x"] {
                let waited = given_up(&gate, via, &start, drip).await;
                let what = format!("{via:?} {} {drip:?}: {waited:?}", start.len());
                assert!((Duration::from_millis(550)..Duration::from_secs(4)).contains(&waited), "{what}");
            }
        }
    }
    gate.access_log("body_timeout").await;
}

/// A large file on a slow line is no attack: no total time ends it, be it longer than every timeout there is.
#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_are_waited_for() {
    let upstream = Upstream::ok().await;
    let settings = "timeouts: {body_idle: 600ms, request_body: 300ms, first_byte: 300ms}\n\
        caps: {body: {min_rate: 1000B}}\n";
    let gate = gate(upstream.address(), settings);
    let body = picture(170_000);
    let bytes = raw("POST", "/upload", "image/png", &body).bytes();
    let mut wire = Wire::to(gate.traffic()).await;
    wire.send(&bytes[..200]).await;
    for piece in bytes[200..].chunks(10_000) {
        sleep(Duration::from_millis(60)).await;
        wire.send(piece).await;
    }
    assert_eq!(wire.answer().await.status, 200);
    assert!(upstream.request().body == body);
}

/// An app that does not read must not hold the client's upload for ever, and it is not the client's fault.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_read_is_given_up() {
    let upstream = Upstream::scripted(|peer| async move {
        std::future::pending::<()>().await;
        drop(peer);
    })
    .await;
    let gate =
        gate(upstream.address(), "timeouts: {write: 500ms, body_idle: 300ms}\nuploads: {part: 50MiB}\n");
    let ask = raw("POST", "/upload", "image/png", &picture(30 << 20));
    for via in BOTH {
        assert_refused(&gate.ask(via, &ask).await, 504, "upstream_timeout");
    }
}

/// The time for an answer runs from the last byte of the upload.
#[tokio::test(flavor = "multi_thread")]
async fn silence_after_an_upload_ends() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.request().await;
        std::future::pending().await
    })
    .await;
    let gate = gate(upstream.address(), "timeouts: {first_byte: 300ms}\n");
    for via in BOTH {
        assert_refused(
            &gate.ask(via, &raw("POST", "/u", "image/png", &picture(100_000))).await,
            504,
            "upstream_timeout",
        );
    }
}

/// An answer that falls silent must not hold a client that uploaded something for ever, events included.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_uploads_have_the_deadlines_of_answers() {
    let settings = "timeouts: {between_bytes: 400ms, stream_idle: 400ms, stream_total: 900ms}\n";
    for (kind, pause, pieces) in
        [("text/plain", 8000, 1), ("text/event-stream", 8000, 1), ("text/event-stream", 100, 80)]
    {
        let upstream = Upstream::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
            ))
            .await;
            for _ in 0..pieces {
                peer.send("9\r\ndata: 1\n\n\r\n").await;
                sleep(Duration::from_millis(pause)).await;
            }
        })
        .await;
        let gate = gate(upstream.address(), settings);
        for via in BOTH {
            let begun = Instant::now();
            let answer = gate.ask(via, &raw("POST", "/u", "image/png", &picture(100_000))).await;
            assert_eq!(answer.status, 200);
            assert!(
                begun.elapsed() < Duration::from_secs(4),
                "{via:?} {kind} {pause}: {:?}",
                begun.elapsed()
            );
        }
    }
}

/// An app may refuse an upload by its head alone; the client has to read that, not a reset.
#[tokio::test(flavor = "multi_thread")]
async fn early_answers_are_told() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno").await;
        a_moment().await;
    })
    .await;
    let gate = gate(upstream.address(), "");
    for via in BOTH {
        for ask in [
            raw("POST", "/u", "image/png", &picture(2 << 20)),
            form(&[part("; filename=\"a.png\"", &picture(2 << 20))]),
        ] {
            let answer = gate.ask(via, &ask).await;
            assert_eq!((answer.status, answer.text().as_str()), (401, "no"), "{via:?}");
        }
    }
}

/// Most apps refuse what is too large and close at once, with the rest unread. What they said is there although writing to
/// them fails: the client needs to hear it, and it is no failure of the app.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_answers_and_closes_is_heard() {
    let upstream = Upstream::scripted(|mut peer| async move {
        peer.head().await;
        sleep(Duration::from_millis(peer.number as u64 % 4)).await;
        peer.send("HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge").await;
    })
    .await;
    let settings = "breaker: {consecutive_failures: 1}\ncaps: {body: {json: 4MiB}}\n";
    let unlimited = "limits: {pages: off, api: off, api-user: off, session: off, tenant: off, ai: off}\n";
    let gate = gate(upstream.address(), &format!("{settings}{unlimited}"));
    let whole = Ask::post("/api/data", json_of(3 << 20));
    for ask in [raw("POST", "/u", "image/png", &picture(3 << 20)), whole] {
        for (round, via) in BOTH.into_iter().cycle().take(60).enumerate() {
            let answer = gate.ask(via, &ask).await;
            assert_eq!((answer.status, answer.text().as_str()), (413, "large"), "{round} {via:?}");
        }
    }
    let health = gate.admin_ask(&Ask::get("/healthz")).await.json();
    assert_eq!(health["status"], "healthy", "{health}");
}

/// Uploads that stall, break off or are refused must leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), SLOW);
    let bytes = raw("POST", "/u", "image/png", &picture(300_000)).bytes();
    for length in [50, 200, 100_000, 250_000] {
        let mut wire = Wire::to(gate.traffic()).await;
        wire.send(&bytes[..length.min(bytes.len())]).await;
    }
    gate.ask(Via::H1, &form(&[part("; filename=\"a.exe\"", b"MZ")])).await;
    within("gauges at rest", async {
        loop {
            let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
            let at_rest = ["tidegate_in_flight 0", "tidegate_open_admissions 0"];
            if at_rest.iter().all(|line| text.lines().any(|l| l == *line)) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
