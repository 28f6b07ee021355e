//! Digests stand for users, sessions and devices: the same ones over a restart, and nothing that leads back.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Ask, Gate, Scratch, Upstream, Via, gate};

/// The digests of one request's device, user and session, as the access log has them.
async fn digests(gate: &Gate) -> Vec<String> {
    let fields =
        [("x-device-id", "canary-device"), ("x-api-key", "canary-key"), ("x-session-id", "canary-session")];
    let ask = fields.iter().fold(Ask::chat(), |ask, (name, value)| ask.field(*name, *value));
    assert_eq!(gate.ask(Via::H1, &ask).await.status, 200);
    let log = gate.access_log("/api/chat").await;
    assert!(!log.contains("canary"), "{log}");
    let line: serde_json::Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    ["device", "user", "session"].map(|name| line[name].as_str().expect(name).to_owned()).into()
}

/// Limits and bans by device or user would be forgotten with each restart if the key of their digests were.
#[tokio::test(flavor = "multi_thread")]
async fn digests_outlive_a_restart() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let settings = format!("state_dir: '{}'\n", scratch.path("state").display());
    let first = digests(&gate(upstream.address(), &settings)).await;
    assert_eq!(digests(&gate(upstream.address(), &settings)).await, first);
    let mode = std::fs::metadata(scratch.path("state/digest.key")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let elsewhere = format!("state_dir: '{}'\n", scratch.path("other").display());
    assert_ne!(digests(&gate(upstream.address(), &elsewhere)).await, first, "another gate's key is another");
    assert_ne!(digests(&gate(upstream.address(), "")).await, digests(&gate(upstream.address(), "")).await);
}

/// Two gates that count together have to agree on who is who, without sharing a disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_makes_gates_agree() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let secret = "client: {secret: 0123456789abcdef0123456789abcdef}\n";
    let kept = format!("{secret}state_dir: '{}'\n", scratch.path("state").display());
    let first = digests(&gate(upstream.address(), secret)).await;
    assert_eq!(digests(&gate(upstream.address(), &kept)).await, first);
    assert!(!scratch.path("state/digest.key").exists(), "what is set needs no key");
}

/// A key that others can read lets them try out whose digest one is.
#[tokio::test(flavor = "multi_thread")]
async fn an_exposed_key_is_refused() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let settings = format!("state_dir: '{}'\n", scratch.path("state").display());
    drop(gate(upstream.address(), &settings));
    let key = scratch.path("state/digest.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).expect("chmod");
    let told = Gate::start(upstream.address(), &settings).err().expect("refused");
    assert!(told.contains("chmod 600") && told.contains("digest.key"), "{told}");
}

/// Settings that are read again must not make strangers of everyone, wherever the key is from.
#[tokio::test(flavor = "multi_thread")]
async fn digests_outlive_a_reload() {
    let upstream = Upstream::ok().await;
    let scratch = Scratch::new();
    let admin = "admin: {listen: '127.0.0.1:0', token: open-sesame}\n";
    for own in [String::new(), format!("state_dir: '{}'\n", scratch.path("state").display())] {
        let gate = gate(upstream.address(), &format!("{admin}{own}"));
        let first = digests(&gate).await;
        gate.rewrite(&format!("{admin}{own}timeouts: {{first_byte: 7s}}\n"));
        let reload = Ask::new("POST", "/api/config/reload").field("authorization", "Bearer open-sesame");
        assert_eq!(gate.admin_ask(&reload).await.status, 200);
        gate.ask(
            Via::H1,
            &Ask::chat().field("x-device-id", "canary-device").field("x-request-id", "the-second"),
        )
        .await;
        let log = gate.access_log("the-second").await;
        assert!(log.lines().last().expect("a line").contains(&first[0]), "{log}");
    }
}
