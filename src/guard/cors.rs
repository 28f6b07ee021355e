//! Cross-origin resource sharing, decided at the gate (H2): preflights are answered here, answers are marked here.
//!
//! With an allowlist the gate's word replaces the upstream's. Without one the gate has no word: preflights are
//! forwarded and the upstream's fields pass untouched. Source: the Fetch standard, "CORS protocol".

mod config;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, VARY,
};
use http::{Method, StatusCode};

pub use config::Config;

use super::origin_list::{Listing, OriginList};
use super::security_headers::Author;
use super::{Head, Reason, Refusal, Verdict};

const SETTING: &str = "cors.allowed_origins (ALLOWED_ORIGINS)";

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials";
const ALLOW_METHODS: &str = "Access-Control-Allow-Methods";
const ALLOW_HEADERS: &str = "Access-Control-Allow-Headers";
const ALLOW_PRIVATE_NETWORK: &str = "Access-Control-Allow-Private-Network";
const EXPOSE_HEADERS: &str = "Access-Control-Expose-Headers";
const MAX_AGE: &str = "Access-Control-Max-Age";

/// All that an upstream could say about sharing.
const WORDS: [&str; 7] = [
    ALLOW_ORIGIN,
    ALLOW_CREDENTIALS,
    ALLOW_METHODS,
    ALLOW_HEADERS,
    ALLOW_PRIVATE_NETWORK,
    EXPOSE_HEADERS,
    MAX_AGE,
];

static REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const YES: HeaderValue = HeaderValue::from_static("true");
const ANYONE: HeaderValue = HeaderValue::from_static("*");

/// The guard, as run.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: OriginList,
    credentials: bool,
    methods: Option<HeaderValue>,
    headers: RequestFields,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
    private_network: bool,
}

/// Request fields that pages may set, besides those that every page may.
#[derive(Clone, Debug)]
enum RequestFields {
    None,
    /// Those that the preflight asks for.
    Asked,
    Listed(HeaderValue),
}

/// The answer to a preflight: 204, without a body.
#[derive(Clone, Debug)]
pub struct Preflight {
    fields: Vec<(&'static str, HeaderValue)>,
}

impl Cors {
    /// The origins that may read answers.
    pub fn origins(&self) -> &OriginList {
        &self.origins
    }

    /// Whether there is an allowlist, so that the gate speaks for the upstream.
    pub fn speaks(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Whether pages of `origin` may read answers, as far as the gate has a say; no origin needs no leave.
    pub fn admits(&self, origin: Option<&HeaderValue>) -> bool {
        !self.speaks() || origin.is_none() || self.listing(origin).is_some()
    }

    /// Refuses a preflight from an origin that is not allowed; everything else is the origin guard's matter.
    pub fn check(&self, head: &Head<'_>) -> Verdict {
        if !self.speaks() || !is_preflight(head) || self.listing(only(head.headers, &ORIGIN)).is_some() {
            return Ok(());
        }
        let detail = "The Origin field names an origin that may not use this API from a page.";
        Err(Refusal::new(Reason::OriginDenied, detail, SETTING))
    }

    /// The answer, if the request is a preflight that the gate answers. To be asked after [`Self::check`].
    pub fn preflight(&self, head: &Head<'_>) -> Option<Preflight> {
        if !self.speaks() || !is_preflight(head) {
            return None;
        }
        let origin = only(head.headers, &ORIGIN)?;
        let mut fields = vec![(ALLOW_ORIGIN, self.allowed(origin)?)];
        fields.extend(self.methods.clone().map(|methods| (ALLOW_METHODS, methods)));
        let request_fields = match &self.headers {
            RequestFields::None => None,
            RequestFields::Asked => only(head.headers, &ACCESS_CONTROL_REQUEST_HEADERS),
            RequestFields::Listed(names) => Some(names),
        };
        fields.extend(request_fields.map(|names| (ALLOW_HEADERS, names.clone())));
        if self.credentials {
            fields.push((ALLOW_CREDENTIALS, YES));
        }
        if self.private_network
            && only(head.headers, &REQUEST_PRIVATE_NETWORK).is_some_and(|asks| asks == "true")
        {
            fields.push((ALLOW_PRIVATE_NETWORK, YES));
        }
        fields.push((MAX_AGE, self.max_age.clone()));
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        fields.push(("Vary", HeaderValue::from_static(vary)));
        Some(Preflight { fields })
    }

    /// Marks a response for the page that may read it; `origin` is the request's `Origin`.
    pub fn decorate(&self, response: &mut HeaderMap, origin: Option<&HeaderValue>, author: Author) {
        if !self.speaks() {
            return;
        }
        if author == Author::Upstream {
            for word in WORDS {
                response.remove(word);
            }
        }
        // Also where nobody is let in: a cache must not hand this answer to another origin.
        vary_on_origin(response);
        let Some(allowed) = origin.and_then(|origin| self.allowed(origin)) else { return };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, YES);
        }
        if let Some(expose) = &self.expose {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn listing(&self, origin: Option<&HeaderValue>) -> Option<Listing> {
        self.origins.listing(origin?.to_str().ok()?)
    }

    /// What to answer `origin`: itself, `*`, or nothing.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        Some(match self.listing(Some(origin))? {
            Listing::Named => origin.clone(),
            Listing::Any => ANYONE,
        })
    }
}

impl Preflight {
    /// Status of the answer.
    pub const STATUS: StatusCode = StatusCode::NO_CONTENT;

    /// Its header fields.
    pub fn fields(&self) -> &[(&'static str, HeaderValue)] {
        &self.fields
    }
}

/// Fetch standard, "CORS-preflight request". An `OPTIONS` without these fields is the upstream's.
fn is_preflight(head: &Head<'_>) -> bool {
    *head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The one value of a field; several are as good as none.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { Some(value) }
}

fn vary_on_origin(response: &mut HeaderMap) {
    let varies = response.get_all(VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    });
    if !varies {
        response.append(VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Request, response};
    use super::*;

    const APP: &str = "https://app.example.com";

    fn cors(origins: &[&str], change: impl FnOnce(&mut Config)) -> Cors {
        let allowed_origins = origins.iter().map(|o| (*o).to_owned()).collect();
        let mut config = Config { allowed_origins, ..Config::default() };
        change(&mut config);
        Cors::build(&config).expect("builds")
    }

    fn preflight_from(origin: &str) -> Request {
        Request::new(Method::OPTIONS)
            .with("origin", origin)
            .with("access-control-request-method", "POST")
            .with("access-control-request-headers", "authorization,x-stainless-os")
    }

    fn field<'a>(answer: &'a Preflight, name: &str) -> Option<&'a str> {
        let (_, value) = answer.fields().iter().find(|(field, _)| *field == name)?;
        value.to_str().ok()
    }

    fn decorated(
        cors: &Cors,
        origin: Option<&str>,
        author: Author,
        fields: &[(&'static str, &'static str)],
    ) -> HeaderMap {
        let mut response = response(200, fields).headers;
        let origin = origin.map(|o| HeaderValue::from_str(o).expect("a valid value"));
        cors.decorate(&mut response, origin.as_ref(), author);
        response
    }

    fn all(response: &HeaderMap, name: &str) -> Vec<String> {
        response.get_all(name).iter().map(|v| v.to_str().expect("text").to_owned()).collect()
    }

    /// A front end on another origin, with an SDK that sets its own fields, must work without a list of them.
    #[test]
    fn preflights_of_listed_origins_are_answered() {
        let cors = cors(&[APP], |config| config.allow_credentials = true);
        let request = preflight_from(APP);
        assert_eq!(cors.check(&request.head()), Ok(()));
        let answer = cors.preflight(&request.head()).expect("an answer");
        assert_eq!(field(&answer, ALLOW_ORIGIN), Some(APP));
        assert_eq!(field(&answer, ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(field(&answer, ALLOW_METHODS), Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
        assert_eq!(field(&answer, ALLOW_HEADERS), Some("authorization,x-stainless-os"));
        assert_eq!(field(&answer, MAX_AGE), Some("600"));
        assert!(field(&answer, "Vary").is_some_and(|v| v.starts_with("Origin")));
    }

    /// A page that is not on the list must not get its preflight through, nor reach the upstream with it.
    #[test]
    fn preflights_of_others_are_refused() {
        let cors = cors(&[APP, "https://*.example.org"], |_| ());
        for origin in [
            "https://evil.example",
            "https://evil-example.org",
            "https://app.example.com.evil.example",
            "null",
        ] {
            let request = preflight_from(origin);
            let refusal = cors.check(&request.head()).expect_err(origin);
            assert_eq!((refusal.reason, &*refusal.setting), (Reason::OriginDenied, SETTING));
            assert!(cors.preflight(&request.head()).is_none(), "{origin}");
        }
        let two = preflight_from(APP).with("origin", "https://evil.example");
        assert!(cors.check(&two.head()).is_err() && cors.preflight(&two.head()).is_none());
    }

    /// An upstream that has its own CORS goes on working behind an unconfigured gate.
    #[test]
    fn without_a_list_the_upstream_speaks() {
        let cors = cors(&[], |_| ());
        let request = preflight_from("https://anyone.example");
        assert!(cors.check(&request.head()).is_ok() && cors.preflight(&request.head()).is_none());
        let set = [(ALLOW_ORIGIN, "https://its.own"), (ALLOW_CREDENTIALS, "true")];
        let response = decorated(&cors, Some("https://its.own"), Author::Upstream, &set);
        assert_eq!(all(&response, ALLOW_ORIGIN), ["https://its.own"]);
        assert!(all(&response, "vary").is_empty());
    }

    /// `OPTIONS` is also a method of its own, which WebDAV and some APIs use.
    #[test]
    fn other_requests_are_no_preflights() {
        let cors = cors(&[APP], |_| ());
        let bare = Request::new(Method::OPTIONS).with("origin", "https://evil.example");
        let get = Request::new(Method::GET)
            .with("origin", "https://evil.example")
            .with("access-control-request-method", "GET");
        for request in [bare, get] {
            assert!(cors.check(&request.head()).is_ok() && cors.preflight(&request.head()).is_none());
        }
    }

    /// An upstream that echoes any origin, as many frameworks do, would undo the list.
    #[test]
    fn the_gates_word_replaces_the_upstreams() {
        let cors = cors(&[APP], |_| ());
        let set = [
            (ALLOW_ORIGIN, "https://evil.example"),
            (ALLOW_ORIGIN, "*"),
            (ALLOW_CREDENTIALS, "true"),
            (EXPOSE_HEADERS, "X-Secret"),
            (MAX_AGE, "1"),
        ];
        let listed = decorated(&cors, Some(APP), Author::Upstream, &set);
        assert_eq!(all(&listed, ALLOW_ORIGIN), [APP]);
        assert!(all(&listed, ALLOW_CREDENTIALS).is_empty());
        assert!(all(&listed, EXPOSE_HEADERS).concat().contains("Retry-After"));
        for origin in [Some("https://evil.example"), Some("null"), None] {
            let other = decorated(&cors, origin, Author::Upstream, &set);
            assert!(other.keys().all(|name| name == VARY), "{origin:?}: {:?}", other);
            assert_eq!(all(&other, "vary"), ["Origin"], "{origin:?}");
        }
    }

    /// A shared cache that does not know would hand one origin's answer to another, or a refusal to all.
    #[test]
    fn vary_is_added_and_never_clobbered() {
        let cors = cors(&[APP], |_| ());
        let vary = |own: &[(&'static str, &'static str)]| {
            all(&decorated(&cors, Some(APP), Author::Upstream, own), "vary")
        };
        assert_eq!(vary(&[("Vary", "Accept-Encoding")]), ["Accept-Encoding", "Origin"]);
        assert_eq!(vary(&[("Vary", "Accept, origin")]), ["Accept, origin"]);
        assert_eq!(vary(&[("Vary", "*")]), ["*"]);
    }

    /// The browser must be able to show a refusal, and the answer to a preflight must survive the response guards.
    #[test]
    fn the_gates_own_answers_are_marked() {
        let cors = cors(&[APP], |config| config.allow_credentials = true);
        let answer = cors.preflight(&preflight_from(APP).head()).expect("an answer");
        let mut response = HeaderMap::new();
        for (name, value) in answer.fields() {
            response.append(*name, value.clone());
        }
        cors.decorate(&mut response, Some(&HeaderValue::from_static(APP)), Author::Gate);
        assert_eq!(all(&response, ALLOW_ORIGIN), [APP]);
        assert_eq!(all(&response, ALLOW_CREDENTIALS), ["true"]);
        assert_eq!(all(&response, "vary").len(), 1);
        assert!(!all(&response, ALLOW_METHODS).is_empty());
    }

    /// A public API says so with `*`, never by echoing, and never with credentials.
    #[test]
    fn anyone_means_a_literal_star() {
        let cors = cors(&["*"], |_| ());
        let response = decorated(
            &cors,
            Some("https://anyone.example"),
            Author::Upstream,
            &[(ALLOW_CREDENTIALS, "true")],
        );
        assert_eq!(all(&response, ALLOW_ORIGIN), ["*"]);
        assert!(all(&response, ALLOW_CREDENTIALS).is_empty());
        assert!(all(&decorated(&cors, Some("null"), Author::Upstream, &[]), ALLOW_ORIGIN).is_empty());
    }

    /// A public page that reaches into a home or office network has to be let in on purpose.
    #[test]
    fn private_networks_are_opened_only_when_told() {
        let request = preflight_from(APP).with("access-control-request-private-network", "true");
        let told = |open| {
            let cors = cors(&[APP], |config| config.private_network = open);
            cors.preflight(&request.head())
                .is_some_and(|answer| field(&answer, ALLOW_PRIVATE_NETWORK) == Some("true"))
        };
        assert!(told(true) && !told(false));
    }

    /// An explicit list is a limit, an empty one too.
    #[test]
    fn listed_methods_and_fields_are_all_there_is() {
        let listed = cors(&[APP], |config| {
            config.methods = vec!["GET".into(), "POST".into()];
            config.headers = vec!["Content-Type".into()];
        });
        let answer = listed.preflight(&preflight_from(APP).head()).expect("an answer");
        assert_eq!(
            (field(&answer, ALLOW_METHODS), field(&answer, ALLOW_HEADERS)),
            (Some("GET, POST"), Some("Content-Type"))
        );
        let none = cors(&[APP], |config| (config.methods, config.headers) = (Vec::new(), Vec::new()));
        let answer = none.preflight(&preflight_from(APP).head()).expect("an answer");
        assert_eq!((field(&answer, ALLOW_METHODS), field(&answer, ALLOW_HEADERS)), (None, None));
    }
}
