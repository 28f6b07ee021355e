use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use secrecy::SecretString;

use super::*;
use crate::config::Rate;
use crate::observe::audit::{Act, Audit, AuditError, Began, Outcome};
use crate::observe::{Ailment, AilmentKind, BreakerView};
use crate::proxy::{NotDone, NotSwitched, Whom};
use crate::state::switches::{Maintenance, Unchanged};
use crate::state::{Clock, Subject, Timestamp};
use crate::upstream::breaker::Mode;

/// Header fields of a request.
type Fields = &'static [(&'static str, &'static str)];

struct Gate(Snapshot);

impl Sources for Gate {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }

    fn top(&self, most: usize) -> Vec<TopCaller> {
        let caller = |number: u64| TopCaller {
            identifier: format!("192.0.2.{number}"),
            requests: 9 - number,
            last_request: Timestamp::from_micros(1_709_208_000_000_000),
        };
        (1..=3).map(caller).take(most).collect()
    }

    fn bans(&self) -> Vec<(Arc<Ban>, bool)> {
        Vec::new()
    }

    fn limits(&self) -> Vec<LimitView> {
        Vec::new()
    }

    fn reputations(&self, _: usize) -> Vec<Standing> {
        Vec::new()
    }

    fn store(&self) -> MemoryStats {
        MemoryStats::default()
    }

    fn metrics(&self, snapshot: &Snapshot) -> Option<String> {
        Some(format!("tidegate_in_flight {}\n", snapshot.in_flight))
    }

    fn reload(&self, asker: std::net::IpAddr) -> Result<(), String> {
        if asker.is_loopback() { Ok(()) } else { Err("t.yaml:3: drain: can't change".into()) }
    }
}

impl Controls for Gate {
    fn switch_breakers(
        &self,
        mode: Mode,
        upstream: Option<&str>,
        _: IpAddr,
    ) -> Result<Vec<BreakerView>, NotSwitched> {
        let upstream = upstream.unwrap_or("default");
        if upstream == "unknown" {
            return Err(NotSwitched::NoSuchUpstream(vec!["default".into()]));
        }
        let is_open = mode == Mode::Open;
        let (state, mode) = (if is_open { "open" } else { "closed" }, mode.name());
        let view = BreakerView {
            upstream: upstream.into(),
            state,
            is_open,
            mode,
            failures: 0,
            calls: 0,
            reason: None,
        };
        Ok(vec![view])
    }

    fn maintain(&self, _: Option<Maintenance>, _: IpAddr) -> Result<(), NotSwitched> {
        Err(NotSwitched::Unchanged(Unchanged::NotKept(std::io::Error::other("the disk is full"))))
    }

    fn keeps_switches(&self) -> bool {
        false
    }

    fn ban(&self, whom: &Whom, time: Option<Duration>, reason: &str) -> Result<(Option<Ban>, Ban), NotDone> {
        let Whom::Address(address) = *whom else { return Err(NotDone::Unknown("0".into())) };
        let since = Timestamp::from_micros(1_709_208_000_000_000);
        let until = since.after(time.unwrap_or(Duration::from_secs(900)));
        let subject = Subject::address(address);
        let (level, reason) = (1, reason.into());
        Ok((None, Ban { subject, since, until, remembered_until: until, level, reason, by_hand: true }))
    }

    fn unban(&self, _: &Whom) -> Result<Ban, NotDone> {
        Err(NotDone::NotBanned(Subject::global()))
    }

    fn reset_counters(&self, _: &Whom) -> Result<(Subject, u8, usize), NotDone> {
        Ok((Subject::global(), 100, 0))
    }

    fn set_limit(&self, name: &str, _: Option<&[Rate]>) -> Result<(LimitView, LimitView), NotDone> {
        Err(NotDone::NoSuchLimit(name.into(), vec!["ai".into()]))
    }

    fn begin(&self, act: &Act) -> Result<Began, AuditError> {
        Audit::new(None, Clock::system()).begin(act)
    }

    fn end(&self, _: &Act, _: Began, _: &Outcome) {}
}

const SECRET: &str = "correct-horse-battery-staple";

fn gate() -> Gate {
    let mut snapshot =
        Snapshot { version: "9.9.9", readiness: Readiness::Ready, in_flight: 3, ..Snapshot::default() };
    snapshot.refusals = vec![("rate_limited".into(), 4)];
    snapshot.limits.ai_per_minute = Some(5);
    snapshot.state.users = 2;
    Gate(snapshot)
}

fn ask(method: &str, path: &str, remote: &str, fields: &[(&str, &str)]) -> Response<Vec<u8>> {
    ask_of(&gate(), method, path, remote, fields)
}

fn ask_of(gate: &Gate, method: &str, path: &str, remote: &str, fields: &[(&str, &str)]) -> Response<Vec<u8>> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let request = AdminRequest {
        method: &method,
        path: path.split('?').next().unwrap_or_default(),
        query: path.split_once('?').map(|(_, query)| query),
        body: b"",
        remote: remote.parse().unwrap(),
        authority: None,
        headers: &headers,
    };
    let token = AdminToken::given(&SecretString::from(SECRET)).unwrap();
    answer(&request, &token, gate)
}

fn parsed(answer: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

const LOCAL: (&str, &str) = ("host", "localhost:9464");
const BEARER: (&str, &str) = ("authorization", "Bearer correct-horse-battery-staple");

/// Who may read what: each row that went the other way would show the gate's inside, or lock its operator out.
#[test]
fn reads_need_this_machine_or_the_token() {
    let rows: &[(&str, Fields, u16)] = &[
        ("127.0.0.1", &[LOCAL], 200),
        ("127.8.9.1", &[("host", "127.0.0.1:9464")], 200),
        ("::1", &[("host", "[::1]:9464")], 200),
        ("::ffff:127.0.0.1", &[("host", "LocalHost")], 200),
        ("127.0.0.1", &[LOCAL, ("origin", "http://localhost:9464")], 200),
        // Not from here.
        ("192.0.2.1", &[LOCAL], 401),
        ("::ffff:192.0.2.1", &[LOCAL], 401),
        // From here, on behalf of somebody else.
        ("127.0.0.1", &[LOCAL, ("x-forwarded-for", "127.0.0.1")], 401),
        ("127.0.0.1", &[LOCAL, ("x-forwarded-proto", "https")], 401),
        ("127.0.0.1", &[LOCAL, ("forwarded", "for=127.0.0.1")], 401),
        ("127.0.0.1", &[LOCAL, ("via", "1.1 nginx")], 401),
        ("127.0.0.1", &[LOCAL, ("x-real-ip", "127.0.0.1")], 401),
        // From here, sent by a foreign page: DNS rebinding, or plain cross-site.
        ("127.0.0.1", &[("host", "evil.example:9464")], 401),
        ("127.0.0.1", &[("host", "localhost.evil.example")], 401),
        ("127.0.0.1", &[("host", "127.0.0.1.evil.example")], 401),
        ("127.0.0.1", &[("host", "localhost@evil.example")], 401),
        ("127.0.0.1", &[("host", "evil@localhost")], 401),
        ("127.0.0.1", &[("host", "")], 401),
        ("127.0.0.1", &[], 401),
        ("127.0.0.1", &[LOCAL, ("host", "evil.example")], 401),
        ("127.0.0.1", &[LOCAL, ("origin", "https://evil.example")], 401),
        ("127.0.0.1", &[LOCAL, ("origin", "null")], 401),
        ("127.0.0.1", &[LOCAL, ("sec-fetch-site", "cross-site")], 401),
        // With the token from anywhere, under any name.
        ("192.0.2.1", &[("host", "admin.example"), BEARER], 200),
        ("192.0.2.1", &[("authorization", "bearer   correct-horse-battery-staple ")], 200),
        ("127.0.0.1", &[("x-forwarded-for", "192.0.2.1"), BEARER], 200),
        // With something else instead.
        ("127.0.0.1", &[LOCAL, ("authorization", "Bearer correct-horse-battery-stapl")], 401),
        ("127.0.0.1", &[LOCAL, ("authorization", "Basic correct-horse-battery-staple")], 401),
        ("127.0.0.1", &[LOCAL, ("authorization", "Bearer ")], 401),
        ("127.0.0.1", &[LOCAL, ("authorization", "")], 401),
    ];
    for (remote, fields, status) in rows {
        for path in ["/", "/metrics", "/metrics.json", "/api/security/stats", "/api/sessions/stats"] {
            assert_eq!(ask("GET", path, remote, fields).status(), *status, "{path} {remote} {fields:?}");
        }
    }
}

/// HTTP/2 names its host in `:authority`; a `Host` beside it must not say something else.
#[test]
fn the_authority_counts_as_the_host() {
    let token = AdminToken::given(&SecretString::from(SECRET)).unwrap();
    for (authority, host, status) in [
        ("localhost:9464", None, 200),
        ("evil.example", None, 401),
        ("localhost:9464", Some("evil.example"), 401),
        ("evil.example", Some("localhost:9464"), 401),
    ] {
        let headers: HeaderMap =
            host.map(|host| (http::header::HOST, HeaderValue::from_static(host))).into_iter().collect();
        let remote = [127, 0, 0, 1].into();
        let request = AdminRequest {
            method: &Method::GET,
            path: "/metrics",
            query: None,
            body: b"",
            remote,
            authority: Some(authority),
            headers: &headers,
        };
        assert_eq!(answer(&request, &token, &gate()).status(), status, "{authority} {host:?}");
    }
}

/// Being on this machine is enough to look, never to change.
#[test]
fn changes_need_the_token() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        assert_eq!(ask(method, "/metrics", "127.0.0.1", &[LOCAL]).status(), 401);
        assert_eq!(ask(method, "/healthz", "192.0.2.1", &[]).status(), 401);
        let refused = ask(method, "/metrics", "127.0.0.1", &[LOCAL, BEARER]);
        assert_eq!(refused.status(), 405);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }
}

/// A breaker that a web page, a stranger or a slip of the keyboard could open would be an attack of its own.
#[test]
fn switches_take_the_token_a_post_and_a_name_that_exists() {
    let all = "/api/security/circuit-breaker/open";
    let one = "/api/security/circuit-breaker/auto?upstream=my%20app";
    assert_eq!(ask("POST", all, "127.0.0.1", &[LOCAL]).status(), 401);
    assert_eq!(ask("POST", all, "192.0.2.1", &[BEARER]).status(), 200);
    let refused = ask("GET", all, "127.0.0.1", &[LOCAL, BEARER]);
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()[ALLOW]),
        (405, &HeaderValue::from_static("POST"))
    );
    let switched = parsed(&ask("POST", one, "127.0.0.1", &[LOCAL, BEARER]));
    assert_eq!(switched["circuit_breakers"][0]["upstream"], "my app");
    assert_eq!(
        (&switched["circuit_breakers"][0]["mode"], &switched["kept"]),
        (&json!("auto"), &json!(false))
    );
    for (query, status) in
        [("upstream=unknown", 404), ("upstraem=app", 400), ("upstream=", 400), ("upstream=%ff", 400)]
    {
        let answer = ask("POST", &format!("{all}?{query}"), "127.0.0.1", &[LOCAL, BEARER]);
        assert_eq!(answer.status(), status, "{query}");
    }
    let full = ask("POST", "/api/security/maintenance/on", "127.0.0.1", &[LOCAL, BEARER]);
    assert_eq!(full.status(), 500);
    assert!(parsed(&full)["detail"].as_str().is_some_and(|detail| detail.contains("the disk is full")));
}

/// An orchestrator's probe restarts the gate if it can't see it; a stranger learns one word.
#[test]
fn probes_are_answered_from_anywhere_with_one_word() {
    let mut gate = gate();
    gate.0.degraded = vec![Ailment::new(AilmentKind::LogDropping, "the disk is full")];
    for path in ["/healthz", "/health"] {
        let answer = ask_of(&gate, "GET", path, "192.0.2.1", &[]);
        assert_eq!((answer.status().as_u16(), parsed(&answer)), (200, json!({ "status": "degraded" })));
        let body = parsed(&ask_of(&gate, "GET", path, "127.0.0.1", &[LOCAL]));
        assert_eq!(body["reasons"][0], json!({ "code": "log_dropping", "detail": "the disk is full" }));
        assert_eq!(body["version"], "9.9.9");
        assert_eq!(body["services"]["redis"], "not_configured");
    }
    for (readiness, status) in
        [(Readiness::Starting, 503), (Readiness::Ready, 200), (Readiness::Draining, 503)]
    {
        gate.0.readiness = readiness;
        assert_eq!(ask_of(&gate, "GET", "/readyz", "192.0.2.1", &[]).status(), status);
    }
}

/// Dashboards list who asks most; a slip in the number must not list none, or all.
#[test]
fn the_callers_that_ask_most_are_listed() {
    let top = parsed(&ask("GET", "/api/security/top?limit=2", "127.0.0.1", &[LOCAL]));
    let first = json!({"identifier": "192.0.2.1", "requests": 8, "last_request": "2024-02-29T12:00:00.000Z"});
    assert_eq!((&top[0], top.as_array().map(Vec::len)), (&first, Some(2)));
    for (query, status) in [("", 200), ("?limit=0", 400), ("?limit=101", 400), ("?limit=x", 400)] {
        let path = format!("/api/security/top{query}");
        assert_eq!(ask("GET", &path, "127.0.0.1", &[LOCAL]).status(), status, "{query}");
    }
    assert_eq!(ask("GET", "/api/security/top", "192.0.2.1", &[]).status(), 401);
}

/// Clients of these apps read these keys; a renamed one breaks their dashboards.
#[test]
fn the_documents_have_the_shapes_that_clients_read() {
    let stats = parsed(&ask("GET", "/api/security/stats", "127.0.0.1", &[LOCAL]));
    let security = &stats["security"];
    assert_eq!(security["rate_limiter"]["total_users_tracked"], 2);
    assert_eq!(security["rate_limiter"]["blocked_users"], 0);
    assert_eq!(security["rate_limiter"]["ai_calls_per_minute_limit"], 5);
    for key in ["daily_cost", "remaining_cost", "daily_calls", "daily_tokens", "hourly_calls"] {
        assert!(security["cost_tracker"].get(key).is_some(), "{key}");
    }
    for key in ["cost_percent", "calls_percent", "tokens_percent"] {
        assert!(security["cost_tracker"]["utilization"].get(key).is_some(), "{key}");
    }
    let closed =
        json!({ "is_open": false, "failure_count": 0, "mode": "auto", "reason": null, "upstreams": [] });
    assert_eq!(security["circuit_breaker"], closed);
    assert_eq!(parsed(&ask("GET", "/", "127.0.0.1", &[LOCAL, ("accept", "application/json")])), stats);
    assert_eq!(parsed(&ask("GET", "/", "127.0.0.1", &[LOCAL, ("accept", "*/*")])), stats);

    let metrics = parsed(&ask("GET", "/metrics.json", "127.0.0.1", &[LOCAL]));
    for (part, key) in [
        ("connections", "total"),
        ("connections", "active"),
        ("connections", "sessions"),
        ("connections", "oldest_connection_age"),
        ("rate_limits", "per_minute"),
        ("rate_limits", "per_hour"),
        ("system", "version"),
        ("system", "debug_mode"),
    ] {
        assert!(metrics[part].get(key).is_some(), "{part}.{key}");
    }
    assert_eq!(metrics["requests"]["refused"]["rate_limited"], 4);
    let scrape = ask("GET", "/metrics", "127.0.0.1", &[LOCAL]);
    assert_eq!(scrape.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(scrape.body(), b"tidegate_in_flight 3\n");
}

/// The page shows texts that others wrote, so nothing in it may run, whatever they wrote.
#[test]
fn the_page_runs_nothing() {
    let mut gate = gate();
    gate.0.degraded = vec![Ailment::new(AilmentKind::LogDropping, "<script>alert(1)</script>")];
    gate.0.environment = "\"><img src=x onerror=alert(1)>".into();
    let browser = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let answer = ask_of(&gate, "GET", "/", "127.0.0.1", &[LOCAL, browser]);
    let page = String::from_utf8(answer.body().clone()).unwrap();
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert!(page.contains("Tidegate is degraded") && page.contains("&lt;script&gt;"));

    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
    let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains(&format!("'sha256-{hash}'")), "the style has changed: its hash is {hash}");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
}

/// Whoever can have settings read again could have a file of theirs put in force; and whoever may must hear how it went.
#[test]
fn settings_are_read_again_for_the_token_only() {
    for (method, fields, status) in
        [("POST", &[LOCAL][..], 401), ("GET", &[LOCAL][..], 405), ("POST", &[LOCAL, BEARER][..], 200)]
    {
        assert_eq!(ask(method, RELOAD, "127.0.0.1", fields).status(), status, "{method}");
    }
    let refused = ask("POST", RELOAD, "192.0.2.1", &[BEARER]);
    assert_eq!(refused.status(), 422);
    assert_eq!(parsed(&refused)["detail"], "t.yaml:3: drain: can't change");
}

/// Errors, too, are read by programs, and must not be sniffed, framed or cached.
#[test]
fn every_answer_is_dressed_and_measured() {
    for (method, path, fields, status) in [
        ("GET", "/nothing", &[LOCAL][..], 404),
        ("GET", "/nothing", &[][..], 401),
        ("POST", "/", &[LOCAL, BEARER][..], 405),
        ("GET", "/metrics", &[LOCAL][..], 200),
        ("HEAD", "/metrics.json", &[LOCAL][..], 200),
    ] {
        let answer = ask(method, path, "127.0.0.1", fields);
        assert_eq!(answer.status(), status, "{method} {path}");
        let headers = answer.headers();
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[X_FRAME_OPTIONS], "DENY");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert!(headers[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
        let length: usize = headers[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
        if method == "HEAD" {
            assert!(answer.body().is_empty() && length > 0);
        } else {
            assert_eq!(length, answer.body().len());
        }
        if status >= 400 {
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(parsed(&answer)["status"], status);
        }
        if status == 401 {
            assert!(headers[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        }
    }
}

struct StateDir(PathBuf);

impl StateDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-admin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A token that changes at each start would lock out every script; one that others can read is none.
#[test]
fn a_made_token_is_kept_for_its_owner_only() {
    let directory = StateDir::new("kept");
    let (_, path) = AdminToken::kept(&directory.0).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&directory.0).unwrap().permissions().mode() & 0o777, 0o700);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.trim_end().len(), 43);
    let (again, _) = AdminToken::kept(&directory.0).unwrap();
    assert!(again.matches(format!("Bearer {}", text.trim_end()).as_bytes()));
    assert!(!again.matches(b"Bearer "));
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "only the token is left");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(AdminToken::kept(&directory.0), Err(TokenError::Exposed(_))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "\n").unwrap();
    assert!(matches!(AdminToken::kept(&directory.0), Err(TokenError::Unusable(Some(_)))));
}

/// Two gates that start at once over one STATE_DIR must end up with one token.
#[test]
fn starting_together_makes_one_token() {
    let directory = StateDir::new("race");
    let path = &directory.0;
    let tokens: Vec<AdminToken> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(move || AdminToken::kept(path).unwrap().0)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let kept = format!("Bearer {}", fs::read_to_string(path.join("admin.token")).unwrap().trim_end());
    assert!(tokens.iter().all(|token| token.matches(kept.as_bytes())));
}

/// An empty variable must not make an empty password.
#[test]
fn a_given_token_must_be_one() {
    for bad in ["", " ", "two words", "naïve", "tab\t"] {
        assert!(
            matches!(AdminToken::given(&SecretString::from(bad)), Err(TokenError::Unusable(None))),
            "{bad:?}"
        );
    }
    let token = AdminToken::given(&SecretString::from("s3cret-value")).unwrap();
    assert!(
        token.matches(b"Bearer s3cret-value")
            && !token.matches(b"Bearer s3cret-valuf")
            && !token.matches(b"s3cret-value")
    );
}
