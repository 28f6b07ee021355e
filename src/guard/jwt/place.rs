//! Where a token stands in a request.

use std::fmt;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::LOGGED;
use crate::proxy::client::cookie_values;

/// A place that is looked at for a token: `authorization`, `cookie:NAME`, `header:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^(authorization|cookie:.+|header:.+)$"))]
pub enum Place {
    /// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    Authorization,
    /// A cookie.
    Cookie(Box<str>),
    /// A header field of its own, with or without `Bearer`.
    Header(HeaderName),
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = "one of authorization, cookie:NAME, header:NAME is wanted";
        let of = |kind| text.strip_prefix(kind).map(str::trim).filter(|name| !name.is_empty());
        if text == "authorization" {
            return Ok(Self::Authorization);
        }
        if let Some(name) = of("cookie:") {
            return Ok(Self::Cookie(name.into()));
        }
        let name: HeaderName = of("header:").and_then(|name| name.parse().ok()).ok_or(wrong)?;
        if LOGGED.contains(&name) {
            return Err(format!("{name} can't carry a token: its value is logged; choose another field"));
        }
        // Its value begins with a scheme, which the place of that name knows of.
        Ok(if name == AUTHORIZATION { Self::Authorization } else { Self::Header(name) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization => f.write_str("Authorization: Bearer"),
            Self::Cookie(name) => write!(f, "the cookie {name}"),
            Self::Header(name) => write!(f, "the header {name}"),
        }
    }
}

/// Two tokens in one place: the app might read the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

impl Place {
    /// The token that stands there, if one does. What is no text stands for a token that is none.
    ///
    /// # Errors
    /// Two different ones do.
    pub fn token<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Ambiguous> {
        match self {
            Self::Authorization => only(values(headers, &AUTHORIZATION).filter_map(bearer)),
            Self::Cookie(name) => only(cookie_values(headers, name).filter(|value| !value.is_empty())),
            Self::Header(name) => {
                let whole = |value| bearer(value).unwrap_or(value);
                only(values(headers, name).map(whole).filter(|value| !value.is_empty()))
            }
        }
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("\u{fffd}").trim())
}

/// What stands behind `Bearer`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_at_checked(6)?;
    let blank = token.starts_with(' ') || token.is_empty();
    (scheme.eq_ignore_ascii_case("bearer") && blank).then(|| token.trim_ascii())
}

fn only<'a>(mut values: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, Ambiguous> {
    let first = values.next();
    if values.all(|value| Some(value) == first) { Ok(first) } else { Err(Ambiguous) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(place: &str, fields: &[(&'static str, &'static str)]) -> Result<Option<String>, Ambiguous> {
        let place = Place::try_from(place.to_owned()).expect("a place");
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        place.token(&headers).map(|token| token.map(str::to_owned))
    }

    /// A caller whose client writes the scheme in another way must be known all the same; other schemes are no tokens.
    #[test]
    fn tokens_are_found_where_they_stand() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        for value in ["Bearer t", "bearer  t ", "BEARER t"] {
            assert_eq!(token("authorization", &[("authorization", value)]), some("t"), "{value}");
        }
        assert_eq!(token("authorization", &[("authorization", "Basic dDp0")]), Ok(None));
        assert_eq!(token("authorization", &[("authorization", "Bearer")]), some(""), "a token that is none");
        assert_eq!(token("cookie:token", &[("cookie", "a=1; token=t"), ("cookie", "b=2")]), some("t"));
        assert_eq!(token("header:x-user-jwt", &[("x-user-jwt", "t")]), some("t"));
        assert_eq!(token("header:x-user-jwt", &[("x-user-jwt", "Bearer t")]), some("t"));
        assert_eq!(token("header:x-user-jwt", &[]), Ok(None));
    }

    /// The app could take the one that was not verified.
    #[test]
    fn two_tokens_in_one_place_are_told() {
        assert_eq!(
            token("authorization", &[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
            Err(Ambiguous)
        );
        assert_eq!(token("cookie:t", &[("cookie", "t=a; t=b")]), Err(Ambiguous));
        assert_eq!(token("cookie:t", &[("cookie", "t=a; t=a")]), Ok(Some("a".to_owned())));
    }

    /// A place that is misspelt would be looked at by nobody.
    #[test]
    fn other_places_are_refused() {
        for text in
            ["", "query:token", "cookie:", "header:", "header:a b", "header:User-Agent", "Authorization"]
        {
            assert!(Place::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
