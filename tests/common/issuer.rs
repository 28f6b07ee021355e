//! Somebody who signs tokens and publishes the keys: well, badly, or not at all.

use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256,
};
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Upstream;

/// When a test's gate starts, in seconds.
pub const NOW: u64 = 1_790_000_000;

/// Base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these parts, whatever they are.
pub fn raw_token(header: &Value, claims: &str, signature: impl AsRef<[u8]>) -> String {
    format!("{}.{}.{}", encode(header.to_string()), encode(claims), encode(signature))
}

/// A key and its name.
pub struct Signer {
    pub id: String,
    key: Key,
}

enum Key {
    Secret(Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub fn secret(secret: impl AsRef<[u8]>) -> Self {
        Self { id: String::new(), key: Key::Secret(secret.as_ref().to_vec()) }
    }

    #[must_use]
    pub fn called(self, id: &str) -> Self {
        Self { id: id.into(), ..self }
    }

    pub fn rsa(id: &str) -> Self {
        Self { id: id.into(), key: Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key").into()) }
    }

    pub fn p256(id: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { id: id.into(), key: Key::P256(key) }
    }

    pub fn p384(id: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
        Self { id: id.into(), key: Key::P384(key) }
    }

    pub fn ed25519(id: &str) -> Self {
        Self { id: id.into(), key: Key::Ed25519(Ed25519KeyPair::generate().expect("a key")) }
    }

    /// The usual algorithm of the key.
    pub fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Secret(_) => "HS256",
            Key::Rsa(_) => "RS256",
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Ed25519(_) => "EdDSA",
        }
    }

    /// The header of an honest token.
    pub fn header(&self) -> Value {
        match &self.key {
            Key::Secret(_) => json!({"alg": "HS256", "typ": "JWT"}),
            _ => json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id}),
        }
    }

    /// An honest token.
    pub fn token(&self, claims: &Value) -> String {
        self.signed(&self.header(), &claims.to_string())
    }

    /// A token of these parts, with a signature that is right.
    pub fn signed(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims));
        let signature = self.sign(signed.as_bytes(), header["alg"] == "PS256");
        format!("{signed}.{}", encode(signature))
    }

    fn sign(&self, message: &[u8], pss: bool) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Secret(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
            }
            Key::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding =
                    if pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).expect("signs");
                signature
            }
            Key::P256(key) | Key::P384(key) => key.sign(&random, message).expect("signs").as_ref().to_vec(),
            Key::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key as a set has it.
    pub fn jwk(&self) -> Value {
        let point = |key: &EcdsaKeyPair, curve: &str| {
            let point = key.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        };
        let mut jwk = match &self.key {
            Key::Secret(secret) => json!({"kty": "oct", "k": encode(secret)}),
            Key::Rsa(key) => {
                let public = key.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({"kty": "RSA", "n": encode(n.big_endian_without_leading_zero()), "e": encode(e.big_endian_without_leading_zero())})
            }
            Key::P256(key) => point(key, "P-256"),
            Key::P384(key) => point(key, "P-384"),
            Key::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key())}),
        };
        jwk["kid"] = self.id.clone().into();
        jwk
    }

    /// The public key in DER.
    pub fn der(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = match &self.key {
            Key::Secret(_) => panic!("a secret has no public key"),
            Key::Rsa(key) => key.public_key().as_der().expect("DER"),
            Key::P256(key) | Key::P384(key) => key.public_key().as_der().expect("DER"),
            Key::Ed25519(key) => key.public_key().as_der().expect("DER"),
        };
        der.as_ref().to_vec()
    }

    /// The public key in PEM.
    pub fn pem(&self) -> String {
        let text = STANDARD.encode(self.der());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

/// What an issuer does when it is asked for its keys.
#[derive(Clone)]
pub enum Manner {
    /// Tells them.
    Tells(Value),
    /// Sends these bytes.
    Sends(Vec<u8>),
    /// Says nothing.
    Silent,
    /// Hangs up.
    Dead,
}

/// A server that publishes keys.
pub struct Issuer {
    server: Upstream,
    manner: Arc<Mutex<Manner>>,
}

impl Issuer {
    pub async fn new(manner: Manner) -> Self {
        let manner = Arc::new(Mutex::new(manner));
        let now = manner.clone();
        let server = Upstream::scripted(move |mut peer| {
            let manner = now.clone();
            async move {
                while peer.request().await.is_some() {
                    let manner = manner.lock().expect("no panic").clone();
                    let answer = match manner {
                        Manner::Tells(keys) => {
                            let keys = keys.to_string();
                            let length = keys.len();
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{keys}").into_bytes()
                        }
                        Manner::Sends(bytes) => bytes,
                        Manner::Silent => return Notify::new().notified().await,
                        Manner::Dead => return,
                    };
                    if !peer.send(&answer).await {
                        return;
                    }
                }
            }
        })
        .await;
        Self { server, manner }
    }

    /// One that tells the keys of these.
    pub async fn of(signers: &[&Signer]) -> Self {
        Self::new(Manner::Tells(set(signers))).await
    }

    /// Changes its manner.
    pub fn now(&self, manner: Manner) {
        *self.manner.lock().expect("no panic") = manner;
    }

    /// From now on it tells the keys of these.
    pub fn tells(&self, signers: &[&Signer]) {
        self.now(Manner::Tells(set(signers)));
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.server.address())
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.server.requests().len()
    }
}

/// A set of public keys.
pub fn set(signers: &[&Signer]) -> Value {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()})
}
