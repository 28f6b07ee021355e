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

    /// Takes the places that a request needs but for its user's; they are given back when the permits are dropped.
    pub fn enter(&self, inflight: &Arc<Inflight>, client: &Client) -> Result<Places, Refusal> {
        let Config { total, address, .. } = self.0;
        let from = Subject::address(client.address);
        let limited = Reason::ConcurrencyLimited;
        let everyone = Subject::global();
        Ok(Places {
            _total: place(inflight, everyone, total, Reason::Overloaded, "in total", "concurrency.total")?,
            _address: place(inflight, from, address, limited, "from one address", "concurrency.address")?,
            user: None,
        })
    }

    /// Takes the user's place, once it is known who that is.
    pub fn enter_user(
        &self,
        inflight: &Arc<Inflight>,
        client: &Client,
        places: &mut Places,
    ) -> Result<(), Refusal> {
        let limited = Reason::ConcurrencyLimited;
        if let Some(id) = client.user {
            let (whose, setting) = ("for one user", "concurrency.user");
            places.user = Some(place(inflight, Subject::user(id), self.0.user, limited, whose, setting)?);
        }
        Ok(())
    }
}

fn place(
    inflight: &Arc<Inflight>,
    subject: Subject,
    max: u32,
    reason: Reason,
    whose: &str,
    setting: &'static str,
) -> Result<Permit, Refusal> {
    inflight.try_acquire(subject, max).ok_or_else(|| {
        let detail = format!("{max} requests at once are allowed {whose}; wait for one to end.");
        Refusal::new(reason, detail, setting)
    })
}

/// The places of one request, until dropped.
#[derive(Debug)]
pub struct Places {
    _total: Permit,
    _address: Permit,
    user: Option<Permit>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::Request;
    use crate::proxy::client::SubjectId;

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

    /// A user with many slow requests from many addresses must not hold every place, either.
    #[test]
    fn users_have_places_too() {
        let guard = Concurrency::build(&Config { total: 9, address: 9, user: 1 }).expect("guard");
        let crowds = Arc::new(Inflight::new());
        let mut client = Request::new(http::Method::GET).client;
        let mut enter = |user: Option<u128>| {
            client.user = user.map(SubjectId);
            let mut places = guard.enter(&crowds, &client).expect("room for all");
            guard.enter_user(&crowds, &client, &mut places).map(|()| places)
        };
        let first = enter(Some(1)).expect("first");
        assert_eq!(enter(Some(1)).expect_err("second").reason, Reason::ConcurrencyLimited);
        assert!(enter(Some(2)).is_ok() && enter(None).is_ok());
        drop(first);
        enter(Some(1)).expect("a place came back");
    }
}
