//! One HTTP/2 connection in plain text, with prior knowledge.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Answer, Ask, within};

type OutBody = BoxBody<Bytes, Infallible>;

/// An HTTP/2 client on one connection.
pub struct H2 {
    sender: SendRequest<OutBody>,
    driving: JoinHandle<hyper::Result<()>>,
}

/// Sends a body piece by piece; dropped, the body ends.
pub type Feed = mpsc::Sender<Bytes>;

impl H2 {
    pub async fn to(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// A client that lets the gate send only so many bytes of a stream until it reads them.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("connects");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (sender, connection) =
            within("handshake", builder.handshake(TokioIo::new(stream))).await.expect("h2c");
        Self { sender, driving: tokio::spawn(connection) }
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, ask: &Ask) -> hyper::Result<Answer> {
        let body = ask.body.clone().unwrap_or_default();
        if !ask.unsized_body {
            return self.send(ask, Full::new(body.into()).boxed()).await;
        }
        let (feed, pieces) = mpsc::channel(1);
        let feeding = async {
            for piece in body.chunks(7919) {
                // The gate may refuse the body half-way.
                if feed.send(Bytes::copy_from_slice(piece)).await.is_err() {
                    break;
                }
            }
            drop(feed);
        };
        tokio::join!(self.send(ask, Pieces(pieces).boxed()), feeding).0
    }

    /// Sends a request whose body is fed by the test; the answer is to be awaited meanwhile.
    pub fn open(&mut self, ask: &Ask) -> (Feed, JoinHandle<hyper::Result<Answer>>) {
        let (feed, pieces) = mpsc::channel(1);
        let sending = self.sender.send_request(request(ask, Pieces(pieces).boxed()));
        let answer =
            async move { Ok(within("a whole answer", collect(within("an answer", sending).await?)).await) };
        (feed, tokio::spawn(answer))
    }

    /// The answer's head alone, its body unread.
    pub async fn head(&mut self, ask: &Ask) -> hyper::Result<http::Response<Incoming>> {
        let body = Full::new(ask.body.clone().unwrap_or_default().into()).boxed();
        within("an answer", self.sender.send_request(request(ask, body))).await
    }

    async fn send(&mut self, ask: &Ask, body: OutBody) -> hyper::Result<Answer> {
        let response = within("an answer", self.sender.send_request(request(ask, body))).await?;
        Ok(within("a whole answer", collect(response)).await)
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

fn request(ask: &Ask, body: OutBody) -> http::Request<OutBody> {
    let mut request =
        http::Request::builder().method(ask.method).uri(format!("http://{}{}", ask.host, ask.target));
    for (name, value) in &ask.fields {
        request = request.header(name.to_ascii_lowercase(), value);
    }
    request.body(body).expect("a request that HTTP/2 can carry")
}

async fn collect(response: http::Response<Incoming>) -> Answer {
    let pairs = |headers: &http::HeaderMap| {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
    };
    let (head, mut body) = response.into_parts();
    let mut answer =
        Answer { status: head.status.as_u16(), fields: pairs(&head.headers), ..Answer::default() };
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => answer.body.extend(data),
                Err(frame) => answer.trailers = frame.trailers_ref().map(pairs).unwrap_or_default(),
            },
            Some(Err(_)) => return answer,
            None => {
                answer.whole = true;
                return answer;
            }
        }
    }
}

/// A body of unsaid length.
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
