//! Keys that signatures are verified with. What a key is decides what it is used for, whatever a token says: a public key
//! is never taken for a secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

use super::Algorithm;
use super::algorithm::Kind;
use super::compact::Compact;

/// Keys of one set that are looked at; an issuer that rotates has two or three.
const SET_KEYS: usize = 64;
/// Bits of an RSA key that the library takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key.
#[derive(Clone)]
pub struct Key {
    kind: Kind,
    /// Its name in a set.
    id: Option<Box<str>>,
    /// The one algorithm that its set has it for, if the set says so.
    only: Option<Algorithm>,
    key: DecodingKey,
    /// What tells it from others, for comparing.
    material: Box<[u8]>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.id, self.only, &self.material)
            == (other.kind, &other.id, other.only, &other.material)
    }
}

impl Key {
    /// A secret that the issuer signs with as well.
    pub fn secret(secret: &str) -> Self {
        let key = DecodingKey::from_secret(secret.as_bytes());
        // There is only one, so there is nothing to compare it with, and no reason to keep it twice.
        Self { kind: Kind::Secret, id: None, only: None, key, material: [].into() }
    }

    /// The public keys of a file: PEM, or a set of keys as an issuer publishes it.
    ///
    /// # Errors
    /// Why there are none.
    pub fn public(text: &str) -> Result<Vec<Self>, String> {
        if text.trim_start().starts_with('{') {
            return Self::set(text.as_bytes());
        }
        if text.contains("PRIVATE KEY-----") {
            return Err("holds a private key; the gate only verifies, so give it the public one (openssl pkey -pubout)".into());
        }
        let blocks = text.split("-----BEGIN ").skip(1).map(|block| format!("-----BEGIN {block}"));
        let keys = blocks.map(|block| Self::pem(block.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            Err("holds no public key: neither PEM nor a JSON Web Key Set".into())
        } else {
            Ok(keys)
        }
    }

    fn pem(block: &[u8]) -> Result<Self, String> {
        let parsed = DecodingKey::from_rsa_pem(block).map(|key| (Some(Kind::Rsa), key));
        let parsed = parsed.or_else(|_| {
            let key = DecodingKey::from_ec_pem(block)?;
            let length = key.try_get_as_bytes()?.len();
            Ok::<_, jsonwebtoken::errors::Error>((curve(length), key))
        });
        let parsed =
            parsed.or_else(|_| DecodingKey::from_ed_pem(block).map(|key| (Some(Kind::Ed25519), key)));
        match parsed {
            Ok((Some(kind), key)) => {
                let material = key.try_get_as_bytes().unwrap_or_default().into();
                Ok(Self { kind, id: None, only: None, key, material })
            }
            _ => Err("holds a key that is none of RSA, P-256, P-384 and Ed25519, in PEM (PUBLIC KEY)".into()),
        }
    }

    /// The keys of a set (RFC 7517 §5) that can be used; others are passed over, as §5 says.
    ///
    /// # Errors
    /// Why there are none.
    pub fn set(document: &[u8]) -> Result<Vec<Self>, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(document).map_err(|_| "is no JSON Web Key Set".to_owned())?;
        let written = set.keys.into_iter().take(SET_KEYS).filter_map(|key| serde_json::from_value(key).ok());
        let keys: Vec<Self> = written.filter_map(Written::usable).collect();
        if keys.is_empty() { Err("has no key that signatures can be verified with".into()) } else { Ok(keys) }
    }

    /// Whether a token that says it is signed in this way, with the key of this name, may be signed with this one.
    pub fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = match (id, &self.id) {
            (Some(id), Some(own)) => id == &**own,
            // A key without a name, or a token that names none: trying is the only way to know.
            _ => true,
        };
        named && algorithm.kind() == self.kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether it has that name in its set.
    pub fn is_named(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a token was signed with it.
    pub fn signed(&self, token: &Compact<'_>, algorithm: Algorithm) -> bool {
        algorithm.kind() == self.kind
            && crypto::verify(token.signature, token.signed.as_bytes(), &self.key, algorithm.library())
                .unwrap_or(false)
    }
}

/// The curve of an uncompressed point of so many bytes.
const fn curve(length: usize) -> Option<Kind> {
    match length {
        65 => Some(Kind::P256),
        97 => Some(Kind::P384),
        _ => None,
    }
}

/// A key of a set, as published.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Written {
    /// The key, if signatures can be verified with it. A secret (`oct`) is none: whoever publishes it has none left.
    fn usable(self) -> Option<Key> {
        let purposes = self.key_ops.unwrap_or_default();
        let for_signatures = self.purpose.is_none_or(|purpose| purpose == "sig")
            && (purposes.is_empty() || purposes.iter().any(|purpose| purpose == "verify"));
        let part = |encoded: Option<String>| URL_SAFE_NO_PAD.decode(encoded?).ok();
        let (kind, key, material) = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", None) => {
                let (n, e) = (part(self.n)?, part(self.e)?);
                let zeros = n.iter().take_while(|byte| **byte == 0).count();
                let n = n.get(zeros..)?;
                let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
                let key = RSA_BITS.contains(&bits).then(|| DecodingKey::from_rsa_raw_components(n, &e))?;
                (Kind::Rsa, key, [n, &e].concat())
            }
            ("EC", Some("P-256" | "P-384")) => {
                let (x, y) = (part(self.x)?, part(self.y)?);
                let point = [&[4][..], &x, &y].concat();
                let kind = curve(point.len()).filter(|_| x.len() == y.len())?;
                (kind, DecodingKey::from_ec_der(&point), point)
            }
            ("OKP", Some("Ed25519")) => {
                let x = part(self.x).filter(|x| x.len() == 32)?;
                (Kind::Ed25519, DecodingKey::from_ed_der(&x), x)
            }
            _ => return None,
        };
        let only = match self.alg {
            None => None,
            Some(name) => Some(Algorithm::named(&name).filter(|only| only.kind() == kind)?),
        };
        let id = self.kid.map(String::into_boxed_str);
        for_signatures.then(|| Key { kind, id, only, key, material: material.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Signer, pem};
    use super::*;

    fn keys(document: &Value) -> usize {
        Key::set(document.to_string().as_bytes()).map_or(0, |keys| keys.len())
    }

    /// One key that nobody here can use must not cost the others, and a secret must never come out of a published set.
    #[test]
    fn sets_give_what_can_be_used() {
        let ed = Signer::ed25519("a").jwk();
        assert_eq!(keys(&serde_json::json!({"keys": [ed]})), 1);
        let with = |name: &str, value: Value| {
            let mut key = ed.clone();
            key[name] = value;
            keys(&serde_json::json!({"keys": [key, {"kty": "new"}, 7]}))
        };
        assert_eq!(with("use", "sig".into()), 1);
        assert_eq!(with("key_ops", serde_json::json!(["verify"])), 1);
        assert_eq!(with("alg", "EdDSA".into()), 1);
        for (name, value) in [
            ("use", "enc"),
            ("alg", "HS256"),
            ("alg", "none"),
            ("crv", "Ed448"),
            ("x", "AAAA"),
            ("kty", "oct"),
        ] {
            assert_eq!(with(name, value.into()), 0, "{name}: {value}");
        }
        let oct = serde_json::json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"});
        assert_eq!(keys(&serde_json::json!({"keys": [oct]})), 0);
        for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "<html>"] {
            assert!(Key::set(text.as_bytes()).is_err(), "{text}");
        }
    }

    /// An RSA key that is too small to trust is none.
    #[test]
    fn small_keys_are_none() {
        let rsa = |bytes: usize| {
            let n = URL_SAFE_NO_PAD.encode(vec![0xc5; bytes]);
            keys(&serde_json::json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}))
        };
        assert_eq!((rsa(128), rsa(255), rsa(256), rsa(1024), rsa(1025)), (0, 0, 1, 1, 0));
    }

    /// Whoever hands the gate a private key hands it to whoever can read the gate's files.
    #[test]
    fn files_hold_public_keys() {
        let [private, public] = pem();
        assert!(Key::public(&private).is_err_and(|why| why.contains("pkey -pubout")));
        assert_eq!(Key::public(&format!("# ours\n{public}\n{public}")).expect("keys").len(), 2);
        let set = serde_json::json!({"keys": [Signer::ed25519("a").jwk()]}).to_string();
        assert_eq!(Key::public(&set).expect("keys").len(), 1);
        assert!(Key::public("hello").is_err());
    }
}
