//! Why a gate that serves is not well.

use std::borrow::Cow;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailment {
    /// Stable code.
    pub kind: AilmentKind,
    /// One sentence for people.
    pub detail: Cow<'static, str>,
}

macro_rules! ailments {
    ($($(#[$doc:meta])* $variant:ident = $code:literal;)*) => {
        /// What can be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AilmentKind { $($(#[$doc])* $variant,)* }

        impl AilmentKind {
            /// Each of them.
            pub const ALL: &'static [AilmentKind] = &[$(AilmentKind::$variant,)*];

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(AilmentKind::$variant => $code,)* }
            }
        }
    };
}

ailments! {
    /// The end has begun.
    Draining = "draining";
    /// The name of an upstream has no address.
    UpstreamUnresolved = "upstream_unresolved";
    /// Servers of an upstream are not well.
    UpstreamDegraded = "upstream_degraded";
    /// The keys of an issuer can't be fetched.
    IssuerUnavailable = "issuer_unavailable";
    /// The circuit breaker of an upstream is open.
    BreakerOpen = "breaker_open";
    /// The app is closed for maintenance.
    Maintenance = "maintenance";
    /// Connections to an upstream failed within the last minute.
    UpstreamUnreachable = "upstream_unreachable";
    /// Log lines were lost within the last minute.
    LogDropping = "log_dropping";
    /// The store fails, or did within the last minute.
    StoreFailing = "store_failing";
    /// The store that several gates share is away.
    StoreAway = "store_away";
    /// More than 80 % of the requests that may be in flight are.
    InFlightNearLimit = "in_flight_near_limit";
    /// More than 80 % of the streams that may be open are.
    StreamsNearLimit = "streams_near_limit";
    /// More than 80 % of the connections that may be open are.
    ConnectionsNearLimit = "connections_near_limit";
    /// More than 80 % of the memory for bodies is taken.
    BodyMemoryNearLimit = "body_memory_near_limit";
    /// More than 80 % of the admissions that may be open are.
    SettleQueueNearLimit = "settle_queue_near_limit";
}

impl Ailment {
    /// Something that is wrong, and how.
    pub fn new(kind: AilmentKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// `kind`, if more than 80 % of `max` of `what` are used.
    pub fn near(kind: AilmentKind, what: &str, used: u64, max: u64, setting: &str) -> Option<Self> {
        let near = u128::from(used) * 5 > u128::from(max) * 4;
        let set = if setting.is_empty() { String::new() } else { format!(" ({setting})") };
        near.then(|| Self::new(kind, format!("{used} of {max} {what} are taken{set}.")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told too late, nobody can act; told too early, nobody believes it.
    #[test]
    fn near_is_beyond_four_fifths() {
        let near = |used, max| {
            let kind = AilmentKind::ConnectionsNearLimit;
            Ailment::near(kind, "connections", used, max, "connections.max").map(|ailment| ailment.detail)
        };
        assert_eq!(near(80, 100), None);
        assert_eq!(near(81, 100).as_deref(), Some("81 of 100 connections are taken (connections.max)."));
        assert_eq!((near(0, 0), near(u64::MAX, u64::MAX).is_some()), (None, true));
    }
}
