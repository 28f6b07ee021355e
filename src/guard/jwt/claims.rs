//! What a token has to claim to be believed (RFC 7519 §4.1), and what its claims make of its bearer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Identity;
use super::verifier::Bad;
use crate::proxy::client::ClientClass;
use crate::state::Timestamp;

/// Bytes of the longest name of a user, tier or tenant.
const NAME_BYTES: usize = 512;

/// The last second that is counted with: the year 9999. A time beyond it is one that never comes.
const LAST: f64 = 253_402_300_799.0;

/// Where a claim stands: its name, or the path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(pub Box<str>);

/// What is expected of claims, as run.
pub struct Expected {
    /// Name of the token in the config.
    pub token: Arc<str>,
    /// Issuers that are believed; empty: any that has the key.
    pub issuers: Box<[Box<str>]>,
    /// Whom a token may be for; empty: nobody by name.
    pub audiences: Box<[Box<str>]>,
    /// Claims that must be there, besides `exp` and the user.
    pub required: Box<[ClaimPath]>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// The claim that names the user.
    pub user: ClaimPath,
    /// The claim that names a class or a role.
    pub class: Option<ClaimPath>,
    /// Values of it that make an admin.
    pub admin: Box<[Box<str>]>,
    /// Values of it that make a demo user.
    pub demo: Box<[Box<str>]>,
    /// The claim that names the tier.
    pub tier: Option<ClaimPath>,
    /// The claim that names the tenant.
    pub tenant: Option<ClaimPath>,
}

/// Claims that are believed, and until when.
#[derive(Debug)]
pub struct Believed {
    /// Whose they are.
    pub identity: Identity,
    /// From then on they are not believed any more; leeway included.
    pub until: Timestamp,
}

impl ClaimPath {
    /// What stands there: behind a `/`, a JSON Pointer (RFC 6901); else the claim of that name, whatever is in it.
    fn of<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let Some(path) = self.0.strip_prefix('/') else { return claims.get(&*self.0) };
        let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let value = claims.get(&*first.replace("~1", "/").replace("~0", "~"))?;
        rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
    }
}

impl Expected {
    /// Believes the claims of a token whose signature was verified, or says why not.
    pub fn believe(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Believed, Bad> {
        let now = now.as_micros() as f64 / 1e6;
        let leeway = self.leeway.as_secs_f64();
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Bad::Invalid("has a time that is no number")),
        };
        let Some(expiry) = time("exp")? else { return Err(Bad::Invalid("does not say when it expires")) };
        if now >= expiry + leeway {
            return Err(Bad::Expired);
        }
        let later = |time: Option<f64>| time.is_some_and(|time| time > now + leeway);
        if later(time("nbf")?) || later(time("iat")?) {
            return Err(Bad::Invalid("is not valid yet"));
        }
        let issuer = self.issuer(claims)?;
        self.check_audience(claims)?;
        if self.required.iter().any(|path| path.of(claims).is_none_or(Value::is_null)) {
            return Err(Bad::Invalid("lacks a claim that is required"));
        }
        let subject = self.user.of(claims).and_then(name).ok_or(Bad::Invalid("does not say whose it is"))?;
        let named = |path: &Option<ClaimPath>| path.as_ref().and_then(|path| path.of(claims)).and_then(name);
        let identity = Identity {
            token: self.token.clone(),
            subject,
            issuer: issuer.map(Into::into),
            class: self.class(claims),
            tier: named(&self.tier),
            tenant: named(&self.tenant),
        };
        let until = (expiry + leeway).clamp(0.0, LAST) * 1e6;
        Ok(Believed { identity, until: Timestamp::from_micros(until as u64) })
    }

    fn issuer<'c>(&self, claims: &'c Map<String, Value>) -> Result<Option<&'c str>, Bad> {
        let issuer = match claims.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(issuer.as_str()),
            Some(_) => return Err(Bad::Invalid("has an issuer that is no text")),
        };
        let believed = self.issuers.is_empty() || self.issuers.iter().any(|known| Some(&**known) == issuer);
        if believed { Ok(issuer) } else { Err(Bad::Invalid("is from another issuer")) }
    }

    /// Who is not among those that a token is for must not take it (RFC 7519 §4.1.3).
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Bad> {
        let known = |name: &str| self.audiences.iter().any(|known| &**known == name);
        let ours = match claims.get("aud") {
            None => self.audiences.is_empty(),
            Some(Value::String(name)) => known(name),
            Some(Value::Array(names)) => {
                names.iter().all(Value::is_string) && names.iter().filter_map(Value::as_str).any(known)
            }
            Some(_) => false,
        };
        if ours { Ok(()) } else { Err(Bad::Invalid("is for another audience")) }
    }

    fn class(&self, claims: &Map<String, Value>) -> ClientClass {
        let value = self.class.as_ref().and_then(|path| path.of(claims));
        let has = |names: &[Box<str>]| {
            let is =
                |value: &Value| value.as_str().is_some_and(|role| names.iter().any(|name| **name == *role));
            match value {
                Some(Value::Array(roles)) => roles.iter().any(is),
                Some(role) => is(role),
                None => false,
            }
        };
        // Who has both is held to less.
        if has(&self.demo) {
            ClientClass::Demo
        } else if has(&self.admin) {
            ClientClass::Admin
        } else {
            ClientClass::Authenticated
        }
    }
}

/// A name: a text, or a whole number as many apps have it.
fn name(value: &Value) -> Option<Box<str>> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return None,
    };
    (!text.is_empty() && text.len() <= NAME_BYTES).then(|| text.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::expected;
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn believe(expected: &Expected, claims: Value) -> Result<Believed, Bad> {
        let claims = claims.as_object().expect("an object").clone();
        expected.believe(&claims, Timestamp::from_micros(NOW * 1_000_000))
    }

    fn path(text: &str) -> ClaimPath {
        ClaimPath(text.into())
    }

    /// A stolen token is worth something until it expires, and for no second longer than clocks may differ.
    #[test]
    fn times_bound_a_token() {
        let of = |claims: Value| believe(&expected(), claims).map(|believed| believed.until.as_secs());
        assert_eq!(of(json!({"sub": "a", "exp": NOW + 60})), Ok(NOW + 90));
        assert_eq!(of(json!({"sub": "a", "exp": NOW as f64 + 0.5})), Ok(NOW + 30));
        assert!(of(json!({"sub": "a", "exp": NOW - 29})).is_ok());
        assert_eq!(of(json!({"sub": "a", "exp": NOW - 30})), Err(Bad::Expired));
        assert_eq!(of(json!({"sub": "a", "exp": -1})), Err(Bad::Expired));
        assert!(of(json!({"sub": "a", "exp": 1e300})).is_ok());
        for claims in [
            json!({"sub": "a"}),
            json!({"sub": "a", "exp": null}),
            json!({"sub": "a", "exp": "1890000000"}),
            json!({"sub": "a", "exp": NOW + 60, "nbf": NOW + 31}),
            json!({"sub": "a", "exp": NOW + 60, "nbf": "now"}),
            json!({"sub": "a", "exp": NOW + 60, "iat": NOW + 31}),
        ] {
            assert!(matches!(of(claims.clone()), Err(Bad::Invalid(_))), "{claims}");
        }
        assert!(of(json!({"sub": "a", "exp": NOW + 60, "nbf": NOW + 30, "iat": NOW + 30})).is_ok());
    }

    /// A token that the same issuer made for another app must not open this one.
    #[test]
    fn issuer_and_audience_are_pinned() {
        let pinned = Expected {
            issuers: ["https://a".into()].into(),
            audiences: ["chat".into()].into(),
            ..expected()
        };
        let good = |iss: Value, aud: Value| {
            believe(&pinned, json!({"sub": "a", "exp": NOW + 1, "iss": iss, "aud": aud})).is_ok()
        };
        assert!(good(json!("https://a"), json!("chat")));
        assert!(good(json!("https://a"), json!(["other", "chat"])));
        for (iss, aud) in [
            (json!("https://a/"), json!("chat")),
            (json!(["https://a"]), json!("chat")),
            (json!(null), json!("chat")),
            (json!("https://a"), json!("Chat")),
            (json!("https://a"), json!(["chat", 7])),
            (json!("https://a"), json!([])),
            (json!("https://a"), json!(null)),
        ] {
            assert!(!good(iss.clone(), aud.clone()), "{iss} {aud}");
        }
        assert!(believe(&pinned, json!({"sub": "a", "exp": NOW + 1, "iss": "https://a"})).is_err());
        assert!(
            believe(&expected(), json!({"sub": "a", "exp": NOW + 1, "aud": "x"})).is_err(),
            "for somebody else"
        );
    }

    /// Users of all kinds of issuers have to be told apart, and be given their class, tier and tenant.
    #[test]
    fn claims_become_an_identity() {
        let expected = Expected {
            user: path("uid"),
            class: Some(path("/realm_access/roles")),
            tier: Some(path("https://a.example/tier")),
            tenant: Some(path("/org/id")),
            required: [path("/org")].into(),
            ..expected()
        };
        let whole = json!({
            "uid": 42, "exp": NOW + 1, "realm_access": {"roles": ["user", "admin"]},
            "https://a.example/tier": "gold", "org": {"id": "acme"},
        });
        let identity = believe(&expected, whole).expect("believed").identity;
        assert_eq!((&*identity.subject, identity.class), ("42", ClientClass::Admin));
        assert_eq!((identity.tier.as_deref(), identity.tenant.as_deref()), (Some("gold"), Some("acme")));
        assert!(!format!("{identity:?}").contains("acme"), "claims are not printed");
        for claims in [
            json!({"uid": "a", "exp": NOW + 1}),
            json!({"uid": "", "exp": NOW + 1, "org": 1}),
            json!({"uid": 1.5, "exp": NOW + 1, "org": 1}),
            json!({"uid": true, "exp": NOW + 1, "org": 1}),
            json!({"uid": "a".repeat(513), "exp": NOW + 1, "org": 1}),
        ] {
            assert!(believe(&expected, claims.clone()).is_err(), "{claims}");
        }
    }

    /// A demo account that was given a second role must not be let off its limits.
    #[test]
    fn demo_counts_before_admin() {
        let class = |role: Value| {
            believe(&expected(), json!({"sub": "a", "exp": NOW + 1, "role": role})).map(|b| b.identity.class)
        };
        assert_eq!(class(json!("admin")), Ok(ClientClass::Admin));
        assert_eq!(class(json!(["admin", "demo"])), Ok(ClientClass::Demo));
        assert_eq!(class(json!("Admin")), Ok(ClientClass::Authenticated));
        assert_eq!(class(json!({"admin": true})), Ok(ClientClass::Authenticated));
    }
}
