//! CORS, as written, and how it becomes the guard.

use std::time::Duration;

use http::Method;
use http::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::Fault;
use super::super::origin_list::OriginList;
use super::{Cors, RequestFields};
use crate::config::units::Span;

/// Cross-origin resource sharing, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Origins whose pages may read answers: `https://app.example.com`, `https://*.example.com` (whole labels), `*`
    /// (anyone, without credentials), `null`. Empty: the upstream's own CORS fields pass.
    pub allowed_origins: Vec<String>,
    /// Whether pages may send cookies and read what comes back.
    pub allow_credentials: bool,
    /// Methods that pages may use.
    pub methods: Vec<String>,
    /// Request fields that pages may set; `*`: whichever the preflight asks for.
    pub headers: Vec<String>,
    /// Response fields that pages may read besides those that every page may.
    pub expose: Vec<String>,
    /// How long a browser may remember the answer to a preflight, to the second. Browsers cap it themselves.
    pub max_age: Span,
    /// Whether public pages may call a gate on a private network (Private Network Access).
    pub private_network: bool,
}

impl Default for Config {
    fn default() -> Self {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            allowed_origins: Vec::new(),
            allow_credentials: false,
            methods: own(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
            headers: own(&["*"]),
            expose: own(&[
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-RateLimit-Limit",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
                "X-Request-Id",
            ]),
            max_age: Span(Duration::from_secs(600)),
            private_network: false,
        }
    }
}

impl Cors {
    /// Builds the guard.
    ///
    /// # Errors
    /// An entry that is no origin, method or field name, and every mixture of a wildcard with credentials: browsers
    /// ignore it, and what is tried next (echoing any origin) hands each visitor's data to every page.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let origins = OriginList::build("cors.allowed_origins", &config.allowed_origins)?;
        let credentials = config.allow_credentials;
        if credentials && origins.is_any() {
            return Err(Fault::new(
                "cors.allowed_origins",
                "`*` with allow_credentials would let every page act for its visitors: list the origins, \
                 or set allow_credentials (CORS_ALLOW_CREDENTIALS) to false",
            ));
        }
        if credentials && origins.has_null() {
            return Err(Fault::new(
                "cors.allowed_origins",
                "`null` with allow_credentials would let every page act for its visitors from a sandboxed frame",
            ));
        }
        if credentials {
            for (key, names) in [("cors.methods", &config.methods), ("cors.expose", &config.expose)] {
                if names.iter().any(|name| name == "*") {
                    return Err(Fault::new(
                        key,
                        "`*` means nothing to a browser with allow_credentials: name them",
                    ));
                }
            }
        }
        let method = |name: &str| Method::from_bytes(name.as_bytes()).is_ok();
        let field = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
        let headers = if config.headers.iter().any(|name| name == "*") {
            RequestFields::Asked
        } else {
            joined("cors.headers", &config.headers, field)?.map_or(RequestFields::None, RequestFields::Listed)
        };
        Ok(Self {
            origins,
            credentials,
            methods: joined("cors.methods", &config.methods, method)?,
            headers,
            expose: joined("cors.expose", &config.expose, field)?,
            max_age: HeaderValue::from(config.max_age.0.as_secs()),
            private_network: config.private_network,
        })
    }
}

/// The names as one field value; `None` if there are none.
fn joined(
    key: &'static str,
    names: &[String],
    valid: impl Fn(&str) -> bool,
) -> Result<Option<HeaderValue>, Fault> {
    if let Some(index) = names.iter().position(|name| !valid(name)) {
        return Err(Fault::new(format!("{key}[{index}]"), "is not a name that HTTP allows"));
    }
    if names.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(&names.join(", ")).map(Some).map_err(|_| Fault::new(key, "is not a list of names"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut Config)) -> String {
        let mut config =
            Config { allowed_origins: vec!["https://app.example.com".into()], ..Config::default() };
        change(&mut config);
        Cors::build(&config).expect_err("refused").key.into_owned()
    }

    /// Each of these either does not work in any browser or gives every page its visitors' data.
    #[test]
    fn wildcards_and_credentials_never_mix() {
        for open in ["*", "null"] {
            let key = fault(|c| (c.allowed_origins, c.allow_credentials) = (vec![open.into()], true));
            assert_eq!(key, "cors.allowed_origins", "{open}");
        }
        assert_eq!(fault(|c| (c.expose, c.allow_credentials) = (vec!["*".into()], true)), "cors.expose");
        assert_eq!(fault(|c| (c.methods, c.allow_credentials) = (vec!["*".into()], true)), "cors.methods");
    }

    /// A list with a slip in it must not be sent to browsers, which drop it without a word.
    #[test]
    fn bad_names_are_refused() {
        assert_eq!(fault(|c| c.allowed_origins.push("app.example.com".into())), "cors.allowed_origins[1]");
        assert_eq!(fault(|c| c.methods = vec!["GET POST".into()]), "cors.methods[0]");
        assert_eq!(fault(|c| c.headers = vec!["X-Ok".into(), "X:Bad".into()]), "cors.headers[1]");
        assert_eq!(fault(|c| c.expose = vec!["a\r\nb".into()]), "cors.expose[0]");
    }

    /// The keys as the annotated config has them.
    #[test]
    fn reads_as_documented() {
        let config: Config =
            serde_json::from_str(r#"{"allowed_origins": ["*"], "private_network": true}"#).expect("valid");
        assert!(Cors::build(&config).expect("builds").speaks());
        assert!(serde_json::from_str::<Config>(r#"{"origins": []}"#).is_err());
    }
}
