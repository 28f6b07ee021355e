//! What it costs to know who is asking: a token that is verified, one that was verified before, one that is minted.

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use serde_json::{Value, json};
use tidegate::config::{Config, Overrides, Settings};
use tidegate::guard::jwt::Verifier;
use tidegate::proxy::client::Claims;
use tidegate::state::{Clock, Timestamp};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn settings(text: &str) -> Settings {
    let text = format!("upstream: http://127.0.0.1:9\n{text}");
    let config = Config::from_text(&text, "bench", &Overrides::default(), &|_| None).expect("config");
    config.resolve(&Clock::system()).expect("settings")
}

/// A token as issuers make them: about 400 bytes of claims.
fn token(header: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let claims = json!({
        "iss": "https://login.example.com/realms/chat", "sub": "7d2f0e4a-95a4-4c9a-8b43-0f2f1f1f7a11", "aud": "chat",
        "iat": 1_789_999_900, "exp": 1_790_003_600, "jti": "f0c1a1de-1f3b-4a55-9e0c-3a52f2d9c001", "typ": "Bearer",
        "azp": "web", "sid": "0f6a9c1c-6a54-4d0d-9df5-8a2b7f0c2d10", "scope": "openid profile email",
        "preferred_username": "alice", "email": "alice@example.com", "role": ["user", "editor"], "tier": "gold",
    });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encode(header), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A file, removed when dropped.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The setting of a key that lies in a file, and that file.
fn with_keys(jwk: &Value) -> (String, Scratch) {
    let kind = jwk["crv"].as_str().unwrap_or("rsa");
    let path = std::env::temp_dir().join(format!("tidegate-bench-{}-{kind}.json", std::process::id()));
    std::fs::write(&path, json!({"keys": [jwk]}).to_string()).expect("a file");
    (format!("keys: '{}'", path.display()), Scratch(path))
}

fn verify(c: &mut Criterion, name: &str, key: &str, token: &str) {
    let text = format!("jwt: {{tokens: {{main: {{{key}, audiences: [chat]}}}}}}\n");
    let fresh = || settings(&text).tokens.remove(0);
    let verifier: Arc<Verifier> = fresh();
    verifier.verify(token, NOW).unwrap_or_else(|bad| panic!("{name}: {bad:?}"));
    c.bench_function(&format!("{name}, {} bytes, first", token.len()), |b| {
        // Not dropped within the time that counts: a memory of thousands of tokens is.
        let first = |verifier: Arc<Verifier>| (verifier.verify(black_box(token), NOW), verifier);
        b.iter_batched(fresh, first, BatchSize::LargeInput);
    });
    c.bench_function(&format!("{name}, {} bytes, known", token.len()), |b| {
        b.iter(|| verifier.verify(black_box(token), NOW));
    });
}

fn tokens(c: &mut Criterion) {
    let random = SystemRandom::new();
    let hs = token(&json!({"alg": "HS256", "typ": "JWT"}), |text| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text).as_ref().to_vec()
    });
    verify(c, "HS256", &format!("secret: {SECRET}"), &hs);

    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (n, e) = (rsa.public_key().modulus(), rsa.public_key().exponent());
    let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
    let (keys, _file) = with_keys(&json!({"kty": "RSA", "n": encode(n), "e": encode(e)}));
    let rs = token(&json!({"alg": "RS256", "typ": "JWT"}), |text| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).expect("signs");
        signature
    });
    verify(c, "RS256", &keys, &rs);

    for (name, curve, algorithm) in [
        ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    ] {
        let key = EcdsaKeyPair::generate(algorithm).expect("a key");
        let point = key.public_key().as_ref();
        let (x, y) = point[1..].split_at(point.len() / 2);
        let (keys, _file) = with_keys(&json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)}));
        let sign = |text: &[u8]| key.sign(&random, text).expect("signs").as_ref().to_vec();
        verify(c, name, &keys, &token(&json!({"alg": name, "typ": "JWT"}), sign));
    }

    let key = Ed25519KeyPair::generate().expect("a key");
    let (keys, _file) =
        with_keys(&json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())}));
    let ed = token(&json!({"alg": "EdDSA", "typ": "JWT"}), |text| key.sign(text).as_ref().to_vec());
    verify(c, "EdDSA", &keys, &ed);
}

fn mint(c: &mut Criterion) {
    let text = format!("jwt: {{mint: {{secret: {SECRET}}}}}\nauth: {{mint: true}}\n");
    let fresh = || settings(&text);
    let running = fresh();
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", http::HeaderValue::from_static("a-key-of-some-length"));
    let peer = "127.0.0.1:50000".parse().expect("an address");
    let claims = Claims { peer, tls: false, authority: Some("localhost"), query: None, headers: &headers };
    let client = running.client.decide(&claims);
    let token = |settings: &Settings| {
        let minter = settings.routes[0].guards.forwarding.mint.clone().expect("a minter");
        minter.token(black_box(&client), NOW)
    };
    c.bench_function("mint, first", |b| {
        b.iter_batched(fresh, |settings| (token(&settings), settings), BatchSize::LargeInput);
    });
    c.bench_function("mint, known", |b| b.iter(|| token(&running)));
}

criterion_group!(benches, tokens, mint);
criterion_main!(benches);
