//! A request and a response that the guards' unit tests are asked about.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Version, response};

use super::{Head, Traffic};
use crate::proxy::client::{Client, ClientClass, ClientRules, DigestKey};

pub fn response(status: u16, fields: &[(&'static str, &'static str)]) -> response::Parts {
    let mut response = http::Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).expect("a valid response").into_parts().0
}

/// Rules that make digests with a key of the tests' own.
pub fn rules() -> ClientRules {
    ClientRules {
        trusted_proxies: Vec::new(),
        key_headers: Vec::new(),
        key_parameters: Vec::new(),
        session_cookies: Vec::new(),
        session_headers: Vec::new(),
        device_header: HeaderName::from_static("x-device-id"),
        secret: DigestKey::new(b"test"),
    }
}

pub struct Request {
    pub method: Method,
    pub version: Version,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub authority: Option<&'static str>,
    pub client: Client,
    pub upgrade: bool,
}

impl Request {
    /// An HTTP/1.1 request for `/chat` at `chat.example.com`, without TLS.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            version: Version::HTTP_11,
            path: "/chat".to_owned(),
            query: None,
            headers: HeaderMap::new(),
            authority: Some("chat.example.com"),
            client: Client {
                peer: SocketAddr::from(([192, 0, 2, 7], 40000)),
                trusted_peer: false,
                address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
                https: false,
                tenant: "chat.example.com".into(),
                user: None,
                session: None,
                device: None,
                class: ClientClass::Anonymous,
            },
            upgrade: false,
        }
    }

    /// With one header field more.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a valid field value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// Asked for at `authority`.
    pub fn at(mut self, authority: &'static str) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Over TLS.
    pub fn over_tls(mut self) -> Self {
        self.client.https = true;
        self
    }

    pub fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            version: self.version,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            authority: self.authority,
            client: &self.client,
            traffic: Traffic::Api,
            upgrade: self.upgrade,
        }
    }
}
