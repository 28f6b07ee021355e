//! The living part of an upstream: its servers, their addresses as they are now, their connections and their health. It
//! outlives a reload that leaves the servers and the trust in them as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::dns::Resolver;
use super::endpoint::{Address, Endpoint, Member};
use super::server::{BadUpstream, Place, Server};
use super::tender::Turns;
use super::tls::{Tls, Trust};

/// A name that could not be looked up is asked for again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// Which servers, and whom to believe: what makes two fleets the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In the order written, at least one.
    pub servers: Vec<Server>,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Name in their certificates, if it is not their host's.
    pub server_name: Option<Box<str>>,
    /// Who is asked for their names.
    pub resolver: Resolver,
}

/// All servers of an upstream.
pub struct Fleet {
    pub(super) identity: Identity,
    pub(super) members: Vec<Arc<Member>>,
    /// All addresses of all servers that are known now, in the order of the servers.
    pub(super) endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Counts requests, to give each server its turn.
    pub(super) turn: AtomicUsize,
    /// Who keeps it up to date.
    pub(super) turns: Turns,
}

impl Fleet {
    /// Without a name looked up yet.
    ///
    /// # Errors
    /// What is wrong with a server or with what its certificate is to be verified by.
    pub fn build(identity: Identity) -> Result<Self, BadUpstream> {
        let mut members = Vec::with_capacity(identity.servers.len());
        for server in &identity.servers {
            let tls = if server.tls {
                let given = identity.server_name.as_deref();
                let name = given.map_or_else(|| server.host_name(), str::to_owned);
                Some(Tls::build(&identity.trust, &name).map_err(BadUpstream)?)
            } else {
                None
            };
            let lost = AtomicBool::new(false);
            members.push(Arc::new(Member { server: server.clone(), tls, lost }));
        }
        let fixed = |member: &Arc<Member>| {
            let address = match &member.server.place {
                Place::Address(address) => Address::Inet(*address),
                Place::Unix(path) => Address::Unix(path.clone()),
                Place::Name(..) => return None,
            };
            Some(Arc::new(Endpoint::new(member.clone(), address, false)))
        };
        let endpoints = ArcSwap::from_pointee(members.iter().filter_map(fixed).collect());
        Ok(Self { identity, members, endpoints, turn: AtomicUsize::new(0), turns: Turns::default() })
    }

    /// Looks a server's name up; keeps the last good answer if there is none now. When to ask again; `None`: the server
    /// goes by no name.
    pub(super) async fn look_up(&self, upstream: &str, member: &Arc<Member>) -> Option<Duration> {
        let Place::Name(name, port) = &member.server.place else { return None };
        Some(match self.identity.resolver.look_up(name).await {
            Ok(found) => {
                if member.lost.swap(false, Ordering::Relaxed) {
                    info!(upstream, server = %member.server.name, "the server's name can be looked up again");
                }
                self.endpoints.rcu(|known| {
                    let of = |each: &Arc<Member>| -> Vec<Arc<Endpoint>> {
                        if Arc::ptr_eq(each, member) {
                            return Endpoint::of_name(member, *port, &found.addresses, known);
                        }
                        known.iter().filter(|e| Arc::ptr_eq(&e.server, each)).cloned().collect()
                    };
                    self.members.iter().flat_map(of).collect::<Vec<_>>()
                });
                found.time_to_live
            }
            Err(why) => {
                if !member.lost.swap(true, Ordering::Relaxed) {
                    let kept = self.endpoints.load().iter().any(|e| Arc::ptr_eq(&e.server, member));
                    let note = if kept { "its last addresses stay in use" } else { "it has no address yet" };
                    warn!(upstream, server = %member.server.name, why, "the server's name can't be looked up; {note}");
                }
                AGAIN
            }
        })
    }
}
