//! What comes twice is served once and charged once; what failed may come again; and nobody gets another's answer.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Ask, BOTH, Gate, OK_JSON, Upstream, Via, assert_refused, gate};

const LIMITS_OFF: &str =
    "client: {trusted_proxies: [127.0.0.1]}\nlimits: {ai: off, api: off, api-user: off, session: off}\n";

async fn served() -> (Upstream, Gate) {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), LIMITS_OFF);
    (upstream, gate)
}

fn webhook(json: &str) -> Ask {
    Ask::post("/webhook/speech", json)
}

/// A speech-to-text service that delivers twice must start one workflow, and must not be made to deliver again.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_comes_twice_runs_once() {
    let (upstream, gate) = served().await;
    for via in BOTH {
        assert_eq!(gate.ask(via, &webhook(r#"{"text":"light on"}"#)).await.status, 200);
        let again = gate.ask(via, &webhook(r#"{ "text" : "light on" }"#)).await;
        assert_eq!((again.status, again.field("x-tidegate-reason")), (200, Some("duplicate")));
        let body = again.json();
        assert_eq!((&body["status"], &body["reason"]), (&"duplicate_blocked".into(), &"duplicate".into()));
        assert_eq!(gate.ask(via, &webhook(r#"{"text":"light off"}"#)).await.status, 200);
        gate.forget_draws();
    }
    assert_eq!(upstream.requests().len(), 4);
    let events = gate.events("DUPLICATE_BLOCKED").await;
    assert!(events.contains(r#""reason":"duplicate""#), "{events}");
}

/// The window ends to the microsecond; and people do say "yes" twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_remembered_for_its_window_and_chats_go_by_id() {
    let (upstream, gate) = served().await;
    let chat = |id: &str| Ask::post("/api/chat", format!(r#"{{"message":"yes","messageId":"{id}"}}"#));
    for _ in 0..2 {
        assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200, "without an id");
    }
    assert_eq!(gate.ask(Via::H1, &chat("m1")).await.status, 200);
    assert_refused(&gate.ask(Via::H1, &chat("m1")).await, 409, "duplicate");
    assert_eq!(gate.ask(Via::H1, &chat("m2")).await.status, 200);
    gate.advance(Duration::from_secs(600) - Duration::from_micros(1));
    assert_refused(&gate.ask(Via::H2, &chat("m1")).await, 409, "duplicate");
    gate.advance(Duration::from_micros(1));
    assert_eq!(gate.ask(Via::H1, &chat("m1")).await.status, 200);
    assert_eq!(upstream.requests().len(), 5);
}

/// An SDK must read a duplicate as what it is, and must not try it again.
#[tokio::test(flavor = "multi_thread")]
async fn model_apis_tell_duplicates_in_their_own_shape() {
    let (_upstream, gate) = served().await;
    for (path, shape) in [("/v1/chat/completions", "/error/code"), ("/v1/messages", "/error/reason")] {
        let ask = Ask::post(path, r#"{"messages":[]}"#).field("x-message-id", "m1");
        assert_eq!(gate.ask(Via::H1, &ask).await.status, 200);
        let again = gate.ask(Via::H1, &ask).await;
        assert_refused(&again, 409, "duplicate");
        assert_eq!(again.json().pointer(shape), Some(&"duplicate".into()), "{}", again.text());
        assert_eq!(again.field("x-should-retry"), Some("false"));
    }
}

/// Twenty at once would all find that nobody has served it yet.
#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_at_once_one_reaches_the_app() {
    let (upstream, asked, go) = Upstream::on_cue().await;
    let gate = gate(upstream.address(), LIMITS_OFF);
    let ask = webhook(r#"{"text":"once"}"#);
    let all = futures_util::future::join_all((0..20).map(|n| gate.ask(BOTH[n % 2], &ask)));
    let cue = async {
        asked.notified().await;
        // The others are answered while the first is still being served; only then may it end.
        go.notify_one();
    };
    let (answers, ()) = tokio::join!(all, cue);
    let blocked = answers.iter().filter(|answer| answer.text().contains("duplicate_blocked")).count();
    assert_eq!((answers.len(), blocked, upstream.requests().len()), (20, 19, 1));
}

/// A message whose first try failed would never get through.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_may_come_again() {
    let (failed, refused) =
        ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n");
    let asked = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::scripted(move |mut peer| {
        let asked = asked.clone();
        async move {
            while peer.request().await.is_some() {
                let answer = [failed, "", refused, OK_JSON][asked.fetch_add(1, Ordering::SeqCst)];
                if answer.is_empty() || !peer.send(answer).await {
                    return;
                }
            }
        }
    })
    .await;
    let gate = gate(upstream.address(), LIMITS_OFF);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = gate.ask(Via::H1, &webhook(r#"{"text":"again"}"#)).await;
        statuses.push((answer.status, answer.text().contains("duplicate_blocked")));
    }
    assert_eq!(statuses, [(500, false), (502, false), (429, false), (200, false), (200, true)]);
}

/// Two people say the same; both must be heard, and neither may read what the other was answered.
#[tokio::test(flavor = "multi_thread")]
async fn callers_never_meet() {
    let (upstream, gate) = served().await;
    let ask = || webhook(r#"{"text":"hello"}"#).field("idempotency-key", "k-1");
    let callers = [
        ask(),
        ask().field("authorization", "Bearer one"),
        ask().field("authorization", "Bearer two"),
        ask().field("cookie", "session_id=a"),
        ask().field("cookie", "connect.sid=b"),
        ask().field("x-device-id", "d"),
        ask().field("x-forwarded-for", "198.51.100.7"),
        Ask::post("/webhook/speech", r#"{"text":"hello","sessionId":"s"}"#).field("idempotency-key", "k-1"),
    ];
    for caller in &callers {
        let answer = gate.ask(Via::H1, caller).await;
        assert_eq!((answer.status, answer.field("idempotent-replayed")), (200, None), "{caller:?}");
    }
    assert_eq!(upstream.requests().len(), callers.len());
}

/// A client that lost its answer must get it, without the call being made, and paid, again.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_gives_the_first_answer_again() {
    let answer = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nx-app: 7\r\nserver: app/1\r\n\
                  content-length: 9\r\n\r\n{\"id\": 7}";
    let upstream = Upstream::answering(answer).await;
    let gate = gate(upstream.address(), LIMITS_OFF);
    for (number, via) in (1..).zip(BOTH) {
        let ask = Ask::post("/v1/chat/completions", r#"{"messages":[]}"#)
            .field("idempotency-key", format!("\"k-{number}\""));
        let first = gate.ask(via, &ask).await;
        let again = gate.ask(via, &ask).await;
        assert_eq!((first.status, first.text()), (again.status, again.text()));
        assert_eq!((first.status, again.field("idempotent-replayed")), (201, Some("true")));
        for name in ["content-type", "x-app", "server", "x-content-type-options", "content-length"] {
            assert_eq!(first.field(name), again.field(name), "{name}");
        }
        assert_ne!(first.field("x-request-id"), again.field("x-request-id"));
        assert_eq!(upstream.requests().len(), number);
        let other = Ask { body: Some(br#"{"messages":[1]}"#.to_vec()), ..ask };
        assert_refused(&gate.ask(via, &other).await, 422, "idempotency_key_reused");
    }
    let bad = Ask::chat().field("idempotency-key", "");
    assert_refused(&gate.ask(Via::H1, &bad).await, 400, "invalid_idempotency_key");
    let get = Ask::get("/page").field("idempotency-key", "k-1");
    assert_eq!([gate.ask(Via::H1, &get).await.status, gate.ask(Via::H1, &get).await.status], [201; 2]);
}

/// A second try that comes too early must neither be made nor get half an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_flight_is_told_to_wait() {
    let (upstream, asked, go) = Upstream::on_cue().await;
    let gate = gate(upstream.address(), LIMITS_OFF);
    let ask = Ask::chat().field("idempotency-key", "k-1");
    let (first, ()) = tokio::join!(gate.ask(Via::H1, &ask), async {
        asked.notified().await;
        let early = gate.ask(Via::H1, &ask).await;
        assert_refused(&early, 409, "idempotency_in_flight");
        assert_eq!(early.field("retry-after"), Some("1"));
        go.notify_one();
    });
    assert_eq!(first.status, 200);
    assert_eq!(gate.ask(Via::H1, &ask).await.field("idempotent-replayed"), Some("true"));
    assert_eq!(upstream.requests().len(), 1);
}

/// A stream within the size is given again byte by byte; a longer answer is not kept, and the call not made again.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_up_to_their_size() {
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\ndata: 2\n\n";
    let upstream = Upstream::scripted(move |mut peer| async move {
        peer.request().await;
        peer.send(events).await;
    })
    .await;
    let settings = format!("{LIMITS_OFF}idempotency: {{answer: 18B}}\n");
    let gate_of = |answer: &str| gate(upstream.address(), &settings.replace("18B", answer));
    let ask =
        Ask::post("/v1/chat/completions", r#"{"stream":true,"messages":[]}"#).field("idempotency-key", "k");
    let fits = gate_of("18B");
    let first = fits.ask(Via::H1, &ask).await;
    let again = fits.ask(Via::H1, &ask).await;
    assert_eq!((again.text(), again.field("idempotent-replayed")), (first.text(), Some("true")));
    let too_small = gate_of("17B");
    assert_eq!(too_small.ask(Via::H1, &ask).await.text(), first.text());
    assert_refused(&too_small.ask(Via::H1, &ask).await, 409, "duplicate");
    assert_eq!(upstream.requests().len(), 2);
}

/// Whoever is refused has claimed nothing: the message must get through when there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_may_come_again() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {ai: {windows: [1/min]}}\n");
    assert_eq!(gate.ask(Via::H1, &webhook(r#"{"n":1}"#)).await.status, 200);
    assert_refused(&gate.ask(Via::H1, &webhook(r#"{"n":2}"#)).await, 429, "rate_limited");
    let again = gate.ask(Via::H1, &webhook(r#"{"n":1}"#)).await;
    assert!(again.text().contains("duplicate_blocked"), "a duplicate is told as one, and draws nothing");
    gate.advance(Duration::from_secs(60));
    assert_eq!(gate.ask(Via::H1, &webhook(r#"{"n":2}"#)).await.status, 200);
}

/// An operator who only looks must see what would have been blocked, and every message must be served.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_observed_is_served_and_told() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), &format!("{LIMITS_OFF}observe: [duplicates]\n"));
    for _ in 0..3 {
        let answer = gate.ask(Via::H1, &webhook(r#"{"text":"hello"}"#)).await;
        assert!(!answer.text().contains("duplicate_blocked"));
    }
    assert_eq!(upstream.requests().len(), 3);
    assert!(gate.events("DUPLICATE_BLOCKED").await.contains("observed"));
}

/// An agent that is stuck is paused; whoever makes other calls is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_a_loop_is_paused() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), &format!("{LIMITS_OFF}loops: {{rate: 3/min}}\n"));
    for _ in 0..3 {
        assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
        gate.advance(Duration::from_secs(10));
    }
    let paused = gate.ask(Via::H1, &Ask::chat()).await;
    assert_refused(&paused, 429, "loop_detected");
    assert_eq!(paused.field("retry-after"), Some("30"));
    let other = Ask::post("/api/chat", r#"{"message":"something else"}"#);
    assert_eq!(gate.ask(Via::H1, &other).await.status, 200);
    gate.advance(Duration::from_secs(30));
    assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
}

/// Three refinements a playlist, three playlists a device (L2): each counter is its own.
#[tokio::test(flavor = "multi_thread")]
async fn limits_count_by_what_path_and_body_name() {
    let upstream = Upstream::ok().await;
    let limits = "  refine: {counts: api, by: [device, 'segment:3'], windows: [2/d]}\n  \
                  room: {counts: api, by: ['field:/room/id'], windows: [1/d]}\n";
    let settings = format!(
        "client: {{trusted_proxies: [127.0.0.1]}}\nlimits:\n  api: off\n  api-user: off\n  ai: off\n{limits}"
    );
    let gate = gate(upstream.address(), &settings);
    let refine = |device: &str, list: u32| {
        Ask::post(format!("/api/playlists/{list}/refine"), "{}").field("x-device-id", device)
    };
    let mut statuses = Vec::new();
    for ask in [refine("a", 1), refine("a", 1), refine("a", 1), refine("a", 2), refine("b", 1)] {
        statuses.push(gate.ask(Via::H1, &ask).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200]);
    let room = |id: &str| Ask::post("/api/rooms", format!(r#"{{"room":{{"id":{id}}}}}"#));
    let mut statuses = Vec::new();
    for ask in [room("7"), room("8"), room("7"), room("\"7\"")] {
        statuses.push(gate.ask(Via::H1, &ask).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}
