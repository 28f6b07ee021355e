//! Web origins (RFC 6454) and lists of them: exact, by whole-label wildcard, `null`, or any.

use super::Fault;
use super::authority::{Authority, Host};

/// Suffixes of one label that nobody can register a name under.
const PRIVATE_SUFFIXES: [&str; 6] = ["localhost", "local", "internal", "home", "lan", "test"];

/// Scheme, host and port.
#[derive(Clone, Copy, Debug)]
pub struct WebOrigin<'a> {
    /// Scheme as received.
    pub scheme: &'a str,
    /// Host.
    pub host: Host<'a>,
    /// Port: the one written, else the scheme's own; `None` for schemes that have none.
    pub port: Option<u16>,
}

impl<'a> WebOrigin<'a> {
    /// Reads an `Origin` field's value other than `null`. `None` if it has a path or any other part too many.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(valid) {
            return None;
        }
        let Authority { host, port } = Authority::parse(rest)?;
        Some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    /// Reads the origin of an absolute URL, such as a `Referer`.
    pub fn of_url(url: &'a str) -> Option<Self> {
        let after = url.find("://")? + 3;
        let end = url.get(after..)?.find(['/', '?', '#', '\\']).map_or(url.len(), |at| after + at);
        Self::parse(url.get(..end)?)
    }

    /// The origin as a browser writes it (RFC 6454 §6.2): lower case, without a default port.
    fn serialise(&self) -> String {
        let scheme = self.scheme.to_ascii_lowercase();
        let host = match self.host {
            Host::Name(name) => name.to_ascii_lowercase(),
            Host::Address(std::net::IpAddr::V6(v6)) => format!("[{v6}]"),
            Host::Address(v4) => v4.to_string(),
        };
        match self.port.filter(|port| Some(*port) != default_port(&scheme)) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        s if s.eq_ignore_ascii_case("https") => Some(443),
        s if s.eq_ignore_ascii_case("http") => Some(80),
        _ => None,
    }
}

/// How an origin is on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// By name or by a pattern that names its parent.
    Named,
    /// Only because the list says `*`.
    Any,
}

/// A list of origins.
#[derive(Clone, Debug, Default)]
pub struct OriginList {
    /// Sorted, as browsers write them.
    exact: Box<[Box<str>]>,
    patterns: Box<[Pattern]>,
    null: bool,
    any: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    scheme: Box<str>,
    /// Starts with a dot, lower case.
    suffix: Box<str>,
    port: Option<u16>,
}

impl OriginList {
    /// Reads a list; `key` is where it stands in the config.
    ///
    /// An entry is an origin (`https://app.example.com`, `http://localhost:3000`), a pattern whose `*.` stands for one
    /// or more whole labels (`https://*.example.com`), `null`, or `*`. Scheme and port are always exact.
    pub fn build(key: &'static str, entries: &[String]) -> Result<Self, Fault> {
        let mut list = Self::default();
        let (mut exact, mut patterns) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let fault = |message: String| Fault::new(format!("{key}[{index}]"), message);
            match entry.as_str() {
                "*" => list.any = true,
                "null" => list.null = true,
                entry if entry.contains('*') => patterns.push(Pattern::parse(entry).map_err(fault)?),
                entry => exact.push(parse_entry(entry).map_err(fault)?.serialise().into_boxed_str()),
            }
        }
        exact.sort_unstable();
        exact.dedup();
        list.exact = exact.into();
        list.patterns = patterns.into();
        Ok(list)
    }

    /// Whether and how `origin`, as received, is on the list. `null` is only if the list says so itself.
    pub fn listing(&self, origin: &str) -> Option<Listing> {
        if origin == "null" {
            return self.null.then_some(Listing::Named);
        }
        if self.exact.binary_search_by(|entry| (**entry).cmp(origin)).is_ok() {
            return Some(Listing::Named);
        }
        if !self.patterns.is_empty()
            && let Some(origin) = WebOrigin::parse(origin)
            && self.patterns.iter().any(|pattern| pattern.fits(&origin))
        {
            return Some(Listing::Named);
        }
        self.any.then_some(Listing::Any)
    }

    /// As [`Self::listing`], for an origin taken out of a URL.
    pub fn lists_url(&self, url: &str) -> bool {
        WebOrigin::of_url(url).is_some_and(|origin| self.listing(&origin.serialise()).is_some())
    }

    /// Whether the list says `*`.
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// Whether the list says `null`.
    pub fn has_null(&self) -> bool {
        self.null
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty() && !self.null && !self.any
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, String> {
        let shape = || {
            "a `*` stands for whole labels at the start of a host: write it like https://*.example.com"
                .to_owned()
        };
        let (scheme, rest) = entry.split_once("://").ok_or_else(shape)?;
        let rest = rest.strip_prefix("*.").filter(|rest| !rest.contains('*')).ok_or_else(shape)?;
        let parent = format!("{scheme}://{rest}");
        let origin = parse_entry(&parent)?;
        let Host::Name(name) = origin.host else { return Err(shape()) };
        let name = name.to_ascii_lowercase();
        if !name.contains('.') && !PRIVATE_SUFFIXES.contains(&name.as_str()) {
            return Err(format!("`*.{name}` would trust everyone who can register a name under .{name}"));
        }
        let suffix = format!(".{name}").into();
        Ok(Self { scheme: origin.scheme.to_ascii_lowercase().into(), suffix, port: origin.port })
    }

    fn fits(&self, origin: &WebOrigin<'_>) -> bool {
        origin.port == self.port
            && origin.scheme.eq_ignore_ascii_case(&self.scheme)
            && origin.host.ends_with(&self.suffix)
    }
}

fn parse_entry(entry: &str) -> Result<WebOrigin<'_>, String> {
    WebOrigin::parse(entry).ok_or_else(|| {
        "is not an origin: write scheme, host and port only, without a path or a slash at the end, \
         like https://app.example.com or http://localhost:3000 (non-ASCII names in their xn-- form)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &[&str]) -> OriginList {
        let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
        OriginList::build("cors.allowed_origins", &entries).expect("a valid list")
    }

    fn fault(entry: &str) -> Fault {
        let entries = ["https://ok.example".to_owned(), entry.to_owned()];
        OriginList::build("cors.allowed_origins", &entries).expect_err(entry)
    }

    /// An operator's app must get in however the operator wrote its origin.
    #[test]
    fn exact_entries_are_normalised() {
        let list = list(&[
            "HTTPS://App.Example.com:443",
            "http://localhost:3000",
            "http://[0:0::1]:80",
            "tauri://localhost",
        ]);
        for origin in
            ["https://app.example.com", "http://localhost:3000", "http://[::1]", "tauri://localhost"]
        {
            assert_eq!(list.listing(origin), Some(Listing::Named), "{origin}");
        }
        for origin in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "http://localhost",
            "https://example.com",
            "null",
            "",
        ] {
            assert_eq!(list.listing(origin), None, "{origin}");
        }
    }

    /// These are the origins that a suffix or regex match lets in; each would read a user's answers.
    #[test]
    fn patterns_are_not_fooled() {
        let list = list(&["https://*.example.com", "http://*.localhost:3000"]);
        for origin in ["https://a.example.com", "https://b.a.example.com", "http://app.localhost:3000"] {
            assert_eq!(list.listing(origin), Some(Listing::Named), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://evil-example.com",
            "https://example.com.evil.com",
            "https://a.example.com.evil.com",
            "https://aexample.com",
            "https://.example.com",
            "https://a..example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil.com/.example.com",
            "https://evil.com#.example.com",
            "https://evil.com\\.example.com",
            "https://u@a.example.com",
            "https://evil.com?a.example.com",
            "a.example.com",
            "https://a.example.com/",
            "xhttps://a.example.com",
            "https://a.exampleXcom",
            "null",
            "https://a.example.com https://b",
        ] {
            assert_eq!(list.listing(origin), None, "{origin}");
        }
    }

    /// `null` is every sandboxed frame on the web: it has to be meant.
    #[test]
    fn null_is_only_listed_by_name() {
        assert_eq!(list(&["*"]).listing("null"), None);
        assert_eq!(list(&["*"]).listing("https://anyone.example"), Some(Listing::Any));
        assert_eq!(list(&["null"]).listing("null"), Some(Listing::Named));
        assert_eq!(list(&["*", "https://a.example"]).listing("https://a.example"), Some(Listing::Named));
    }

    /// A list that silently never matches costs an operator an evening.
    #[test]
    fn bad_entries_name_their_place() {
        for entry in [
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/chat",
            "https://",
            "https://a b",
            "",
            "https://*",
            "https://a*.example.com",
            "https://*.*.example.com",
            "*.example.com",
            "https://*.com",
            "https://*.0.0.1",
            "https://*.example.com:*",
            "https://bücher.example",
            "https://example.com:0",
        ] {
            assert_eq!(fault(entry).key, "cors.allowed_origins[1]", "{entry}");
        }
    }

    /// `Referer` is a whole URL; the part after the host is the attacker's to choose.
    #[test]
    fn urls_are_cut_to_their_origin() {
        let list = list(&["https://app.example.com"]);
        for url in
            ["https://app.example.com/chat?a=b", "https://APP.example.com:443", "https://app.example.com#x"]
        {
            assert!(list.lists_url(url), "{url}");
        }
        for url in [
            "https://evil.com/https://app.example.com",
            "https://evil.com?://app.example.com",
            "/chat",
            "https://app.example.com@evil.com/",
        ] {
            assert!(!list.lists_url(url), "{url}");
        }
    }

    proptest! {
        /// Whatever a browser says, only the named parent's children pass.
        #[test]
        fn patterns_admit_only_children(origin in "(https?://)?[a-z.:/@#?\\\\*-]{0,24}(example\\.com)?[a-z.:/@-]{0,6}") {
            if list(&["https://*.example.com"]).listing(&origin).is_some() {
                let host = origin.strip_prefix("https://").expect("scheme").trim_end_matches(":443").trim_end_matches('.');
                prop_assert!(host.ends_with(".example.com") && host.len() > 12 && !host.contains(['/', '@', '#', '?', '\\', ':']));
            }
        }
    }
}
