//! Which security header fields are sent, as written.

use std::collections::BTreeMap;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::Fault;

/// What a page may not do is nothing here but to move its own base; what the upstream forbids stays forbidden.
const UPSTREAM: &str = "base-uri 'self'";

/// No images from elsewhere: an answer of a model that shows one can carry a chat's text away in its address.
const INLINE_SCRIPTS: &str = "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; \
    worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'";

const STRICT: &str = "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; \
    object-src 'none'; base-uri 'self'; form-action 'self'";

/// Camera, microphone, screen and place are what chat pages ask their user for: the page itself may, frames in it may
/// not. What no chat page needs is denied to all. Only names that browsers know: each other one is a line on the console.
const PERMISSIONS: &str = "accelerometer=(), bluetooth=(), camera=(self), display-capture=(self), geolocation=(self), \
    gyroscope=(), hid=(), magnetometer=(), microphone=(self), midi=(), payment=(), serial=(), usb=(), \
    xr-spatial-tracking=()";

const CSP: &str = "Content-Security-Policy";

/// What is sent unless changed. The policy of pages is set by `csp`.
const DEFAULTS: [(&str, &str); 9] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    (CSP, ""),
    ("Permissions-Policy", PERMISSIONS),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-XSS-Protection", "1; mode=block"),
];

/// What can be sent besides.
const OPTIONAL: [&str; 7] = [
    "Content-Security-Policy-Report-Only",
    "Cross-Origin-Embedder-Policy",
    "Document-Policy",
    "Origin-Agent-Cluster",
    "Reporting-Endpoints",
    "X-DNS-Prefetch-Control",
    "X-Permitted-Cross-Domain-Policies",
];

/// Security header fields, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Content-Security-Policy of the upstream's pages and scripts. Everything else gets `default-src 'self'`.
    pub csp: CspPreset,
    /// Whose word counts where the upstream sets such a field itself.
    #[serde(rename = "override")]
    pub existing: Existing,
    /// Single fields by name: another value, or `off`. A Content-Security-Policy takes the place of the preset.
    // YAML reads `X-XSS-Protection: 0` as a number.
    #[schemars(extend("additionalProperties" = { "type": ["string", "integer"] }))]
    pub headers: BTreeMap<String, String>,
}

/// Content-Security-Policy of the upstream's pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CspPreset {
    /// The upstream's own; for a page without one, only that it may not move its base. The default: nothing more can be
    /// said of an app that nobody has looked at without breaking some, such as one that loads its scripts from a CDN.
    #[default]
    Upstream,
    /// Everything from the app's own origin; inline scripts and styles may run.
    InlineScripts,
    /// Everything from the app's own origin; no inline scripts, no inline styles.
    Strict,
}

/// Whose word counts where the upstream sets a field itself. It is never sent twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// The upstream's: the app knows best.
    #[default]
    Keep,
    /// The gate's.
    Replace,
}

impl CspPreset {
    const fn policy(self) -> &'static str {
        match self {
            CspPreset::Upstream => UPSTREAM,
            CspPreset::InlineScripts => INLINE_SCRIPTS,
            CspPreset::Strict => STRICT,
        }
    }
}

impl Config {
    /// The fields to send: name, value, and whether the value was written by name.
    pub(super) fn fields(&self) -> Result<Vec<(&'static str, HeaderValue, bool)>, Fault> {
        let mut fields: Vec<(&'static str, &str, bool)> = DEFAULTS
            .into_iter()
            .map(|(name, value)| (name, if name == CSP { self.csp.policy() } else { value }, false))
            .collect();
        for (written, value) in &self.headers {
            let same = |name: &&str| name.eq_ignore_ascii_case(written);
            if value.is_empty() {
                return Err(Fault::new(key(written), "is empty: write a value, or `off`"));
            }
            if let Some(field) = fields.iter_mut().find(|(name, ..)| same(name)) {
                if field.2 {
                    return Err(Fault::new(key(written), "stands twice, in other capitals"));
                }
                (field.1, field.2) = (value, true);
            } else if let Some(name) = OPTIONAL.into_iter().find(same) {
                fields.push((name, value, true));
            } else {
                return Err(Fault::new(
                    key(written),
                    format!("is no security header; these are: {}", known()),
                ));
            }
        }
        let sent = fields.into_iter().filter(|(_, value, _)| *value != "off");
        sent.map(|(name, value, changed)| match HeaderValue::from_str(value) {
            Ok(value) => Ok((name, value, changed)),
            Err(_) => Err(Fault::new(key(name), "has characters that no header field may have")),
        })
        .collect()
    }
}

fn key(name: &str) -> String {
    format!("security_headers.headers.{name}")
}

fn known() -> String {
    let names: Vec<&str> = DEFAULTS.into_iter().map(|(name, _)| name).chain(OPTIONAL).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, value: &str) -> Fault {
        let headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Config { headers, ..Config::default() }.fields().expect_err(name)
    }

    /// A header misspelt is a header not sent.
    #[test]
    fn only_known_headers_with_possible_values() {
        let misspelt = fault("X-Fram-Options", "DENY");
        assert_eq!(misspelt.key, "security_headers.headers.X-Fram-Options");
        assert!(misspelt.message.contains("X-Frame-Options"));
        assert_eq!(
            fault("X-Frame-Options", "DENY\r\nSet-Cookie: a=b").key,
            "security_headers.headers.X-Frame-Options"
        );
        assert_eq!(fault("Referrer-Policy", "").key, "security_headers.headers.Referrer-Policy");
        let headers = [("X-Frame-Options", "DENY"), ("x-frame-options", "off")];
        let headers = headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        assert!(Config { headers, ..Config::default() }.fields().is_err());
    }

    /// The keys as the annotated config has them.
    #[test]
    fn reads_as_documented() {
        let text =
            r#"{"csp": "inline-scripts", "override": "replace", "headers": {"X-Frame-Options": "off"}}"#;
        let config: Config = serde_json::from_str(text).expect("valid");
        assert_eq!((config.csp, config.existing), (CspPreset::InlineScripts, Existing::Replace));
        assert!(serde_json::from_str::<Config>(r#"{"cps": "strict"}"#).is_err());
    }

    /// A line break in a policy would be sent as one and split the response.
    #[test]
    fn policies_are_single_lines() {
        for policy in [UPSTREAM, INLINE_SCRIPTS, STRICT, PERMISSIONS] {
            assert!(!policy.contains("  ") && !policy.contains('\n'), "{policy}");
        }
    }
}
