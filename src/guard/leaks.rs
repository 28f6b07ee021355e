//! Takes out of responses what tells an attacker which software and version answers (H5).

use http::header::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use super::Fault;

/// Fields that only tell who made the answer. The last two lead to Symfony's profiler.
const TELLTALES: [&str; 11] = [
    "server",
    "via",
    "x-powered-by",
    "x-powered-cms",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-runtime",
    "x-generator",
    "x-backend-server",
    "x-debug-token",
    "x-debug-token-link",
];

/// Fields without which a response can't be read.
const NEEDED: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "transfer-encoding",
    "upgrade",
    "vary",
];

/// Which response fields are removed, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Fields removed besides `Server`, `Via`, `X-Powered-By` and their like.
    pub remove: Vec<String>,
    /// Fields that stay although they are on the built-in list.
    pub keep: Vec<String>,
}

/// The guard, as run.
#[derive(Clone, Debug)]
pub struct Leaks {
    names: Box<[HeaderName]>,
    /// A bit for each length, modulo 64, that a name has: rules most fields out.
    lengths: u64,
}

impl Leaks {
    /// Builds the guard.
    ///
    /// # Errors
    /// A name that is none, that no response can do without, or that is kept without being on the built-in list.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let mut names: Vec<HeaderName> = TELLTALES.into_iter().map(HeaderName::from_static).collect();
        for (index, name) in config.keep.iter().enumerate() {
            let fault = |message: String| Fault::new(format!("leaks.keep[{index}]"), message);
            let at = names.iter().position(|own| own.as_str().eq_ignore_ascii_case(name));
            let at = at.ok_or_else(|| {
                fault(format!("is none of the fields that are removed: {}", TELLTALES.join(", ")))
            })?;
            names.swap_remove(at);
        }
        for (index, name) in config.remove.iter().enumerate() {
            let fault = |message: &'static str| Fault::new(format!("leaks.remove[{index}]"), message);
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| fault("is not the name of a header field"))?;
            if NEEDED.contains(&name.as_str()) {
                return Err(fault("can't be removed: clients need this field to read the response"));
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Self { lengths: names.iter().fold(0, |bits, name| bits | length_bit(name)), names: names.into() })
    }

    /// Removes the fields from a response of the upstream.
    pub fn strip(&self, fields: &mut HeaderMap) {
        // A look at the few fields that came, rather than a search for each of the many that might have.
        let listed = |name: &&HeaderName| self.lengths & length_bit(name) != 0 && self.names.contains(name);
        let doomed: SmallVec<[HeaderName; 4]> = fields.keys().filter(listed).cloned().collect();
        for name in doomed {
            fields.remove(name);
        }
    }
}

fn length_bit(name: &HeaderName) -> u64 {
    1 << (name.as_str().len() % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(remove: &[&str], keep: &[&str]) -> Config {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Config { remove: own(remove), keep: own(keep) }
    }

    fn answer(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        super::super::testing::response(200, fields).headers
    }

    /// Scanners pick their exploit by these fields.
    #[test]
    fn telltales_go_and_the_rest_stays() {
        let mut answer = answer(&[
            ("Server", "nginx/1.18.0"),
            ("X-Powered-By", "PHP/7.4"),
            ("x-powered-by", "Express"),
            ("X-Debug-Token-Link", "/_profiler/1"),
            ("X-Internal-Node", "10.0.0.4"),
            ("Content-Type", "text/html"),
            ("X-Request-Id", "1"),
        ]);
        Leaks::build(&config(&["X-Internal-Node"], &[])).expect("builds").strip(&mut answer);
        let mut left: Vec<&str> = answer.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "x-request-id"]);
        assert!(answer.values().all(|value| value != "PHP/7.4"));
    }

    /// Some app reads its own `X-Runtime`.
    #[test]
    fn kept_fields_stay() {
        let mut answer = answer(&[("X-Runtime", "0.1"), ("Server", "x")]);
        Leaks::build(&config(&[], &["X-Runtime"])).expect("builds").strip(&mut answer);
        assert!(answer.contains_key("x-runtime") && !answer.contains_key("server"));
    }

    /// A name that does nothing, or breaks every answer, has to be seen at start.
    #[test]
    fn bad_names_are_refused() {
        let key = |config| Leaks::build(&config).expect_err("refused").key;
        assert_eq!(key(config(&["X-Ok", "Content-Length"], &[])), "leaks.remove[1]");
        assert_eq!(key(config(&["X Bad"], &[])), "leaks.remove[0]");
        assert_eq!(key(config(&[], &["X-Mine"])), "leaks.keep[0]");
    }
}
