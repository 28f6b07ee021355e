//! Who has to prove who they are (S1): a token that is sent has to be good, and where one is required it has to be sent.
//!
//! A bad token is never taken for none: whoever sends one believes to be somebody.

use std::sync::Arc;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::jwt::{Accepted, Bad, Issuer, Place, Verifier};
use super::{Fault, Reason, Refusal};
use crate::state::Timestamp;

/// Settings of a route, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether a token has to be there.
    pub mode: Mode,
    /// Names of the tokens that count here; empty: all.
    pub tokens: Vec<String>,
    /// Whether the app gets a token that the gate makes.
    pub mint: bool,
}

/// Whether a token has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Who sends none is anonymous.
    Optional,
    /// Who sends none is refused.
    Required,
}

/// The guard.
pub struct Auth {
    mode: Mode,
    verifiers: Box<[Arc<Verifier>]>,
    /// Every place that any of them looks at, once.
    places: Box<[Place]>,
}

/// Why nobody is known to ask.
pub enum Unproven {
    /// The request is to be refused.
    Refused(Refusal),
    /// A token is signed with a key that its issuer may just have published.
    UnknownKey(Arc<Issuer>),
}

impl Auth {
    /// Builds the guard; `None`, if there is no token that it could look for.
    ///
    /// # Errors
    /// A token that is not there.
    pub fn build(config: &Config, all: &[Arc<Verifier>]) -> Result<Option<Self>, Fault> {
        let named = |name: &String| {
            let known = all.iter().find(|verifier| *verifier.name == **name).cloned();
            known.ok_or_else(|| {
                let message = format!("{name:?} is no token under jwt.tokens that has a key");
                Fault::new("auth.tokens", message)
            })
        };
        let verifiers: Box<[_]> = match config.tokens.as_slice() {
            [] => all.into(),
            names => names.iter().map(named).collect::<Result<_, _>>()?,
        };
        if verifiers.is_empty() {
            return match config.mode {
                Mode::Optional => Ok(None),
                Mode::Required => {
                    let message = "is required, but no token under jwt.tokens has a key (JWT_SECRET_KEY)";
                    Err(Fault::new("auth.mode", message))
                }
            };
        }
        let mut places: Vec<Place> = Vec::new();
        for place in verifiers.iter().flat_map(|verifier| &verifier.places) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        Ok(Some(Self { mode: config.mode, verifiers, places: places.into() }))
    }

    /// Whom the tokens of a request name. All that are there have to be good; of several kinds the first one counts, in
    /// the order of the settings.
    ///
    /// # Errors
    /// One is not good, or none is there and one is required.
    pub fn check(&self, headers: &HeaderMap, now: Timestamp) -> Result<Option<Accepted>, Unproven> {
        let mut best: Option<(usize, &str, Accepted)> = None;
        for place in &self.places {
            let refuse = |reason, why: &str| {
                let (name, _) = self.kinds_at(place).next().map_or(("", 0), |(at, kind)| (&*kind.name, at));
                refusal(reason, place, why, name)
            };
            let ambiguous = |_| refuse(Reason::TokenInvalid, "stands there twice, and not alike");
            let Some(token) = place.token(headers).map_err(ambiguous)? else { continue };
            if let Some((_, known, _)) = &best
                && *known == token
            {
                continue;
            }
            let (at, accepted) = self.verify(place, token, now)?;
            match &best {
                // Which of the two the app would take is anybody's guess.
                Some((known, ..)) if *known == at => {
                    return Err(refuse(Reason::TokenInvalid, "is another one than in another place"));
                }
                Some((known, ..)) if *known < at => {}
                _ => best = Some((at, token, accepted)),
            }
        }
        match (best, self.mode) {
            (Some((_, _, accepted)), _) => Ok(Some(accepted)),
            (None, Mode::Optional) => Ok(None),
            (None, Mode::Required) => {
                let places: Vec<String> = self.places.iter().map(Place::to_string).collect();
                let detail = format!("A token is required, in {}.", places.join(" or "));
                Err(Unproven::Refused(Refusal::new(Reason::TokenMissing, detail, "auth.mode")))
            }
        }
    }

    fn kinds_at<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = (usize, &'a Arc<Verifier>)> {
        self.verifiers.iter().enumerate().filter(move |(_, kind)| kind.places.contains(place))
    }

    /// Tries a token as each kind that may stand in that place; of several reasons against it the one that says most is
    /// told.
    fn verify(&self, place: &Place, token: &str, now: Timestamp) -> Result<(usize, Accepted), Unproven> {
        let mut worst: Option<(u8, Unproven)> = None;
        for (at, kind) in self.kinds_at(place) {
            let bad = match kind.verify(token, now) {
                Ok(accepted) => return Ok((at, accepted)),
                Err(bad) => bad,
            };
            let refuse = |reason, why: &str| refusal(reason, place, why, &kind.name);
            let (weight, why) = match (bad, kind.issuer()) {
                (Bad::Expired, _) => (3, refuse(Reason::TokenExpired, "has expired")),
                (Bad::UnknownKey | Bad::NoKeys, Some(issuer)) => (2, Unproven::UnknownKey(issuer.clone())),
                (Bad::UnknownKey | Bad::NoKeys, None) => {
                    (1, refuse(Reason::TokenInvalid, "has no known key"))
                }
                (Bad::Invalid(why), _) => (1, refuse(Reason::TokenInvalid, why)),
            };
            if worst.as_ref().is_none_or(|(known, _)| *known < weight) {
                worst = Some((weight, why));
            }
        }
        let nobody = || refusal(Reason::TokenInvalid, place, "is not known here", "");
        Err(worst.map_or_else(nobody, |(_, why)| why))
    }
}

fn refusal(reason: Reason, place: &Place, why: &str, token: &str) -> Unproven {
    let setting = if token.is_empty() { "auth".to_owned() } else { format!("jwt.tokens.{token}") };
    Unproven::Refused(Refusal::new(reason, format!("The token in {place} {why}."), setting))
}

impl Unproven {
    /// The refusal, once the issuer was asked for its keys.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::UnknownKey(issuer) => {
                let setting = format!("jwt.tokens.{}", issuer.name);
                if issuer.is_well() {
                    let detail = "The token is signed with a key that its issuer does not publish.";
                    return Refusal::new(Reason::TokenInvalid, detail, setting);
                }
                let detail = "The token can't be verified: its issuer does not tell its keys at the moment.";
                Refusal::new(Reason::IssuerUnavailable, detail, setting)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::jwt;
    use super::super::jwt::testing::Signer;
    use super::*;
    use crate::config::{from_node, parse};
    use crate::upstream::Resolver;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn verifiers() -> Vec<Arc<Verifier>> {
        let text = format!(
            "tokens:\n  main: {{secret: {SECRET}, from: [authorization, 'cookie:token']}}\n  \
             web: {{secret: {OTHER}, from: ['header:x-user-jwt', authorization], issuers: [web]}}\n  off: {{}}\n\
             mint: {{header: x, subject: digest, issuer: off, audience: off, lifetime: 5m}}\n"
        );
        let tree = parse(&text, "t.yaml", &|_| None).expect("parses");
        let config: jwt::Config = from_node(&tree).unwrap_or_else(|why| panic!("{why}"));
        config.verifiers(&Resolver::default(), &[]).expect("verifiers")
    }

    fn guard(mode: Mode, tokens: &[&str]) -> Auth {
        let config =
            Config { mode, tokens: tokens.iter().map(|name| (*name).to_owned()).collect(), mint: false };
        Auth::build(&config, &verifiers()).expect("builds").expect("has tokens")
    }

    fn token(secret: &'static str, claims: Value) -> String {
        Signer::secret(secret).token(&claims)
    }

    /// Whose the request is, or why it is refused.
    fn check(auth: &Auth, fields: &[(&'static str, &str)]) -> Result<Option<String>, Reason> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        let checked = auth.check(&headers, Timestamp::from_micros(1_790_000_000_000_000));
        checked
            .map(|found| found.map(|found| found.identity.subject.to_string()))
            .map_err(|why| why.into_refusal().reason)
    }

    /// Without a token one is nobody, and stays out where somebody has to be known; with a bad one one is refused
    /// anywhere.
    #[test]
    fn bad_tokens_are_not_taken_for_none() {
        let alice = format!("Bearer {}", token(SECRET, json!({"sub": "alice", "exp": 1_790_000_060})));
        let late = format!("Bearer {}", token(SECRET, json!({"sub": "alice", "exp": 1_780_000_000})));
        for mode in [Mode::Optional, Mode::Required] {
            let auth = guard(mode, &[]);
            assert_eq!(check(&auth, &[("authorization", &alice)]), Ok(Some("alice".into())));
            assert_eq!(check(&auth, &[("authorization", &late)]), Err(Reason::TokenExpired));
            for bad in ["Bearer", "Bearer x", "Bearer a.b.c", "Bearer sk-0123456789abcdef"] {
                assert_eq!(check(&auth, &[("authorization", bad)]), Err(Reason::TokenInvalid), "{bad}");
            }
            let missing = if mode == Mode::Required { Err(Reason::TokenMissing) } else { Ok(None) };
            assert_eq!(check(&auth, &[]), missing);
            assert_eq!(check(&auth, &[("authorization", "Basic dDp0"), ("cookie", "other=x")]), missing);
        }
    }

    /// Two tokens: the app might take the one that the gate did not go by.
    #[test]
    fn all_tokens_count() {
        let auth = guard(Mode::Optional, &[]);
        let of = |name: &str| token(SECRET, json!({"sub": name, "exp": 1_790_000_060}));
        let (alice, bob) = (of("alice"), of("bob"));
        let web = token(OTHER, json!({"sub": "web-7", "iss": "web", "exp": 1_790_000_060}));
        let (bearer, cookie) = (format!("Bearer {alice}"), format!("a=b; token={alice}"));
        assert_eq!(
            check(&auth, &[("authorization", &bearer), ("cookie", &cookie)]),
            Ok(Some("alice".into()))
        );
        let other = format!("token={bob}");
        assert_eq!(
            check(&auth, &[("authorization", &bearer), ("cookie", &other)]),
            Err(Reason::TokenInvalid)
        );
        assert_eq!(
            check(&auth, &[("cookie", "token=x"), ("authorization", &bearer)]),
            Err(Reason::TokenInvalid)
        );
        assert_eq!(check(&auth, &[("x-user-jwt", &web)]), Ok(Some("web-7".into())));
        assert_eq!(
            check(&auth, &[("x-user-jwt", &web), ("authorization", &bearer)]),
            Ok(Some("alice".into()))
        );
        assert_eq!(check(&auth, &[("x-user-jwt", &alice)]), Err(Reason::TokenInvalid), "not in that place");
        assert_eq!(
            check(&auth, &[("x-user-jwt", "x"), ("authorization", &bearer)]),
            Err(Reason::TokenInvalid)
        );
        let web = format!("Bearer {web}");
        assert_eq!(
            check(&auth, &[("authorization", &web)]),
            Ok(Some("web-7".into())),
            "two kinds in one place"
        );
        let only = guard(Mode::Required, &["web"]);
        assert_eq!(check(&only, &[("authorization", &bearer)]), Err(Reason::TokenInvalid));
    }

    /// A route that requires a token which nobody can verify would be closed, or open, by mistake.
    #[test]
    fn tokens_that_are_not_there_are_errors() {
        let build = |mode, tokens: &[&str], all: &[Arc<Verifier>]| {
            let tokens = tokens.iter().map(|name| (*name).to_owned()).collect();
            Auth::build(&Config { mode, tokens, mint: false }, all).map(|auth| auth.is_some())
        };
        assert_eq!(build(Mode::Optional, &[], &[]), Ok(false));
        assert!(build(Mode::Required, &[], &[]).is_err());
        assert!(build(Mode::Optional, &["off"], &verifiers()).is_err());
        assert_eq!(build(Mode::Optional, &["main"], &verifiers()), Ok(true));
    }
}
