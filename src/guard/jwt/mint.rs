//! Tokens of the gate's own, for an app that wants to know that a request came through the gate, and whose it is.

use std::time::Duration;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use jsonwebtoken::{EncodingKey, Header, encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use crate::proxy::client::Client;
use crate::state::Timestamp;

/// What a caller without a user is called.
const NOBODY: &str = "anonymous";

/// What the app is told a user is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubjectOf {
    /// A keyed digest of the user, 32 hex digits.
    #[default]
    Digest,
    /// The user as the verified token calls them; who has none is told by digest.
    Subject,
}

/// Mints tokens (HS256).
pub struct Minter {
    pub(super) header: HeaderName,
    pub(super) key: EncodingKey,
    pub(super) subject: SubjectOf,
    pub(super) issuer: Option<Box<str>>,
    pub(super) audience: Option<Box<str>>,
    pub(super) lifetime: Duration,
    pub(super) minted: Cache<HeaderValue>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: u64,
    exp: u64,
    class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
}

impl Minter {
    /// The field that carries the tokens. Nobody else's value of it reaches the app.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The field's value for a request by `client`: the same one for half of its life. `None`, if none can be made, which
    /// does not happen with a key that was a text.
    pub fn token(&self, client: &Client, now: Timestamp) -> Option<HeaderValue> {
        let identity = client.identity.as_deref();
        let digest = client.user.map(|user| format!("{:032x}", user.0));
        let named =
            identity.map(|identity| &*identity.subject).filter(|_| self.subject == SubjectOf::Subject);
        let sub = named.or(digest.as_deref()).unwrap_or(NOBODY);
        let (tier, tenant) = identity.map_or((None, None), |i| (i.tier.as_deref(), i.tenant.as_deref()));
        let class = client.class.name();
        // Whose name is another's, with another class or tier, has another token.
        let print = Cache::<HeaderValue>::print(&serde_json::to_string(&(sub, class, tier, tenant)).ok()?);
        if let Some(known) = self.minted.get(&print, 0, now) {
            return Some(known);
        }
        let iat = now.as_secs();
        let claims = Claims {
            sub,
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
            iat,
            exp: iat + self.lifetime.as_secs(),
            class,
            tier,
            tenant,
        };
        let token = encode(&Header::default(), &claims, &self.key).ok()?;
        let scheme = if self.header == AUTHORIZATION { "Bearer " } else { "" };
        let mut value = HeaderValue::try_from(format!("{scheme}{token}")).ok()?;
        value.set_sensitive(true);
        self.minted.put(print, 0, now.after(self.lifetime / 2), value.clone());
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::super::{Algorithm, Identity};
    use super::*;
    use crate::guard::jwt::compact::Compact;
    use crate::guard::jwt::key::Key;
    use crate::guard::testing::Request;
    use crate::proxy::client::{ClientClass, SubjectId};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn minter(subject: SubjectOf) -> Minter {
        Minter {
            header: AUTHORIZATION,
            key: EncodingKey::from_secret(SECRET.as_bytes()),
            subject,
            issuer: Some("tidegate".into()),
            audience: None,
            lifetime: Duration::from_secs(300),
            minted: Cache::new(),
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn claims(value: &HeaderValue) -> Value {
        let token = value.to_str().expect("text").strip_prefix("Bearer ").expect("a scheme");
        let read = Compact::read(token).expect("a token");
        assert!(Key::secret(SECRET).signed(&read, Algorithm::HS256));
        let payload = token.split('.').nth(1).expect("claims");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
    }

    fn client(subject: &str) -> Client {
        let identity = Identity {
            token: "main".into(),
            subject: subject.into(),
            issuer: None,
            class: ClientClass::Authenticated,
            tier: Some("gold".into()),
            tenant: None,
        };
        let client = Request::new(http::Method::GET).client;
        Client { user: Some(SubjectId(7)), class: identity.class, identity: Some(identity.into()), ..client }
    }

    /// An app that believes the gate's tokens must be told the right user, for a short time only.
    #[test]
    fn tokens_say_whose_a_request_is() {
        let token =
            |minter: &Minter, client: &Client, now| claims(&minter.token(client, at(now)).expect("a token"));
        let digest = token(&minter(SubjectOf::Digest), &client("alice"), 100);
        let expected = serde_json::json!({
            "sub": format!("{:032x}", 7), "iss": "tidegate", "iat": 100, "exp": 400, "class": "authenticated", "tier": "gold",
        });
        assert_eq!(digest, expected);
        let minter = minter(SubjectOf::Subject);
        assert_eq!(token(&minter, &client("alice"), 100)["sub"], "alice");
        assert_eq!(token(&minter, &client("bob"), 101)["sub"], "bob");
        let nobody = token(&minter, &Request::new(http::Method::GET).client, 100);
        assert_eq!((&nobody["sub"], &nobody["class"]), (&"anonymous".into(), &"anonymous".into()));
    }

    /// A token that is about to expire would be refused by the app while the request waits.
    #[test]
    fn a_token_is_used_for_half_of_its_life() {
        let minter = minter(SubjectOf::Digest);
        let at = |second| minter.token(&client("alice"), at(second)).expect("a token");
        assert_eq!(at(100), at(249));
        assert_ne!(at(100), at(250));
        let demo = Client { class: ClientClass::Demo, ..client("alice") };
        assert_ne!(at(250), minter.token(&demo, Timestamp::from_micros(250_000_000)).expect("a token"));
        assert!(at(250).is_sensitive());
    }
}
