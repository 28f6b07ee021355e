//! The operator's hand: bans, limits and what is told of both afterwards.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::{Answer, Ask, BOTH, Gate, Scratch, Upstream, Via, Wire, assert_refused, gate};
use serde_json::Value;
use tokio::task::block_in_place;

const MINUTE: Duration = Duration::from_secs(60);

const SETTINGS: &str = r#"
admin: {listen: '127.0.0.1:0', token: open-sesame}
client: {trusted_proxies: [127.0.0.1, '2001:db8:7::9']}
bans: {strikes: 50/10min, exempt: [203.0.113.0/24]}
reputation: {half_life: 1h, tighten_below: 50}
limits:
  pages: {windows: [3/h]}
  ai: {windows: [2/h]}
  api: off
  api-user: off
routes:
  - {name: own, match: {paths: [/own/*]}, limits: {pages: {windows: [9/h]}}}
"#;

fn from(address: &str, ask: Ask) -> Ask {
    ask.field("x-forwarded-for", address)
}

fn page(address: &str) -> Ask {
    from(address, Ask::get("/page"))
}

async fn order(gate: &Gate, method: &'static str, target: &str, body: &str) -> Answer {
    let ask = Ask::new(method, target).field("authorization", "Bearer open-sesame");
    gate.admin_ask(&if body.is_empty() { ask } else { ask.body(body) }).await
}

async fn ban(gate: &Gate, body: &str) -> Answer {
    order(gate, "POST", "/api/security/bans", body).await
}

async fn seen(gate: &Gate, target: &str) -> Value {
    order(gate, "GET", target, "").await.json()
}

#[track_caller]
fn assert_told(answer: &Answer, status: u16, part: &str) {
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(answer.status == status && detail.contains(part), "{status} {part}: {} {detail}", answer.status);
}

/// An operator who sees an attack wants it to stop now, for as long as they say, and to be able to take it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_ban_by_hand_holds_at_once_and_is_lifted_by_hand() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), SETTINGS);
    assert_eq!(gate.ask(Via::H1, &page("198.51.100.7")).await.status, 200);
    let placed = ban(&gate, r#"{"address":"198.51.100.7","for":"90m","reason":"scrapes"}"#).await;
    assert_eq!(placed.status, 200, "{}", placed.text());
    for via in BOTH {
        let banned = gate.ask(via, &page("198.51.100.7")).await;
        assert_refused(&banned, 403, "banned");
        assert_eq!(banned.field("retry-after"), Some("5400"));
        assert_eq!(gate.ask(via, &from("198.51.100.8", Ask::get("/own/a"))).await.status, 200, "a neighbour");
    }
    let listed = seen(&gate, "/api/security/bans").await["bans"][0].clone();
    assert_eq!((&listed["kind"], &listed["id"]), (&"address".into(), &"198.51.100.7".into()));
    assert_eq!((&listed["reason"], &listed["by_hand"]), (&"scrapes".into(), &true.into()));
    gate.advance(90 * MINUTE);
    assert_eq!(gate.ask(Via::H1, &page("198.51.100.7")).await.status, 200);

    assert_eq!(ban(&gate, r#"{"address":"2001:db8::7"}"#).await.status, 200);
    let refused = gate.ask(Via::H1, &page("2001:db8::9")).await;
    assert_refused(&refused, 403, "banned");
    assert_eq!(refused.field("retry-after"), Some("900"), "as long as a first ban");
    let shown = seen(&gate, "/api/security/bans").await["bans"][0]["id"].clone();
    assert_eq!(shown, "2001:db8::/64");
    let lifted = order(&gate, "DELETE", "/api/security/bans?address=2001%3Adb8%3A%3A%2F64", "").await;
    assert_eq!(lifted.status, 200, "{}", lifted.text());
    assert_eq!(gate.ask(Via::H1, &page("2001:db8::9")).await.status, 200);
    assert!(seen(&gate, "/api/security/bans").await["bans"].as_array().is_some_and(Vec::is_empty));
}

/// Logs show a user by 16 digits: an operator has nothing else to ban a key by.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_banned_by_what_the_log_shows() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), SETTINGS);
    let asks = |address: &str| page(address).field("authorization", "Bearer a-key");
    assert_eq!(gate.ask(Via::H1, &asks("198.51.100.1")).await.status, 200);
    let log = gate.access_log("\"user\"").await;
    let user = log.split("\"user\":\"").nth(1).and_then(|rest| rest.get(..16)).expect("a digest").to_owned();
    let placed = ban(&gate, &format!(r#"{{"user":"{user}"}}"#)).await;
    assert_eq!(placed.status, 200, "{}", placed.text());
    assert_refused(&gate.ask(Via::H1, &asks("198.51.100.2")).await, 403, "banned");
    assert_eq!(gate.ask(Via::H1, &page("198.51.100.2")).await.status, 200, "its address is not banned");
    assert_eq!(order(&gate, "DELETE", &format!("/api/security/bans?user={user}"), "").await.status, 200);
    assert_eq!(gate.ask(Via::H1, &asks("198.51.100.3")).await.status, 200);
    assert_told(&ban(&gate, r#"{"user":"00000000deadbeef"}"#).await, 404, "asked lately");
}

/// A slip must not shut out everybody behind a proxy, nor do something else than was meant.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_and_names_the_field() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), SETTINGS);
    for (body, status, part) in [
        (r#"{"address":"127.0.0.1"}"#, 409, "client.trusted_proxies"),
        (r#"{"address":"2001:db8:7::1"}"#, 409, "client.trusted_proxies"),
        (r#"{"address":"203.0.113.9"}"#, 409, "bans.exempt"),
        (r#"{"address":"198.51.100.0/24"}"#, 400, "address: "),
        (r#"{"address":"somewhere"}"#, 400, "address: "),
        (r#"{"user":"alice"}"#, 400, "user: "),
        (r#"{"address":"198.51.100.7","user":"00000000deadbeef"}"#, 400, "either an address or a user"),
        (r#"{}"#, 400, "either an address or a user"),
        (r#"{"address":"198.51.100.7","for":"soon"}"#, 400, "for: "),
        (r#"{"address":"198.51.100.7","for":"0s"}"#, 400, "for: "),
        (r#"{"address":"198.51.100.7","reason":" "}"#, 400, "reason "),
        (r#"{"address":"198.51.100.7","untill":"1h"}"#, 400, "untill"),
        ("{", 400, "The body is JSON"),
    ] {
        assert_told(&ban(&gate, body).await, status, part);
    }
    assert_told(
        &order(&gate, "DELETE", "/api/security/bans?address=198.51.100.7", "").await,
        404,
        "not banned",
    );
    assert_told(&order(&gate, "DELETE", "/api/security/bans?addres=1", "").await, 400, "addres");
    assert_told(&order(&gate, "DELETE", "/api/security/bans", "").await, 400, "either an address or a user");
    for (body, status, part) in [
        (r#"{"limit":"ia","windows":["1/min"]}"#, 404, "known: ai, own/pages, pages"),
        (r#"{"limit":"ai","windows":["many"]}"#, 400, "windows: "),
        (r#"{"limit":"ai","windows":["0/min"]}"#, 400, "windows: "),
        (r#"{"limit":"ai","windows":["1/min","2/min"]}"#, 400, "windows: "),
        (r#"{"limit":"ai","windows":[]}"#, 400, "windows: "),
        (r#"{"limit":"ai","windows":"off"}"#, 400, "windows: "),
    ] {
        assert_told(&order(&gate, "POST", "/api/security/limits", body).await, status, part);
    }
    assert_eq!(gate.ask(Via::H1, &page("198.51.100.7")).await.status, 200);
    let refused = gate.admin_ask(&Ask::post("/api/security/bans", r#"{"address":"198.51.100.7"}"#)).await;
    assert_eq!(refused.status, 401, "without the token nothing changes");
    let refused = order(&gate, "PUT", "/api/security/bans", "").await;
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD, POST, DELETE")));
}

/// Somebody locked out by mistake must be able to go on at once, on every route.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_gives_back_limits_and_reputation() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), SETTINGS);
    for path in ["/page", "/own/a"] {
        for _ in 0..10 {
            gate.ask(Via::H1, &from("198.51.100.7", Ask::get(path))).await;
        }
        assert_refused(&gate.ask(Via::H1, &from("198.51.100.7", Ask::get(path))).await, 429, "rate_limited");
    }
    let worst = seen(&gate, "/api/security/reputation").await["callers"][0].clone();
    assert_eq!(worst["id"], "198.51.100.7");
    assert!(
        worst["score"].as_u64() < Some(70) && worst["faults"]["rate_limited"].as_u64() > Some(5),
        "{worst}"
    );
    let reset = order(&gate, "POST", "/api/security/limits/reset", r#"{"address":"198.51.100.7"}"#).await;
    assert_eq!(reset.status, 200, "{}", reset.text());
    assert!(seen(&gate, "/api/security/reputation").await["callers"].as_array().is_some_and(Vec::is_empty));
    for (path, most) in [("/page", 3), ("/own/a", 9)] {
        for _ in 0..most {
            assert_eq!(gate.ask(Via::H1, &from("198.51.100.7", Ask::get(path))).await.status, 200, "{path}");
        }
        assert_refused(&gate.ask(Via::H1, &from("198.51.100.7", Ask::get(path))).await, 429, "rate_limited");
    }
}

/// Under attack, or when a customer calls, a limit has to change now, and stay changed until somebody changes it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_changed_at_once_and_stays_so() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let settings = format!("{SETTINGS}state_dir: {}\n", scratch.path("state").display());
    let first = gate(upstream.address(), &settings);
    assert_eq!(seen_limits(&first).await, ("[\"3/h\"]".into(), "settings".into()));
    for _ in 0..3 {
        assert_eq!(first.ask(Via::H1, &page("198.51.100.7")).await.status, 200);
    }
    assert_refused(&first.ask(Via::H1, &page("198.51.100.7")).await, 429, "rate_limited");
    let set = order(&first, "POST", "/api/security/limits", r#"{"limit":"pages","windows":["5/h"]}"#).await;
    assert_eq!((set.status, &set.json()["kept"]), (200, &true.into()), "{}", set.text());
    for _ in 0..2 {
        assert_eq!(
            first.ask(Via::H1, &page("198.51.100.7")).await.status,
            200,
            "what was drawn still counts"
        );
    }
    assert_refused(&first.ask(Via::H1, &page("198.51.100.7")).await, 429, "rate_limited");
    assert_eq!(
        first.ask(Via::H1, &from("198.51.100.7", Ask::get("/own/a"))).await.status,
        200,
        "its own limit"
    );
    assert_eq!(order(&first, "POST", "/api/config/reload", "").await.status, 200);
    assert_eq!(seen_limits(&first).await, ("[\"5/h\"]".into(), "by hand".into()), "a reload keeps it");
    drop(first);

    let second = gate(upstream.address(), &settings);
    assert_eq!(seen_limits(&second).await, ("[\"5/h\"]".into(), "by hand".into()), "a restart keeps it");
    for _ in 0..5 {
        assert_eq!(second.ask(Via::H1, &page("198.51.100.7")).await.status, 200);
    }
    assert_refused(&second.ask(Via::H1, &page("198.51.100.7")).await, 429, "rate_limited");
    let auto = order(&second, "POST", "/api/security/limits", r#"{"limit":"pages","windows":"auto"}"#).await;
    assert_eq!(auto.status, 200, "{}", auto.text());
    assert_eq!(seen_limits(&second).await, ("[\"3/h\"]".into(), "settings".into()));
}

async fn seen_limits(gate: &Gate) -> (String, String) {
    let limits = seen(gate, "/api/security/limits").await;
    let found = limits["limits"].as_array().into_iter().flatten().find(|limit| limit["limit"] == "pages");
    let found = found.expect("listed");
    (found["windows"].to_string(), found["origin"].as_str().unwrap_or_default().to_owned())
}

fn command(state: &std::path::Path, arguments: &[&str]) -> (bool, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let program = program.args(arguments).env_clear().env("STATE_DIR", state);
    let output = block_in_place(|| program.env("UPSTREAM_URL", "http://127.0.0.1:1").output()).expect("runs");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// After an incident: who did what, when, from where, and has nobody touched the list since.
#[tokio::test(flavor = "multi_thread")]
async fn every_act_leaves_a_row_that_nobody_can_change_unseen() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let state: PathBuf = scratch.path("state");
    let gate = gate(upstream.address(), &format!("{SETTINGS}state_dir: {}\n", state.display()));
    ban(&gate, r#"{"address":"198.51.100.7","reason":"scrapes"}"#).await;
    ban(&gate, r#"{"address":"127.0.0.1"}"#).await;
    order(&gate, "DELETE", "/api/security/bans?address=198.51.100.7", "").await;
    order(&gate, "POST", "/api/security/limits", r#"{"limit":"pages","windows":["5/h"]}"#).await;
    order(&gate, "POST", "/api/security/limits/reset", r#"{"address":"198.51.100.7"}"#).await;
    order(&gate, "POST", "/api/security/circuit-breaker/open", "").await;
    order(&gate, "POST", "/api/security/circuit-breaker/auto", "").await;
    order(&gate, "POST", "/api/security/maintenance/on", "").await;
    order(&gate, "POST", "/api/security/maintenance/off", "").await;
    order(&gate, "POST", "/api/config/reload", "").await;
    let guess = Ask::post("/api/security/bans", "{}").field("authorization", "Bearer open-sesamf");
    assert_eq!(gate.admin_ask(&guess).await.status, 401);

    let (good, listed) = command(&state, &["audit", "list"]);
    let told: Vec<_> =
        listed.lines().map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect();
    let acts = [
        "ban 198.51.100.7: done",
        "ban 127.0.0.1: refused",
        "unban 198.51.100.7: done",
        "limit pages: done",
        "limits_reset 198.51.100.7: done",
        "breaker: done",
        "breaker: done",
        "maintenance: done",
        "maintenance: done",
        "reload: done",
        "token_refused: refused",
    ];
    assert!(good && told.len() == acts.len(), "{listed}");
    for (line, act) in told.iter().zip(acts) {
        assert!(line.starts_with(act) && line.contains("(by 127.0.0.1"), "{act}: {line}");
    }
    assert!(listed.contains(r#""windows":["3/h"]"#) && listed.contains(r#""windows":["5/h"]"#), "{listed}");
    let text = std::fs::read_to_string(state.join("audit.jsonl")).expect("rows");
    assert!(!text.contains("open-sesam"), "a token is in the audit");
    let events = gate.events("token_refused\"").await;
    assert_eq!(events.matches("\"event\":\"ADMIN_ACT\"").count(), 10, "{events}");

    let (good, said) = command(&state, &["audit", "verify"]);
    assert!(good && said.starts_with("22 rows, all in order"), "{said}");
    std::fs::write(state.join("audit.jsonl"), text.replacen("scrapes", "nothing", 1)).expect("writes");
    let (good, said) = command(&state, &["audit", "verify"]);
    assert!(!good && said.contains("row 2 was changed"), "{said}");
    let whole = text.trim_end();
    let cut = &whole[..=whole.rfind('\n').expect("several rows")];
    std::fs::write(state.join("audit.jsonl"), cut).expect("writes");
    let (good, said) = command(&state, &["audit", "verify"]);
    assert!(!good && said.contains("row 22 is missing"), "{said}");

    let refused = ban(&gate, r#"{"address":"198.51.100.9"}"#).await;
    assert_told(&refused, 503, "row 22 is missing");
    assert_eq!(
        gate.ask(Via::H1, &from("198.51.100.9", Ask::get("/own/a"))).await.status,
        200,
        "nothing was done"
    );
    std::fs::write(state.join("audit.jsonl"), text).expect("writes");
    assert_eq!(ban(&gate, r#"{"address":"198.51.100.9"}"#).await.status, 200);
}

/// What the command line says is what a script, or somebody at three in the morning, goes by.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_what_the_port_does() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let state: PathBuf = scratch.path("state");
    let settings = SETTINGS.replace(", token: open-sesame", "");
    let gate = gate(upstream.address(), &format!("{settings}state_dir: {}\n", state.display()));
    let admin = gate.admin().to_string();
    let run = |arguments: &[&str]| command(&state, &[arguments, &["--admin", &admin]].concat());
    gate.ask(Via::H1, &page("198.51.100.7")).await;
    let (good, said) = run(&["ban", "198.51.100.7", "--for", "1h", "--reason", "scrapes"]);
    assert!(good && said.starts_with("address 198.51.100.7 is banned until 20"), "{said}");
    let (good, said) = run(&["bans"]);
    assert!(good && said.contains("198.51.100.7 until") && said.contains("scrapes, by hand"), "{said}");
    assert_refused(&gate.ask(Via::H1, &page("198.51.100.7")).await, 403, "banned");
    let (good, said) = run(&["unban", "198.51.100.7"]);
    assert!(good && said.contains("not banned any more"), "{said}");
    let (good, said) = run(&["unban", "198.51.100.7"]);
    assert!(!good && said.contains("refused (404)"), "{said}");
    let (good, said) = run(&["top"]);
    assert!(good && said.contains("2  198.51.100.7  last at 20"), "{said}");
    let (good, said) = run(&["limits", "set", "ai", "7/min", "70/h"]);
    assert!(good && said.contains("ai: 7/min, 70/h by hand; the settings have 2/h"), "{said}");
    let (good, said) = run(&["limits", "show"]);
    assert!(good && said.contains("by hand") && said.contains("own/pages: 9/h\n"), "{said}");
    let (good, said) = run(&["limits", "auto", "ai"]);
    assert!(good && said.trim() == "ai: 2/h", "{said}");
    let (good, said) = run(&["limits", "reset", "198.51.100.7"]);
    assert!(good && said.contains("begins anew"), "{said}");
    let (good, said) = run(&["state", "stats"]);
    assert!(good && said.contains("counters: ") && said.contains("bans: 0"), "{said}");
    let (good, said) = run(&["ban", "alice"]);
    assert!(!good && said.contains("address: "), "{said}");
    let (good, said) = command(&state, &["audit", "list", "--json", "--since", "2026-01-01T00:00:00Z"]);
    assert!(good && said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");
    let (good, said) = command(&state, &["audit", "list", "--since", "2126-01-01T00:00:00Z"]);
    assert_eq!((good, said.as_str()), (true, ""));
    let mut wire = Wire::to(gate.traffic()).await;
    assert_eq!(wire.ask(page("198.51.100.7").bytes()).await.status, 200);
}
