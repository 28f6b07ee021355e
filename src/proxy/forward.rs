//! Header fields on their way through: what the upstream is told of the client, what it must not hear from
//! strangers, and what the client must not hear of the upstream (H6).

use http::header::{
    CONNECTION, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use pingora::http::RequestHeader;

use smallvec::SmallVec;

use super::client::Client;
use super::request_id::X_REQUEST_ID;
use crate::observe::line::push_address;
use crate::upstream::Upstream;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields that speak for one connection only (RFC 9110 §7.6.1). `Transfer-Encoding` is the carriage's.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    // Answered or awaited by the gate itself.
    "expect",
];

/// Fields that would let a caller choose another method or path than the one that was checked.
const OVERRIDES: &[&str] =
    &["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Fields by which proxies tell who the client is; from anyone but a trusted proxy they are lies.
const FORWARDING: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-prefix",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-host",
    "x-scheme",
    "front-end-https",
    "via",
];

/// Fields by which an authenticating proxy tells which user it has seen.
const IDENTITY: &[&str] = &[
    "x-user-id",
    "x-user",
    "x-username",
    "x-user-email",
    "x-user-name",
    "x-user-role",
    "x-user-roles",
    "x-remote-user",
    "remote-user",
    "x-authenticated-user",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-webauth-user",
    "x-token-subject",
];

/// Identity fields by their beginning.
const IDENTITY_PREFIXES: &[&str] = &["x-openwebui-user-", "x-tidegate-"];

/// For each first letter, a bit for each length that a name of the lists above has with it: rules most names out.
const LENGTHS: [u64; 256] = {
    const LISTS: [&[&str]; 4] = [HOP_BY_HOP, OVERRIDES, FORWARDING, IDENTITY];
    let mut lengths = [0; 256];
    let mut list = 0;
    while list < LISTS.len() {
        let mut at = 0;
        while at < LISTS[list].len() {
            let name = LISTS[list][at].as_bytes();
            lengths[name[0] as usize] |= 1 << name.len();
            at += 1;
        }
        list += 1;
    }
    lengths
};

/// Whether a field, its name in lower case, may stand in one of the lists.
fn may_be_listed(name: &str) -> bool {
    let first = name.bytes().next().unwrap_or_default();
    name.len() < 64 && LENGTHS[usize::from(first)] >> name.len() & 1 == 1
}

/// How requests and answers are rewritten, as run.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Further fields that only trusted proxies may send.
    pub strip: Vec<HeaderName>,
    /// Whether the upstream sees its own authority in `Host` instead of the client's.
    pub host_of_upstream: bool,
}

/// A request's header fields, whichever library holds them.
pub trait Fields {
    /// The fields.
    fn map(&self) -> &HeaderMap;
    /// Replaces a field.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);
    /// Removes a field.
    fn remove(&mut self, name: &HeaderName);
}

impl Fields for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name.clone(), value);
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }
}

impl Fields for RequestHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        // Only a name that is no token could fail, and this one is a HeaderName.
        let _ = self.insert_header(name.clone(), value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

/// What the upstream is told besides the client's own fields.
pub struct Told<'a> {
    /// Who is asking.
    pub client: &'a Client,
    /// Host the client asked for, as it came.
    pub authority: Option<&'a str>,
    /// Authority of the upstream.
    pub upstream: &'a HeaderValue,
    /// Id of this request.
    pub request_id: &'a HeaderValue,
    /// Whether the client asked for a WebSocket and gets to ask the upstream for it.
    pub websocket: bool,
}

impl Forwarding {
    /// Rewrites a request's fields for the upstream.
    pub fn request<F: Fields>(&self, fields: &mut F, told: &Told<'_>) {
        let trailers = fields.map().get(TE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
        for name in self.doomed(fields.map(), told) {
            fields.remove(&name);
        }
        if trailers {
            fields.set(&TE, HeaderValue::from_static("trailers"));
        }
        if told.websocket {
            fields.set(&CONNECTION, HeaderValue::from_static("upgrade"));
        }
        self.tell(fields, told);
    }

    /// Names to remove: those of this connection, those that a `Connection` field lists, and those that strangers may not
    /// send. One walk over the few fields that came, not one look-up for each of the many that might have.
    fn doomed(&self, headers: &HeaderMap, told: &Told<'_>) -> SmallVec<[HeaderName; 8]> {
        let mut doomed = SmallVec::new();
        for value in headers.get_all(CONNECTION) {
            let names = value.to_str().unwrap_or_default().split(',');
            let names = names.filter_map(|name| name.trim().parse::<HeaderName>().ok());
            doomed.extend(names.filter(|name| name != UPGRADE));
        }
        for name in headers.keys() {
            let text = name.as_str();
            let listed = may_be_listed(text);
            let hop = (listed && HOP_BY_HOP.contains(&text)) || (name == UPGRADE && !told.websocket);
            // An upstream that turns `-` into `_` (CGI, WSGI) can't tell `x_user_id` from the field that is checked.
            let imitation = text.contains('_');
            let stranger = !told.client.trusted_peer
                && ((listed && (FORWARDING.contains(&text) || IDENTITY.contains(&text)))
                    || IDENTITY_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
                    || self.strip.contains(name));
            if hop || imitation || stranger || (listed && OVERRIDES.contains(&text)) {
                doomed.push(name.clone());
            }
        }
        doomed
    }

    fn tell<F: Fields>(&self, fields: &mut F, told: &Told<'_>) {
        let Told { client, authority, upstream, request_id, .. } = told;
        let mut text = Vec::with_capacity(128);
        push_address(&mut text, client.address);
        let address = value(&text);
        // The peer is appended: a trusted peer's chain, if any, still stands before it.
        text.clear();
        for part in fields.map().get_all(&X_FORWARDED_FOR) {
            text.extend_from_slice(part.as_bytes());
            text.extend_from_slice(b", ");
        }
        let peer = client.peer.ip().to_canonical();
        let chain = if text.is_empty() && peer == client.address {
            address.clone()
        } else {
            push_address(&mut text, peer);
            value(&text)
        };
        fields.set(&X_FORWARDED_FOR, chain);

        text.clear();
        text.extend_from_slice(if client.address.is_ipv6() { b"for=\"[" } else { b"for=" });
        text.extend_from_slice(address.as_bytes());
        text.extend_from_slice(if client.address.is_ipv6() { b"]\";proto=" } else { b";proto=" });
        fields.set(&X_REAL_IP, address);
        let proto = if client.https { "https" } else { "http" };
        text.extend_from_slice(proto.as_bytes());
        fields.set(&X_FORWARDED_PROTO, HeaderValue::from_static(proto));
        if let Some(host) = authority {
            text.extend_from_slice(b";host=\"");
            text.extend_from_slice(host.as_bytes());
            text.push(b'"');
            let host = fields.map().get(HOST).cloned().unwrap_or_else(|| value(host.as_bytes()));
            if !client.trusted_peer || !fields.map().contains_key(&X_FORWARDED_HOST) {
                fields.set(&X_FORWARDED_HOST, host.clone());
            }
            fields.set(&HOST, if self.host_of_upstream { (*upstream).clone() } else { host });
        } else {
            fields.set(&HOST, (*upstream).clone());
        }
        fields.set(&FORWARDED, value(&text));
        fields.set(&X_REQUEST_ID, (*request_id).clone());
        join_cookies(fields);
    }
}

/// Addresses and checked authorities are always header text.
fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// HTTP/2 may split cookies over several fields; HTTP/1 wants one (RFC 9113 §8.2.3).
fn join_cookies<F: Fields>(fields: &mut F) {
    let mut all = fields.map().get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (all.next(), all.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(all) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        fields.set(&COOKIE, value);
    }
}

/// Who sees to the framing of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Pingora, which reads it from the upstream's fields.
    Kept,
    /// The gate, anew.
    Rewritten,
}

/// Removes the fields of an upstream's answer that speak for its connection only.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, framing: Framing) {
    let mut doomed: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| name != TRANSFER_ENCODING)
        .collect();
    let own = [&CONNECTION, &TE, &UPGRADE, &TRAILER, &KEEP_ALIVE, &PROXY_CONNECTION];
    doomed.extend(headers.keys().filter(|name| own.contains(name)).cloned());
    if framing == Framing::Rewritten {
        doomed.push(TRANSFER_ENCODING);
    }
    for name in doomed {
        headers.remove(name);
    }
}

/// Turns the addresses of an upstream's servers, where they slip into redirects and cookies, into the client's.
pub fn hide_upstream(headers: &mut HeaderMap, upstream: &Upstream, client: &Client, authority: Option<&str>) {
    let Some(authority) = authority else { return };
    if !headers.contains_key(LOCATION) && !headers.contains_key(SET_COOKIE) {
        return;
    }
    upstream.servers().for_each(|server| hide_server(headers, &server.name, client, authority));
}

fn hide_server(headers: &mut HeaderMap, upstream_authority: &str, client: &Client, authority: &str) {
    if authority.eq_ignore_ascii_case(upstream_authority) {
        return;
    }
    let location = headers.get(LOCATION).and_then(|v| v.to_str().ok());
    if let Some(rest) = location.and_then(|l| after_authority(l, upstream_authority)) {
        let scheme = if client.https { "https" } else { "http" };
        if let Ok(value) = HeaderValue::from_str(&format!("{scheme}://{authority}{rest}")) {
            headers.insert(LOCATION, value);
        }
    }
    let upstream_host = upstream_authority.rsplit_once(':').map_or(upstream_authority, |(host, _)| host);
    let named =
        |v: &HeaderValue| v.to_str().is_ok_and(|v| cookie_domain(v).is_some_and(|(_, d)| d == upstream_host));
    if headers.get_all(SET_COOKIE).iter().any(named) {
        let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
        headers.remove(SET_COOKIE);
        for cookie in cookies {
            headers.append(SET_COOKIE, without_domain(&cookie, upstream_host));
        }
    }
}

fn after_authority<'a>(location: &'a str, authority: &str) -> Option<&'a str> {
    let rest = location.strip_prefix("http://").or_else(|| location.strip_prefix("https://"))?;
    let (host, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    host.eq_ignore_ascii_case(authority).then_some(tail)
}

/// The `Domain` attribute of a `Set-Cookie` value: its whole text with the `;`, and the domain.
fn cookie_domain(cookie: &str) -> Option<(&str, &str)> {
    let attributes = cookie.split_inclusive(';').skip(1);
    attributes.filter_map(|a| Some((a, a.trim_end_matches(';').split_once('=')?))).find_map(
        |(whole, (name, value))| {
            name.trim().eq_ignore_ascii_case("domain").then(|| (whole, value.trim().trim_start_matches('.')))
        },
    )
}

fn without_domain(cookie: &HeaderValue, host: &str) -> HeaderValue {
    let rewritten = cookie.to_str().ok().and_then(|text| {
        let (attribute, domain) = cookie_domain(text)?;
        let text = text.replacen(attribute, "", 1);
        (domain == host).then(|| HeaderValue::from_str(text.trim_end().trim_end_matches(';')).ok())?
    });
    rewritten.unwrap_or_else(|| cookie.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::client::ClientClass;

    fn client(trusted: bool) -> Client {
        Client {
            peer: "192.0.2.1:4000".parse().expect("peer"),
            trusted_peer: trusted,
            address: if trusted { "198.51.100.7" } else { "192.0.2.1" }.parse().expect("address"),
            https: trusted,
            tenant: "chat.example".into(),
            user: None,
            session: None,
            device: None,
            class: ClientClass::Anonymous,
        }
    }

    fn forwarded(trusted: bool, fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let forwarding =
            Forwarding { strip: vec![HeaderName::from_static("x-mine")], host_of_upstream: false };
        let told = Told {
            client: &client(trusted),
            authority: Some("chat.example"),
            upstream: &HeaderValue::from_static("127.0.0.1:3000"),
            request_id: &HeaderValue::from_static("r1"),
            websocket: false,
        };
        forwarding.request(&mut headers, &told);
        headers
    }

    /// An upstream that believes `X-User-Id` would let anyone be anyone.
    #[test]
    fn strangers_cannot_pose() {
        let lies = [
            ("x-user-id", "1"),
            ("x-openwebui-user-email", "admin@x"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-mine", "1"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x_user_id", "1"),
            ("x-forwarded-host", "evil"),
        ];
        let out = forwarded(false, &lies);
        for name in ["x-user-id", "x-openwebui-user-email", "x-mine", "x_user_id"] {
            assert!(!out.contains_key(name), "{name}");
        }
        assert_eq!(out["x-forwarded-for"], "192.0.2.1");
        assert_eq!(out["x-real-ip"], "192.0.2.1");
        assert_eq!(out["x-forwarded-host"], "chat.example");
        assert_eq!(out["forwarded"], "for=192.0.2.1;proto=http;host=\"chat.example\"");
        assert_eq!(out["host"], "chat.example");
    }

    /// A trusted proxy's word passes and its chain grows.
    #[test]
    fn trusted_proxies_are_passed_on() {
        let out = forwarded(true, &[("x-user-id", "1"), ("x-forwarded-for", "198.51.100.7")]);
        assert_eq!(out["x-user-id"], "1");
        assert_eq!(out["x-forwarded-for"], "198.51.100.7, 192.0.2.1");
        assert_eq!(out["x-real-ip"], "198.51.100.7");
        assert_eq!(out["x-forwarded-proto"], "https");
    }

    /// A method override would reach a handler that no guard has checked; hop-by-hop fields confuse framing.
    #[test]
    fn overrides_and_hop_fields_are_dropped() {
        let out = forwarded(
            true,
            &[
                ("x-http-method-override", "DELETE"),
                ("connection", "keep-alive, x-secret"),
                ("x-secret", "1"),
                ("keep-alive", "5"),
                ("te", "gzip"),
                ("expect", "100-continue"),
                ("upgrade", "h2c"),
            ],
        );
        for name in
            ["x-http-method-override", "connection", "x-secret", "keep-alive", "te", "expect", "upgrade"]
        {
            assert!(!out.contains_key(name), "{name}");
        }
    }

    /// HTTP/1 upstreams lose all but the first of several cookie fields.
    #[test]
    fn split_cookies_are_joined() {
        let out = forwarded(false, &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        assert_eq!(out.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    /// A redirect to the upstream's own address would lead the browser round the gate.
    #[test]
    fn upstream_address_stays_hidden() {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("http://127.0.0.1:3000/login?next=/"));
        headers.append("set-cookie", HeaderValue::from_static("s=1; Domain=127.0.0.1; Path=/"));
        headers.append("set-cookie", HeaderValue::from_static("t=2; Domain=example.org"));
        hide_server(&mut headers, "127.0.0.1:3000", &client(false), "chat.example");
        assert_eq!(headers["location"], "http://chat.example/login?next=/");
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["s=1; Path=/", "t=2; Domain=example.org"]);
    }
}
