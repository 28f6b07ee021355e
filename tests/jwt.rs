//! Signed tokens: who proves who they are is known, who only pretends to is refused, and no token leaves a trace.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{
    Answer, Ask, BOTH, Gate, Issuer, Manner, NOW, Scratch, Signer, Upstream, Via, Wire, assert_refused,
    encode, gate, raw_token, set, within,
};
use serde_json::{Value, json};
use tidegate::config::{Config, Overrides};
use tidegate::state::{Clock, Timestamp};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ADMIN: &str = "admin: {listen: '127.0.0.1:0', token: open-sesame}\n";
/// So that no limit has a part in what is tested.
const UNLIMITED: &str = "limits: {pages: off, api: off, api-user: off, session: off, tenant: off, ai: off}\n\
                         concurrency: {address: 1000, user: 1000}\n";

fn with_secret() -> String {
    format!("jwt: {{tokens: {{main: {{secret: {SECRET}}}}}}}\n")
}

fn with_issuer(issuer: &Issuer) -> String {
    format!("jwt: {{tokens: {{main: {{jwks: {{url: '{}', timeout: 1s}}}}}}}}\n", issuer.url())
}

fn required() -> &'static str {
    "auth: {mode: required}\n"
}

/// Claims of an honest token of `user`, good for ten minutes.
fn claims(user: &str) -> Value {
    json!({"sub": user, "exp": NOW + 600, "iat": NOW})
}

fn token(user: &str) -> String {
    Signer::secret(SECRET).token(&claims(user))
}

fn bearing(ask: Ask, token: &str) -> Ask {
    ask.field("authorization", format!("Bearer {token}"))
}

async fn chat(gate: &Gate, token: &str) -> Answer {
    gate.ask(Via::H1, &bearing(Ask::chat(), token)).await
}

async fn metric(gate: &Gate, series: &str) -> u64 {
    let text = gate.admin_ask(&Ask::get("/metrics")).await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or("0");
    value.trim().parse().unwrap_or_else(|_| panic!("{series} is {value}"))
}

async fn health(gate: &Gate) -> Value {
    gate.admin_ask(&Ask::get("/healthz")).await.json()
}

/// Waits until something is so.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Every published trick to be taken for somebody: all are refused, told and counted, and none reaches the app.
#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_refused() {
    let upstream = Upstream::ok().await;
    let (rsa, ec, ec384, ed) =
        (Signer::rsa("r"), Signer::p256("e"), Signer::p384("e3"), Signer::ed25519("d"));
    let issuer = Issuer::of(&[&rsa, &ec, &ec384, &ed, &Signer::secret(SECRET).called("s")]).await;
    let elsewhere = Issuer::of(&[&Signer::ed25519("evil")]).await;
    let gate = gate(
        upstream.address(),
        &format!(
            "{UNLIMITED}{}jwt: {{tokens: {{main: {{jwks: {{url: '{}'}}, issuers: ['https://a'], audiences: [chat]}}}}}}\n",
            required(),
            issuer.url()
        ),
    );
    let good = json!({"sub": "alice", "iss": "https://a", "aud": "chat", "exp": NOW + 600});
    for signer in [&rsa, &ec, &ec384, &ed] {
        let answer = chat(&gate, &signer.token(&good)).await;
        assert_eq!(answer.status, 200, "{}: {}", signer.algorithm(), answer.text());
    }
    let passed = upstream.requests().len();

    let text = good.to_string();
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        ed.token(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        ed.token(&claims)
    };
    let head = |name: &str, value: Value| {
        let mut header = ed.header();
        header[name] = value;
        ed.signed(&header, &text)
    };
    let evil = Signer::ed25519("d");
    let with = |name: &str, value: Value| {
        let mut header = evil.header();
        header[name] = value;
        evil.signed(&header, &text)
    };
    let honest = ed.token(&good);
    let (signed, signature) = honest.rsplit_once('.').expect("parts");
    let honest_ec = ec.token(&good);
    let ec_signed = honest_ec.rsplit_once('.').expect("parts").0;

    let mut attacks: Vec<(String, String, &str)> = Vec::new();
    let mut add = |name: &str, token: String| attacks.push((name.into(), token, "token_invalid"));
    for alg in
        ["none", "None", "NONE", "nOnE", "none ", "", "hs256", "rs256", "RS256 ", "HS256", "HS512", "ES512"]
    {
        add(&format!("alg {alg}, no signature"), raw_token(&json!({"alg": alg, "kid": "d"}), &text, ""));
        add(&format!("alg {alg}, old signature"), head("alg", alg.into()));
    }
    add("no alg", raw_token(&json!({"kid": "d"}), &text, ""));
    add("alg as a number", head("alg", 0.into()));
    add("alg twice", {
        let header = r#"{"alg":"EdDSA","alg":"none","kid":"d"}"#;
        format!("{}.{}.", encode(header), encode(&text))
    });
    // Key confusion: what is public, used as a secret, in all the forms in which it can be had.
    for (form, secret) in [
        ("PEM", rsa.pem().into_bytes()),
        ("PEM without its last line break", rsa.pem().trim_end().as_bytes().to_vec()),
        ("DER", rsa.der()),
        ("modulus", rsa.jwk()["n"].as_str().expect("text").as_bytes().to_vec()),
        ("JWK", rsa.jwk().to_string().into_bytes()),
        ("nothing", Vec::new()),
        ("a published secret", SECRET.as_bytes().to_vec()),
    ] {
        for kid in ["r", "s"] {
            let header = json!({"alg": "HS256", "typ": "JWT", "kid": kid});
            add(&format!("HS256 with {form} under {kid}"), Signer::secret(&secret).signed(&header, &text));
        }
    }
    add("an algorithm that is not pinned", rsa.signed(&json!({"alg": "PS256", "kid": "r"}), &text));
    add("another key's name", ed.signed(&json!({"alg": "EdDSA", "kid": "r"}), &text));
    add("another curve's key", ec384.signed(&json!({"alg": "ES256", "kid": "e3"}), &text));
    for kid in [
        "../../../../../../dev/null",
        "/proc/self/environ",
        "' UNION SELECT 'x' --",
        "d\0",
        "d\n",
        "D",
        "%64",
        "${jndi:x}",
    ] {
        add(&format!("kid {kid:?}"), head("kid", kid.into()));
        add(
            &format!("kid {kid:?}, no secret"),
            Signer::secret("").signed(&json!({"alg": "HS256", "kid": kid}), &text),
        );
    }
    add("kid as a list", head("kid", json!(["d"])));
    add("a key of its own", with("jwk", evil.jwk()));
    add("keys elsewhere", with("jku", elsewhere.url().into()));
    add("a certificate elsewhere", with("x5u", elsewhere.url().into()));
    add("a certificate of its own", with("x5c", json!(["MIIB"])));
    add("a stranger's key under a known name", evil.token(&good));
    add("something critical", head("crit", json!(["exp"])));
    add("nothing critical", head("crit", json!([])));
    add("claims as they are", head("b64", false.into()));
    add("compressed", head("zip", "DEF".into()));
    add("a token for logging out", head("typ", "logout+jwt".into()));
    add("nested", ed.signed(&json!({"alg": "EdDSA", "kid": "d", "cty": "JWT"}), &honest));
    add("encrypted", format!("{}.a.b.c.d", encode(r#"{"alg":"dir","enc":"A256GCM"}"#)));
    add("claims twice", ed.signed(&ed.header(), &format!(r#"{{"sub":"bob",{}"#, &text[1..])));
    add("claims that are a list", ed.signed(&ed.header(), "[]"));
    add("claims with a mark in front", ed.signed(&ed.header(), &format!("\u{feff}{text}")));
    add(
        "deep claims",
        ed.signed(&ed.header(), &format!("{{\"a\":{}{}}}", "[".repeat(3000), "]".repeat(3000))),
    );
    add("huge", but("x", "x".repeat(8000).into()));
    add("a signature cut short", honest[..honest.len() - 2].to_owned());
    add("no signature", format!("{signed}."));
    add("no third part", signed.to_owned());
    add("a fourth part", format!("{honest}.{signature}"));
    add("padding", format!("{honest}="));
    add("a longer signature", format!("{honest}AAAA"));
    add("plain base64", honest.replace('-', "+").replace('_', "/") + "+");
    // CVE-2022-21449: r and s of zero fit any message, for who forgets to look.
    add("an ECDSA signature of zeros", format!("{ec_signed}.{}", encode([0; 64])));
    add("an empty ECDSA signature", format!("{ec_signed}.{}", encode([])));
    add("an ECDSA signature in DER", format!("{ec_signed}.{}", encode([0x30, 6, 2, 1, 0, 2, 1, 0])));
    add("not valid yet", but("nbf", (NOW + 60).into()));
    add("signed in the future", but("iat", (NOW + 60).into()));
    add("another issuer", but("iss", "https://a.evil".into()));
    add("issuers", but("iss", json!(["https://a"])));
    add("another audience", but("aud", "other".into()));
    add("an audience that is none", but("aud", json!([["chat"]])));
    add("no user", without("sub"));
    add("a user that is none", but("sub", json!({"a": 1})));
    add("no end", without("exp"));
    add("an end in words", but("exp", "never".into()));
    add("an end that is null", but("exp", Value::Null));
    add("no issuer", without("iss"));
    add("no audience", without("aud"));
    attacks.push(("expired".into(), but("exp", (NOW - 60).into()), "token_expired"));
    attacks.push(("expired long ago".into(), but("exp", 0.into()), "token_expired"));

    for (name, token, reason) in &attacks {
        // A token may hold what no field may; then it is refused all the same, as a broken request.
        let answer = chat(&gate, token).await;
        let got = (answer.status, answer.field("x-tidegate-reason"));
        assert_eq!(got, (401, Some(*reason)), "{name}: {}", answer.text());
        assert!(
            answer.field("www-authenticate").is_some_and(|value| value.contains("invalid_token")),
            "{name}"
        );
    }
    let two = bearing(bearing(Ask::chat(), &honest), &ed.token(&but_user(&good, "bob")));
    assert_ne!(gate.ask(Via::H1, &two).await.status, 200, "two tokens");

    assert_eq!(upstream.requests().len(), passed, "none reached the app");
    assert_eq!(elsewhere.asked(), 0, "nobody was asked whom a token names");
    let refused = attacks.len() as u64;
    let told = metric(&gate, "tidegate_events_total{event=\"AUTH_FAILED\"}").await;
    assert!(told >= refused, "{told} of {refused} were told");
    let of = |reason| format!("tidegate_refusals_total{{reason=\"{reason}\",route=\"default\"}}");
    assert!(metric(&gate, &of("token_invalid")).await >= refused - 2);
    assert_eq!(metric(&gate, &of("token_expired")).await, 2);
    assert_eq!(metric(&gate, "tidegate_tokens_accepted_total").await, 4);
    let events = gate.events("token_expired").await;
    assert_eq!(events.matches("\"AUTH_ATTEMPT\"").count(), 4);
}

fn but_user(claims: &Value, user: &str) -> Value {
    let mut claims = claims.clone();
    claims["sub"] = user.into();
    claims
}

/// A flood of invented keys: an issuer that is asked for each of them would be brought down by the gate.
#[tokio::test(flavor = "multi_thread")]
async fn invented_keys_do_not_flood_the_issuer() {
    let upstream = Upstream::ok().await;
    let signer = Signer::ed25519("a");
    let issuer = Issuer::of(&[&signer]).await;
    let gate = gate(upstream.address(), &format!("{UNLIMITED}{}{}", required(), with_issuer(&issuer)));
    assert_eq!(chat(&gate, &signer.token(&claims("alice"))).await.status, 200);
    assert_eq!(issuer.asked(), 1);
    let evil = Signer::ed25519("evil");
    let asks = (0..200).map(|number| {
        let header = json!({"alg": "EdDSA", "kid": format!("evil-{number}")});
        let token = evil.signed(&header, &claims("alice").to_string());
        let gate = &gate;
        async move { chat(gate, &token).await }
    });
    for answer in futures_util::future::join_all(asks).await {
        assert_refused(&answer, 401, "token_invalid");
    }
    assert_eq!(issuer.asked(), 2);
    assert_eq!(upstream.requests().len(), 1);
    gate.advance(Duration::from_secs(10));
    let header = json!({"alg": "EdDSA", "kid": "evil"});
    chat(&gate, &evil.signed(&header, &claims("alice").to_string())).await;
    assert_eq!(issuer.asked(), 3);
}

/// An issuer that changes its keys must lock nobody out: neither who has a token of the old one nor the first who comes
/// with one of the new.
#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_a_failed_request() {
    let upstream = Upstream::ok().await;
    let signers: Arc<Vec<Signer>> =
        Arc::new((0..4).map(|number| Signer::ed25519(&format!("key-{number}"))).collect());
    let issuer = Issuer::of(&[&signers[0]]).await;
    let gate =
        Arc::new(gate(upstream.address(), &format!("{UNLIMITED}{}{}", required(), with_issuer(&issuer))));
    let (turn, stop, served) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (gate, signers) = (gate.clone(), signers.clone());
            let (turn, stop, served) = (turn.clone(), stop.clone(), served.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // Half of them still have a token of the key before.
                    let newest = turn.load(Ordering::SeqCst);
                    let signer = &signers[if caller % 2 == 0 { newest } else { newest.saturating_sub(1) }];
                    let token = signer.token(&claims(&format!("user-{caller}-{number}")));
                    let answer = chat(&gate, &token).await;
                    match answer.status {
                        200 => drop(served.fetch_add(1, Ordering::SeqCst)),
                        _ => failures.push(format!("{}: {}", signer.id, answer.text())),
                    }
                }
                failures
            })
        })
        .collect();
    for next in 1..signers.len() {
        let before = served.load(Ordering::SeqCst);
        until("requests", || async { served.load(Ordering::SeqCst) > before + 50 }).await;
        gate.advance(Duration::from_secs(60));
        issuer.tells(&[&signers[next]]);
        turn.store(next, Ordering::SeqCst);
    }
    let before = served.load(Ordering::SeqCst);
    until("requests", || async { served.load(Ordering::SeqCst) > before + 50 }).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        assert_eq!(caller.await.expect("no panic"), Vec::<String>::new());
    }
    // Once retired, a key is worth nothing, whoever was served with it.
    gate.advance(Duration::from_secs(301));
    let answer = chat(&gate, &signers[0].token(&claims("alice"))).await;
    assert_refused(&answer, 401, "token_invalid");
}

/// An issuer that dies, dawdles or lies must cost those whose keys are known nothing, and must not have anyone let in.
#[tokio::test(flavor = "multi_thread")]
async fn known_keys_outlive_a_bad_issuer() {
    let huge = || {
        let body = "x".repeat(300 * 1024);
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let plain = |head: &str, body: &str| {
        let length = body.len();
        Manner::Sends(format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
    };
    let (a, b) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let other = Issuer::of(&[&b]).await;
    let secrets = json!({"keys": [{"kty": "oct", "k": encode(SECRET), "kid": "b", "alg": "HS256"}]});
    let manners = [
        ("dead", Manner::Dead),
        ("silent", Manner::Silent),
        ("huge", Manner::Sends(huge())),
        ("redirecting", plain(&format!("302 Found\r\nlocation: {}", other.url()), "")),
        ("failing", plain("500 Internal Server Error", "")),
        ("lying", plain("200 OK", "<html>hello</html>")),
        ("empty", Manner::Tells(json!({"keys": []}))),
        ("telling secrets", Manner::Tells(secrets)),
        ("speaking another language", Manner::Sends(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())),
    ];
    for (name, manner) in manners {
        let upstream = Upstream::ok().await;
        let issuer = Issuer::of(&[&a]).await;
        let gate = gate(upstream.address(), &format!("{UNLIMITED}{}{}", required(), with_issuer(&issuer)));
        assert_eq!(chat(&gate, &a.token(&claims("alice"))).await.status, 200, "{name}");
        assert_eq!(health(&gate).await["status"], "healthy", "{name}");

        issuer.now(manner);
        let began = Instant::now();
        let answer = chat(&gate, &b.token(&claims("bob"))).await;
        assert_refused(&answer, 503, "issuer_unavailable");
        assert!(answer.field("retry-after").is_some(), "{name}");
        assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
        let began = Instant::now();
        assert_refused(&chat(&gate, &b.token(&claims("bob"))).await, 503, "issuer_unavailable");
        assert!(began.elapsed() < Duration::from_secs(1), "{name}: asked again at once");
        let forged =
            Signer::secret(SECRET).signed(&json!({"alg": "HS256", "kid": "b"}), &claims("bob").to_string());
        assert_refused(&chat(&gate, &forged).await, 401, "token_invalid");

        let health = health(&gate).await;
        let reasons = health["reasons"].to_string();
        assert!(health["status"] == "degraded" && reasons.contains("issuer_unavailable"), "{name}: {health}");
        assert_eq!(metric(&gate, "tidegate_issuer_up{token=\"main\"}").await, 0, "{name}");
        // A day later the keys are too old to be believed.
        let token = |at: u64, user: &str| a.token(&json!({"sub": user, "exp": NOW + at + 600}));
        gate.advance(Duration::from_secs(23 * 3600));
        assert_eq!(chat(&gate, &token(23 * 3600, "carol")).await.status, 200, "{name}");
        gate.advance(Duration::from_secs(3601));
        let answer = chat(&gate, &token(23 * 3600, "carol")).await;
        assert_refused(&answer, 503, "issuer_unavailable");

        issuer.tells(&[&b]);
        gate.advance(Duration::from_secs(10));
        until("the issuer's being well again", || async {
            metric(&gate, "tidegate_issuer_up{token=\"main\"}").await == 1
        })
        .await;
        let bob = b.token(&json!({"sub": "bob", "exp": NOW + 25 * 3600}));
        assert_eq!(chat(&gate, &bob).await.status, 200, "{name}");
        assert_eq!(upstream.requests().len(), 3, "{name}");
    }
    assert_eq!(other.asked(), 0, "a redirect was followed");
}

/// A gate that starts while its issuer is down lets nobody in by mistake, and lets them in as soon as it is up.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_may_start_before_its_issuer() {
    let upstream = Upstream::ok().await;
    let a = Signer::ed25519("a");
    let issuer = Issuer::new(Manner::Dead).await;
    let gate = gate(upstream.address(), &format!("{UNLIMITED}{}{}", required(), with_issuer(&issuer)));
    let token = a.token(&claims("alice"));
    assert_refused(&chat(&gate, &token).await, 503, "issuer_unavailable");
    assert_eq!(health(&gate).await["status"], "degraded");
    issuer.tells(&[&a]);
    gate.advance(Duration::from_secs(10));
    assert_eq!(chat(&gate, &token).await.status, 200);
    assert_eq!(health(&gate).await["status"], "healthy");
}

/// A token is a password: whoever reads a log must not become its owner, nor learn who that is.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_leave_no_trace() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), &format!("{ADMIN}{}", with_secret()));
    let canary = "canary-subject";
    let claims = json!({
        "sub": canary, "exp": NOW + 600, "email": "canary-mail@example.com", "role": ["admin", "canary-role"],
        "tier": "canary-tier", "name": "canary-name",
    });
    let good = Signer::secret(SECRET).token(&claims);
    let bad = Signer::secret("another").token(&claims);
    let odd = format!("canary-{}", "x".repeat(40));
    let mut answers = String::new();
    for via in BOTH {
        for token in [good.as_str(), &bad, &odd] {
            let ask = bearing(Ask::post(format!("/api/chat?token={token}"), r#"{"message":"hi"}"#), token);
            let answer = gate.ask(via, &ask.field("x-device-id", "canary-device")).await;
            answers += &format!("{:?} {}", answer.fields, answer.text());
        }
    }
    for path in ["/metrics", "/metrics.json", "/api/security/stats", "/api/sessions/stats", "/healthz"] {
        answers += &gate.admin_ask(&Ask::get(path).field("authorization", "Bearer open-sesame")).await.text();
    }
    let status = gate.ask(Via::H1, &bearing(Ask::get("/auth/rate-limit-status"), &good)).await;
    assert_eq!(status.status, 200);
    answers += &status.text();
    let logs = gate.access_log("rate-limit-status").await + &gate.events("token_invalid").await;
    assert!(logs.contains("AUTH_ATTEMPT") && logs.contains(r#""class":"admin""#), "{logs}");
    for text in [&answers, &logs] {
        for trace in [
            "canary",
            SECRET,
            &good[good.len() - 20..],
            good.split('.').nth(1).expect("claims"),
            &bad[bad.len() - 20..],
        ] {
            assert!(!text.contains(trace), "{trace} in {text}");
        }
    }
    // The app keeps its own login.
    let seen = upstream.requests()[0].head.field("authorization").map(str::to_owned);
    assert_eq!(seen, Some(format!("Bearer {good}")));
}

/// Without a token one is anonymous where that is allowed; with a bad one nowhere. Each client reads it in its own shape.
#[tokio::test(flavor = "multi_thread")]
async fn routes_ask_for_proof() {
    let upstream = Upstream::ok().await;
    let settings = format!(
        "{UNLIMITED}{}cors: {{allowed_origins: ['https://app.example']}}\nroutes:\n  \
         - {{name: open, match: {{paths: [/open]}}, auth: off}}\n  \
         - {{name: closed, match: {{paths: [/closed, /v1/*, /v1/chat/*]}}, auth: {{mode: required}}}}\n",
        with_secret()
    );
    let gate = gate(upstream.address(), &settings);
    for via in BOTH {
        let ask = async |path: &str, token: Option<&str>| {
            let ask = Ask::post(path, "{}");
            gate.ask(via, &token.map_or(ask.clone(), |token| bearing(ask, token))).await
        };
        let good = token("alice");
        for path in ["/open", "/elsewhere", "/closed"] {
            assert_eq!(ask(path, Some(&good)).await.status, 200, "{path}");
        }
        assert_eq!(ask("/open", Some("anything")).await.status, 200);
        assert_eq!(ask("/elsewhere", None).await.status, 200);
        assert_refused(&ask("/elsewhere", Some("anything")).await, 401, "token_invalid");
        let missing = ask("/closed", None).await;
        assert_refused(&missing, 401, "token_missing");
        assert_eq!(missing.field("www-authenticate"), Some("Bearer"));
        assert!(missing.text().contains("Authorization: Bearer"), "{}", missing.text());
        let bad = ask("/closed", Some("a.b.c")).await;
        let challenge = bad.field("www-authenticate").expect("a challenge");
        assert!(
            challenge.starts_with("Bearer error=\"invalid_token\", error_description=\"The token in"),
            "{challenge}"
        );
        let openai = ask("/v1/chat/completions", None).await;
        assert_eq!(openai.json()["error"]["type"], "authentication_error");
        let anthropic = ask("/v1/messages", None).await;
        assert_eq!(anthropic.json()["error"]["type"], "authentication_error");
        let basic = gate.ask(via, &Ask::get("/closed").field("authorization", "Basic dDp0")).await;
        assert_refused(&basic, 401, "token_missing");
        // A browser sends no token with a preflight.
        let preflight = Ask::new("OPTIONS", "/closed")
            .field("origin", "https://app.example")
            .field("access-control-request-method", "POST")
            .field("access-control-request-headers", "authorization");
        assert_eq!(gate.ask(via, &preflight).await.status, 204);
        // The page of an allowed origin has to be able to read why it was refused.
        let cross = gate.ask(via, &Ask::post("/closed", "{}").field("origin", "https://app.example")).await;
        assert_eq!(
            (cross.status, cross.field("access-control-allow-origin")),
            (401, Some("https://app.example"))
        );
    }
}

/// A WebSocket is opened with a cookie, since a browser can't set its header.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_in_cookies_and_fields() {
    let upstream = Upstream::ok().await;
    let settings = format!(
        "{UNLIMITED}{}jwt: {{tokens: {{main: {{secret: {SECRET}, from: ['cookie:token', 'header:x-token']}}}}}}\n",
        required()
    );
    let gate = gate(upstream.address(), &settings);
    let (alice, bob) = (token("alice"), token("bob"));
    let ask = async |fields: &[(&str, String)]| {
        let ask = fields.iter().fold(Ask::chat(), |ask, (name, value)| ask.field(*name, value));
        gate.ask(Via::H1, &ask).await.status
    };
    assert_eq!(ask(&[("cookie", format!("a=b; token={alice}"))]).await, 200);
    assert_eq!(ask(&[("x-token", alice.clone())]).await, 200);
    assert_eq!(ask(&[("x-token", alice.clone()), ("cookie", format!("token={alice}"))]).await, 200);
    assert_eq!(ask(&[("x-token", alice.clone()), ("cookie", format!("token={bob}"))]).await, 401);
    assert_eq!(ask(&[("authorization", format!("Bearer {alice}"))]).await, 401);
    let opening = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let mut wire = Wire::to(gate.traffic()).await;
    let refused = wire.ask(format!("{opening}\r\n").into_bytes()).await;
    assert_refused(&refused, 401, "token_missing");
    let mut wire = Wire::to(gate.traffic()).await;
    let opened = wire.ask(format!("{opening}Cookie: token={alice}\r\n\r\n").into_bytes()).await;
    assert_eq!(opened.status, 200, "the app, which knows no WebSockets, was asked");
}

/// People behind one address: each whom a token names has calls of their own, and inventing keys still gains nothing.
#[tokio::test(flavor = "multi_thread")]
async fn verified_users_have_limits_of_their_own() {
    let upstream = Upstream::ok().await;
    let settings = format!(
        "{}limits:\n  api: off\n  session: off\n  ai:\n    windows: [2/min]\n    \
         classes: {{admin: [4/min], authenticated: [3/min], demo: [1/min]}}\n    tiers: {{gold: [5/min]}}\n",
        with_secret()
    );
    let gate = gate(upstream.address(), &settings);
    let granted = async |ask: &dyn Fn() -> Ask| {
        let mut granted = 0;
        while gate.ask(Via::H1, &ask()).await.status == 200 {
            granted += 1;
        }
        granted
    };
    let of = |user: &str, more: Value| {
        let mut claims = claims(user);
        more.as_object().expect("an object").iter().for_each(|(name, value)| claims[name] = value.clone());
        let token = Signer::secret(SECRET).token(&claims);
        move || bearing(Ask::chat(), &token)
    };
    assert_eq!(granted(&of("alice", json!({}))).await, 3);
    assert_eq!(
        granted(&of("alice", json!({"jti": "another token"}))).await,
        0,
        "a second token is no second user"
    );
    assert_eq!(granted(&of("bob", json!({}))).await, 3);
    assert_eq!(granted(&of("root", json!({"role": "admin"}))).await, 4);
    assert_eq!(granted(&of("guest", json!({"role": "demo"}))).await, 1);
    assert_eq!(granted(&of("carol", json!({"tier": "gold"}))).await, 5);
    assert_eq!(granted(&of("dave", json!({"tier": "platinum"}))).await, 3, "a tier that nobody set");
    assert_eq!(granted(&|| Ask::chat().field("x-api-key", "invented-1")).await, 2);
    assert_eq!(granted(&|| Ask::chat().field("x-api-key", "invented-2")).await, 0);
    assert_eq!(granted(&Ask::chat).await, 0);
    // A key that reads like a user is not that user.
    let refused = gate.ask(Via::H1, &of("alice", json!({}))()).await;
    assert_refused(&refused, 429, "rate_limited");
}

/// Who is refused for a bad token has asked all the same: else trying tokens would cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_draw_from_the_address() {
    let upstream = Upstream::ok().await;
    let settings = format!("{}limits: {{api: {{windows: [3/min]}}}}\n", with_secret());
    let gate = gate(upstream.address(), &settings);
    for _ in 0..3 {
        assert_refused(&chat(&gate, "a.b.c").await, 401, "token_invalid");
    }
    assert_refused(&chat(&gate, "a.b.c").await, 429, "rate_limited");
    upstream.assert_untouched();
}

/// Open WebUI stands in front of the gate and signs who its user is; its own key for the API is no token.
#[tokio::test(flavor = "multi_thread")]
async fn open_webui_says_who_its_user_is() {
    let upstream = Upstream::ok().await;
    let settings = format!(
        "jwt: {{tokens: {{open-webui: {{secret: {SECRET}, from: ['header:x-openwebui-user-jwt'], issuers: [open-webui]}}}}}}\n\
         limits: {{api: off, ai: {{windows: [2/min]}}}}\n"
    );
    let gate = gate(upstream.address(), &settings);
    let said = |user: &str, issuer: &str| {
        Signer::secret(SECRET).token(&json!({
            "sub": user, "email": "a@example.com", "name": "A", "role": "user", "iss": issuer, "iat": NOW, "exp": NOW + 300,
        }))
    };
    let ask = |user: &str, issuer: &str| {
        bearing(Ask::chat(), "sk-the-key-of-open-webui").field("X-OpenWebUI-User-Jwt", said(user, issuer))
    };
    for user in ["alice", "bob"] {
        for wanted in [200, 200, 429] {
            assert_eq!(gate.ask(Via::H1, &ask(user, "open-webui")).await.status, wanted, "{user}");
        }
    }
    assert_refused(&gate.ask(Via::H1, &ask("alice", "somebody")).await, 401, "token_invalid");
    let seen = upstream.last();
    assert_eq!(
        seen.head.field("x-openwebui-user-jwt"),
        None,
        "strangers' identity headers are dropped as ever"
    );
    assert_eq!(seen.head.field("authorization"), Some("Bearer sk-the-key-of-open-webui"));
}

/// An app that believes the gate alone: it has to get the gate's token, whatever a client sends in its place.
#[tokio::test(flavor = "multi_thread")]
async fn the_app_gets_a_token_of_the_gates_own() {
    let upstream = Upstream::ok().await;
    let settings = format!(
        "{UNLIMITED}jwt:\n  tokens: {{main: {{secret: {SECRET}}}}}\n  \
         mint: {{secret: the-apps-own-secret-of-32-letters, subject: subject, audience: n8n}}\n\
         auth: {{mint: true}}\nroutes: [{{name: plain, match: {{paths: [/plain]}}, auth: {{mint: false}}}}]\n"
    );
    let gate = gate(upstream.address(), &settings);
    let minted = || {
        let seen = upstream.last().head.field("authorization").expect("a token").to_owned();
        let token = seen.strip_prefix("Bearer ").expect("a scheme").to_owned();
        let key = jsonwebtoken::DecodingKey::from_secret(b"the-apps-own-secret-of-32-letters");
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        rules.set_audience(&["n8n"]);
        rules.set_issuer(&["tidegate"]);
        // The library goes by the machine's clock, the gate by the test's.
        rules.validate_exp = false;
        (jsonwebtoken::decode::<Value>(&token, &key, &rules).expect("the app believes it").claims, token)
    };
    let alice = token("alice");
    for via in BOTH {
        gate.ask(via, &bearing(Ask::chat(), &alice)).await;
        let (claims, first) = minted();
        assert_eq!((&claims["sub"], &claims["class"]), (&"alice".into(), &"authenticated".into()));
        assert_eq!(claims["exp"].as_u64().expect("a time") - claims["iat"].as_u64().expect("a time"), 300);
        gate.ask(via, &bearing(Ask::chat(), &alice)).await;
        assert_eq!(minted().1, first, "signed once");
        gate.ask(via, &bearing(Ask::chat(), &token("bob"))).await;
        assert_eq!(minted().0["sub"], "bob");
        gate.ask(via, &Ask::chat()).await;
        assert_eq!(minted().0["sub"], "anonymous");
    }
    gate.advance(Duration::from_secs(150));
    let before = minted().1;
    gate.ask(Via::H1, &Ask::chat()).await;
    assert_ne!(minted().1, before, "a new one, long before the old one expires");
    // Its own token is no user's.
    let own = minted().1;
    assert_refused(&chat(&gate, &own).await, 401, "token_invalid");
    gate.ask(Via::H1, &bearing(Ask::post("/plain", "{}"), &alice)).await;
    assert_eq!(upstream.last().head.field("authorization"), Some(format!("Bearer {alice}").as_str()));
}

/// Settings that are read again while the issuer is down must not lock out those whose keys were known.
#[tokio::test(flavor = "multi_thread")]
async fn keys_live_on_over_a_reload() {
    let upstream = Upstream::ok().await;
    let a = Signer::ed25519("a");
    let issuer = Issuer::of(&[&a]).await;
    let settings = |more: &str| format!("{ADMIN}{UNLIMITED}{}{more}", with_issuer(&issuer));
    let gate = gate(upstream.address(), &settings(""));
    assert_eq!(chat(&gate, &a.token(&claims("alice"))).await.status, 200);
    issuer.now(Manner::Dead);
    gate.rewrite(&settings(required()));
    let reload = Ask::new("POST", "/api/config/reload").field("authorization", "Bearer open-sesame");
    assert_eq!(gate.admin_ask(&reload).await.status, 200);
    assert_eq!(chat(&gate, &a.token(&claims("bob"))).await.status, 200);
    assert_refused(&gate.ask(Via::H1, &Ask::chat()).await, 401, "token_missing");
    // Another issuer's keys are other keys.
    let b = Signer::ed25519("a");
    let other = Issuer::of(&[&b]).await;
    gate.rewrite(&format!("{ADMIN}{UNLIMITED}{}", with_issuer(&other)));
    assert_eq!(gate.admin_ask(&reload).await.status, 200);
    assert_eq!(chat(&gate, &b.token(&claims("bob"))).await.status, 200);
    assert_refused(&chat(&gate, &a.token(&claims("alice"))).await, 401, "token_invalid");
}

/// Public keys may lie in a file, in PEM or as a set.
#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_files() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let (rsa, ec, ed) = (Signer::rsa("r"), Signer::p256("e"), Signer::ed25519("d"));
    let pem = format!("{}{}{}", rsa.pem(), ec.pem(), ed.pem());
    for (name, content) in [("keys.pem", pem), ("keys.json", set(&[&rsa, &ec, &ed]).to_string())] {
        std::fs::write(scratch.path(name), content).expect("writes");
        let path = scratch.path(name);
        let keys = format!("jwt: {{tokens: {{main: {{keys: '{}'}}}}}}\n", path.display());
        let gate = gate(upstream.address(), &format!("{UNLIMITED}{}{keys}", required()));
        for signer in [&rsa, &ec, &ed] {
            assert_eq!(
                chat(&gate, &signer.token(&claims("alice"))).await.status,
                200,
                "{name}: {}",
                signer.algorithm()
            );
        }
        let forged = Signer::secret(rsa.pem()).token(&claims("alice"));
        assert_refused(&chat(&gate, &forged).await, 401, "token_invalid");
    }
    let pinned = format!(
        "jwt: {{tokens: {{main: {{keys: '{}', algorithms: [PS256]}}}}}}\n",
        scratch.path("keys.json").display()
    );
    let gate = gate(upstream.address(), &format!("{UNLIMITED}{}{pinned}", required()));
    let pss = rsa.signed(&json!({"alg": "PS256", "kid": "r"}), &claims("alice").to_string());
    assert_eq!(chat(&gate, &pss).await.status, 200);
    assert_refused(&chat(&gate, &rsa.token(&claims("alice"))).await, 401, "token_invalid");
}

/// Settings that would let in others than meant, or nobody, are told at start with what to write.
#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_are_told() {
    let upstream = Upstream::ok().await;
    for (settings, wanted) in [
        ("auth: {mode: required}\n", "JWT_SECRET_KEY"),
        ("auth: {tokens: [nobody]}\n", "auth.tokens"),
        ("auth: {mint: true}\n", "jwt.mint has no secret"),
        ("jwt: {tokens: {main: {issuers: [a]}}}\n", "jwt.tokens.main.secret"),
        (
            "jwt: {tokens: {main: {secret: a, jwks: {url: 'https://a/b'}}}}\n",
            "one of secret, keys and jwks.url",
        ),
        (
            "jwt: {tokens: {main: {secret: a, algorithms: [RS256]}}}\n",
            "jwt.tokens.main.algorithms: names RS256",
        ),
        ("jwt: {tokens: {main: {jwks: {url: 'https://127.0.0.1/b'}, algorithms: [HS256]}}}\n", "names HS256"),
        ("jwt: {tokens: {main: {secret: a, algorithms: [none]}}}\n", "algorithms"),
        ("jwt: {tokens: {main: {jwks: {url: 'http://issuer.example/b'}}}}\n", "plain_http"),
        ("jwt: {tokens: {main: {jwks: {url: 'ftp://a/b'}}}}\n", "jwt.tokens.main.jwks.url"),
        ("jwt: {tokens: {main: {keys: /nowhere.pem}}}\n", "/nowhere.pem"),
        ("jwt: {tokens: {main: {secret: a, from: [query]}}}\n", "authorization, cookie:NAME, header:NAME"),
        ("jwt: {mint: {secret: a, lifetime: 2h}}\n", "jwt.mint.lifetime"),
    ] {
        let told = Gate::start(upstream.address(), settings).err().expect(settings);
        assert!(told.contains(wanted), "{settings}{told}");
    }
}

/// New settings are tried on real traffic first: nobody is refused, and the log says who would be.
#[tokio::test(flavor = "multi_thread")]
async fn the_guard_may_observe() {
    let upstream = Upstream::ok().await;
    let settings = format!("{UNLIMITED}{}{}observe: [auth]\n", required(), with_secret());
    let gate = gate(upstream.address(), &settings);
    assert_eq!(gate.ask(Via::H1, &Ask::chat()).await.status, 200);
    assert_eq!(chat(&gate, "a.b.c").await.status, 200);
    assert_eq!(chat(&gate, &token("alice")).await.status, 200);
    let log = gate.access_log(r#""class":"authenticated""#).await;
    let noted = |reason: &str| log.matches(&format!(r#""would_refuse":["{reason}"]"#)).count();
    assert_eq!((noted("token_missing"), noted("token_invalid")), (1, 1), "{log}");
}

/// An operator who only sets the environment is protected by it, whether the secret stands there or in a file.
#[test]
fn the_environment_gives_the_key() {
    let scratch = Scratch::new();
    let file = scratch.path("secret");
    std::fs::write(&file, format!("{SECRET}\n")).expect("writes");
    let believes = |name: &str, value: &str| {
        let env = |asked: &str| (asked == name).then(|| value.to_owned());
        let config =
            Config::from_text("upstream: http://127.0.0.1:9\n", "t.yaml", &Overrides::default(), &env);
        let settings = config.expect("settings").resolve(&Clock::system()).expect("settings");
        let now = Timestamp::from_micros(NOW * 1_000_000);
        settings.tokens.iter().any(|kind| kind.verify(&token("alice"), now).is_ok())
    };
    assert!(believes("JWT_SECRET_KEY", SECRET));
    assert!(believes("JWT_SECRET_KEY_FILE", &file.display().to_string()));
    assert!(!believes("JWT_SECRET_KEY", ""), "an unmodified app keeps its own login");
}

/// What is good for a try on one's own machine lets strangers in as anyone.
#[test]
fn production_wants_strong_keys() {
    let told = |settings: &str| {
        let text = format!("upstream: http://127.0.0.1:9\n{settings}");
        let config = Config::from_text(&text, "t.yaml", &Overrides::default(), &|_| None).expect("settings");
        config.check_production().expect("can be read").errors.to_string()
    };
    for (settings, wanted) in [
        ("jwt: {tokens: {main: {secret: short}}}\n", "jwt.tokens.main.secret: has fewer than 32"),
        (
            "jwt: {mint: {secret: your-secret-change-it-before-you-go}}\n",
            "jwt.mint.secret: looks like an example",
        ),
        (
            "jwt: {tokens: {main: {jwks: {url: 'https://127.0.0.1/a'}}}}\n",
            "jwt.tokens.main.issuers: is empty",
        ),
        (
            "jwt: {tokens: {main: {jwks: {url: 'https://127.0.0.1/a', verify: false}}}}\n",
            "jwks.verify: is false",
        ),
        (
            "jwt: {tokens: {main: {jwks: {url: 'http://a/a', plain_http: true}, issuers: [a]}}}\n",
            "jwks.plain_http: lets keys come in plain text",
        ),
        (
            "jwt: {tokens: {main: {secret: 0f1e2d3c4b5a69788796a5b4c3d2e1f0}}, mint: {secret: 0f1e2d3c4b5a69788796a5b4c3d2e1f0}}\n",
            "jwt.mint.secret: is the same as jwt.tokens.main.secret",
        ),
    ] {
        assert!(told(settings).contains(wanted), "{wanted} not in {}", told(settings));
    }
    let sound = "jwt: {tokens: {main: {jwks: {url: 'https://127.0.0.1/a'}, issuers: [a], audiences: [b]}}}\n";
    assert!(!told(sound).contains("jwt."), "{}", told(sound));
    assert!(told("").contains("client.secret") && !told("state_dir: /nowhere\n").contains("client.secret"));
}

/// People paste what this prints into issues.
#[test]
fn no_secret_is_explained() {
    let text = format!(
        "upstream: http://127.0.0.1:9\njwt:\n  tokens: {{main: {{secret: {SECRET}}}, other: {{secret: {SECRET}}}}}\n  \
         mint: {{secret: {SECRET}}}\n"
    );
    let config = Config::from_text(&text, "t.yaml", &Overrides::default(), &|_| None).expect("settings");
    let shown = config.explain();
    assert!(!shown.contains(SECRET), "{shown}");
    assert_eq!(shown.matches("secret = (hidden)").count(), 3, "{shown}");
}

/// Whoever is banned must not come back with a fresh token from another address; nor must a neighbour pay for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_banned_with_whatever_token() {
    let upstream = Upstream::ok().await;
    let bans = "bans: {strikes: 3/min, reasons: [invalid_json]}\nclient: {trusted_proxies: [127.0.0.1]}\n";
    let gate = gate(upstream.address(), &format!("{bans}{}{UNLIMITED}", with_secret()));
    let fresh = |user: &str, n: u64| {
        Signer::secret(SECRET).token(&json!({"sub": user, "exp": NOW + 600, "iat": NOW - n}))
    };
    let from = |n: u64, ask: Ask| ask.field("x-forwarded-for", format!("198.51.100.{n}"));
    for n in 0..3 {
        let ask = bearing(from(n, Ask::post("/api/chat", "{")), &fresh("alice", n));
        assert_refused(&gate.ask(Via::H1, &ask).await, 400, "invalid_json");
    }
    let again = bearing(from(9, Ask::chat()), &fresh("alice", 9));
    assert_refused(&gate.ask(Via::H1, &again).await, 403, "banned");
    let other = bearing(from(9, Ask::chat()), &fresh("bob", 9));
    assert_eq!(gate.ask(Via::H1, &other).await.status, 200);
}

/// Bytes are a user's whatever token they come with, from the first transaction on: a cap that looked at the token would
/// never be met.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_for_the_user_that_a_token_names() {
    let upstream = Upstream::ok().await;
    let limits = "limits: {api: off, api-user: off, ai: off, up: {counts: all, by: [user], measure: bytes-in, \
                  windows: [1KiB/h]}}\n";
    let gate = gate(upstream.address(), &format!("{limits}{}", with_secret()));
    let post = |user: &str, n: u64| {
        let token = Signer::secret(SECRET).token(&json!({"sub": user, "exp": NOW + 600, "iat": NOW - n}));
        bearing(Ask::post("/api/x", format!("\"{}\"", "x".repeat(1100))), &token)
    };
    assert_eq!(gate.ask(Via::H1, &post("alice", 1)).await.status, 200);
    assert_refused(&gate.ask(Via::H1, &post("alice", 2)).await, 429, "rate_limited");
    assert_eq!(gate.ask(Via::H1, &post("bob", 3)).await.status, 200);
}

/// A client that repeats its call with a fresh token is the same client.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_calls_are_known_by_the_user_that_a_token_names() {
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), &format!("{}{UNLIMITED}", with_secret()));
    let call = |user: &str, n: u64| {
        let token = Signer::secret(SECRET).token(&json!({"sub": user, "exp": NOW + 600, "iat": NOW - n}));
        bearing(Ask::chat(), &token).field("idempotency-key", "k1")
    };
    assert_eq!(gate.ask(Via::H1, &call("alice", 1)).await.status, 200);
    let again = gate.ask(Via::H1, &call("alice", 2)).await;
    assert_eq!(again.field("idempotent-replayed"), Some("true"), "{}", again.text());
    let other = gate.ask(Via::H1, &call("bob", 3)).await;
    assert_eq!((other.status, other.field("idempotent-replayed")), (200, None));
    assert_eq!(upstream.requests().len(), 2);
}
