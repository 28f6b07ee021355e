//! One kind of token: its keys, its algorithms, and what it has to claim.

use std::sync::Arc;

use super::cache::Cache;
use super::claims::Expected;
use super::compact::Compact;
use super::issuer::Issuer;
use super::key::Key;
use super::{Algorithm, Identity, Place, TOKEN_BYTES};
use crate::state::Timestamp;

/// Keys that are tried on a token that names none, at most.
const TRIES: usize = 4;

/// Where the keys are.
pub enum Keys {
    /// In the settings.
    Fixed(Box<[Key]>),
    /// At an issuer that publishes them.
    Published(Arc<Issuer>),
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is none, or not ours; in words that follow "the token".
    Invalid(&'static str),
    /// It was good.
    Expired,
    /// It says that it is signed with a key that is not known, and may be a new one.
    UnknownKey,
    /// No key is known, or all are too old.
    NoKeys,
}

/// A token that is believed.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Whose it is.
    pub identity: Arc<Identity>,
    /// Whether it is seen for the first time, as far as is remembered.
    pub first: bool,
}

/// Verifies tokens of one kind.
pub struct Verifier {
    /// Name in the config.
    pub name: Arc<str>,
    /// Where such tokens stand.
    pub places: Box<[Place]>,
    pub(super) algorithms: Box<[Algorithm]>,
    pub(super) keys: Keys,
    pub(super) expected: Expected,
    pub(super) known: Cache<Arc<Identity>>,
}

impl Verifier {
    /// Believes a token, or says why not.
    ///
    /// # Errors
    /// Why not. With [`Bad::UnknownKey`] it may be believed once the issuer was asked for its keys again.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Accepted, Bad> {
        if token.len() > TOKEN_BYTES {
            return Err(Bad::Invalid("is longer than 8 KiB"));
        }
        let published = match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Published(issuer) => Some(issuer.keys(now)),
        };
        let number = published.as_ref().map_or(0, |keys| keys.number);
        let print = Cache::<Arc<Identity>>::print(token);
        let usable = published.as_ref().is_none_or(|keys| !keys.keys.is_empty());
        if let Some(identity) = self.known.get(&print, number, now).filter(|_| usable) {
            return Ok(Accepted { identity, first: false });
        }
        let compact = Compact::read(token).map_err(Bad::Invalid)?;
        let algorithm = compact.algorithm.filter(|algorithm| self.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(Bad::Invalid("is signed in a way that is not accepted here"))?;
        match (&self.keys, &published) {
            (Keys::Fixed(keys), _) => {
                if !keys.iter().any(|key| key.signed(&compact, algorithm)) {
                    return Err(Bad::Invalid("is not signed by its issuer"));
                }
            }
            (Keys::Published(_), Some(keys)) if usable => signed(&compact, algorithm, &keys.keys)?,
            (Keys::Published(_), _) => return Err(Bad::NoKeys),
        }
        let claims = compact.claims().map_err(Bad::Invalid)?;
        let believed = self.expected.believe(&claims, now)?;
        let identity = Arc::new(believed.identity);
        self.known.put(print, number, believed.until, identity.clone());
        Ok(Accepted { identity, first: true })
    }

    /// The issuer that publishes its keys, if one does.
    pub fn issuer(&self) -> Option<&Arc<Issuer>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Published(issuer) => Some(issuer),
        }
    }
}

/// Whether one of the keys that fit has signed. A token whose key is there, and has not signed it, is a forgery; one whose
/// key is not there, or that names none, may be signed with a key that is newer than the set.
fn signed(compact: &Compact<'_>, algorithm: Algorithm, keys: &[Key]) -> Result<(), Bad> {
    let id = compact.key.as_deref();
    let mut fitting = keys.iter().filter(|key| key.fits(algorithm, id)).take(TRIES);
    if fitting.any(|key| key.signed(compact, algorithm)) {
        return Ok(());
    }
    let there = id.is_some_and(|id| keys.iter().any(|key| key.is_named(id)));
    if there { Err(Bad::Invalid("is not signed by its issuer")) } else { Err(Bad::UnknownKey) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Signer, expected};
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn verifier(keys: Vec<Key>, algorithms: &[Algorithm]) -> Verifier {
        Verifier {
            name: "main".into(),
            places: [Place::Authorization].into(),
            algorithms: algorithms.into(),
            keys: Keys::Fixed(keys.into()),
            expected: expected(),
            known: Cache::new(),
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    /// A token is verified once, and not a second longer than it holds.
    #[test]
    fn known_tokens_expire_as_others_do() {
        let verifier = verifier(vec![Key::secret(SECRET)], &[Algorithm::HS256]);
        let token = Signer::secret(SECRET).token(&json!({"sub": "a", "exp": 100}));
        let first = |now| verifier.verify(&token, at(now)).map(|accepted| accepted.first);
        assert_eq!([first(10), first(11), first(129)], [Ok(true), Ok(false), Ok(false)]);
        assert_eq!(first(130), Err(Bad::Expired));
    }

    /// One letter changed anywhere, and it is nobody's token, known or not.
    #[test]
    fn forgeries_are_refused() {
        let verifier = verifier(vec![Key::secret(SECRET)], &[Algorithm::HS256]);
        let token = Signer::secret(SECRET).token(&json!({"sub": "a", "exp": 100}));
        verifier.verify(&token, at(10)).expect("believed");
        for place in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("ASCII");
            assert!(matches!(verifier.verify(&forged, at(10)), Err(Bad::Invalid(_))), "{place}");
        }
        let cut = &token[..token.len() - 1];
        assert!(verifier.verify(cut, at(10)).is_err(), "a signature that is cut short");
        let other = Signer::secret("another secret, as long as that").token(&json!({"sub": "a", "exp": 100}));
        assert!(verifier.verify(&other, at(10)).is_err());
    }

    /// The algorithm is the settings' choice: one that they do not name is refused, even if the signature is right.
    #[test]
    fn algorithms_are_pinned() {
        let token = Signer::secret(SECRET).token(&json!({"sub": "a", "exp": 100}));
        let pinned =
            |algorithm| verifier(vec![Key::secret(SECRET)], &[algorithm]).verify(&token, at(10)).is_ok();
        assert_eq!([Algorithm::HS256, Algorithm::HS384, Algorithm::EdDSA].map(pinned), [true, false, false]);
    }

    /// The oldest trick: a token signed with the public key as if it were a secret.
    #[test]
    fn public_keys_are_no_secrets() {
        let signer = Signer::ed25519("a");
        let set = json!({"keys": [signer.jwk()]}).to_string();
        let keys = Key::set(set.as_bytes()).expect("keys");
        let both = verifier(keys, &[Algorithm::HS256, Algorithm::EdDSA]);
        both.verify(&signer.token(&json!({"sub": "a", "exp": 100})), at(10)).expect("believed");
        let public = signer.jwk()["x"].as_str().expect("text").to_owned();
        let forged = Signer::secret(public.leak()).token(&json!({"sub": "a", "exp": 100}));
        assert!(matches!(both.verify(&forged, at(10)), Err(Bad::Invalid(_))));
    }
}
