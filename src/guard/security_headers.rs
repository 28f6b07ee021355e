//! Security header fields on every response, the gate's own and the upstream's alike (H1).

mod config;

use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_SECURITY_POLICY, CONTENT_TYPE, Entry, HeaderName, HeaderValue,
    STRICT_TRANSPORT_SECURITY,
};
use http::response;

pub use config::{Config, CspPreset, Existing};

use super::Fault;

/// For the gate's own answers, and for upstream answers that are no page.
const CLOSED: &str = "default-src 'self'";

/// For SVG: pictures carry their own styles, and scripts when they are opened as a page.
const PICTURE: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:";

static CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Who made a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Tidegate.
    Gate,
    /// The upstream.
    Upstream,
}

/// What else decides about the fields of one response.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Who made the response.
    pub author: Author,
    /// Whether the client asked over TLS, here or at a trusted proxy.
    pub https: bool,
    /// Whether its route has a CORS allowlist.
    pub cors: bool,
}

/// The guard, as run.
#[derive(Clone, Debug)]
pub struct SecurityHeaders {
    replace: bool,
    /// The same for every response.
    fixed: Box<[Field]>,
    /// Only over TLS (RFC 6797 §7.2).
    transport: Option<Field>,
    content: Option<ContentPolicies>,
    resource: Option<ResourcePolicies>,
}

/// A field ready to be set.
#[derive(Clone, Debug)]
struct Field {
    name: HeaderName,
    value: HeaderValue,
}

#[derive(Clone, Debug)]
struct ContentPolicies {
    closed: Field,
    page: Field,
    picture: Field,
}

#[derive(Clone, Debug)]
struct ResourcePolicies {
    own: Field,
    shared: Field,
}

impl SecurityHeaders {
    /// Builds the guard.
    ///
    /// # Errors
    /// A field that is no security header, or a value that no field can have.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let mut guard = Self {
            replace: config.existing == Existing::Replace,
            fixed: Box::default(),
            transport: None,
            content: None,
            resource: None,
        };
        let mut fixed = Vec::new();
        for (name, value, changed) in config.fields()? {
            let field = Field { name: name_of(name)?, value };
            if field.name == STRICT_TRANSPORT_SECURITY {
                guard.transport = Some(field);
            } else if field.name == CONTENT_SECURITY_POLICY {
                let closed = Field { value: HeaderValue::from_static(CLOSED), ..field.clone() };
                let picture = Field { value: HeaderValue::from_static(PICTURE), ..field.clone() };
                guard.content = Some(ContentPolicies { closed, page: field, picture });
            } else if field.name == CROSS_ORIGIN_RESOURCE_POLICY && !changed {
                let shared = Field { value: HeaderValue::from_static("cross-origin"), ..field.clone() };
                guard.resource = Some(ResourcePolicies { own: field, shared });
            } else {
                fixed.push(field);
            }
        }
        guard.fixed = fixed.into();
        Ok(guard)
    }

    /// Sets the fields. To be called after CORS has had its word.
    pub fn apply(&self, response: &mut response::Parts, about: Circumstances) {
        let replace = self.replace && about.author == Author::Upstream;
        for field in &self.fixed {
            field.set(response, replace);
        }
        if about.https
            && let Some(field) = &self.transport
        {
            field.set(response, replace);
        }
        if let Some(policies) = &self.content
            // A 304 has no content whose type it could tell, but the browser gives its fields to the stored page.
            && response.status != StatusCode::NOT_MODIFIED
        {
            policies.of(about.author, response).set(response, replace);
        }
        if let Some(policies) = &self.resource {
            let shared = about.cors || response.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN);
            let policy = if shared { &policies.shared } else { &policies.own };
            policy.set(response, replace);
        }
    }
}

impl ContentPolicies {
    /// The policy for a response. Scripts count as pages: a worker runs under its own script's policy.
    fn of(&self, author: Author, response: &response::Parts) -> &Field {
        if author == Author::Gate {
            return &self.closed;
        }
        let declared = response.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let kind = declared.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
        if is("text/html") || is("application/xhtml+xml") || is_script(kind) {
            &self.page
        } else if is("image/svg+xml") {
            &self.picture
        } else {
            &self.closed
        }
    }
}

fn is_script(kind: &[u8]) -> bool {
    let ends = |end: &[u8]| {
        kind.len()
            .checked_sub(end.len())
            .and_then(|at| kind.get(at..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    };
    ends(b"javascript") || ends(b"ecmascript")
}

impl Field {
    fn set(&self, response: &mut response::Parts, replace: bool) {
        match response.headers.entry(&self.name) {
            Entry::Vacant(place) => drop(place.insert(self.value.clone())),
            Entry::Occupied(mut place) if replace => drop(place.insert_mult(self.value.clone())),
            Entry::Occupied(_) => {}
        }
    }
}

fn name_of(name: &'static str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        Fault::new("security_headers.headers", format!("`{name}` is not the name of a header field"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::response;
    use super::*;

    const PLAIN: Circumstances = Circumstances { author: Author::Upstream, https: false, cors: false };

    fn guard(preset: CspPreset, existing: Existing, headers: &[(&str, &str)]) -> SecurityHeaders {
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        SecurityHeaders::build(&Config { csp: preset, existing, headers }).expect("builds")
    }

    fn default_guard() -> SecurityHeaders {
        SecurityHeaders::build(&Config::default()).expect("the defaults build")
    }

    fn answer(
        guard: &SecurityHeaders,
        status: u16,
        fields: &[(&'static str, &'static str)],
        about: Circumstances,
    ) -> response::Parts {
        let mut response = response(status, fields);
        guard.apply(&mut response, about);
        response
    }

    fn value<'a>(response: &'a response::Parts, name: &str) -> Option<&'a str> {
        let mut values = response.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().expect("text"));
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }

    fn csp(guard: &SecurityHeaders, kind: &'static str) -> String {
        let response = answer(guard, 200, &[("Content-Type", kind)], PLAIN);
        value(&response, "content-security-policy").unwrap_or_default().to_owned()
    }

    /// Each missing field is one browser defence that the app's users don't have.
    #[test]
    fn every_response_gets_the_exact_values() {
        for author in [Author::Gate, Author::Upstream] {
            for status in [200, 204, 302, 403, 404, 502] {
                let response =
                    answer(&default_guard(), status, &[], Circumstances { author, https: true, cors: false });
                for (name, expected) in [
                    ("x-content-type-options", "nosniff"),
                    ("x-frame-options", "DENY"),
                    ("referrer-policy", "strict-origin-when-cross-origin"),
                    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
                    ("x-xss-protection", "1; mode=block"),
                    ("cross-origin-opener-policy", "same-origin"),
                    ("cross-origin-resource-policy", "same-origin"),
                    ("content-security-policy", "default-src 'self'"),
                ] {
                    assert_eq!(value(&response, name), Some(expected), "{name} {status} {author:?}");
                }
                assert!(
                    value(&response, "permissions-policy")
                        .is_some_and(|v| v.contains("usb=()") && v.contains("microphone=(self)"))
                );
            }
        }
    }

    /// HSTS from a plain listener would be a promise that nobody keeps (RFC 6797 §7.2 forbids it).
    #[test]
    fn hsts_needs_tls() {
        assert_eq!(value(&answer(&default_guard(), 200, &[], PLAIN), "strict-transport-security"), None);
    }

    /// Two values of one field are read as none, or as the wrong one.
    #[test]
    fn the_upstreams_word_stays_unless_told() {
        let set = [
            ("X-Frame-Options", "SAMEORIGIN"),
            ("content-security-policy", "script-src 'none'"),
            ("Content-Type", "text/html"),
        ];
        let kept = answer(&default_guard(), 200, &set, PLAIN);
        assert_eq!(value(&kept, "x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(value(&kept, "content-security-policy"), Some("script-src 'none'"));
        let replacing = guard(CspPreset::Strict, Existing::Replace, &[]);
        let replaced = answer(&replacing, 200, &set, PLAIN);
        assert_eq!(value(&replaced, "x-frame-options"), Some("DENY"));
        assert!(
            value(&replaced, "content-security-policy").is_some_and(|v| v.starts_with("default-src 'self'"))
        );
        let own = answer(&replacing, 200, &set, Circumstances { author: Author::Gate, ..PLAIN });
        assert_eq!(
            value(&own, "content-security-policy"),
            Some("script-src 'none'"),
            "the gate's page knows its own policy"
        );
    }

    /// The default must not stop the scripts of an unmodified app: not on its pages, nor in its workers.
    #[test]
    fn pages_follow_the_preset_and_the_rest_is_closed() {
        for page in [
            "text/html",
            "Text/HTML; charset=utf-8",
            "application/xhtml+xml",
            "text/javascript",
            "application/javascript; charset=utf-8",
        ] {
            assert_eq!(csp(&default_guard(), page), "base-uri 'self'", "{page}");
            assert!(
                csp(&guard(CspPreset::InlineScripts, Existing::Keep, &[]), page).contains("'unsafe-inline'"),
                "{page}"
            );
            let strict = csp(&guard(CspPreset::Strict, Existing::Keep, &[]), page);
            assert!(strict.starts_with("default-src 'self'") && !strict.contains("unsafe"), "{page}");
        }
        for other in [
            "application/json",
            "text/plain",
            "text/event-stream",
            "text/htmlx",
            "x-text/html",
            "",
            "image/png",
            "text/xml",
        ] {
            assert_eq!(csp(&default_guard(), other), CLOSED, "{other}");
        }
    }

    /// An uploaded SVG that is opened by its link runs scripts as the app.
    #[test]
    fn svg_keeps_its_styles_and_runs_no_scripts() {
        assert_eq!(csp(&default_guard(), "image/svg+xml"), PICTURE);
    }

    /// Fields of a 304 overwrite those of the page in the browser's cache: the page would break on its second visit.
    #[test]
    fn a_304_changes_no_stored_policy() {
        let response = answer(&guard(CspPreset::Strict, Existing::Replace, &[]), 304, &[], PLAIN);
        assert_eq!(value(&response, "content-security-policy"), None);
        assert_eq!(value(&response, "x-content-type-options"), Some("nosniff"));
    }

    /// A front end elsewhere that CORS lets in must be able to load what it was let in for.
    #[test]
    fn routes_with_cors_are_shared() {
        let corp = |fields: &[_], cors| {
            let response = answer(&default_guard(), 200, fields, Circumstances { cors, ..PLAIN });
            value(&response, "cross-origin-resource-policy").map(str::to_owned)
        };
        assert_eq!(corp(&[], true).as_deref(), Some("cross-origin"));
        assert_eq!(corp(&[("Access-Control-Allow-Origin", "*")], false).as_deref(), Some("cross-origin"));
        assert_eq!(corp(&[], false).as_deref(), Some("same-origin"));
    }

    /// One field that does not suit an app must not cost it all the others.
    #[test]
    fn single_fields_are_changed_or_off() {
        let own = guard(
            CspPreset::Upstream,
            Existing::Keep,
            &[
                ("x-frame-options", "SAMEORIGIN"),
                ("Cross-Origin-Opener-Policy", "off"),
                ("Cross-Origin-Resource-Policy", "same-site"),
                ("Content-Security-Policy", "default-src https:"),
                ("Cross-Origin-Embedder-Policy", "require-corp"),
            ],
        );
        let response =
            answer(&own, 200, &[("Content-Type", "text/html")], Circumstances { cors: true, ..PLAIN });
        assert_eq!(value(&response, "x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(value(&response, "cross-origin-opener-policy"), None);
        assert_eq!(value(&response, "cross-origin-resource-policy"), Some("same-site"));
        assert_eq!(value(&response, "content-security-policy"), Some("default-src https:"));
        assert_eq!(value(&response, "cross-origin-embedder-policy"), Some("require-corp"));
        assert_eq!(csp(&own, "application/json"), CLOSED);
        assert_eq!(
            csp(
                &guard(CspPreset::Strict, Existing::Keep, &[("Content-Security-Policy", "off")]),
                "application/json"
            ),
            ""
        );
    }
}
