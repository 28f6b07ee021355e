//! The one form of a request's path: it routes, AI calls are recognised by it, and the upstream gets it.
//!
//! Every octet has one spelling here, so that no spelling of a path goes round a rule written for another:
//! - octets that may stand in a path (RFC 3986 §3.3 `pchar`) are decoded; all others are percent-encoded, in
//!   upper case. Two keep the spelling they came in, since upstreams read them apart: `%2B` (some take a bare `+`
//!   for a space) and `%3B` (a bare `;` starts parameters);
//! - empty segments, `.` and `..` are removed, encoded or with parameters behind them (`..;x`) alike;
//! - what parsers disagree about (`\`, control bytes, broken escapes, overlong UTF-8, `..` above the root) is
//!   refused.
//!
//! Reading the result a second time gives the same path, save for `%25`: `%252e` is a literal `%2e` here, and an
//! upstream that decodes twice reads a dot. That is the upstream's defect; to decode it here would forge names.

mod normalise;
mod octet;
mod query;
mod target;

pub(crate) use target::after_scheme;

pub use query::{QueryFault, clean_query};
pub use target::split_target;

use std::borrow::Cow;
use std::fmt;

use crate::guard::{Reason, Refusal};

/// How paths are normalised where upstreams differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathRules {
    /// What `%2F` is.
    pub encoded_slash: EncodedSlash,
    /// What `;parameters` in a segment are.
    pub semicolon: Semicolon,
    /// Whether `/Chat` and `/chat` are two paths.
    pub case: Case,
}

/// What `%2F` in a path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodedSlash {
    /// A slash.
    #[default]
    Decode,
    /// A reason to refuse.
    Reject,
}

/// What `;parameters` in a path segment (RFC 3986 §3.3) are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Semicolon {
    /// Removed up to the next slash.
    #[default]
    Strip,
    /// A reason to refuse.
    Reject,
}

/// Whether letter case tells paths apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// `/Chat` and `/chat` are two paths.
    #[default]
    Sensitive,
    /// ASCII letters are lower-cased, in the forwarded path too: for upstreams that ignore case themselves.
    Insensitive,
}

/// Why a path has no safe normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// It does not start with a raw `/`.
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    BrokenEscape,
    /// A control byte, raw or encoded.
    Control,
    /// A raw `?` or `#`: no path ends where two parsers could cut it differently.
    Delimiter,
    /// `\`, raw or encoded: some upstreams read a slash.
    Backslash,
    /// Not UTF-8 once decoded (overlong forms included).
    NotUtf8,
    /// `..` leads above the root.
    AboveRoot,
    /// `%2F`, which the rules forbid.
    EncodedSlash,
    /// `;`, which the rules forbid.
    Semicolon,
}

impl PathFault {
    /// The config key that sets the rule; empty if none does.
    pub const fn setting(self) -> &'static str {
        match self {
            PathFault::EncodedSlash => "paths.encoded_slash",
            PathFault::Semicolon => "paths.semicolon",
            _ => "",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            PathFault::NotAbsolute => "The path does not start with a slash (RFC 9112 §3.2.1).",
            PathFault::BrokenEscape => "The path has a % without two hexadecimal digits (RFC 3986 §2.1).",
            PathFault::Control => "The path has a control character, raw or encoded.",
            PathFault::Delimiter => "The path has a raw ? or # (RFC 3986 §3.3).",
            PathFault::Backslash => "The path has a backslash, raw or encoded.",
            PathFault::NotUtf8 => "The path is not UTF-8 once decoded.",
            PathFault::AboveRoot => "The path leads above the root.",
            PathFault::EncodedSlash => "The path has an encoded slash, which is not allowed here.",
            PathFault::Semicolon => "The path has a semicolon, which is not allowed here.",
        }
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for PathFault {}

impl From<PathFault> for Refusal {
    fn from(fault: PathFault) -> Self {
        Refusal::new(Reason::InvalidPath, fault.detail(), fault.setting())
    }
}

/// A path in its one form: ASCII, starts with `/` (or is the `*` of `OPTIONS *`), no empty or dot segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NormalPath<'a>(Cow<'a, str>);

impl<'a> NormalPath<'a> {
    /// The target of `OPTIONS *` (RFC 9112 §3.2.4), which [`parse`](Self::parse) does not take: only the
    /// caller knows the method.
    pub const ASTERISK: NormalPath<'static> = NormalPath(Cow::Borrowed("*"));

    /// Normalises the path part of a request target; see [`split_target`].
    ///
    /// Borrows as long as the result is a prefix of what came in, so a path that is normal already costs one
    /// scan.
    pub fn parse(raw: &'a [u8], rules: &PathRules) -> Result<Self, PathFault> {
        let bytes = normalise::normalise(raw, rules)?;
        let text = match bytes {
            Cow::Borrowed(raw) => str::from_utf8(raw).ok().map(Cow::Borrowed),
            Cow::Owned(made) => String::from_utf8(made).ok().map(Cow::Owned),
        };
        text.map(NormalPath).ok_or(PathFault::NotUtf8)
    }

    /// The form that is forwarded; a trailing slash is kept, since Django and FastAPI tell it apart.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that rules are matched against: without the trailing slash, unless it is the root.
    pub fn for_match(&self) -> &str {
        without_trailing_slash(&self.0)
    }

    /// The forwarded form, owned or borrowed as it came out.
    pub fn into_inner(self) -> Cow<'a, str> {
        self.0
    }
}

/// What [`NormalPath::for_match`] does, for a path that was normalised earlier.
pub fn without_trailing_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(short) => short,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &[u8]) -> Result<String, PathFault> {
        NormalPath::parse(raw, &PathRules::default()).map(|path| path.as_str().to_owned())
    }

    #[track_caller]
    fn reads(raw: &str, expected: &str) {
        assert_eq!(normal(raw.as_bytes()).as_deref(), Ok(expected), "{raw}");
    }

    #[track_caller]
    fn refused(raw: &[u8], fault: PathFault) {
        assert_eq!(normal(raw), Err(fault), "{}", raw.escape_ascii());
    }

    #[test]
    fn no_spelling_of_a_path_goes_round_its_limits() {
        for raw in [
            "/v1/chat",
            "//v1///chat",
            "/v1/./chat",
            "/v1/x/../chat",
            "/v1/%2e/chat",
            "/v1/x/%2E%2e/chat",
            "/v1/x/.%2e/chat",
            "/v1%2fchat",
            "/v1%2Fx%2f..%2Fchat",
            "/%76%31/ch%61t",
            "/v1;a=b/chat;jsessionid=1",
            "/v1/x/..;y/chat",
            "/;/v1/;x=%2e%2e/chat",
        ] {
            reads(raw, "/v1/chat");
        }
        reads("/v1/models/m%3AgenerateContent", "/v1/models/m:generateContent");
    }

    #[test]
    fn a_trailing_slash_is_forwarded_but_does_not_make_another_route() {
        for (raw, forwarded, matched) in [
            ("/a/", "/a/", "/a"),
            ("/a//", "/a/", "/a"),
            ("/", "/", "/"),
            ("//", "/", "/"),
            ("/a/..", "/", "/"),
        ] {
            let path = NormalPath::parse(raw.as_bytes(), &PathRules::default());
            assert_eq!(path.as_ref().map(|p| (p.as_str(), p.for_match())), Ok((forwarded, matched)), "{raw}");
        }
        reads("/a/b/.", "/a/b/");
        reads("/a/b/..", "/a/");
    }

    #[test]
    fn an_octet_has_one_spelling() {
        reads("/%e4%bd%a0", "/%E4%BD%A0");
        reads("/你", "/%E4%BD%A0");
        reads("/a b<c>\"d\"{e}|^`[f]", "/a%20b%3Cc%3E%22d%22%7Be%7D%7C%5E%60%5Bf%5D");
        reads("/%7Euser/%41", "/~user/A");
        reads("/what%3f/%23", "/what%3F/%23");
        reads("/a%3bb/c%2bd/e+f", "/a%3Bb/c%2Bd/e+f");
    }

    #[test]
    fn a_name_that_starts_with_dots_is_a_name() {
        for raw in ["/.well-known/acme", "/...", "/..a", "/a.", "/.env"] {
            reads(raw, raw);
        }
    }

    #[test]
    fn a_double_escape_is_a_name_not_a_way_up() {
        reads("/a/%252e%252e/b", "/a/%252e%252e/b");
    }

    #[test]
    fn what_upstreams_read_differently_is_refused() {
        refused(b"/..", PathFault::AboveRoot);
        refused(b"/a/../../etc", PathFault::AboveRoot);
        refused(b"/%2e%2e%2fetc", PathFault::AboveRoot);
        refused(b"/a\\..\\b", PathFault::Backslash);
        refused(b"/a%5c..", PathFault::Backslash);
        refused(b"/a;x=%5C", PathFault::Backslash);
        refused(b"/a%00.png", PathFault::Control);
        refused(b"/a%0d%0aX:y", PathFault::Control);
        refused(b"/a\x7f", PathFault::Control);
        refused(b"/%zz", PathFault::BrokenEscape);
        refused(b"/%u002e", PathFault::BrokenEscape);
        refused(b"/a%4", PathFault::BrokenEscape);
        refused(b"/a%", PathFault::BrokenEscape);
        refused(b"/%c0%ae%c0%ae/", PathFault::NotUtf8);
        refused(b"/%e0%80%af", PathFault::NotUtf8);
        refused(b"/\xff", PathFault::NotUtf8);
        refused(b"/%C3", PathFault::NotUtf8);
        refused(b"/a#b", PathFault::Delimiter);
        refused(b"/a?b", PathFault::Delimiter);
        for raw in [&b""[..], b"a", b"*", b"%2fa", b"http://h/"] {
            refused(raw, PathFault::NotAbsolute);
        }
    }

    #[test]
    fn an_operator_can_be_stricter_or_looser() {
        let strict = PathRules {
            encoded_slash: EncodedSlash::Reject,
            semicolon: Semicolon::Reject,
            ..Default::default()
        };
        assert_eq!(NormalPath::parse(b"/a%2Fb", &strict), Err(PathFault::EncodedSlash));
        assert_eq!(NormalPath::parse(b"/a;b", &strict), Err(PathFault::Semicolon));
        assert_eq!(Refusal::from(PathFault::Semicolon).setting, "paths.semicolon");
        let folded = PathRules { case: Case::Insensitive, ..Default::default() };
        let path = NormalPath::parse(b"/API/%43hat/%e4", &folded);
        assert_eq!(path, Err(PathFault::NotUtf8));
        let path = NormalPath::parse(b"/API/%43hat/%c3%a9", &folded);
        assert_eq!(path.as_ref().map(NormalPath::as_str), Ok("/api/chat/%C3%A9"));
        let path = NormalPath::parse(b"/API", &folded);
        assert_eq!(path.as_ref().map(NormalPath::as_str), Ok("/api"));
    }

    #[test]
    fn rules_are_read_as_written_and_a_typo_is_an_error() {
        let read = |text| serde_json::from_str::<PathRules>(text);
        let rules = read(r#"{"encoded_slash": "reject", "case": "insensitive"}"#).ok();
        let expected = PathRules {
            encoded_slash: EncodedSlash::Reject,
            semicolon: Semicolon::Strip,
            case: Case::Insensitive,
        };
        assert_eq!(rules, Some(expected));
        assert!(read(r#"{"encodedslash": "reject"}"#).is_err());
    }

    #[test]
    fn a_normal_path_costs_no_allocation() {
        for raw in
            ["/api/chat", "/v1/models/x:y", "/.well-known/a", "/%E4%BD%A0", "/a/../", "/a;b", "/a/b/../"]
        {
            let path = NormalPath::parse(raw.as_bytes(), &PathRules::default()).map(NormalPath::into_inner);
            assert!(matches!(path, Ok(Cow::Borrowed(_))), "{raw}");
        }
    }

    /// Paths made of the pieces that normalisers have tripped over.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&[u8]> = vec![
            b"/",
            b"/",
            b".",
            b"..",
            b"%2e",
            b"%2E",
            b"%2f",
            b"%25",
            b"%252e",
            b"%5c",
            b";",
            b";a",
            b"%3b",
            b"a",
            b"B",
            b"%41",
            b"%",
            b"%c3%a9",
            "é".as_bytes(),
            b"\xc3",
            b"%a9",
            b" ",
            b"+",
            b"%2b",
            b"[",
            b"\\",
            b"\0",
            b"?",
        ];
        let parts = proptest::collection::vec(proptest::sample::select(pieces), 0..12);
        parts.prop_map(|parts| [&b"/"[..], &parts.concat()].concat())
    }

    fn rules() -> impl Strategy<Value = PathRules> {
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(slash, semicolon, case)| PathRules {
            encoded_slash: if slash { EncodedSlash::Decode } else { EncodedSlash::Reject },
            semicolon: if semicolon { Semicolon::Strip } else { Semicolon::Reject },
            case: if case { Case::Sensitive } else { Case::Insensitive },
        })
    }

    fn holds(raw: &[u8], rules: &PathRules) -> Result<(), TestCaseError> {
        let Ok(once) = NormalPath::parse(raw, rules) else { return Ok(()) };
        let twice = NormalPath::parse(once.as_str().as_bytes(), rules);
        prop_assert_eq!(twice.as_ref(), Ok(&once));
        let text = once.as_str();
        prop_assert!(text.starts_with('/') && text.is_ascii() && !text.contains("//"));
        prop_assert!(!text.contains([';', '\\', '?', '#', ' ']));
        let segments = || text.split('/');
        prop_assert!(!segments().any(|s| s == "." || s == ".."));
        // A second decoder finds no new separator, dot segment or parameter but behind %25.
        let decoded: Vec<String> = segments().map(|s| s.replace("%2F", "/").replace("%2E", ".")).collect();
        prop_assert_eq!(decoded.join("/"), text);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn reading_a_path_twice_changes_nothing(raw in hostile(), rules in rules()) {
            holds(&raw, &rules)?;
        }

        #[test]
        fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..40), rules in rules()) {
            holds(&[&b"/"[..], &tail].concat(), &rules)?;
            let _ = NormalPath::parse(&tail, &rules);
            let _ = clean_query(&tail);
        }
    }
}
