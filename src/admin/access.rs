//! Who may ask the admin port what (S10).

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use http::{Method, uri::Authority};

use super::token::AdminToken;

/// The head of a request to the admin port.
#[derive(Clone, Copy)]
pub struct AdminRequest<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path without query.
    pub path: &'a str,
    /// Query without the `?`.
    pub query: Option<&'a str>,
    /// Body; read for POST only.
    pub body: &'a [u8],
    /// The socket's other end.
    pub remote: IpAddr,
    /// `:authority` of an HTTP/2 request; else `Host` counts.
    pub authority: Option<&'a str>,
    /// Header fields as received.
    pub headers: &'a HeaderMap,
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// Nothing: no token, and not from this machine.
    None,
    /// Nothing, since what it presented is not the token.
    WrongToken,
    /// See, since it comes from this machine.
    Read,
    /// Everything: it has the token.
    Full,
}

impl AdminRequest<'_> {
    pub(super) fn permission(&self, token: &AdminToken) -> Permission {
        match self.headers.get(AUTHORIZATION) {
            Some(presented) if token.matches(presented.as_bytes()) => Permission::Full,
            // Said aloud rather than served as a guest: the caller thinks that the token works.
            Some(_) => Permission::WrongToken,
            None if self.is_local() => Permission::Read,
            None => Permission::None,
        }
    }

    /// Whether it was sent from this machine, by something that meant this server: a proxy on this machine may speak
    /// for anybody, and a web page may have had its own name resolved to 127.0.0.1 (DNS rebinding).
    fn is_local(&self) -> bool {
        let mut hosts = self.headers.get_all(HOST).iter();
        let host = hosts.next().map(|host| host.to_str().unwrap_or_default());
        self.remote.to_canonical().is_loopback()
            && hosts.next().is_none()
            && self.authority.or(host).is_some_and(is_loopback_authority)
            && self
                .authority
                .is_none_or(|authority| host.is_none_or(|host| host.eq_ignore_ascii_case(authority)))
            && self.headers.get_all(ORIGIN).iter().all(|origin| is_loopback_origin(origin.as_bytes()))
            && self.headers.get("sec-fetch-site").is_none_or(|site| site != "cross-site")
            && !self.headers.keys().any(|name| is_forwarding(name.as_str()))
    }
}

/// Fields that proxies add on the way.
fn is_forwarding(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
    ];
    name.starts_with("x-forwarded") || NAMES.contains(&name)
}

fn is_loopback_origin(origin: &[u8]) -> bool {
    let origin = std::str::from_utf8(origin).unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(is_loopback_authority)
}

/// `localhost` or a loopback address, with or without a port.
fn is_loopback_authority(authority: &str) -> bool {
    let Ok(parsed) = authority.parse::<Authority>() else { return false };
    if authority.contains('@') {
        return false;
    }
    let host = parsed.host();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || literal.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}
