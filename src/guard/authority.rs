//! Host and port as they stand in `Host`, `:authority`, `Origin` and `Referer` (RFC 3986 §3.2), read strictly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host with the port that was written beside it.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port, if one was written.
    pub port: Option<u16>,
}

/// A host: a name or an address.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    /// A name as received, without the root's dot at its end.
    Name(&'a str),
    /// An address; IPv4 in IPv6 clothes is IPv4.
    Address(IpAddr),
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. `None` for all that RFC 3986 allows but DNS doesn't
    /// (user names, percent-encoding, `!$&'()*+,;=`), for empty or impossible ports, and for zone ids.
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']')?;
            let address: Ipv6Addr = inside.parse().ok()?;
            let port = match after.strip_prefix(':') {
                Some(digits) => Some(port(digits)?),
                None if after.is_empty() => None,
                None => return None,
            };
            return Some(Self { host: Host::Address(IpAddr::V6(address).to_canonical()), port });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, digits)) => (name, Some(port(digits)?)),
            None => (text, None),
        };
        Some(Self { host: Host::parse(name)?, port })
    }
}

impl<'a> Host<'a> {
    /// Reads a name or a dotted IPv4 address. A name whose last label is a number is no name: browsers would read
    /// `127.1` or `0x7f.1` as an address (WHATWG URL, "ends in a number"), and so might whatever stands behind.
    fn parse(text: &'a str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > 253 {
            return None;
        }
        let mut label = 0;
        for byte in name.bytes() {
            match byte {
                b'.' if label > 0 => label = 0,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
                _ => return None,
            }
        }
        let last = name.get(name.len() - label..).unwrap_or_default();
        if last.is_empty() {
            return None;
        }
        if is_number(last) {
            return name.parse::<Ipv4Addr>().ok().map(|v4| Host::Address(IpAddr::V4(v4)));
        }
        Some(Host::Name(name))
    }

    /// Whether this name ends in `suffix`, which starts with a dot: a name never does, so it is longer.
    pub fn ends_with(&self, suffix: &str) -> bool {
        let Host::Name(name) = self else { return false };
        let Some(at) = name.len().checked_sub(suffix.len()) else { return false };
        name.as_bytes().get(at..).is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
    }

    /// Whether only this machine can be meant: `localhost` and names below it (RFC 6761 §6.3), or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Host::Name(name) => name.eq_ignore_ascii_case("localhost") || self.ends_with(".localhost"),
            Host::Address(address) => address.is_loopback(),
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::Address(a), Host::Address(b)) => a == b,
            _ => false,
        }
    }
}

fn port(digits: &str) -> Option<u16> {
    if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port > 0)
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An app must be reachable by each form of its own name.
    #[test]
    fn reads_names_addresses_and_ports() {
        for (text, host, port) in [
            ("example.com", Host::Name("EXAMPLE.com"), None),
            ("example.com.:8443", Host::Name("example.com"), Some(8443)),
            ("my_app-1", Host::Name("my_app-1"), None),
            ("10.0.0.1:80", Host::Address(Ipv4Addr::new(10, 0, 0, 1).into()), Some(80)),
            ("[::1]:65535", Host::Address(Ipv6Addr::LOCALHOST.into()), Some(65535)),
            ("[::ffff:127.0.0.1]", Host::Address(Ipv4Addr::LOCALHOST.into()), None),
        ] {
            let read = Authority::parse(text).unwrap_or_else(|| panic!("{text} was refused"));
            assert_eq!((read.host, read.port), (host, port), "{text}");
        }
    }

    /// A host that two parsers read differently gets past an allowlist, into links, logs and cache keys.
    #[test]
    fn refuses_what_is_no_host() {
        let long_label = "a".repeat(64);
        let long_name = "abc.".repeat(64) + "com";
        for text in [
            "",
            ".",
            ":80",
            "a b",
            "a\tb",
            "a\u{0}",
            "a/b",
            "a\\b",
            "user@host",
            "a?b",
            "a#b",
            "a%41",
            "a'b",
            "a,b",
            "a..b",
            ".a",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a:8o",
            "::1",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[::1%25eth0]",
            "[fe80::1%eth0]",
            "[127.0.0.1]",
            "127.1",
            "0x7f.0.0.1",
            "0x7f.1",
            "2130706433",
            "1.2.3.4.5",
            "127.0.0.01",
            "127.0.0.256",
            "exämple.com",
            "localhost..",
            &long_label,
            &long_name,
        ] {
            assert!(Authority::parse(text).is_none(), "{text:?} passed");
        }
    }

    /// Without the whole-label rule, evil-example.com would be a part of example.com.
    #[test]
    fn suffixes_are_whole_labels() {
        let name = |text| Authority::parse(text).expect("a valid name").host;
        assert!(name("a.example.com").ends_with(".example.com"));
        assert!(name("b.A.Example.COM.").ends_with(".example.com"));
        for foreign in ["example.com", "evil-example.com", "a.example.com.evil.com", "com", "10.0.0.1"] {
            assert!(!name(foreign).ends_with(".example.com"), "{foreign}");
        }
    }

    /// A DNS-rebinding page would call itself something that sounds local.
    #[test]
    fn loopback_is_only_loopback() {
        let loopback = |text| Authority::parse(text).expect("a valid host").host.is_loopback();
        for local in [
            "localhost",
            "LOCALHOST.",
            "app.localhost",
            "127.0.0.1",
            "127.255.0.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(loopback(local), "{local}");
        }
        for foreign in
            ["localhost.evil.com", "notlocalhost", "127.0.0.1.nip.io", "0.0.0.0", "[::]", "10.0.0.1"]
        {
            assert!(!loopback(foreign), "{foreign}");
        }
    }

    proptest! {
        /// A request with a strange host must cost a refusal, never a panic.
        #[test]
        fn never_panics(text in "\\PC{0,80}") {
            if let Some(read) = Authority::parse(&text) {
                prop_assert!(text.is_ascii() && !text.contains(['@', '/', '\\', '%', ' ']));
                let _ = read.host.ends_with(".é");
            }
        }
    }
}
