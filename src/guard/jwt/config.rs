//! Tokens as written in the settings, and what is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use jsonwebtoken::EncodingKey;
use schemars::JsonSchema;
use serde::Deserialize;

use super::algorithm::Kind;
use super::cache::Cache;
use super::claims::{ClaimPath, Expected};
use super::issuer::Schedule;
use super::key::Key;
use super::mint::SubjectOf;
use super::verifier::{Keys, Verifier};
use super::{Algorithm, Issuer, Minter, Place};
use crate::config::{Named, Secret, Span, Toggle};
use crate::guard::Fault;
use crate::upstream::{Document, Resolver, Trust};

/// A minted token lives no longer than this.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);

/// Signed tokens, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Kinds of tokens by name.
    pub tokens: Named<TokenFile>,
    /// Tokens that the gate makes for the app.
    pub mint: MintFile,
}

/// One kind of token, as written. One of `secret`, `keys` and `jwks` says what it is verified with; without any, it is off.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// Where it stands.
    #[serde(default = "authorization")]
    pub from: Vec<Place>,
    /// The secret that it is signed with.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// File with public keys: PEM, or a set of keys.
    #[serde(default = "off")]
    pub keys: Toggle<PathBuf>,
    /// Where its issuer publishes its keys.
    #[serde(default)]
    pub jwks: JwksFile,
    /// How it may be signed; empty: HS256 with a secret, else RS256, ES256 and EdDSA.
    #[serde(default)]
    pub algorithms: Vec<Algorithm>,
    /// Issuers that are believed; empty: any that has the key.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// Whom it may be for; empty: it must not say.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Claims that it must have, besides `exp` and the user.
    #[serde(default)]
    pub required: Vec<String>,
    /// How far clocks may be apart.
    #[serde(default = "leeway")]
    pub leeway: Span,
    /// Which claim says what.
    #[serde(default)]
    pub claims: ClaimsFile,
}

/// Where keys are published, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JwksFile {
    /// URL of the set of keys.
    pub url: Toggle<String>,
    /// Age at which they are fetched again.
    pub refresh: Span,
    /// Between two fetches that tokens with unknown keys ask for.
    pub cooldown: Span,
    /// For one fetch.
    pub timeout: Span,
    /// How long they hold while the issuer is gone.
    pub keep: Span,
    /// How long one holds that is no longer published.
    pub retire: Span,
    /// Whether the issuer's certificate is verified.
    pub verify: bool,
    /// PEM file of the authorities that are believed instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether http:// may lead over a network.
    pub plain_http: bool,
}

/// Which claim says what, as written: a name, or a path that begins with `/`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimsFile {
    /// The user.
    pub user: String,
    /// The class or role: a text, or a list of texts.
    pub class: Toggle<String>,
    /// Values of it that make an admin.
    pub admin: Vec<String>,
    /// Values of it that make a demo user.
    pub demo: Vec<String>,
    /// The tier.
    pub tier: Toggle<String>,
    /// The tenant.
    pub tenant: Toggle<String>,
}

/// Tokens that the gate makes, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MintFile {
    /// The secret that they are signed with.
    pub secret: Option<Secret>,
    /// The header field that carries them.
    pub header: String,
    /// What a user is called.
    pub subject: SubjectOf,
    /// Who makes them.
    pub issuer: Toggle<String>,
    /// Whom they are for.
    pub audience: Toggle<String>,
    /// How long they hold.
    pub lifetime: Span,
}

fn authorization() -> Vec<Place> {
    vec![Place::Authorization]
}

fn off() -> Toggle<PathBuf> {
    Toggle::Off
}

fn leeway() -> Span {
    Span::from_secs(30)
}

impl Default for JwksFile {
    fn default() -> Self {
        Self {
            url: Toggle::Off,
            refresh: Span::from_secs(600),
            cooldown: Span::from_secs(10),
            timeout: Span::from_secs(5),
            keep: Span::from_secs(24 * 3600),
            retire: Span::from_secs(300),
            verify: true,
            ca: None,
            plain_http: false,
        }
    }
}

impl Default for ClaimsFile {
    fn default() -> Self {
        let on = |name: &str| Toggle::On(name.to_owned());
        Self {
            user: "sub".into(),
            class: on("role"),
            admin: vec!["admin".into()],
            demo: vec!["demo".into()],
            tier: on("tier"),
            tenant: Toggle::Off,
        }
    }
}

impl Config {
    /// Builds the kinds of tokens that have a key. What `running` ones know of the same issuers lives on.
    ///
    /// # Errors
    /// The key whose value can't be used.
    pub fn verifiers(
        &self,
        resolver: &Resolver,
        running: &[Arc<Verifier>],
    ) -> Result<Vec<Arc<Verifier>>, Fault> {
        let mut built = Vec::new();
        for (name, file) in self.tokens.iter() {
            let below = |fault: Fault| Fault::new(format!("jwt.tokens.{name}.{}", fault.key), fault.message);
            let known =
                running.iter().filter_map(|verifier| verifier.issuer()).find(|issuer| *issuer.name == *name);
            built.extend(file.build(name, resolver, known).map_err(below)?.map(Arc::new));
        }
        Ok(built)
    }

    /// Builds what makes tokens, if it has a secret.
    ///
    /// # Errors
    /// The key whose value can't be used.
    pub fn minter(&self) -> Result<Option<Arc<Minter>>, Fault> {
        let MintFile { secret, header, subject, issuer, audience, lifetime } = &self.mint;
        let Some(secret) = secret else { return Ok(None) };
        let name: HeaderName = header.parse().map_err(|_| {
            Fault::new("jwt.mint.header", format!("{header:?} is not the name of a header field"))
        })?;
        if lifetime.0 < Duration::from_secs(10) || lifetime.0 > LONGEST_LIFE {
            return Err(Fault::new("jwt.mint.lifetime", "is not between 10s and 1h"));
        }
        let boxed = |text: &Toggle<String>| text.as_option().map(|text| text.as_str().into());
        Ok(Some(Arc::new(Minter {
            header: name,
            key: EncodingKey::from_secret(secret.expose().as_bytes()),
            subject: *subject,
            issuer: boxed(issuer),
            audience: boxed(audience),
            lifetime: lifetime.0,
            minted: Cache::new(),
        })))
    }
}

impl TokenFile {
    fn build(
        &self,
        name: &str,
        resolver: &Resolver,
        running: Option<&Arc<Issuer>>,
    ) -> Result<Option<Verifier>, Fault> {
        if self.from.is_empty() {
            return Err(Fault::new("from", "names no place; write for example [authorization]"));
        }
        let token: Arc<str> = name.into();
        let keys = match (&self.secret, self.keys.as_option(), self.jwks.url.as_option()) {
            (None, None, None) if self.issuers.is_empty() && self.audiences.is_empty() => return Ok(None),
            (None, None, None) => {
                return Err(Fault::new("secret", "there is no key; set one of secret, keys and jwks.url"));
            }
            (Some(secret), None, None) => Keys::Fixed([Key::secret(secret.expose())].into()),
            (None, Some(path), None) => {
                Keys::Fixed(file(path).map_err(|why| Fault::new("keys", why))?.into())
            }
            (None, None, Some(url)) => Keys::Published(self.jwks.issuer(url, &token, resolver, running)?),
            _ => {
                let message = "is one key of several; keep one of secret, keys and jwks.url";
                return Err(Fault::new(if self.secret.is_some() { "secret" } else { "keys" }, message));
            }
        };
        let algorithms = self.algorithms(&keys)?;
        let boxed = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
        let path = |text: &Toggle<String>| text.as_option().map(|text| ClaimPath(text.as_str().into()));
        let expected = Expected {
            token: token.clone(),
            issuers: boxed(&self.issuers),
            audiences: boxed(&self.audiences),
            required: self.required.iter().map(|text| ClaimPath(text.as_str().into())).collect(),
            leeway: self.leeway.0,
            user: ClaimPath(self.claims.user.as_str().into()),
            class: path(&self.claims.class),
            admin: boxed(&self.claims.admin),
            demo: boxed(&self.claims.demo),
            tier: path(&self.claims.tier),
            tenant: path(&self.claims.tenant),
        };
        let places = self.from.as_slice().into();
        Ok(Some(Verifier { name: token, places, algorithms, keys, expected, known: Cache::new() }))
    }

    /// The algorithms that are written, or the usual ones: each has to be one that a key can be used with.
    fn algorithms(&self, keys: &Keys) -> Result<Box<[Algorithm]>, Fault> {
        if self.algorithms.is_empty() {
            let public = [Kind::Rsa, Kind::P256, Kind::P384, Kind::Ed25519];
            return Ok(match keys {
                Keys::Fixed(keys) => keys.iter().map(|key| key.kind().usual()).collect(),
                Keys::Published(_) => public.map(Kind::usual).into(),
            });
        }
        let unfit = |algorithm: &&Algorithm| match keys {
            Keys::Fixed(keys) => !keys.iter().any(|key| key.kind() == algorithm.kind()),
            Keys::Published(_) => algorithm.kind() == Kind::Secret,
        };
        match self.algorithms.iter().find(unfit) {
            None => Ok(self.algorithms.as_slice().into()),
            Some(algorithm) => {
                let name = algorithm.name();
                Err(Fault::new("algorithms", format!("names {name}, for which there is no key of its kind")))
            }
        }
    }
}

/// The public keys of a file.
fn file(path: &Path) -> Result<Vec<Key>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    Key::public(&text).map_err(|why| format!("{} {why}", path.display()))
}

impl JwksFile {
    fn issuer(
        &self,
        url: &str,
        token: &Arc<str>,
        resolver: &Resolver,
        running: Option<&Arc<Issuer>>,
    ) -> Result<Arc<Issuer>, Fault> {
        let times =
            [("jwks.refresh", self.refresh), ("jwks.timeout", self.timeout), ("jwks.keep", self.keep)];
        if let Some((key, _)) = times.iter().find(|(_, time)| time.0.is_zero()) {
            return Err(Fault::new(*key, "is 0, with which no key would ever be there; write more"));
        }
        if self.cooldown.0 < Duration::from_secs(1) {
            return Err(Fault::new(
                "jwks.cooldown",
                "is less than 1s: whoever invents keys could flood the issuer",
            ));
        }
        let trust = Trust::read(self.verify, self.ca.as_deref()).map_err(|why| Fault::new("jwks.ca", why))?;
        let document = Document::build(url, &trust, resolver.clone(), self.timeout.0);
        let document = document.map_err(|why| Fault::new("jwks.url", why.0))?;
        if document.is_exposed() && !self.plain_http {
            let message = "leads over a network in plain text, where anyone may put keys in; write https://, or \
                           `plain_http: true` beside it if the network is your own";
            return Err(Fault::new("jwks.url", message));
        }
        let schedule = Schedule {
            refresh: self.refresh.0,
            cooldown: self.cooldown.0,
            keep: self.keep.0,
            retire: self.retire.0,
        };
        let mut issuer = Issuer::new(token.clone(), document, schedule);
        running.into_iter().for_each(|running| issuer.adopt(running));
        Ok(Arc::new(issuer))
    }
}
