//! Who is refused again and again is shut out for a while: never for ever, never for what somebody else did.

mod common;

use std::time::Duration;

use common::{Answer, Ask, BOTH, Gate, Upstream, Via, Wire, assert_refused, gate};

const MINUTE: Duration = Duration::from_secs(60);

/// The shipped settings of bans, under limits that are soon met.
const SETTINGS: &str = r#"
bans: {strikes: 5/10min, login_failures: 4/10min, exempt: [203.0.113.0/24]}
reputation: off
client: {trusted_proxies: [127.0.0.1]}
limits:
  pages: {windows: [1/h]}
  api: off
  api-user: off
  ai: off
"#;

async fn strict() -> (Upstream, Gate) {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), SETTINGS);
    (upstream, gate)
}

fn from(address: &str, ask: Ask) -> Ask {
    ask.field("x-forwarded-for", address)
}

fn page(address: &str) -> Ask {
    from(address, Ask::get("/page"))
}

/// The reasons of so many answers to one request.
async fn reasons(gate: &Gate, ask: &Ask, times: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    for time in 0..times {
        let answer = gate.ask(BOTH[time % 2], ask).await;
        reasons.push(answer.field("x-tidegate-reason").unwrap_or("-").to_owned());
    }
    reasons
}

fn waits(answer: &Answer) -> Duration {
    let seconds = answer.field("retry-after").and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or_else(|| panic!("no Retry-After: {answer:?}")))
}

/// An operator is promised: five refusals in ten minutes, fifteen minutes out, twice as long the next time.
#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_refusal_brings_a_ban_that_ends_and_doubles() {
    let (upstream, gate) = strict().await;
    let ask = page("198.51.100.7");
    assert_eq!(
        reasons(&gate, &ask, 6).await,
        ["-", "rate_limited", "rate_limited", "rate_limited", "rate_limited", "rate_limited"]
    );
    for via in BOTH {
        let banned = gate.ask(via, &from("198.51.100.7", Ask::chat())).await;
        assert_refused(&banned, 403, "banned");
        assert_eq!(waits(&banned), 15 * MINUTE);
        assert!(banned.text().contains("bans"), "{}", banned.text());
    }
    assert_eq!(gate.ask(Via::H1, &from("198.51.100.8", Ask::chat())).await.status, 200, "a neighbour");
    let events = gate.events(r#""reason":"banned""#).await;
    assert_eq!(
        events.matches(r#""reason":"banned""#).count(),
        1,
        "one for the ban, none for each try: {events}"
    );
    gate.advance(15 * MINUTE - Duration::from_micros(1));
    assert_refused(&gate.ask(Via::H1, &ask).await, 403, "banned");
    gate.advance(Duration::from_micros(1));
    assert_eq!(gate.ask(Via::H1, &from("198.51.100.7", Ask::chat())).await.status, 200);
    assert_eq!(reasons(&gate, &ask, 6).await[4..], ["rate_limited", "banned"], "strikes begin anew");
    assert_eq!(waits(&gate.ask(Via::H1, &ask).await), 30 * MINUTE);
    assert_eq!(upstream.requests().len(), 3);
}

/// Refusals that lie far apart are no pattern.
#[tokio::test(flavor = "multi_thread")]
async fn strikes_wear_off() {
    let (_upstream, gate) = strict().await;
    gate.ask(Via::H1, &page("198.51.100.7")).await;
    for _ in 0..12 {
        gate.advance(4 * MINUTE);
        assert_refused(&gate.ask(Via::H1, &page("198.51.100.7")).await, 429, "rate_limited");
    }
}

/// A page must not be able to have its visitor shut out, nor one user's mischief another behind the same trusted proxy.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_banned_for_what_others_do() {
    let (_upstream, gate) = strict().await;
    let by_a_page = page("198.51.100.7").field("sec-fetch-site", "cross-site");
    assert!(!reasons(&gate, &by_a_page, 12).await.contains(&"banned".into()));
    let foreign = from("198.51.100.7", Ask::chat()).field("origin", "https://evil.example");
    assert_eq!(reasons(&gate, &foreign, 12).await, ["origin_denied"; 12]);
    let mistaken = from("198.51.100.7", Ask::post("/api/chat", "{"));
    assert_eq!(reasons(&gate, &mistaken, 12).await, ["invalid_json"; 12]);
    assert!(!reasons(&gate, &Ask::get("/page"), 12).await.contains(&"banned".into()), "the proxy itself");
    assert!(!reasons(&gate, &page("203.0.113.9"), 12).await.contains(&"banned".into()), "an exempt monitor");
}

/// A key that misbehaves is shut out wherever it comes from.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_banned_with_its_key() {
    let (_upstream, gate) = strict().await;
    let with_key = |address: &str| page(address).field("authorization", "Bearer k");
    for n in 0..5 {
        reasons(&gate, &with_key(&format!("198.51.100.{n}")), 2).await;
    }
    assert_refused(&gate.ask(Via::H1, &with_key("198.51.100.99")).await, 403, "banned");
    assert_eq!(gate.ask(Via::H1, &page("198.51.100.98")).await.status, 200);
}

/// Passwords must not be guessed at the pace of the network; a mistyped one must not shut anyone out.
#[tokio::test(flavor = "multi_thread")]
async fn logins_that_fail_again_and_again_bring_a_ban() {
    let upstream = Upstream::answering("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
    let gate = gate(upstream.address(), SETTINGS);
    let login = from("198.51.100.7", Ask::post("/login", r#"{"user":"a","password":"hunter2"}"#));
    assert_eq!(reasons(&gate, &login, 5).await, ["-", "-", "-", "-", "banned"]);
    assert_eq!(upstream.requests().len(), 4);
    let events = gate.events(r#""reason":"banned""#).await;
    assert_eq!(events.matches(r#""event":"AUTH_FAILED""#).count(), 2, "from the third on: {events}");
    assert!(!events.contains("hunter2"));
    let look = from("198.51.100.8", Ask::get("/webhook/me"));
    assert_eq!(reasons(&gate, &look, 12).await, ["-"; 12], "a page that asks who is logged in is no login");
}

/// A caller of a bad reputation has half as much, until that has worn off.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_reputation_halves_the_limits() {
    let upstream = Upstream::ok().await;
    let settings =
        "reputation: {half_life: 1h, tighten_below: 80}\nlimits: {pages: {windows: [8/h]}, api: off}\n";
    let gate = gate(upstream.address(), settings);
    let threat = Ask::post("/api/x", r#"{"message":"hi"}"#).field("x-forwarded-host", "a");
    let bad = Ask::get("/a%00b");
    for _ in 0..2 {
        assert_refused(&gate.ask(Via::H1, &bad).await, 400, "invalid_path");
    }
    assert_eq!(gate.ask(Via::H1, &threat).await.status, 200);
    let pages = reasons(&gate, &Ask::get("/page"), 5).await;
    assert_eq!(pages, ["-", "-", "-", "-", "rate_limited"], "each counts twice");
    gate.advance(MINUTE * 300);
    assert_eq!(reasons(&gate, &Ask::get("/page"), 8).await, ["-"; 8]);
}

/// Whoever is banned must not hold connections or make work by trying on.
#[tokio::test(flavor = "multi_thread")]
async fn a_banned_address_is_turned_away_at_the_door() {
    let upstream = Upstream::ok().await;
    let settings = SETTINGS.replace("client: {trusted_proxies: [127.0.0.1]}\n", "");
    let gate = gate(upstream.address(), &settings);
    let mut open = Wire::to(gate.traffic()).await;
    reasons(&gate, &Ask::get("/page"), 6).await;
    let answer = open.ask(Ask::get("/page").bytes()).await;
    assert_refused(&answer, 403, "banned");
    // Without a byte of a request.
    let answer = Wire::to(gate.traffic()).await.ask("").await;
    assert_refused(&answer, 403, "banned");
    assert_eq!(waits(&answer), 15 * MINUTE);
    gate.advance(15 * MINUTE);
    assert_eq!(gate.ask(Via::H1, &Ask::post("/api/x", "{}")).await.status, 200);
}
