//! Serves only the hosts it was set up for: against DNS rebinding, poisoned links and strangers' domains (H4).

use std::net::IpAddr;

use http::Version;
use schemars::JsonSchema;
use serde::Deserialize;

use super::authority::{Authority, Host};
use super::{Fault, Head, Reason, Refusal, Verdict};

const SETTING: &str = "hosts";

/// Hosts that are served, as written: `chat.example.com`, `chat.example.com:8443` (only that port), `*.example.com`
/// (every name below it, not itself), an address, or `*` (any host). None written: on a listener that only this
/// machine can reach, only loopback names, so that no web page can rebind its own name to it; elsewhere any host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(pub Vec<String>);

/// The guard, as run.
#[derive(Clone, Debug)]
pub struct Hosts {
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Any,
    Loopback,
    Listed(Box<[Entry]>),
}

#[derive(Clone, Debug)]
struct Entry {
    served: Served,
    /// `None`: on any port.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Served {
    Name(Box<str>),
    /// Starts with a dot.
    Below(Box<str>),
    Address(IpAddr),
}

impl Hosts {
    /// The first name that is served, if one is listed that is no pattern.
    pub fn first(&self) -> Option<String> {
        let Rule::Listed(entries) = &self.rule else { return None };
        entries.iter().find_map(Entry::name)
    }

    /// Builds the guard; `loopback`: whether all listeners are bound to loopback addresses.
    ///
    /// # Errors
    /// An entry that is not a host.
    pub fn build(config: &Config, loopback: bool) -> Result<Self, Fault> {
        let named = config.0.iter().enumerate().filter(|(_, text)| *text != "*");
        let entries: Box<[Entry]> =
            named.map(|(index, text)| Entry::parse(index, text)).collect::<Result<_, _>>()?;
        let rule = match config.0.as_slice() {
            [] if loopback => Rule::Loopback,
            // Fewer entries than texts: one of them is `*`.
            texts if texts.len() > entries.len() || texts.is_empty() => Rule::Any,
            _ => Rule::Listed(entries),
        };
        Ok(Self { rule })
    }

    /// Refuses a host that is none, and one that is not served.
    pub fn check(&self, head: &Head<'_>) -> Verdict {
        let Some(authority) = head.authority else {
            // HTTP/1.0 may leave it out. A browser never does, so there is nothing to rebind.
            let listed = matches!(self.rule, Rule::Listed(_));
            return if listed || head.version > Version::HTTP_10 {
                refuse("The request names no host.")
            } else {
                Ok(())
            };
        };
        let Some(asked) = Authority::parse(authority) else {
            return refuse("The Host field is not a host name or address with an optional port.");
        };
        match &self.rule {
            Rule::Any => Ok(()),
            Rule::Loopback if asked.host.is_loopback() => Ok(()),
            Rule::Loopback => refuse(
                "The host in the Host field is not served: without a list of hosts only loopback names are.",
            ),
            Rule::Listed(entries) => {
                let port = asked.port.unwrap_or(if head.client.https { 443 } else { 80 });
                if entries.iter().any(|entry| entry.fits(&asked.host, port)) {
                    Ok(())
                } else {
                    refuse("The host in the Host field is not on the list of hosts that are served.")
                }
            }
        }
    }
}

impl Entry {
    fn parse(index: usize, text: &str) -> Result<Self, Fault> {
        let below = text.strip_prefix("*.");
        let wildcard = below.is_some();
        let parsed = Authority::parse(below.unwrap_or(text));
        let Some(authority) = parsed.filter(|a| !wildcard || matches!(a.host, Host::Name(_))) else {
            return Err(Fault::new(
                format!("{SETTING}[{index}]"),
                "is not a host: write chat.example.com, chat.example.com:8443, *.example.com, an address \
                 (IPv6 in brackets), or * for any",
            ));
        };
        let served = match authority.host {
            Host::Name(name) if wildcard => Served::Below(format!(".{name}").into()),
            Host::Name(name) => Served::Name(name.into()),
            Host::Address(address) => Served::Address(address),
        };
        Ok(Self { served, port: authority.port })
    }

    /// It, as a client may ask for it; a pattern is none.
    fn name(&self) -> Option<String> {
        let host = match &self.served {
            Served::Name(name) => name.to_string(),
            Served::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Served::Address(address) => address.to_string(),
            Served::Below(_) => return None,
        };
        Some(self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
    }

    fn fits(&self, host: &Host<'_>, port: u16) -> bool {
        if self.port.is_some_and(|own| own != port) {
            return false;
        }
        match &self.served {
            Served::Name(name) => *host == Host::Name(name),
            Served::Below(suffix) => host.ends_with(suffix),
            Served::Address(address) => *host == Host::Address(*address),
        }
    }
}

fn refuse(detail: &'static str) -> Verdict {
    Err(Refusal::new(Reason::HostDenied, detail, SETTING))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::testing::Request;
    use super::*;

    fn hosts(entries: &[&str], loopback: bool) -> Result<Hosts, Fault> {
        Hosts::build(&Config(entries.iter().map(|e| (*e).to_owned()).collect()), loopback)
    }

    fn passes(guard: &Hosts, authority: &'static str) -> bool {
        guard.check(&Request::new(Method::GET).at(authority).head()).is_ok()
    }

    /// A web page that rebinds its own name to 127.0.0.1 would talk to the gate as if it were local.
    #[test]
    fn a_loopback_listener_serves_loopback_names_only() {
        let guard = hosts(&[], true).expect("builds");
        for local in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "chat.localhost"] {
            assert!(passes(&guard, local), "{local}");
        }
        for foreign in ["rebind.evil.com:8080", "localhost.evil.com", "0.0.0.0:8080", "192.168.1.2"] {
            assert!(!passes(&guard, foreign), "{foreign}");
        }
    }

    /// An unconfigured gate on a public address must not be shut to its own users.
    #[test]
    fn elsewhere_any_valid_host_is_served() {
        let guard = hosts(&[], false).expect("builds");
        assert!(passes(&guard, "chat.example.com"));
        let behind_a_proxy = hosts(&["*"], true).expect("builds");
        assert!(passes(&behind_a_proxy, "chat.example.com"));
    }

    /// A password-reset link built from a stranger's Host would lead to the stranger.
    #[test]
    fn listed_hosts_and_nothing_else() {
        let guard = hosts(
            &["Chat.example.com", "*.apps.example.com", "10.0.0.1", "[::1]:8443", "admin.example.com:8443"],
            false,
        )
        .expect("builds");
        for own in [
            "chat.EXAMPLE.com",
            "chat.example.com.",
            "chat.example.com:9999",
            "a.apps.example.com",
            "a.b.apps.example.com:1",
            "10.0.0.1",
            "[::1]:8443",
            "admin.example.com:8443",
        ] {
            assert!(passes(&guard, own), "{own}");
        }
        for foreign in [
            "example.com",
            "apps.example.com",
            "xapps.example.com",
            "chat.example.com.evil.com",
            "10.0.0.2",
            "[::1]",
            "admin.example.com",
            "localhost",
        ] {
            assert!(!passes(&guard, foreign), "{foreign}");
        }
    }

    /// A port on the list is met by the scheme's own port, which browsers leave out.
    #[test]
    fn the_default_port_follows_tls() {
        let guard = hosts(&["chat.example.com:443"], false).expect("builds");
        assert!(guard.check(&Request::new(Method::GET).over_tls().head()).is_ok());
        assert!(guard.check(&Request::new(Method::GET).head()).is_err());
    }

    /// Whatever is in Host ends up in links and logs, so nonsense is refused even where any host is served.
    #[test]
    fn injection_is_refused_everywhere() {
        let guard = hosts(&["*"], false).expect("builds");
        for bad in [
            "",
            "a b",
            "user@chat.example.com",
            "chat.example.com/x",
            "chat\\.example.com",
            "chat.example.com:0x50",
            "a,b",
            "<script>",
        ] {
            let refusal = guard.check(&Request::new(Method::GET).at(bad).head()).expect_err(bad);
            assert_eq!((refusal.reason, &*refusal.setting), (Reason::HostDenied, "hosts"), "{bad}");
            assert!(bad.is_empty() || !refusal.detail.contains(bad), "{bad}");
        }
    }

    /// An old health check sends no Host at all and must not take the gate out of rotation unasked.
    #[test]
    fn http_1_0_may_leave_it_out_where_no_list_is_set() {
        let mut request = Request::new(Method::GET);
        request.authority = None;
        let guard = |entries: &[&str]| hosts(entries, true).expect("builds");
        assert!(guard(&[]).check(&request.head()).is_err());
        request.version = Version::HTTP_10;
        assert!(guard(&[]).check(&request.head()).is_ok());
        assert!(guard(&["chat.example.com"]).check(&request.head()).is_err());
    }

    /// A typing error in the list would shut everyone out, or let everyone in.
    #[test]
    fn bad_entries_name_their_place() {
        for bad in
            ["https://chat.example.com", "chat.example.com/", "chat.*.com", "*.10.0.0.1", "*.", "", "::1"]
        {
            assert_eq!(hosts(&["*", bad], false).expect_err(bad).key, "hosts[1]", "{bad}");
        }
    }
}
