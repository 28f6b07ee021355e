//! A small document that is fetched now and then, such as the keys of an issuer: one GET, bounded in time and size, that
//! follows nobody anywhere.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::connect::connect;
use super::dns::Resolver;
use super::endpoint::{Address, Endpoint, Member};
use super::server::{BadUpstream, Place, Server};
use super::tls::{Tls, Trust};

/// Bytes that are read of one.
const BYTES: usize = 256 * 1024;
/// Header fields of an answer, at most.
const FIELDS: usize = 100;

/// A document at a URL.
pub struct Document {
    member: Arc<Member>,
    path: Uri,
    trust: Trust,
    resolver: Resolver,
    timeout: Duration,
}

impl Document {
    /// The document at `url`, for which the server is believed as `trust` says.
    ///
    /// # Errors
    /// What is wrong with the URL, or with what its server's certificate is to be verified by.
    pub fn build(
        url: &str,
        trust: &Trust,
        resolver: Resolver,
        timeout: Duration,
    ) -> Result<Self, BadUpstream> {
        let bad = || BadUpstream("is no URL; write it like https://issuer.example/jwks.json".to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let server = Server::parse(&format!("{scheme}://{authority}"))?;
        let path: Uri = (if path.is_empty() { "/" } else { path }).parse().map_err(|_| bad())?;
        let tls = match server.tls {
            true => Some(Tls::build(trust, &server.host_name()).map_err(BadUpstream)?),
            false => None,
        };
        let member = Arc::new(Member { server, tls, lost: AtomicBool::new(false) });
        Ok(Self { member, path, trust: trust.clone(), resolver, timeout })
    }

    /// Whether both are the same document, of the same server, believed alike.
    pub fn is_same(&self, other: &Self) -> bool {
        let of =
            |document: &Self| (document.member.server.clone(), document.path.clone(), document.trust.clone());
        of(self) == of(other)
    }

    /// Host and port of its server, as written.
    pub fn host(&self) -> &str {
        &self.member.server.name
    }

    /// Whether the way there is in plain text and leads over a network.
    pub fn is_exposed(&self) -> bool {
        let local = match &self.member.server.place {
            Place::Address(address) => address.ip().to_canonical().is_loopback(),
            Place::Name(name, _) => name.eq_ignore_ascii_case("localhost"),
            Place::Unix(_) => true,
        };
        !self.member.server.tls && !local
    }

    /// How long a fetch may take.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Fetches it.
    ///
    /// # Errors
    /// Why not, in words that follow "what the server answers".
    pub async fn fetch(&self) -> Result<Bytes, String> {
        timeout(self.timeout, self.get()).await.unwrap_or_else(|_| Err("does not come in time".to_owned()))
    }

    async fn get(&self) -> Result<Bytes, String> {
        let broken = |error: &dyn Error| {
            // The outermost error says least.
            let mut cause = error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            format!("can't be had: {cause}")
        };
        let stream = {
            let mut last = "can't be had: its name has no address".to_owned();
            let mut found = None;
            for endpoint in self.endpoints().await? {
                match connect(&endpoint, self.timeout).await {
                    Ok(stream) => {
                        found = Some(stream);
                        break;
                    }
                    Err(error) => last = broken(&error),
                }
            }
            found.ok_or(last)?
        };
        let mut builder = http1::Builder::new();
        let handshake = builder.max_headers(FIELDS).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
        // Ends when the sender and the answer are dropped.
        tokio::spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.member.server.host.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = answer.status();
        if status != StatusCode::OK {
            // A redirect, too: whoever can send the gate elsewhere could choose its keys.
            return Err(format!("has the status {} and not 200", status.as_u16()));
        }
        let (mut body, mut whole) = (answer.into_body(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > BYTES {
                return Err(format!("is larger than {} KiB", BYTES / 1024));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    async fn endpoints(&self) -> Result<Vec<Arc<Endpoint>>, String> {
        let fixed = |address| Ok(vec![Arc::new(Endpoint::new(self.member.clone(), address, false))]);
        match &self.member.server.place {
            Place::Address(address) => fixed(Address::Inet(*address)),
            Place::Unix(path) => fixed(Address::Unix(path.clone())),
            Place::Name(name, port) => {
                let found =
                    self.resolver.look_up(name).await.map_err(|why| format!("can't be had: {why}"))?;
                Ok(Endpoint::of_name(&self.member, *port, &found.addresses, &[]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn document(url: &str) -> Result<Document, BadUpstream> {
        let trust = Trust { verify: true, ca: None };
        Document::build(url, &trust, Resolver::default(), Duration::from_millis(300))
    }

    /// What a server that answers `answer` to anyone is worth.
    async fn fetched(answer: Vec<u8>) -> Result<Bytes, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/jwks.json?a=1", listener.local_addr().expect("bound"));
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.expect("a connection");
            let mut head = [0; 4096];
            let read = peer.read(&mut head).await.expect("a request");
            assert!(head[..read].starts_with(b"GET /jwks.json?a=1 HTTP/1.1\r\n"));
            let _ = peer.write_all(&answer).await;
            let _ = peer.read(&mut head).await;
        });
        document(&url).expect("a document").fetch().await
    }

    /// An issuer that was taken over, or is about to fall, must cost the gate neither its memory nor its time.
    #[tokio::test]
    async fn nothing_that_a_server_does_gets_far() {
        let plain = |status: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        assert_eq!(fetched(plain("200 OK", "{}")).await.as_deref(), Ok(&b"{}"[..]));
        let why = |answer| async { fetched(answer).await.expect_err("refused") };
        assert!(why(plain("302 Found\r\nlocation: http://127.0.0.1:1/", "{}")).await.contains("302"));
        assert!(why(plain("500 Oh", "{}")).await.contains("500"));
        assert!(why(plain("200 OK", &"a".repeat(BYTES + 1))).await.contains("256 KiB"));
        let endless = [
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            [&b"2000\r\n"[..], &[b'a'; 0x2000], b"\r\n"].concat().repeat(BYTES / 0x2000 + 1),
        ];
        assert!(why(endless.concat()).await.contains("256 KiB"));
        assert!(why(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec()).await.contains("in time"));
        assert!(why(Vec::new()).await.contains("in time"));
        assert!(why(b"SSH-2.0-OpenSSH\r\n".to_vec()).await.contains("can't be had"));
        assert!(
            why(b"HTTP/1.1 200 OK\r\n".iter().copied().chain(b"a: b\r\n".repeat(200)).collect())
                .await
                .contains("can't be had")
        );
    }

    /// A URL that leads elsewhere than it seems is an error at start.
    #[test]
    fn urls_are_plain() {
        for url in
            ["", "issuer.example/jwks.json", "ftp://a/b", "https://u:p@a/b", "https:///b", "http://a:0/b"]
        {
            assert!(document(url).is_err(), "{url}");
        }
        let exposed = |url| document(url).expect(url).is_exposed();
        assert_eq!(["http://127.0.0.1/a", "http://[::1]:9/a", "http://localhost/a"].map(exposed), [false; 3]);
        assert!(exposed("http://keycloak:8080/a"));
    }
}
