//! Who or what a limit counts: 128 bits and their kind.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{Context, SHA256};
use smallvec::SmallVec;

use crate::proxy::client::SubjectId;

/// What the bits of a [`Subject`] stand for. The same bits under two kinds are two subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One IPv4 address.
    AddressV4,
    /// One IPv6 /64, the smallest thing a provider hands to one customer.
    AddressV6,
    /// One IPv4 /24.
    NetworkV4,
    /// One IPv6 /48.
    NetworkV6,
    /// Key or bearer token.
    User,
    /// Session id.
    Session,
    /// Device id.
    Device,
    /// Host asked for.
    Tenant,
    /// Route of the config.
    Route,
    /// Value of a header field.
    Header,
    /// Several of these together.
    Combination,
    /// Everyone.
    Global,
    /// All for whom a full store has no room of their own.
    Rest,
    /// Something that requests name in their path or body: a playlist, a room.
    Resource,
    /// One call of one caller, to the letter.
    Call,
}

impl Kind {
    /// Each of them, by its code.
    pub(super) const ALL: [Self; 15] = [
        Self::AddressV4,
        Self::AddressV6,
        Self::NetworkV4,
        Self::NetworkV6,
        Self::User,
        Self::Session,
        Self::Device,
        Self::Tenant,
        Self::Route,
        Self::Header,
        Self::Combination,
        Self::Global,
        Self::Rest,
        Self::Resource,
        Self::Call,
    ];

    /// What stands for it wherever subjects are stored. No code may ever change its meaning: a new kind takes the next, and its place in `ALL`.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::AddressV4 => 0,
            Self::AddressV6 => 1,
            Self::NetworkV4 => 2,
            Self::NetworkV6 => 3,
            Self::User => 4,
            Self::Session => 5,
            Self::Device => 6,
            Self::Tenant => 7,
            Self::Route => 8,
            Self::Header => 9,
            Self::Combination => 10,
            Self::Global => 11,
            Self::Rest => 12,
            Self::Resource => 13,
            Self::Call => 14,
        }
    }

    /// The kind of this code.
    pub(super) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The stable word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddressV4 | Self::AddressV6 => "address",
            Self::NetworkV4 | Self::NetworkV6 => "network",
            Self::User => "user",
            Self::Session => "session",
            Self::Device => "device",
            Self::Tenant => "tenant",
            Self::Route => "route",
            Self::Header => "header",
            Self::Combination => "combination",
            Self::Global => "global",
            Self::Rest => "rest",
            Self::Resource => "resource",
            Self::Call => "call",
        }
    }
}

/// Who or what a draw counts against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    kind: Kind,
    bits: u128,
}

const SLASH_64: u128 = !0 << 64;
const SLASH_48: u128 = !0 << 80;
const SLASH_24: u128 = 0xffff_ff00;

impl Subject {
    /// All for whom a full store has no room of their own.
    pub(crate) const REST: Self = Self { kind: Kind::Rest, bits: 0 };

    /// One that was kept, from what its kind and bits were.
    pub(super) const fn of(kind: Kind, bits: u128) -> Self {
        Self { kind, bits }
    }

    /// A client's address: IPv4 (mapped addresses too) whole, IPv6 by its /64.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self { kind: Kind::AddressV4, bits: u128::from(v4.to_bits()) },
            IpAddr::V6(v6) => Self { kind: Kind::AddressV6, bits: v6.to_bits() & SLASH_64 },
        }
    }

    /// The holder of a key or bearer token.
    pub const fn user(id: SubjectId) -> Self {
        Self { kind: Kind::User, bits: id.0 }
    }

    /// A session.
    pub const fn session(id: SubjectId) -> Self {
        Self { kind: Kind::Session, bits: id.0 }
    }

    /// A device.
    pub const fn device(id: SubjectId) -> Self {
        Self { kind: Kind::Device, bits: id.0 }
    }

    /// A host asked for.
    pub const fn tenant(id: SubjectId) -> Self {
        Self { kind: Kind::Tenant, bits: id.0 }
    }

    /// A route of the config, by its name.
    pub fn route(name: &str) -> Self {
        Self::hashed(Kind::Route, [name.as_bytes()])
    }

    /// A header field of this value.
    pub fn header(name: &str, value: &[u8]) -> Self {
        Self::hashed(Kind::Header, [name.as_bytes(), value])
    }

    /// Something that is named `value` at `place`.
    pub fn resource(place: &str, value: &[u8]) -> Self {
        Self::hashed(Kind::Resource, [place.as_bytes(), value])
    }

    /// A call of a caller.
    pub const fn call(id: SubjectId) -> Self {
        Self { kind: Kind::Call, bits: id.0 }
    }

    /// Several subjects together, in this order.
    pub fn combined(parts: &[Self]) -> Self {
        let bits: SmallVec<[[u8; 17]; 4]> = parts
            .iter()
            .map(|part| {
                let mut bytes = [part.kind as u8; 17];
                bytes[1..].copy_from_slice(&part.bits.to_be_bytes());
                bytes
            })
            .collect();
        Self::hashed(Kind::Combination, bits.iter().map(|part| part.as_slice()))
    }

    /// Everyone together.
    pub const fn global() -> Self {
        Self { kind: Kind::Global, bits: 0 }
    }

    /// SHA-256, cut to 128 bits: nobody can choose a value that draws on another's counter, and replicas
    /// agree.
    fn hashed<'a>(kind: Kind, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let half = context.finish().as_ref().first_chunk().copied().unwrap_or_default();
        Self { kind, bits: u128::from_be_bytes(half) }
    }

    /// What the bits stand for.
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// The bits: an address (IPv4 in the low 32) or a digest.
    pub const fn bits(self) -> u128 {
        self.bits
    }

    /// It as bytes, the same for all gates: its kind's code, then its bits.
    pub(crate) fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [self.kind.code(); 17];
        bytes[1..].copy_from_slice(&self.bits.to_be_bytes());
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) was called on; `None` for any other bytes.
    pub(crate) fn from_bytes(bytes: [u8; 17]) -> Option<Self> {
        let (kind, bits) = bytes.split_first()?;
        Some(Self { kind: Kind::of_code(*kind)?, bits: u128::from_be_bytes(bits.try_into().ok()?) })
    }

    /// The next larger group that it can be counted with: an address's /24 or /48, for all others
    /// [`Kind::Rest`].
    pub(crate) const fn aggregate(self) -> Self {
        match self.kind {
            Kind::AddressV4 => Self { kind: Kind::NetworkV4, bits: self.bits & SLASH_24 },
            Kind::AddressV6 => Self { kind: Kind::NetworkV6, bits: self.bits & SLASH_48 },
            _ => Self::REST,
        }
    }

    /// What decides its shard. A network's addresses share one, so that a spray from one network crowds only
    /// that.
    pub(crate) const fn neighbourhood(self) -> Self {
        match self.kind {
            Kind::AddressV4 | Kind::AddressV6 => self.aggregate(),
            _ => self,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = || Ipv4Addr::from_bits(self.bits as u32);
        let v6 = || Ipv6Addr::from_bits(self.bits);
        match self.kind {
            Kind::AddressV4 => write!(f, "{}", v4()),
            Kind::AddressV6 => write!(f, "{}/64", v6()),
            Kind::NetworkV4 => write!(f, "{}/24", v4()),
            Kind::NetworkV6 => write!(f, "{}/48", v6()),
            Kind::Global | Kind::Rest => f.write_str(self.kind.name()),
            kind => write!(f, "{}:{}", kind.name(), SubjectId(self.bits)),
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Subject {
        Subject::address(text.parse().unwrap())
    }

    /// One customer with a /64 has 2^64 addresses: counted singly, no limit would hold.
    #[test]
    fn ipv6_counts_by_64_and_mapped_ipv4_as_ipv4() {
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.7"), address("192.0.2.7"));
    }

    /// Overflow must land on the client's own network, not on a stranger's.
    #[test]
    fn addresses_fold_into_their_network_then_into_the_rest() {
        let v4 = address("192.0.2.7").aggregate();
        assert_eq!(v4.to_string(), "192.0.2.0/24");
        assert_eq!(v4, address("192.0.2.200").aggregate());
        assert_eq!(address("2001:db8:1:2::1").aggregate().to_string(), "2001:db8:1::/48");
        assert_eq!(v4.aggregate(), Subject::REST);
        assert_eq!(Subject::user(SubjectId(7)).aggregate(), Subject::REST);
    }

    /// A user and a session with equal bits must not drain each other's limit.
    #[test]
    fn kinds_keep_equal_bits_apart_and_logs_show_no_whole_digest() {
        let (user, session) = (Subject::user(SubjectId(7)), Subject::session(SubjectId(7)));
        assert_ne!(user, session);
        assert_eq!(Subject::user(SubjectId(0xabcd << 64 | 7)).to_string(), "user:000000000000abcd");
    }

    /// A ban that another gate reads must be of the same subject, and no bytes may be taken for one that is none.
    #[test]
    fn bytes_and_back_is_the_same_subject() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            let subject = Subject { kind, bits: 0xabcd << 64 | 7 };
            assert_eq!(usize::from(subject.to_bytes()[0]), number);
            assert_eq!(kind as usize, number, "a kind is missing, or not at its place");
            assert_eq!(Subject::from_bytes(subject.to_bytes()), Some(subject));
        }
        assert_eq!(Subject::from_bytes([Kind::ALL.len() as u8; 17]), None);
    }

    /// Two values that run together must not share a counter, nor an order of subjects with another.
    #[test]
    fn hashed_subjects_differ_wherever_their_parts_do() {
        assert_ne!(Subject::header("ab", b"c"), Subject::header("a", b"bc"));
        assert_eq!(Subject::header("a", b"b"), Subject::header("a", b"b"));
        let (a, b) = (Subject::user(SubjectId(1)), Subject::device(SubjectId(1)));
        assert_ne!(Subject::combined(&[a, b]), Subject::combined(&[b, a]));
        assert_ne!(Subject::combined(&[a]), Subject::combined(&[b]));
    }
}
