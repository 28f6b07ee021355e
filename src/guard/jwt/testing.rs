//! Tokens and keys for unit tests.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::claims::{ClaimPath, Expected};

/// Expects a user, a time of expiry, and nothing else; knows the role `admin` and the role `demo`.
pub fn expected() -> Expected {
    Expected {
        token: "main".into(),
        issuers: [].into(),
        audiences: [].into(),
        required: [].into(),
        leeway: Duration::from_secs(30),
        user: ClaimPath("sub".into()),
        class: Some(ClaimPath("role".into())),
        admin: ["admin".into()].into(),
        demo: ["demo".into()].into(),
        tier: None,
        tenant: None,
    }
}

/// Signs with Ed25519, or with a secret.
pub struct Signer {
    key: Result<Ed25519KeyPair, &'static str>,
    id: &'static str,
}

impl Signer {
    /// With a new key of that name.
    pub fn ed25519(id: &'static str) -> Self {
        Self { key: Ok(Ed25519KeyPair::generate().expect("a key")), id }
    }

    /// With a secret.
    pub fn secret(secret: &'static str) -> Self {
        Self { key: Err(secret), id: "" }
    }

    /// Its public key as an issuer publishes it.
    pub fn jwk(&self) -> Value {
        let key = self.key.as_ref().expect("a public key");
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x})
    }

    /// A token.
    pub fn token(&self, claims: &Value) -> String {
        let header = match &self.key {
            Ok(_) => json!({"alg": "EdDSA", "kid": self.id}),
            Err(_) => json!({"alg": "HS256", "typ": "JWT"}),
        };
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = match &self.key {
            Ok(key) => URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())),
            Err(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
            }
        };
        format!("{signed}.{signature}")
    }
}

/// A private key and its public one, in PEM.
pub fn pem() -> [String; 2] {
    let key = Ed25519KeyPair::generate().expect("a key");
    let private = key.to_pkcs8v1().expect("DER");
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().expect("DER");
    [("PRIVATE", private.as_ref()), ("PUBLIC", public.as_ref())].map(|(what, der)| {
        format!("-----BEGIN {what} KEY-----\n{}\n-----END {what} KEY-----\n", STANDARD.encode(der))
    })
}
