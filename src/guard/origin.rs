//! Refuses state-changing requests and upgrades that a foreign site's page makes a browser send (H3).
//!
//! A foreign page can send such a request with the user's cookies, but it can't choose `Origin`, `Sec-Fetch-Site` or
//! the host in `Referer`: the browser writes them. Clients that send none of the three are no browsers, and carry no
//! cookies that they were not given on purpose, so they pass.

use http::header::{COOKIE, HeaderName, ORIGIN, REFERER};
use http::{HeaderMap, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::authority::Authority;
use super::origin_list::{Listing, OriginList, WebOrigin};
use super::{Fault, Head, Reason, Refusal, Verdict};

const SETTING: &str = "origin.trusted_origins, or cors.allowed_origins (ALLOWED_ORIGINS)";
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which other origins may send what changes state, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Origins whose pages may send state-changing requests and open WebSockets, besides those that CORS allows:
    /// exact, or `https://*.example.com`.
    pub trusted_origins: Vec<String>,
    /// What becomes of requests from other origins of the same site, such as another subdomain.
    pub same_site: SameSite,
}

/// What becomes of requests that a browser marks `Sec-Fetch-Site: same-site`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Refused unless their origin is listed: a neighbour (`blog.example.com`) is often less well kept than the app,
    /// and cookies don't tell the two apart.
    #[default]
    Refuse,
    /// They pass.
    Allow,
}

/// The guard, as run.
#[derive(Clone, Debug)]
pub struct OriginGuard {
    trusted: OriginList,
    cors: OriginList,
    same_site: SameSite,
}

/// Who sends the request, by `Origin`.
enum Declared<'a> {
    Nobody,
    One(&'a str),
    Unreadable,
}

impl OriginGuard {
    /// Builds the guard; `cors` is the list of origins that CORS allows.
    ///
    /// # Errors
    /// An entry that is not an origin, and `*`, which would be the guard's end.
    pub fn build(config: &Config, cors: &OriginList) -> Result<Self, Fault> {
        let trusted = OriginList::build("origin.trusted_origins", &config.trusted_origins)?;
        if trusted.is_any() {
            return Err(Fault::new(
                "origin.trusted_origins",
                "`*` trusts everyone: write `origin: off` if that is meant",
            ));
        }
        Ok(Self { trusted, cors: cors.clone(), same_site: config.same_site })
    }

    /// Refuses a foreign page's state-changing request or upgrade.
    pub fn check(&self, head: &Head<'_>) -> Verdict {
        if !head.upgrade && matches!(*head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let site = fetch_site(head.headers);
        // The browser compared the page's origin with the address it asked for. That holds where the comparison below
        // can't: behind a proxy that rewrites Host, as nginx does unless told otherwise.
        if site == Some("same-origin") {
            return Ok(());
        }
        let neighbour = site == Some("same-site") && self.same_site == SameSite::Allow;
        let passes = match declared(head.headers) {
            Declared::One(origin) => {
                neighbour
                    || names_asked(head, origin)
                    || is_own(head, WebOrigin::parse(origin))
                    || self.lists(head, origin)
            }
            Declared::Unreadable => false,
            Declared::Nobody => match site {
                Some("none") => true,
                Some("cross-site" | "same-site") => {
                    neighbour || referer(head.headers).is_some_and(|url| self.lists_url(url))
                }
                _ => referer(head.headers)
                    .is_none_or(|url| is_own(head, WebOrigin::of_url(url)) || self.lists_url(url)),
            },
        };
        if passes { Ok(()) } else { Err(Refusal::new(Reason::OriginDenied, detail(head), SETTING)) }
    }

    fn lists(&self, head: &Head<'_>, origin: &str) -> bool {
        match self.trusted.listing(origin).or_else(|| self.cors.listing(origin)) {
            Some(Listing::Named) => true,
            // `*` promises an API without credentials; a cookie from a foreign page breaks that promise.
            Some(Listing::Any) => !head.headers.contains_key(COOKIE),
            None => false,
        }
    }

    fn lists_url(&self, url: &str) -> bool {
        self.trusted.lists_url(url) || (!self.cors.is_any() && self.cors.lists_url(url))
    }
}

/// Whether `origin` names the host that is asked for to the letter, as an app's own page does: the short way.
fn names_asked(head: &Head<'_>, origin: &str) -> bool {
    let (https, named) = match origin.strip_prefix("https://") {
        Some(named) => (true, Some(named)),
        None => (false, origin.strip_prefix("http://")),
    };
    let same = named.zip(head.authority).filter(|(named, asked)| named.eq_ignore_ascii_case(asked));
    same.is_some_and(|(named, _)| Authority::parse(named).is_some()) && (https || !head.client.https)
}

/// Whether a page of `origin` is one of the host that is asked for.
///
/// A gate that knows of TLS insists on it: a page on `http://` may be anyone's on the same network. One that doesn't
/// may stand behind a TLS proxy that it was not told of, so there each scheme's own port fits a `Host` without one.
fn is_own(head: &Head<'_>, origin: Option<WebOrigin<'_>>) -> bool {
    let (Some(origin), Some(asked)) = (origin, head.authority.and_then(Authority::parse)) else {
        return false;
    };
    let https = origin.scheme.eq_ignore_ascii_case("https");
    let web = https || origin.scheme.eq_ignore_ascii_case("http");
    let port_fits = match asked.port {
        Some(port) => origin.port == Some(port),
        None => origin.port == Some(if https { 443 } else { 80 }),
    };
    web && (https || !head.client.https) && port_fits && origin.host == asked.host
}

fn declared(headers: &HeaderMap) -> Declared<'_> {
    let mut values = headers.get_all(ORIGIN).iter();
    match (values.next(), values.next()) {
        (None, _) => Declared::Nobody,
        (Some(value), None) => value.to_str().map_or(Declared::Unreadable, Declared::One),
        (Some(_), Some(_)) => Declared::Unreadable,
    }
}

/// The one value of `Sec-Fetch-Site`; several are as good as none.
fn fetch_site(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(&SEC_FETCH_SITE).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// The page that sends this, as far as it is named: `about:blank`, a relative reference and nothing name no origin.
/// What can't be read comes back empty, which is nobody's origin.
fn referer(headers: &HeaderMap) -> Option<&str> {
    headers.get(REFERER)?.to_str().map_or(Some(""), |url| url.contains("://").then_some(url))
}

fn detail(head: &Head<'_>) -> &'static str {
    match (head.headers.get(ORIGIN), head.upgrade) {
        (Some(origin), _) if origin == "null" => {
            "The Origin field is `null`: a page without an origin may not send what changes state."
        }
        (Some(_), true) => "The Origin field names another site, whose pages may not open connections here.",
        (Some(_), false) => {
            "The Origin field names another site, whose pages may not send what changes state."
        }
        (None, _) => "The Sec-Fetch-Site or Referer field shows that another site's page sends this.",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Request;
    use super::*;

    fn guard(trusted: &[&str], cors: &[&str], same_site: SameSite) -> OriginGuard {
        let own = |list: &[&str]| list.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
        let cors = OriginList::build("cors.allowed_origins", &own(cors)).expect("a valid list");
        let config = Config { trusted_origins: own(trusted), same_site };
        OriginGuard::build(&config, &cors).expect("builds")
    }

    fn plain() -> OriginGuard {
        guard(&[], &[], SameSite::Refuse)
    }

    fn post() -> Request {
        Request::new(Method::POST)
    }

    fn websocket() -> Request {
        Request { upgrade: true, ..Request::new(Method::GET) }
    }

    /// A page on evil.example would write messages, and spend money, in its visitor's name.
    #[test]
    fn foreign_pages_change_nothing() {
        for method in [
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::from_bytes(b"PURGE").expect("a method"),
        ] {
            for origin in [
                "https://evil.example",
                "https://chat.example.com.evil.example",
                "https://evil-chat.example.com",
                "null",
                "nonsense",
                "",
            ] {
                let request = Request::new(method.clone()).with("origin", origin);
                let refusal = plain().check(&request.head()).expect_err(origin);
                assert_eq!(refusal.reason, Reason::OriginDenied, "{method} {origin}");
                assert!(refusal.setting.contains("origin.trusted_origins"));
            }
        }
    }

    /// WebSockets know no CORS: without this check, any page could open one with its visitor's cookies.
    #[test]
    fn upgrades_are_checked_whatever_their_method() {
        assert!(plain().check(&websocket().with("origin", "https://evil.example").head()).is_err());
        assert!(plain().check(&websocket().with("sec-fetch-site", "cross-site").head()).is_err());
        assert!(plain().check(&websocket().with("origin", "https://chat.example.com").head()).is_ok());
        assert!(plain().check(&websocket().head()).is_ok());
    }

    /// Links and pictures from elsewhere have to go on working.
    #[test]
    fn safe_methods_pass() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let request = Request::new(method)
                .with("origin", "https://evil.example")
                .with("sec-fetch-site", "cross-site");
            assert!(plain().check(&request.head()).is_ok());
        }
    }

    /// An SDK, a webhook sender or curl has no origin to name.
    #[test]
    fn clients_that_are_no_browsers_pass() {
        assert!(plain().check(&post().head()).is_ok());
        assert!(plain().check(&post().with("referer", "").head()).is_ok());
        assert!(plain().check(&post().with("referer", "/chat").head()).is_ok());
    }

    /// The app's own page, however the gate is reached.
    #[test]
    fn own_pages_pass() {
        for (authority, origin) in [
            ("chat.example.com", "http://chat.example.com"),
            ("chat.example.com", "https://chat.example.com"), // TLS ended at a proxy that the gate doesn't know
            ("Chat.Example.com.", "https://chat.example.com"),
            ("chat.example.com:443", "https://chat.example.com"),
            ("localhost:8080", "http://localhost:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(
                plain().check(&post().at(authority).with("origin", origin).head()).is_ok(),
                "{authority} {origin}"
            );
        }
        for (authority, origin) in [
            ("localhost:8080", "http://localhost:3000"),
            ("localhost:8080", "http://localhost"),
            ("chat.example.com", "https://chat.example.com:8443"),
            ("chat.example.com", "http://chat.example.com:443"),
            ("chat.example.com", "chrome-extension://chat.example.com"),
            ("a b", "http://a b"),
        ] {
            assert!(
                plain().check(&post().at(authority).with("origin", origin).head()).is_err(),
                "{authority} {origin}"
            );
        }
    }

    /// Someone on the same network can forge the http:// page of an https:// app.
    #[test]
    fn tls_is_insisted_on_where_it_is_known() {
        let from = |origin| plain().check(&post().over_tls().with("origin", origin).head());
        assert!(from("https://chat.example.com").is_ok());
        assert!(from("http://chat.example.com").is_err());
    }

    /// nginx forwards its upstream's name as Host by default; the app's own page must not be shut out by that.
    #[test]
    fn the_browsers_word_holds_behind_a_rewriting_proxy() {
        let request = || post().at("127.0.0.1:8080").with("origin", "https://chat.example.com");
        assert!(plain().check(&request().head()).is_err());
        assert!(plain().check(&request().with("sec-fetch-site", "same-origin").head()).is_ok());
        let twice = request().with("sec-fetch-site", "same-origin").with("sec-fetch-site", "cross-site");
        assert!(plain().check(&twice.head()).is_err());
    }

    /// Forms of old browsers send no Origin; what they do send still counts.
    #[test]
    fn without_origin_the_other_fields_count() {
        let from = |fields: &[(&'static str, &str)]| {
            let request = fields.iter().fold(post(), |request, (name, value)| request.with(name, value));
            plain().check(&request.head()).is_ok()
        };
        assert!(!from(&[("sec-fetch-site", "cross-site")]));
        assert!(!from(&[("sec-fetch-site", "same-site")]));
        assert!(!from(&[("sec-fetch-site", "cross-site"), ("referer", "http://chat.example.com/")]));
        assert!(from(&[("sec-fetch-site", "none")]));
        assert!(from(&[("referer", "http://chat.example.com/chat?x=1")]));
        assert!(!from(&[("referer", "https://evil.example/http://chat.example.com/")]));
        // Browsers allow names that are no DNS names; one that can't be read must not pass for none.
        assert!(!from(&[("referer", "https://evil.example/?é")]));
        assert!(!from(&[("referer", "https://a!b.evil.example/")]));
        assert!(!from(&[("referer", "http://chat.example.com@evil.example/")]));
    }

    /// Two values of Origin are read differently by two parsers.
    #[test]
    fn two_origins_are_none() {
        let request = post().with("origin", "http://chat.example.com").with("origin", "https://evil.example");
        assert!(plain().check(&request.head()).is_err());
    }

    /// The operator's other front ends.
    #[test]
    fn listed_origins_pass() {
        let guard = guard(&["https://*.partner.example"], &["https://app.example.com"], SameSite::Refuse);
        for origin in ["https://a.partner.example", "https://app.example.com"] {
            assert!(guard.check(&post().with("origin", origin).head()).is_ok(), "{origin}");
            assert!(guard.check(&websocket().with("origin", origin).head()).is_ok(), "{origin}");
        }
        let by_referer =
            post().with("sec-fetch-site", "cross-site").with("referer", "https://app.example.com/chat");
        assert!(guard.check(&by_referer.head()).is_ok());
        assert!(guard.check(&post().with("origin", "https://evil.example").head()).is_err());
    }

    /// `same_site: allow` is for an app whose page and API are neighbours.
    #[test]
    fn neighbours_pass_when_told() {
        let request = || post().with("origin", "https://app.example.com").with("sec-fetch-site", "same-site");
        assert!(plain().check(&request().head()).is_err());
        assert!(guard(&[], &[], SameSite::Allow).check(&request().head()).is_ok());
    }

    /// A public API (`*`) must not become a way to use its visitors' cookies.
    #[test]
    fn a_wildcard_never_carries_cookies() {
        let public = guard(&[], &["*"], SameSite::Refuse);
        let request = || post().with("origin", "https://anyone.example");
        assert!(public.check(&request().head()).is_ok());
        assert!(public.check(&request().with("cookie", "session=1").head()).is_err());
        assert!(public.check(&post().with("origin", "null").head()).is_err());
        assert!(
            OriginGuard::build(
                &Config { trusted_origins: vec!["*".into()], ..Config::default() },
                &OriginList::default()
            )
            .is_err()
        );
    }
}
