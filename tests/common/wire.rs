//! One HTTP/1 connection, byte by byte, from either side.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::within;

/// A request's or response's start line and fields.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// As received, blank line included.
    pub raw: Vec<u8>,
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    fn parse(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let field =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let fields = lines.filter_map(field).collect();
        Self { raw, line, fields }
    }

    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The value of a field that may stand once.
    pub fn field(&self, name: &str) -> Option<&str> {
        only(&self.fields, name)
    }

    fn chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.field("content-length").map(|value| value.parse().expect("Content-Length is a number"))
    }
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

fn only<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = values(fields, name);
    assert!(found.len() < 2, "{name} stands {} times: {fields:?}", found.len());
    found.first().copied()
}

/// A final response, whichever protocol carried it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Statuses of the 1xx responses before it.
    pub informational: Vec<u16>,
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as the protocol says that it ends; `false`: it was cut off.
    pub whole: bool,
}

impl Answer {
    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The value of a field that may stand once.
    pub fn field(&self, name: &str) -> Option<&str> {
        only(&self.fields, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {} {:?}", self.status, self.text()))
    }
}

/// How a body's end is told.
enum Framing {
    Empty,
    Length(usize),
    Chunked,
    UntilEnd,
}

/// A body as it came.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    trailers: Vec<(String, String)>,
    whole: bool,
}

/// An HTTP/1 connection.
pub struct Wire {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    unread: Vec<u8>,
    reset: bool,
}

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        Self::over(within("connecting", TcpStream::connect(address)).await.expect("connects"))
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        let (reader, writer) = stream.into_split();
        Self { reader, writer, unread: Vec::new(), reset: false }
    }

    /// Sends bytes; whether the other side still took them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("sending", self.writer.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn half_close(&mut self) {
        self.writer.shutdown().await.expect("half-closes");
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let stream = self.reader.reunite(self.writer).expect("halves of one stream");
        stream.set_zero_linger().expect("a TCP socket");
    }

    /// Sends a request and reads its answer meanwhile, since a refusal may come before the body was taken.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        let head_only = request.as_ref().starts_with(b"HEAD ");
        let Self { reader, writer, unread, reset } = self;
        let mut incoming = Incoming { reader, unread, reset };
        let sending = within("sending", writer.write_all(request.as_ref()));
        within("a whole answer", async { tokio::join!(incoming.answer(head_only), sending).0 }).await
    }

    fn incoming(&mut self) -> Incoming<'_> {
        Incoming { reader: &mut self.reader, unread: &mut self.unread, reset: &mut self.reset }
    }

    /// The answer to anything but HEAD.
    pub async fn answer(&mut self) -> Answer {
        within("a whole answer", self.incoming().answer(false)).await
    }

    /// The next head, 1xx included; `None` at the end of the connection.
    pub async fn head(&mut self) -> Option<Head> {
        self.incoming().head().await
    }

    /// A request with its body; `on_head` is told as soon as its head is complete. `None` at the end of the connection.
    pub async fn request(&mut self, on_head: impl FnOnce(&Head)) -> Option<(Head, Vec<u8>)> {
        let mut incoming = self.incoming();
        let head = incoming.head().await?;
        on_head(&head);
        let framing = match head.length() {
            _ if head.chunked() => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Empty,
        };
        let body = incoming.body(framing).await;
        body.whole.then_some((head, body.bytes))
    }

    /// Reads until the bytes end with `end`.
    pub async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut incoming = self.incoming();
        loop {
            if let Some(at) = find(incoming.unread, end) {
                return incoming.take(at + end.len());
            }
            assert!(incoming.more().await, "the connection ended before {:?}", String::from_utf8_lossy(end));
        }
    }

    /// Everything until the other side ends the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut incoming = self.incoming();
        within("the end of the connection", async { while incoming.more().await {} }).await;
        std::mem::take(&mut self.unread)
    }

    /// Whether the other side ends the connection without another byte.
    pub async fn ends(&mut self) -> bool {
        self.unread.is_empty() && !self.incoming().more().await
    }

    /// Whether the connection ended with a reset.
    pub fn was_reset(&self) -> bool {
        self.reset
    }
}

struct Incoming<'a> {
    reader: &'a mut OwnedReadHalf,
    unread: &'a mut Vec<u8>,
    reset: &'a mut bool,
}

impl Incoming<'_> {
    /// Waits for more bytes; `false`: there are none to come.
    async fn more(&mut self) -> bool {
        let read = within("reading", self.reader.read_buf(self.unread)).await;
        *self.reset |= read.is_err();
        read.is_ok_and(|bytes| bytes > 0)
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let rest = self.unread.split_off(bytes);
        std::mem::replace(self.unread, rest)
    }

    async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(at) = find(self.unread, b"\r\n\r\n") {
                return Some(Head::parse(self.take(at + 4)));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn answer(&mut self, to_head: bool) -> Answer {
        let mut informational = Vec::new();
        loop {
            let Some(head) = self.head().await else {
                panic!("no answer; the connection ended with {:?}", String::from_utf8_lossy(self.unread));
            };
            let status: u16 =
                head.line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
            if status < 200 && status != 101 {
                informational.push(status);
                continue;
            }
            let framing = match head.length() {
                _ if to_head || status == 101 || status == 204 || status == 304 => Framing::Empty,
                _ if head.chunked() => Framing::Chunked,
                Some(length) => Framing::Length(length),
                None => Framing::UntilEnd,
            };
            let Body { bytes: body, trailers, whole } = self.body(framing).await;
            return Answer { informational, status, fields: head.fields, body, trailers, whole };
        }
    }

    async fn body(&mut self, framing: Framing) -> Body {
        match framing {
            Framing::Empty => Body { whole: true, ..Body::default() },
            Framing::Chunked => self.chunks().await,
            Framing::Length(length) => {
                while self.unread.len() < length && self.more().await {}
                let whole = self.unread.len() >= length;
                Body { bytes: self.take(length.min(self.unread.len())), whole, ..Body::default() }
            }
            Framing::UntilEnd => {
                while self.more().await {}
                Body { bytes: std::mem::take(self.unread), whole: !*self.reset, ..Body::default() }
            }
        }
    }

    async fn chunks(&mut self) -> Body {
        let mut body = Body::default();
        loop {
            let Some(line) = self.line().await else { return body };
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                while let Some(line) = self.line().await {
                    match line.split_once(':') {
                        Some((name, value)) => body.trailers.push((name.to_owned(), value.trim().to_owned())),
                        None => {
                            body.whole = line.is_empty();
                            return body;
                        }
                    }
                }
                return body;
            }
            while self.unread.len() < size + 2 && self.more().await {}
            let there = self.take(size.min(self.unread.len()));
            body.bytes.extend(there);
            if self.unread.len() < 2 {
                return body;
            }
            assert_eq!(self.take(2), b"\r\n", "a chunk ends with CR LF");
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(self.unread, b"\r\n") {
                let line = self.take(at + 2);
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
