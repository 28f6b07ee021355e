//! Requests in flight (L7): by address, by user, and in total.

use std::sync::Arc;

use serde::Deserialize;

use super::{Fault, Reason, Refusal};
use crate::proxy::client::Client;
use crate::state::Subject;
use crate::state::inflight::{Inflight, Permit};

/// Caps, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// In total, over all routes.
    pub total: u32,
    /// From one address (IPv6: one /64).
    pub address: u32,
    /// From one user.
    pub user: u32,
}

/// Caps, as run.
#[derive(Clone, Debug)]
pub struct Concurrency(Config);

impl Concurrency {
    /// Builds the guard.
    ///
    /// # Errors
    /// A cap of zero.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let caps = [
            ("concurrency.total", config.total),
            ("concurrency.address", config.address),
            ("concurrency.user", config.user),
        ];
        match caps.iter().find(|(_, cap)| *cap == 0) {
            Some((key, _)) => Err(Fault::new(*key, "must be more than 0")),
            None => Ok(Self(config.clone())),
        }
    }

    /// Requests in flight that are allowed in total.
    pub fn total(&self) -> u32 {
        self.0.total
    }

    /// Takes the places that a request needs; they are given back when the permits are dropped.
    pub fn enter(&self, inflight: &Arc<Inflight>, client: &Client) -> Result<Places, Refusal> {
        let Config { total, address, user } = self.0;
        let place = |subject, max, reason, whose, setting: &'static str| {
            inflight.try_acquire(subject, max).ok_or_else(|| {
                let detail = format!("{max} requests at once are allowed {whose}; wait for one to end.");
                Refusal::new(reason, detail, setting)
            })
        };
        let limited = Reason::ConcurrencyLimited;
        let from = Subject::address(client.address);
        Ok(Places {
            _total: place(Subject::global(), total, Reason::Overloaded, "in total", "concurrency.total")?,
            _address: place(from, address, limited, "from one address", "concurrency.address")?,
            _user: match client.user {
                Some(id) => {
                    Some(place(Subject::user(id), user, limited, "for one user", "concurrency.user")?)
                }
                None => None,
            },
        })
    }
}

/// The places of one request, until dropped.
#[derive(Debug)]
pub struct Places {
    _total: Permit,
    _address: Permit,
    _user: Option<Permit>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::Request;

    /// One caller with many slow requests would otherwise hold every place there is; a place must come back.
    #[test]
    fn places_are_counted_and_given_back() {
        let guard = Concurrency::build(&Config { total: 3, address: 2, user: 1 }).expect("guard");
        let crowds = Arc::new(Inflight::new());
        let client = |last| {
            let mut client = Request::new(http::Method::GET).client;
            client.address = [192, 0, 2, last].into();
            client
        };
        let (a, b, c) = (client(1), client(2), client(3));
        let first = guard.enter(&crowds, &a).expect("first");
        let _second = guard.enter(&crowds, &a).expect("second");
        assert_eq!(guard.enter(&crowds, &a).expect_err("third").reason, Reason::ConcurrencyLimited);
        let _other = guard.enter(&crowds, &b).expect("other");
        assert_eq!(guard.enter(&crowds, &c).expect_err("total").reason, Reason::Overloaded);
        drop(first);
        guard.enter(&crowds, &c).expect("a place came back");
    }
}
