//! The compact form of a signed token (RFC 7515 §7.1): three parts, each read strictly.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Algorithm, TOKEN_BYTES};
use crate::guard::json::{Caps, FieldRules, Scratch, scan};

/// Shape of a header or of claims; more is no token that an issuer signs.
const SHAPE: Caps = Caps { depth: 16, members: 512 };

/// No field is asked for: only the shape counts.
static NO_FIELDS: LazyLock<Option<FieldRules>> = LazyLock::new(|| FieldRules::compile([]).ok());

/// A token in its parts, of which nothing is verified.
pub struct Compact<'t> {
    /// What is signed: header and claims with the dot between.
    pub signed: &'t str,
    /// Its signature, encoded.
    pub signature: &'t str,
    /// Its claims, encoded.
    claims: &'t str,
    /// How it says that it is signed; `None`: in a way that nobody here knows.
    pub algorithm: Option<Algorithm>,
    /// Name of the key that it says it is signed with.
    pub key: Option<String>,
}

/// Why a text is no token; in words that follow "the token".
pub type Malformed = &'static str;

impl<'t> Compact<'t> {
    /// Takes a token apart. Of its header only what is named here counts: `jku`, `jwk`, `x5u` and `x5c` are ways to have
    /// somebody else's key believed, and are not looked at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(token: &'t str) -> Result<Self, Malformed> {
        if token.len() > TOKEN_BYTES {
            return Err("is longer than 8 KiB");
        }
        let parts = token.split_once('.').and_then(|(header, rest)| Some((header, rest.split_once('.')?)));
        let Some((header, (claims, signature))) =
            parts.filter(|(_, (_, signature))| !signature.contains('.'))
        else {
            return Err("does not have three parts");
        };
        let fields = object(header).map_err(|()| "has a header that is no JSON object")?;
        // Something that has to be understood and is not, or whose claims are not plainly there.
        if ["crit", "b64", "enc", "zip", "cty"].iter().any(|name| fields.contains_key(*name)) {
            return Err("has a header that asks for more than is understood here");
        }
        match fields.get("typ") {
            None => {}
            Some(Value::String(kind)) if is_token(kind) => {}
            // A token for another purpose, which the same key may sign (RFC 8725 §3.11).
            Some(_) => return Err("is of another type than JWT or at+jwt"),
        }
        let key = match fields.get("kid") {
            None => None,
            Some(Value::String(key)) => Some(key.clone()),
            Some(_) => return Err("names its key in a way that is no text"),
        };
        let algorithm = fields.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let signed = token.get(..header.len() + 1 + claims.len()).unwrap_or_default();
        Ok(Self { signed, signature, claims, algorithm, key })
    }

    /// Its claims. They are worth nothing before the signature was verified.
    ///
    /// # Errors
    /// They are no JSON object, or one that two parsers could read differently.
    pub fn claims(&self) -> Result<Map<String, Value>, Malformed> {
        object(self.claims).map_err(|()| "has claims that are no JSON object, or name one twice")
    }
}

fn is_token(kind: &str) -> bool {
    let plain =
        kind.get(..12).filter(|head| head.eq_ignore_ascii_case("application/")).map_or(kind, |_| &kind[12..]);
    plain.eq_ignore_ascii_case("JWT") || plain.eq_ignore_ascii_case("at+jwt")
}

/// An encoded object in which no name stands twice.
fn object(encoded: &str) -> Result<Map<String, Value>, ()> {
    let text = URL_SAFE_NO_PAD.decode(encoded).map_err(drop)?;
    let rules = NO_FIELDS.as_ref().ok_or(())?;
    scan(&text, &SHAPE, rules, &mut Scratch::default(), &mut |_| ()).map_err(drop)?;
    serde_json::from_slice(&text).map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    fn why(token: &str) -> &'static str {
        Compact::read(token).map(|_| "").unwrap_or_else(|why| why)
    }

    /// What is read more loosely here than by the app, or by the next gate, is a way past one of them.
    #[test]
    fn only_plain_tokens_are_read() {
        let claims = r#"{"sub":"a"}"#;
        assert_eq!(why(&token(r#"{"alg":"HS256","typ":"JWT"}"#, claims)), "");
        assert_eq!(
            why(&token(r#"{"alg":"RS256","typ":"application/AT+jwt","jku":"https://evil.example"}"#, claims)),
            ""
        );
        for header in [
            r#"{"alg":"HS256","alg":"none"}"#,
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"alg":"HS256","b64":false}"#,
            r#"{"alg":"HS256","cty":"JWT"}"#,
            r#"{"alg":"HS256","zip":"DEF"}"#,
            r#"{"alg":"HS256","typ":"logout+jwt"}"#,
            r#"{"alg":"HS256","typ":7}"#,
            r#"{"alg":"HS256","kid":["a"]}"#,
            r#"["HS256"]"#,
            r#"{"alg":"HS256""#,
            "",
        ] {
            assert_ne!(why(&token(header, claims)), "", "{header}");
        }
        for text in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30", "e30=.e30.e30", "e30 .e30.e30", "é.e30.e30"]
        {
            assert_ne!(why(text), "", "{text}");
        }
        assert_eq!(why(&"a".repeat(TOKEN_BYTES + 1)), "is longer than 8 KiB");
    }

    /// Each spelling of `none`, and whatever else nobody here knows, is no algorithm.
    #[test]
    fn algorithms_are_known_letter_for_letter() {
        for name in ["none", "None", "NONE", "nOnE", "hs256", "HS256 ", "", "ES256K", "HS1"] {
            let token = token(&format!(r#"{{"alg":"{name}"}}"#), "{}");
            assert!(Compact::read(&token).is_ok_and(|read| read.algorithm.is_none()), "{name}");
        }
        let token = token(r#"{"alg":"EdDSA","kid":"k"}"#, "{}");
        let read = Compact::read(&token).expect("a token");
        assert_eq!((read.algorithm, read.key.as_deref()), (Some(Algorithm::EdDSA), Some("k")));
    }

    /// Two claims of one name: the gate would believe one of them, and the app the other.
    #[test]
    fn claims_twice_are_refused() {
        for claims in [r#"{"sub":"a","sub":"b"}"#, r#"{"a":{"b":1,"b":2}}"#, "[]", "7", "{}x"] {
            let token = token(r#"{"alg":"HS256"}"#, claims);
            assert!(Compact::read(&token).and_then(|read| read.claims()).is_err(), "{claims}");
        }
        let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
        assert!(Compact::read(&token(r#"{"alg":"HS256"}"#, &deep)).and_then(|read| read.claims()).is_err());
    }
}
