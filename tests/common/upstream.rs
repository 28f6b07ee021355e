//! The app behind the gate: does to each connection what a test's script says, and records what came.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{Head, Wire};

/// A short answer on a connection that is kept.
pub const OK_JSON: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"reply\":\"k\"}";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    /// Without its framing; empty as long as it has not come whole.
    pub body: Vec<u8>,
}

impl Request {
    /// Method and target.
    pub fn line(&self) -> &str {
        self.head.line.strip_suffix(" HTTP/1.1").unwrap_or(&self.head.line)
    }
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

/// An upstream, until dropped.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

/// A connection from the gate.
pub struct Peer {
    wire: Wire,
    seen: Arc<Seen>,
    /// 0 for the first connection.
    pub number: usize,
}

impl Upstream {
    /// Runs `script` on each connection; the connection closes when the script ends.
    pub async fn scripted<S, F>(script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::at("127.0.0.1:0", script).await
    }

    /// As [`Self::scripted`], at an address of the test's choice.
    pub async fn at<S, F>(address: impl ToSocketAddrs, script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let record = seen.clone();
        let accepting = tokio::spawn(async move {
            let mut scripts = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = record.connections.fetch_add(1, Ordering::SeqCst);
                scripts.spawn(script(Peer { wire: Wire::over(stream), seen: record.clone(), number }));
            }
        });
        Self { address, seen, accepting }
    }

    /// Answers every request alike, on connections that are kept.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::scripted(move |mut peer| {
            let answer = answer.clone();
            async move { while peer.request().await.is_some() && peer.send(&answer).await {} }
        })
        .await
    }

    /// Answers every request with its own name.
    pub async fn named(name: &str) -> Self {
        let length = name.len();
        Self::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}")).await
    }

    /// Answers every request with [`OK_JSON`].
    pub async fn ok() -> Self {
        Self::answering(OK_JSON).await
    }

    /// Answers with [`OK_JSON`] when it is told to. The first cue comes with each request, the second lets one answer go.
    pub async fn on_cue() -> (Self, Arc<Notify>, Arc<Notify>) {
        let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let cues = (asked.clone(), go.clone());
        let upstream = Self::scripted(move |mut peer| {
            let (asked, go) = cues.clone();
            async move {
                while peer.request().await.is_some() {
                    asked.notify_one();
                    go.notified().await;
                    peer.send(OK_JSON).await;
                }
            }
        })
        .await;
        (upstream, asked, go)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the gate connected.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// All requests of which at least the head came.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().expect("no script panics while it records").clone()
    }

    /// The only request.
    #[track_caller]
    pub fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(
            requests.len(),
            1,
            "one request: {:?}",
            requests.iter().map(Request::line).collect::<Vec<_>>()
        );
        requests.remove(0)
    }

    /// The request that came last.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request came")
    }

    /// Fails if the gate so much as connected.
    #[track_caller]
    pub fn assert_untouched(&self) {
        let lines: Vec<_> = self.requests().iter().map(|r| r.head.line.clone()).collect();
        assert_eq!((self.connections(), lines), (0, Vec::new()), "the upstream was touched");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Peer {
    /// Reads a request whole; `None` when the gate ends the connection.
    pub async fn request(&mut self) -> Option<Request> {
        let (seen, mut index) = (self.seen.clone(), 0);
        let (head, body) = self
            .wire
            .request(|head| {
                let mut requests = seen.requests.lock().expect("no script panics while it records");
                index = requests.len();
                requests.push(Request { head: head.clone(), body: Vec::new() });
            })
            .await?;
        let mut requests = seen.requests.lock().expect("no script panics while it records");
        requests[index].body.clone_from(&body);
        Some(Request { head, body })
    }
}

impl Deref for Peer {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

/// A port whose queue is full of connections that nobody accepts, so that the system answers no more of them.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    pub async fn dig() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let mut queue = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queue.push(connected.expect("connects"));
        }
        Self { address, _listener: listener, _queue: queue }
    }
}

/// An address at which nothing listens.
pub async fn unreachable() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("binds")
}
