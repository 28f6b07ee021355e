//! Limits are exact: on a clock that the test moves, to the request and to the microsecond.

mod common;

use std::time::Duration;

use common::{Ask, BOTH, Gate, H2, Upstream, Via, assert_refused, gate, within};

const SECOND: Duration = Duration::from_secs(1);
const MICROSECOND: Duration = Duration::from_micros(1);

/// A gate that believes the test's word about addresses, so that one machine can play several clients.
async fn crowd(settings: &str) -> (Upstream, Gate) {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), &format!("client: {{trusted_proxies: [127.0.0.1]}}\n{settings}"));
    (upstream, gate)
}

fn from(address: &str, ask: Ask) -> Ask {
    ask.field("x-forwarded-for", address)
}

/// Statuses of one request after the other.
async fn statuses(gate: &Gate, asks: impl IntoIterator<Item = Ask>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for ask in asks {
        statuses.push(gate.ask(Via::H1, &ask).await.status);
    }
    statuses
}

/// What a caller is told of a limit's window of so many seconds: limit, remaining, reset.
async fn standing(gate: &Gate, ask: Ask, name: &str, window: u64) -> (u64, u64, u64) {
    let answer = gate.ask(Via::H1, &ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert!(body["subject"].is_string(), "{body}");
    let limits = body["limits"].as_array().expect("limits");
    let found = limits.iter().find(|l| l["name"] == name && l["window_s"] == window);
    let number =
        |key: &str| found.and_then(|l| l[key].as_u64()).unwrap_or_else(|| panic!("{name}.{key}: {body}"));
    (number("limit"), number("remaining"), number("reset_s"))
}

fn status() -> Ask {
    Ask::get("/auth/rate-limit-status")
}

/// "The 6th request in a minute gets 429" has to be true, and so does the time after which it passes.
#[tokio::test(flavor = "multi_thread")]
async fn the_sixth_ai_call_in_a_minute_waits_exactly_as_long_as_it_is_told() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for call in 0..5 {
        // One counter for both protocols.
        assert_eq!(gate.ask(BOTH[call % 2], &Ask::chat()).await.status, 200, "call {call}");
        gate.advance(SECOND * 9);
    }
    gate.advance(SECOND / 2);
    for via in BOTH {
        // 45.5 s after the first; refused tries draw nothing and prolong nothing.
        let answer = gate.ask(via, &Ask::chat()).await;
        assert_refused(&answer, 429, "rate_limited");
        assert_eq!(answer.field("retry-after"), Some("15"));
        assert_eq!(answer.field("ratelimit-policy"), Some("\"ai\";q=5;w=60"));
        assert_eq!(answer.field("ratelimit"), Some("\"ai\";r=0;t=15"));
        let fields = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
        assert_eq!(fields.map(|name| answer.field(name)), [Some("5"), Some("0"), Some("15")]);
        assert!(answer.text().contains("RATE_LIMIT_AI_PER_MINUTE"), "{}", answer.text());
    }
    gate.advance(SECOND * 29 / 2 - MICROSECOND);
    let early = gate.ask(Via::H1, &Ask::chat()).await;
    assert_eq!((early.status, early.field("retry-after")), (429, Some("1")));
    gate.advance(MICROSECOND);
    assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
    let next = gate.ask(Via::H2, &Ask::chat()).await;
    assert_eq!(
        (next.status, next.field("retry-after")),
        (429, Some("9")),
        "the second call leaves 9 s after the first"
    );
    assert_eq!(upstream.requests().len(), 6);
}

/// A window that starts anew at each full minute would let twice as many through around it.
#[tokio::test(flavor = "multi_thread")]
async fn no_minute_holds_more_than_the_limit() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let mut served: Vec<u64> = Vec::new();
    for second in (0..180).step_by(4) {
        if gate.ask(Via::H1, &Ask::chat()).await.status == 200 {
            served.push(second);
        }
        gate.advance(SECOND * 4);
    }
    let busiest =
        served.iter().map(|start| served.iter().filter(|s| (*start..start + 60).contains(s)).count()).max();
    assert_eq!((busiest, served.len()), (Some(5), 15), "{served:?}");
}

/// Between looking and counting there must be no gap: it is a budget's worth of calls wide.
#[tokio::test(flavor = "multi_thread")]
async fn of_500_at_once_exactly_100_pass() {
    let upstream = Upstream::ok().await;
    let settings = "limits: {ai: {windows: [100/min]}, api: off, api-user: off, session: off, tenant: off}\n\
        concurrency: {total: 2000, address: 2000, user: 2000}\n";
    let gate = gate(upstream.address(), settings);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(H2::to(gate.traffic()).await);
    }
    let open =
        |client: &mut H2| (0..50).map(|_| client.open(&Ask::post("/api/chat", ""))).collect::<Vec<_>>();
    let calls: Vec<_> = clients.iter_mut().flat_map(open).collect();
    let mut answers = Vec::new();
    for (feed, answer) in calls {
        // Sent from a task of its own, so that no call waits for another.
        tokio::spawn(async move { feed.send(r#"{"message":"x"}"#.into()).await });
        answers.push(answer);
    }
    let (mut passed, mut refused) = (0, 0);
    for answer in answers {
        match within("an answer", answer).await.expect("no panic").expect("an answer").status {
            200 => passed += 1,
            429 => refused += 1,
            other => panic!("status {other}"),
        }
    }
    assert_eq!((passed, refused, upstream.requests().len()), (100, 400, 100));
}

/// A limit of several windows holds in each of them, and tells the one that is met.
#[tokio::test(flavor = "multi_thread")]
async fn the_hour_is_counted_beside_the_minute() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {ai: {windows: [5/min, 7/h]}}\n");
    assert_eq!(statuses(&gate, vec![Ask::chat(); 6]).await, [200, 200, 200, 200, 200, 429]);
    gate.advance(SECOND * 60);
    assert_eq!(statuses(&gate, vec![Ask::chat(); 2]).await, [200, 200]);
    let answer = gate.ask(Via::H1, &Ask::chat()).await;
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("3540")));
    assert_eq!(answer.field("ratelimit-policy"), Some("\"ai\";q=7;w=3600"));
    gate.advance(SECOND * 3540);
    assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
}

/// As shipped: 50 AI calls an hour, even at five a minute.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_ai_calls_an_hour_are_the_default() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    for _ in 0..50 {
        assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
        gate.advance(SECOND * 13);
    }
    // 49 steps of 13 s after the first, and one more.
    let answer = gate.ask(Via::H1, &Ask::chat()).await;
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("2950")));
    assert!(answer.text().contains("RATE_LIMIT_AI_PER_HOUR"), "{}", answer.text());
}

/// Every model API's calls are counted together, or each would be worth another five.
#[tokio::test(flavor = "multi_thread")]
async fn ai_calls_are_recognised_on_every_api() {
    let paths = [
        "/v1/chat/completions",
        "/openai/v1/chat/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/messages",
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        "/api/generate",
        "/api/chat",
        "/api/chat/stream",
        "/ollama/api/chat",
        "/v1/text-to-speech/voice",
        "/webhook/abc",
        "/webhook-test/abc",
        "/chat",
    ];
    let upstream = Upstream::ok().await;
    // The same call twice is what a webhook must not be sent.
    let gate = gate(upstream.address(), "duplicates: off\nlimits: {ai: {windows: [1/min]}}\n");
    for path in paths {
        gate.forget_draws();
        assert_eq!(statuses(&gate, vec![Ask::post(path, "{}"); 2]).await, [200, 429], "{path}");
        assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 429, "{path} has a counter of its own");
    }
}

/// A new key on each call would be a way round the limit, were the address not drawn as well.
#[tokio::test(flavor = "multi_thread")]
async fn inventing_keys_gains_nothing() {
    let (upstream, gate) = crowd("").await;
    let invented = |i: u32| match i % 3 {
        0 => Ask::chat().field("authorization", format!("Bearer sk-{i}")),
        1 => Ask::chat().field("x-api-key", format!("key-{i}")),
        _ => Ask::post(format!("/api/chat?key=key-{i}"), "{}"),
    };
    let calls = (0..7).map(|i| from("198.51.100.1", invented(i)));
    assert_eq!(statuses(&gate, calls).await, [200, 200, 200, 200, 200, 429, 429]);
    assert_eq!(upstream.requests().len(), 5);
    assert_eq!(
        gate.ask(Via::H1, &from("198.51.100.2", invented(8))).await.status,
        200,
        "another client pays for it"
    );
}

/// One key, shared among many addresses, is still one user.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_one_wherever_they_come_from() {
    let (_upstream, gate) = crowd("").await;
    let call =
        |i: u32| from(&format!("198.51.100.{i}"), Ask::chat().field("authorization", "Bearer sk-shared"));
    assert_eq!(statuses(&gate, (0..6).map(call)).await, [200, 200, 200, 200, 200, 429]);
    let same_key_elsewhere = from("198.51.100.9", Ask::chat().field("x-api-key", "sk-shared"));
    assert_eq!(
        gate.ask(Via::H1, &same_key_elsewhere).await.status,
        429,
        "the key in another field is another user"
    );
}

/// An IPv6 customer holds 2^64 addresses; one who hops among them is one client.
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_network_is_one_client() {
    let (_upstream, gate) = crowd("").await;
    let hops = (0..6).map(|i| from(&format!("2001:db8:1:2::{i:x}"), Ask::chat()));
    assert_eq!(statuses(&gate, hops).await, [200, 200, 200, 200, 200, 429]);
    assert_eq!(gate.ask(Via::H1, &from("2001:db8:1:3::1", Ask::chat())).await.status, 200);
}

/// Without a trusted proxy, the header is the client's own invention.
#[tokio::test(flavor = "multi_thread")]
async fn inventing_addresses_gains_nothing() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    let calls = (0..6)
        .map(|i| from(&format!("198.51.100.{i}"), Ask::chat()).field("x-real-ip", format!("10.0.0.{i}")));
    assert_eq!(statuses(&gate, calls).await, [200, 200, 200, 200, 200, 429]);
}

/// A session's limit is the session's, whether cookie, field or body names it, and nobody else can use it up.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_limited_and_bound_to_their_owner() {
    let (_upstream, gate) = crowd("limits: {session: {windows: [3/min]}}\n").await;
    let own = |ask: Ask| from("198.51.100.1", ask);
    let calls = [
        own(Ask::post("/api/data", "{}").field("cookie", "theme=dark; session_id=s1")),
        own(Ask::post("/api/data", "{}").field("x-session-id", "s1")),
        own(Ask::post("/api/data", r#"{"sessionId":"s1"}"#)),
    ];
    assert_eq!(statuses(&gate, calls.clone()).await, [200, 200, 200]);
    assert_eq!(statuses(&gate, calls.clone()).await, [429, 429, 429]);
    let other = own(Ask::post("/api/data", "{}").field("x-session-id", "s2"));
    let stranger = from("198.51.100.2", Ask::post("/api/data", "{}").field("x-session-id", "s1"));
    assert_eq!(statuses(&gate, [other, stranger]).await, [200, 200]);
    let answer = gate.ask(Via::H1, &calls[0]).await;
    assert_eq!(answer.field("ratelimit-policy"), Some("\"session\";q=3;w=60"));
}

/// Reading pages must not use up what chatting needs, nor the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn pages_and_apis_are_counted_apart() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {pages: {windows: [2/min]}, api: {windows: [2/min]}}\n");
    let (page, api) = (|| Ask::get("/page"), || Ask::post("/api/data", "{}"));
    assert_eq!(statuses(&gate, [page(), page(), page()]).await, [200, 200, 429]);
    assert_eq!(
        statuses(&gate, [api(), Ask::chat(), api(), Ask::new("DELETE", "/a")]).await,
        [200, 200, 429, 429]
    );
}

/// Callers with a key may be given more than those without.
#[tokio::test(flavor = "multi_thread")]
async fn classes_have_limits_of_their_own() {
    let (_upstream, gate) = crowd("limits: {ai: {classes: {keyed: [3/min], anonymous: [1/min]}}}\n").await;
    let anonymous = vec![from("198.51.100.1", Ask::chat()); 2];
    assert_eq!(statuses(&gate, anonymous).await, [200, 429]);
    let keyed = vec![from("198.51.100.2", Ask::chat().field("x-api-key", "k")); 4];
    assert_eq!(statuses(&gate, keyed).await, [200, 200, 200, 429]);
}

/// Limits of the head stand whatever follows, or broken bodies would be free probes; those of the body don't.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_draws_the_address_but_no_ai_call() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {api: {windows: [8/min]}}\n");
    let broken = vec![Ask::post("/api/chat", "{"); 6];
    assert_eq!(statuses(&gate, broken).await, [400; 6]);
    assert_eq!(standing(&gate, status(), "ai", 60).await, (5, 5, 0), "nothing was drawn");
    assert_eq!(statuses(&gate, vec![Ask::chat(); 3]).await, [200, 200, 429]);
}

/// All or nothing: a call that one limit refuses takes nothing from the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_takes_nothing_from_other_limits() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {ai: {windows: [1/min]}, session: {windows: [9/min]}}\n");
    let call = || Ask::chat().field("x-session-id", "s1");
    assert_eq!(statuses(&gate, vec![call(); 4]).await, [200, 429, 429, 429]);
    let (limit, remaining, _) = standing(&gate, status().field("x-session-id", "s1"), "session", 60).await;
    assert_eq!((limit, remaining), (9, 8));
}

/// A caller can see what is left without using any of it up.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_the_truth_and_draws_nothing() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "");
    assert_eq!(statuses(&gate, vec![Ask::chat(); 2]).await, [200, 200]);
    gate.advance(SECOND * 10);
    for _ in 0..3 {
        assert_eq!(standing(&gate, status(), "ai", 60).await, (5, 3, 50));
        assert_eq!(standing(&gate, status(), "ai", 3600).await, (50, 48, 3590));
    }
    assert_eq!(upstream.requests().len(), 2, "the status was forwarded");
    assert_eq!(statuses(&gate, vec![status(); 15]).await[13..], [200, 429], "20 a minute");
    let refused = gate.ask(Via::H2, &status()).await;
    assert_refused(&refused, 429, "rate_limited");
    assert_eq!(refused.field("retry-after"), Some("60"));
    assert_eq!(statuses(&gate, vec![Ask::chat(); 4]).await, [200, 200, 200, 429]);
}

/// Where the app has such a path itself, the gate must get out of its way.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_moves_or_goes() {
    let upstream = Upstream::ok().await;
    let moved = gate(upstream.address(), "rate_limit_status: /my/limits\n");
    assert!(moved.ask(Via::H1, &Ask::get("/my/limits")).await.json()["limits"].is_array());
    assert_eq!(upstream.requests().len(), 0);
    let off = gate(upstream.address(), "rate_limit_status: off\n");
    assert_eq!(off.ask(Via::H1, &status()).await.json()["reply"], "k");
    assert_eq!(upstream.request().line(), "GET /auth/rate-limit-status");
}

/// A route that repeats a limit counts for itself; all others share one counter.
#[tokio::test(flavor = "multi_thread")]
async fn inherited_limits_are_shared_and_overridden_ones_are_not() {
    let upstream = Upstream::ok().await;
    let settings = "limits: {api: {windows: [2/min]}}\n\
        routes:\n\
        - {name: shared, match: {paths: ['/shared/*']}}\n\
        - {name: own, match: {paths: ['/own/*']}, limits: {api: {windows: [3/min]}}}\n\
        - {name: free, match: {paths: ['/free/*']}, limits: {api: off}}\n";
    let gate = gate(upstream.address(), settings);
    let post = |path: &str| Ask::post(path, "{}");
    assert_eq!(
        statuses(&gate, [post("/shared/a"), post("/other"), post("/shared/b")]).await,
        [200, 200, 429]
    );
    assert_eq!(statuses(&gate, vec![post("/own/a"); 4]).await, [200, 200, 200, 429]);
    assert_eq!(statuses(&gate, vec![post("/free/a"); 5]).await, [200; 5]);
}

/// Each SDK raises its rate-limit exception only for its own shape.
#[tokio::test(flavor = "multi_thread")]
async fn a_429_has_the_shape_that_the_client_reads() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), "limits: {ai: {windows: [1/min]}}\n");
    assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
    for via in BOTH {
        let openai = gate.ask(via, &Ask::post("/v1/chat/completions", r#"{"stream":true}"#)).await;
        assert_refused(&openai, 429, "rate_limited");
        assert_eq!(openai.json()["error"]["code"], "rate_limit_exceeded", "{}", openai.text());
        let anthropic = gate.ask(via, &Ask::post("/v1/messages", "{}")).await;
        assert_refused(&anthropic, 429, "rate_limited");
        let body = anthropic.json();
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&"error".into(), &"rate_limit_error".into()),
            "{body}"
        );
        let other = gate.ask(via, &Ask::chat()).await;
        assert_refused(&other, 429, "rate_limited");
        assert_eq!(
            (other.field("content-type"), &other.json()["status"]),
            (Some("application/problem+json"), &429.into())
        );
    }
    assert_eq!(upstream.requests().len(), 1);
}

/// A caller who downloads or uploads more than is allowed is refused the next time, until the window has moved on; and
/// what somebody else transfers is not counted.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_as_they_flow() {
    let settings = "limits:\n  api: off\n  api-user: off\n  ai: off\n  \
                    down: {counts: all, by: [address], measure: bytes-out, windows: [30B/h]}\n  \
                    up: {counts: all, by: [user], measure: bytes-in, windows: [1KiB/month]}\n";
    let (_upstream, gate) = crowd(settings).await;
    let get = |address| from(address, Ask::get("/file"));
    // Thirteen bytes each: the third begins with four left, and takes them all.
    let asks = [get("192.0.2.1"), get("192.0.2.1"), get("192.0.2.1"), get("192.0.2.1"), get("192.0.2.2")];
    assert_eq!(statuses(&gate, asks).await, [200, 200, 200, 429, 200]);
    let refused = gate.ask(Via::H2, &get("192.0.2.1")).await;
    assert!(refused.text().contains("down"), "{}", refused.text());
    gate.advance(SECOND * 3600);
    let post =
        |bytes: usize| from("192.0.2.1", Ask::post("/api/x", format!("\"{}\"", "x".repeat(bytes - 2))));
    assert_eq!(statuses(&gate, [post(1000), post(24), post(10)]).await, [200, 200, 429]);
    // A large window forgets in grains.
    gate.advance(SECOND * 86_400 * 31);
    assert_eq!(statuses(&gate, [post(10)]).await, [200]);
}
