//! Looks names of servers up, with their time to live.
//!
//! `/etc/hosts` is asked first, and alone if it knows the name; then the name servers of `/etc/resolv.conf`, or those that
//! the settings name. Nothing is kept between two questions, so a change of either file counts from the next one on.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// For one question to one name server; each is asked twice.
const PATIENCE: Duration = Duration::from_secs(2);

/// A name is asked for again no sooner, whatever its time to live; nor later, since `/etc/hosts` tells none.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers; none: those of `/etc/resolv.conf`.
    pub name_servers: Vec<SocketAddr>,
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Its addresses, in order, IPv4 first; at least one.
    pub addresses: Vec<IpAddr>,
    /// For how long they are good.
    pub time_to_live: Duration,
}

impl Resolver {
    /// Asks for the addresses of `name`.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn look_up(&self, name: &str) -> Result<Found, String> {
        let query: Name = name.parse().map_err(|error| format!("{name:?} is not a name: {error}"))?;
        if let Some(addresses) = in_hosts(&query) {
            return found(addresses, LATEST);
        }
        let asked = self.ask().map_err(|error| error.to_string())?.lookup_ip(query).await;
        let answer = asked.map_err(|error| error.to_string())?;
        let time_to_live = answer.valid_until().saturating_duration_since(Instant::now());
        found(answer.iter().collect(), time_to_live)
    }

    fn ask(&self) -> Result<TokioResolver, hickory_resolver::net::NetError> {
        let mut builder = if self.name_servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.name_servers.iter().map(|at| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = at.port();
                    connection
                });
                NameServerConfig::new(at.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = 1;
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    }
}

/// What `/etc/hosts` says: both families, since the resolver would ask the network for the one that is not there.
fn in_hosts(name: &Name) -> Option<Vec<IpAddr>> {
    let hosts = Hosts::from_system().ok()?;
    let both = [RecordType::A, RecordType::AAAA].into_iter();
    let found = both.filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
    let addresses: Vec<_> =
        found.flat_map(|f| f.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>()).collect();
    (!addresses.is_empty()).then_some(addresses)
}

fn found(mut addresses: Vec<IpAddr>, time_to_live: Duration) -> Result<Found, String> {
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    addresses.sort();
    addresses.dedup();
    Ok(Found { addresses, time_to_live: time_to_live.clamp(SOONEST, LATEST) })
}
