//! Requests in flight (L7) and streams (X1): by address, by user, by session, and in total.
//!
//! A stream of events or a WebSocket lasts for as long as somebody looks at a page. Were it counted with the requests, a few
//! open pages would leave no place for what they ask; so streams have places of their own, and give the request's back.

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
    /// Streams of events and WebSockets, which count apart.
    pub streams: StreamsConfig,
}

/// Caps on streams, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamsConfig {
    /// In total, over all routes.
    pub total: u32,
    /// From one address (IPv6: one /64).
    pub address: u32,
    /// From one user.
    pub user: u32,
    /// From one session.
    pub session: u32,
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
            ("concurrency.streams.total", config.streams.total),
            ("concurrency.streams.address", config.streams.address),
            ("concurrency.streams.user", config.streams.user),
            ("concurrency.streams.session", config.streams.session),
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

    /// Streams that are allowed in total.
    pub fn streams_total(&self) -> u32 {
        self.0.streams.total
    }

    /// Takes the places that a request needs; they are given back when the permits are dropped.
    pub fn enter(&self, inflight: &Arc<Inflight>, client: &Client) -> Result<Places, Refusal> {
        let Config { total, address, user, .. } = self.0;
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
            _session: None,
        })
    }

    /// Takes the places that a stream needs among those that are open.
    pub fn enter_stream(&self, open: &Arc<Inflight>, client: &Client) -> Result<Places, Refusal> {
        let StreamsConfig { total, address, user, session } = self.0.streams;
        let place = |subject, max, reason, whose, setting: &'static str| {
            open.try_acquire(subject, max).ok_or_else(|| {
                let detail = format!("{max} streams at once are allowed {whose}; close one first.");
                Refusal::new(reason, detail, setting)
            })
        };
        let of = |subject, max, whose, setting| place(subject, max, Reason::StreamLimited, whose, setting);
        let total =
            place(Subject::global(), total, Reason::Overloaded, "in total", "concurrency.streams.total")?;
        let from = Subject::address(client.address);
        let address = of(from, address, "from one address", "concurrency.streams.address")?;
        let user =
            client.user.map(|id| of(Subject::user(id), user, "for one user", "concurrency.streams.user"));
        let session = client
            .session
            .map(|id| of(Subject::session(id), session, "in one session", "concurrency.streams.session"));
        let (user, session) = (user.transpose()?, session.transpose()?);
        Ok(Places { _total: total, _address: address, _user: user, _session: session })
    }
}

/// The places of one request or stream, until dropped.
#[derive(Debug)]
pub struct Places {
    _total: Permit,
    _address: Permit,
    _user: Option<Permit>,
    _session: Option<Permit>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::Request;
    use crate::proxy::client::SubjectId;

    const STREAMS: StreamsConfig = StreamsConfig { total: 9, address: 4, user: 3, session: 2 };

    /// One caller with many slow requests would otherwise hold every place there is; a place must come back.
    #[test]
    fn places_are_counted_and_given_back() {
        let guard =
            Concurrency::build(&Config { total: 3, address: 2, user: 1, streams: STREAMS }).expect("guard");
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

    /// One page that opens a stream with each reload would otherwise hold all there are, of one address or of a whole house.
    #[test]
    fn streams_are_counted_by_session_user_address_and_in_total() {
        let guard = Concurrency::build(&Config { total: 9, address: 9, user: 9, streams: STREAMS });
        let (guard, open) = (guard.expect("guard"), Arc::new(Inflight::new()));
        let client = |last, user, session| {
            let mut client = Request::new(http::Method::GET).client;
            client.address = [192, 0, 2, last].into();
            (client.user, client.session) = (Some(SubjectId(user)), Some(SubjectId(session)));
            client
        };
        let enter = |last, user, session| guard.enter_stream(&open, &client(last, user, session));
        let refused = |last, user, session| {
            let refusal = enter(last, user, session).expect_err("one too many");
            (refusal.reason, refusal.setting.into_owned())
        };
        let limited = |what: &str| (Reason::StreamLimited, format!("concurrency.streams.{what}"));
        let mut held = vec![enter(1, 1, 1).expect("first"), enter(1, 1, 1).expect("second")];
        assert_eq!(refused(1, 1, 1), limited("session"));
        held.push(enter(1, 1, 2).expect("another session"));
        assert_eq!(refused(1, 1, 3), limited("user"));
        held.push(enter(1, 2, 4).expect("another user"));
        assert_eq!(refused(1, 3, 5), limited("address"));
        held.extend((10..15).map(|n| enter(n, n.into(), n.into()).expect("another address")));
        assert_eq!(refused(20, 20, 20), (Reason::Overloaded, "concurrency.streams.total".to_owned()));
        held.clear();
        assert_eq!(open.subjects(), 0, "what was refused half-way keeps nothing");
    }
}
