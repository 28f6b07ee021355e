//! Upstreams for unit tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Balance, Failures, Identity, Patience, Resolver, Server, Settings, Timeouts, Trust, Upstream};
use crate::proxy::client::{Client, ClientClass};
use crate::state::{ManualClock, Timestamp};

/// Settings of an upstream with these servers.
pub fn settings(servers: &[&str]) -> Settings {
    let servers = servers.iter().map(|text| Server::parse(text).expect("a server")).collect();
    let trust = Trust { verify: true, ca: None };
    Settings {
        identity: Identity { servers, trust, server_name: None, resolver: Resolver::default() },
        balance: Balance::RoundRobin,
        patience: Patience { max_fails: 3, fail_timeout: Duration::from_secs(10) },
        check: None,
        timeouts: Timeouts { connect: Duration::from_secs(1), idle: Duration::from_secs(1) },
        failures: Failures::default(),
    }
}

/// An upstream with these servers, whose clock stands still.
pub fn upstream(servers: &[&str]) -> Arc<Upstream> {
    let clock = ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000)).clock();
    Arc::new(Upstream::build("app", settings(servers), clock).expect("an upstream"))
}

/// A client of no account.
pub fn client() -> Client {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Client {
        peer: SocketAddr::new(address, 1),
        trusted_peer: false,
        address,
        https: false,
        tenant: "".into(),
        user: None,
        session: None,
        device: None,
        class: ClientClass::Anonymous,
    }
}
