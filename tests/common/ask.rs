//! A request that can be sent over HTTP/1.1 and HTTP/2 alike.

use std::fmt::Write;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    H1,
    H2,
}

/// Both protocols.
pub const BOTH: [Via; 2] = [Via::H1, Via::H2];

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub target: String,
    pub host: String,
    pub fields: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    /// Whether the body's length is left unsaid (chunked in HTTP/1.1).
    pub unsized_body: bool,
}

impl Ask {
    pub fn new(method: &'static str, target: impl Into<String>) -> Self {
        let (fields, host) = (Vec::new(), "localhost".to_owned());
        Self { method, target: target.into(), host, fields, body: None, unsized_body: false }
    }

    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// A POST of JSON.
    pub fn post(target: impl Into<String>, json: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).field("content-type", "application/json").body(json)
    }

    /// A call to a home-made chat.
    pub fn chat() -> Self {
        Self::post("/api/chat", r#"{"message":"hello"}"#)
    }

    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    #[must_use]
    pub fn with_unsized_body(mut self) -> Self {
        self.unsized_body = true;
        self
    }

    /// As HTTP/1.1 writes it; a body of unsaid length goes in chunks of odd sizes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            write!(head, "{name}: {value}\r\n").expect("a String takes everything");
        }
        match &self.body {
            None => head + "\r\n",
            Some(_) if self.unsized_body => head + "Transfer-Encoding: chunked\r\n\r\n",
            Some(body) => head + &format!("Content-Length: {}\r\n\r\n", body.len()),
        }
        .into_bytes()
        .into_iter()
        .chain(self.body.iter().flat_map(|body| if self.unsized_body { chunked(body) } else { body.clone() }))
        .collect()
    }
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 64);
    for chunk in body.chunks(7919) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}
