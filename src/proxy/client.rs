//! Who is asking, decided once: address, tenant, user, session, device. No other code looks at a forwarding header.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aws_lc_rs::{digest, rand};
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use ipnet::IpNet;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::observe::redact::KeyNames;
use crate::state::{Kind, Subject};

/// A keyed 128-bit digest that stands for a user, session, device or tenant wherever one is counted or logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubjectId(pub u128);

impl SubjectId {
    /// The first 64 bits in hex: enough to tell subjects apart in a log, useless to get back to a key.
    pub fn shown(&self) -> [u8; 16] {
        std::array::from_fn(|at| {
            let nibble = (self.0 >> (124 - 4 * at)) as u8 & 15;
            if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
        })
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.shown()).unwrap_or_default())
    }
}

impl fmt::Debug for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectId({self})")
    }
}

/// Which class of caller this is (L6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ClientClass {
    /// No key and no bearer token.
    Anonymous,
    /// A key or bearer token was presented; nobody here has verified it.
    Keyed,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Client {
    /// The other end of the socket (or of the PROXY header).
    pub peer: SocketAddr,
    /// Whether the peer is a proxy whose word on the client is taken.
    pub trusted_peer: bool,
    /// The client's address: the peer, or what trusted proxies say.
    pub address: IpAddr,
    /// Whether the request came over TLS, here or at a trusted proxy.
    pub https: bool,
    /// Host name asked for, lower case, without port; empty if none was given.
    pub tenant: Box<str>,
    /// Digest of the key or bearer token presented.
    pub user: Option<SubjectId>,
    /// Digest of the session id presented.
    pub session: Option<SubjectId>,
    /// Digest of the device id presented.
    pub device: Option<SubjectId>,
    /// Class of caller.
    pub class: ClientClass,
}

/// How a client is recognised, as run.
pub struct ClientRules {
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Header fields that carry an API key, besides `Authorization`.
    pub key_headers: Vec<HeaderName>,
    /// Query parameters that carry an API key.
    pub key_parameters: Vec<Box<str>>,
    /// Cookies that carry a session id; the first one present counts.
    pub session_cookies: Vec<Box<str>>,
    /// Header fields that carry a session id.
    pub session_headers: Vec<HeaderName>,
    /// Header field that carries a device id.
    pub device_header: HeaderName,
    /// Key of all digests.
    pub secret: DigestKey,
}

/// Keys the digests of users, sessions, devices and tenants: SipHash-2-4 with 128 bits, a keyed pseudo-random function
/// (Aumasson and Bernstein, 2012) that costs a tenth of HMAC-SHA-256. Without the key nobody gets from a digest to what
/// it stands for, not even by trying all keys of a small set.
#[derive(Clone)]
pub struct DigestKey {
    hasher: SipHasher24,
    made: bool,
}

impl DigestKey {
    /// Derives the key from a secret of any length.
    pub fn new(secret: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, secret);
        let mut key = [0u8; 16];
        key.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Self { hasher: SipHasher24::new_with_key(&key), made: false }
    }

    /// A key that nobody knows; `None` if the system has no randomness.
    pub fn make() -> Option<Self> {
        let mut bytes = [0u8; 32];
        rand::fill(&mut bytes).ok()?;
        Some(Self { made: true, ..Self::new(&bytes) })
    }

    /// Whether it was made here rather than derived from a secret.
    pub fn is_made(&self) -> bool {
        self.made
    }
}

/// What the request says about its client, before anything is believed.
pub struct Claims<'a> {
    /// The socket's other end.
    pub peer: SocketAddr,
    /// Whether the socket itself is TLS.
    pub tls: bool,
    /// `Host` or `:authority`.
    pub authority: Option<&'a str>,
    /// Query string.
    pub query: Option<&'a str>,
    /// Header fields.
    pub headers: &'a HeaderMap,
}

/// Tells IPv4 addresses in IPv6 clothes for what they are.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl ClientRules {
    /// Decides who is asking.
    pub fn decide(&self, claims: &Claims<'_>) -> Client {
        let peer = claims.peer;
        let trusted_peer = self.trusts(peer.ip());
        let address = if trusted_peer { self.forwarded_for(claims) } else { canonical(peer.ip()) };
        let https = claims.tls
            || (trusted_peer
                && last_value(claims.headers, "x-forwarded-proto")
                    .is_some_and(|v| v.eq_ignore_ascii_case("https")));
        let user = self.key(claims).map(|key| self.digest(Kind::User, key));
        let session =
            self.session_token(claims).map(|token| self.bound_session(token.as_bytes(), user, address));
        let device = claims
            .headers
            .get(&self.device_header)
            .filter(|v| !v.is_empty())
            .map(|v| self.digest(Kind::Device, v.as_bytes()));
        let class = if user.is_some() { ClientClass::Keyed } else { ClientClass::Anonymous };
        let tenant = claims.authority.map(host_name).unwrap_or_default();
        Client { peer, trusted_peer, address, https, tenant, user, session, device, class }
    }

    /// The parameters that carry keys, for the logs.
    pub fn key_names(&self) -> KeyNames<'_> {
        KeyNames::of(&self.key_parameters)
    }

    /// Sets the session named in the body, where neither cookie nor header named one.
    pub fn session_from_body(&self, client: &mut Client, token: &str) {
        if client.session.is_none() && !token.is_empty() {
            client.session = Some(self.bound_session(token.as_bytes(), client.user, client.address));
        }
    }

    /// Digest that stands for a tenant.
    pub fn tenant_id(&self, tenant: &str) -> SubjectId {
        self.digest(Kind::Tenant, tenant.as_bytes())
    }

    /// Whether an address is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    /// Whether what is counted as one with `address`, of IPv6 its /64, holds a trusted proxy.
    pub fn trusts_some_of(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        let one = match address {
            IpAddr::V4(v4) => IpNet::from(IpAddr::V4(v4)),
            IpAddr::V6(v6) => ipnet::Ipv6Net::new_assert(v6, 64).trunc().into(),
        };
        self.trusted_proxies.iter().any(|net| net.contains(&one) || one.contains(net))
    }

    /// Right to left through `X-Forwarded-For`: the first address that is not a trusted proxy of ours. An entry
    /// that is no address ends the walk, since all left of it is anybody's word.
    fn forwarded_for(&self, claims: &Claims<'_>) -> IpAddr {
        let mut address = canonical(claims.peer.ip());
        for value in claims.headers.get_all("x-forwarded-for").iter().rev() {
            for entry in value.to_str().unwrap_or_default().rsplit(',') {
                let Some(next) = parse_address(entry) else { return address };
                address = next;
                if !self.trusts(address) {
                    return address;
                }
            }
        }
        address
    }

    fn key<'a>(&self, claims: &Claims<'a>) -> Option<&'a [u8]> {
        let authorization = claims.headers.get(AUTHORIZATION).map(|v| v.as_bytes());
        let from_headers = || {
            let present = |name| claims.headers.get(name).map(|v: &http::HeaderValue| v.as_bytes());
            self.key_headers.iter().find_map(present)
        };
        let credentials = authorization.map(credentials_of).filter(|c| !c.is_empty()).or_else(from_headers);
        let from_query = || {
            let pairs = claims.query?.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(name, _)| self.key_parameters.iter().any(|k| **k == **name))
                .map(|(_, value)| value.as_bytes())
                .next()
        };
        credentials.or_else(from_query).filter(|key| !key.is_empty())
    }

    fn session_token<'a>(&self, claims: &Claims<'a>) -> Option<&'a str> {
        let header = |name: &HeaderName| claims.headers.get(name)?.to_str().ok();
        self.session_headers
            .iter()
            .find_map(header)
            .or_else(|| self.session_cookies.iter().find_map(|name| cookie_value(claims.headers, name)))
            .filter(|token| !token.is_empty())
    }

    /// Anyone can make up an unsigned session id, so it counts only together with its user or address.
    fn bound_session(&self, token: &[u8], user: Option<SubjectId>, address: IpAddr) -> SubjectId {
        let owner = user.map_or_else(|| Subject::address(address).bits(), |user| user.0);
        let mut hasher = self.hasher(Kind::Session);
        hasher.write_u128(owner);
        hasher.write(token);
        SubjectId(hasher.finish128().as_u128())
    }

    /// Begins a digest of something else, told apart by `domain`, which begins with a letter.
    pub fn keyed(&self, domain: &[u8]) -> SipHasher24 {
        let mut hasher = self.secret.hasher;
        hasher.write(domain);
        hasher
    }

    /// Begins a digest; the same text as another kind has another digest.
    fn hasher(&self, kind: Kind) -> SipHasher24 {
        let mut hasher = self.secret.hasher;
        hasher.write_u8(kind as u8);
        hasher
    }

    fn digest(&self, kind: Kind, text: &[u8]) -> SubjectId {
        let mut hasher = self.hasher(kind);
        hasher.write(text);
        SubjectId(hasher.finish128().as_u128())
    }
}

/// The credentials in an `Authorization` value: what follows the scheme, so that `Bearer k` and `bearer  k` are one.
fn credentials_of(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    match value.iter().position(|b| *b == b' ') {
        Some(space) => value[space..].trim_ascii(),
        None => value,
    }
}

/// Host name of an authority: without port and user information, lower case.
fn host_name(authority: &str) -> Box<str> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host.trim_end_matches('.').to_ascii_lowercase().into_boxed_str()
}

fn last_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim)
}

/// An `X-Forwarded-For` entry: an address, or an address with a port.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|e| e.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|a| a.ip()))?;
    (address != IpAddr::V4(Ipv4Addr::UNSPECIFIED)).then(|| canonical(address))
}

fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ClientRules {
        ClientRules {
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("net"), "fd00::/8".parse().expect("net")],
            key_headers: vec![HeaderName::from_static("x-api-key")],
            key_parameters: vec!["key".into()],
            session_cookies: vec!["session_id".into()],
            session_headers: vec![HeaderName::from_static("x-session-id")],
            device_header: HeaderName::from_static("x-device-id"),
            secret: DigestKey::new(b"test"),
        }
    }

    fn client(peer: &str, fields: &[(&'static str, &str)]) -> Client {
        client_with_query(peer, fields, None)
    }

    fn client_with_query(peer: &str, fields: &[(&'static str, &str)], query: Option<&str>) -> Client {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        let peer = peer.parse().expect("peer");
        let claims =
            Claims { peer, tls: false, authority: Some("Chat.Example:443"), query, headers: &headers };
        rules().decide(&claims)
    }

    /// Anyone could dodge an address limit by sending the header themselves.
    #[test]
    fn strangers_do_not_choose_their_address() {
        let c =
            client("192.0.2.1:5000", &[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")]);
        assert_eq!(c.address, "192.0.2.1".parse::<IpAddr>().expect("ip"));
        assert!(!c.https);
    }

    /// The leftmost entry is the client's own word; only what our proxies appended counts.
    #[test]
    fn trusted_chain_is_read_right_to_left() {
        let c = client(
            "10.0.0.1:1",
            &[
                ("x-forwarded-for", "1.1.1.1, 198.51.100.7"),
                ("x-forwarded-for", "10.9.9.9"),
                ("x-forwarded-proto", "https"),
            ],
        );
        assert_eq!(c.address, "198.51.100.7".parse::<IpAddr>().expect("ip"));
        assert!(c.https);
        let c = client("10.0.0.1:1", &[("x-forwarded-for", "1.1.1.1, unknown")]);
        assert_eq!(c.address, "10.0.0.1".parse::<IpAddr>().expect("ip"));
        let c = client("10.0.0.1:1", &[("x-forwarded-for", "[2001:db8::1]:443")]);
        assert_eq!(c.address, "2001:db8::1".parse::<IpAddr>().expect("ip"));
        let c = client("[::ffff:10.0.0.1]:1", &[("x-forwarded-for", "::ffff:198.51.100.7")]);
        assert_eq!(c.address, "198.51.100.7".parse::<IpAddr>().expect("ip"));
    }

    /// One key is one user, however it is spelled; another key is another.
    #[test]
    fn keys_become_users() {
        let bearer = client("192.0.2.1:1", &[("authorization", "Bearer k1")]).user;
        assert!(bearer.is_some());
        assert_eq!(bearer, client("192.0.2.9:1", &[("authorization", "bearer  k1 ")]).user);
        assert_eq!(bearer, client("192.0.2.1:1", &[("x-api-key", "k1")]).user);
        assert_eq!(bearer, client_with_query("192.0.2.1:1", &[], Some("alt=sse&key=k1")).user);
        assert_ne!(bearer, client("192.0.2.1:1", &[("x-api-key", "k2")]).user);
        assert_eq!(client("192.0.2.1:1", &[("authorization", "")]).class, ClientClass::Anonymous);
    }

    /// A made-up session id must not let two strangers share, or one stranger exhaust, a session's limit.
    #[test]
    fn sessions_belong_to_their_owner() {
        let a = client("192.0.2.1:1", &[("cookie", "x=1; session_id=s1")]).session;
        assert!(a.is_some());
        assert_eq!(a, client("192.0.2.1:2", &[("x-session-id", "s1")]).session);
        assert_ne!(a, client("192.0.2.2:1", &[("cookie", "session_id=s1")]).session);
    }

    /// The tenant is the host asked for, in one spelling.
    #[test]
    fn tenant_is_normal() {
        assert_eq!(&*client("192.0.2.1:1", &[]).tenant, "chat.example");
        assert_eq!(&*host_name("[::1]:80"), "::1");
    }
}
