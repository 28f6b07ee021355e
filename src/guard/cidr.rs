//! Lets in by network: allow and deny lists of client addresses (E5).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Fault, Head, Reason, Refusal, Verdict};

/// Which client addresses are served, as written: networks (`10.0.0.0/8`, `2001:db8::/32`) or single addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Only these are served; empty: all.
    pub allow: Vec<String>,
    /// These are not, even if `allow` names them.
    pub deny: Vec<String>,
}

/// The guard, as run.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    allow: Option<Networks>,
    deny: Networks,
}

impl Addresses {
    /// Builds the guard.
    ///
    /// # Errors
    /// An entry that is no network.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let allow = (!config.allow.is_empty())
            .then(|| Networks::build("addresses.allow", &config.allow))
            .transpose()?;
        Ok(Self { allow, deny: Networks::build("addresses.deny", &config.deny)? })
    }

    /// Refuses a client whose address is denied or not allowed.
    pub fn check(&self, head: &Head<'_>) -> Verdict {
        let address = head.client.address;
        let (detail, setting) = if self.deny.contains(address) {
            ("The client's address is on the list of those that are not served.", "addresses.deny")
        } else if self.allow.as_ref().is_some_and(|allow| !allow.contains(address)) {
            ("The client's address is not on the list of those that are served.", "addresses.allow")
        } else {
            return Ok(());
        };
        Err(Refusal::new(Reason::AddressDenied, detail, setting))
    }
}

/// A set of addresses, as ranges that neither overlap nor touch: a look-up is one binary search, however many
/// networks were listed. IPv4 written as IPv6 (`::ffff:0:0/96`) is IPv4, in the set and in the question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// Reads a list of networks; `key` is where it stands in the config.
    ///
    /// # Errors
    /// An entry that is no network, or whose address has bits beyond its prefix.
    pub fn build(key: &'static str, entries: &[String]) -> Result<Self, Fault> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            match parse(entry).map_err(|message| Fault::new(format!("{key}[{index}]"), message))? {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Ok(Self { v4: merge(v4, |end| end.checked_add(1)), v6: merge(v6, |end| end.checked_add(1)) })
    }

    /// Whether `address` is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => within(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => within(&self.v6, u128::from(v6)),
        }
    }
}

fn parse(entry: &str) -> Result<IpNet, String> {
    let net: IpNet = match entry.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => entry.parse().map_err(|_| {
            "is not a network: write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7".to_owned()
        })?,
    };
    if net.trunc() != net {
        return Err(format!(
            "has bits beyond its prefix: write {} or {}",
            net.trunc(),
            IpNet::from(net.addr())
        ));
    }
    Ok(unmapped(net))
}

/// A network within `::ffff:0:0/96` as the IPv4 network that it is.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(net, IpNet::V4)
}

fn merge<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            // `None`: the last range reaches the end of the address space.
            Some(last) if next(last.1).is_none_or(|free| start <= free) => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged.into()
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(start, _)| *start <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, end)| address <= *end)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::super::testing::Request;
    use super::*;

    fn owned(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|e| (*e).to_owned()).collect()
    }

    fn setting(allow: &[&str], deny: &[&str], address: &str) -> Option<String> {
        let guard = Addresses::build(&Config { allow: owned(allow), deny: owned(deny) }).expect("builds");
        let mut request = Request::new(Method::GET);
        request.client.address = address.parse().expect("an address");
        let refusal = guard.check(&request.head()).err()?;
        assert_eq!(refusal.reason, Reason::AddressDenied);
        Some(refusal.setting.into_owned())
    }

    /// An operator who opens an internal tool to one network expects it closed to the rest.
    #[test]
    fn deny_wins_over_allow() {
        let (allow, deny) = (&["10.0.0.0/8", "2001:db8::/32"][..], &["10.1.0.0/16"][..]);
        assert_eq!(setting(allow, deny, "10.2.0.1"), None);
        assert_eq!(setting(allow, deny, "2001:db8::1"), None);
        assert_eq!(setting(allow, deny, "10.1.0.1").as_deref(), Some("addresses.deny"));
        assert_eq!(setting(allow, deny, "192.0.2.1").as_deref(), Some("addresses.allow"));
        assert_eq!(setting(allow, deny, "2001:db9::1").as_deref(), Some("addresses.allow"));
    }

    /// The unconfigured gate serves everyone.
    #[test]
    fn without_lists_all_pass() {
        assert_eq!(setting(&[], &[], "192.0.2.1"), None);
        assert_eq!(setting(&[], &["198.51.100.0/24"], "::1"), None);
    }

    /// A banned IPv4 client must not come back through a dual-stack socket's spelling of its address.
    #[test]
    fn mapped_addresses_are_ipv4() {
        assert!(setting(&[], &["198.51.100.0/24"], "::ffff:198.51.100.9").is_some());
        assert!(setting(&[], &["::ffff:198.51.100.0/120"], "198.51.100.9").is_some());
        assert!(setting(&[], &["::ffff:198.51.100.9"], "198.51.100.9").is_some());
        assert!(setting(&[], &["::/0"], "198.51.100.9").is_none());
        assert!(setting(&[], &["0.0.0.0/0"], "255.255.255.255").is_some());
    }

    /// A list that means something else than it says is an open door or a closed one.
    #[test]
    fn bad_entries_name_their_place() {
        for bad in ["10.0.0.0/33", "10.0.0", "example.com", "10.0.0.1/8", "2001:db8::1/32", ""] {
            let fault = Networks::build("addresses.deny", &owned(&["10.0.0.0/8", bad])).expect_err(bad);
            assert_eq!(fault.key, "addresses.deny[1]", "{bad}");
        }
        let fault = Networks::build("addresses.deny", &owned(&["10.0.0.1/8"])).expect_err("host bits");
        assert!(fault.message.contains("10.0.0.0/8") && fault.message.contains("10.0.0.1/32"), "{fault}");
    }

    proptest! {
        /// Merging is only right if it answers as each network by itself would.
        #[test]
        fn answers_as_the_networks_do(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32, any::<u128>(), 0u8..=128), 0..12),
            probes in prop::collection::vec((any::<u32>(), any::<u128>()), 1..20),
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .flat_map(|(a, p, b, q)| {
                    let v4 = IpNet::new(IpAddr::from(a.to_be_bytes()), p).expect("a prefix").trunc();
                    let v6 = IpNet::new(IpAddr::from(b.to_be_bytes()), q).expect("a prefix").trunc();
                    [v4, v6]
                })
                .filter(|net| !net.to_string().starts_with("::"))
                .collect();
            let entries: Vec<String> = nets.iter().map(ToString::to_string).collect();
            let set = Networks::build("x", &entries).expect("valid networks");
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            let random = probes.iter().flat_map(|(a, b)| [IpAddr::from(a.to_be_bytes()), IpAddr::from(b.to_be_bytes())]);
            for address in edges.chain(random) {
                prop_assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address.to_canonical())));
            }
        }
    }
}
