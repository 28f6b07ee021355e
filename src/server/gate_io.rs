//! The client's stream as the gate sees it: a deadline on each request head, and the head's bytes as they came.
//!
//! Pingora restarts its read timeout with every byte and rewrites the request line before any hook can see it,
//! so both the deadline and the raw bytes have to be kept here, below it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest, tls::TlsRef,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::canned::UNPARSED;
use super::door::Tenure;

/// RFC 9113 §3.4.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are held back, at most: a head of an answer.
const HELD: usize = 16 * 1024;

/// Caps on a request head while it is being read.
#[derive(Clone, Copy, Debug)]
pub struct HeadCaps {
    /// From the connection's start, or from the first byte of a later head, to the head's end.
    pub deadline: Duration,
    /// Bytes after which reading is given up (smaller caps are a guard's).
    pub bytes: usize,
}

#[derive(Debug)]
enum Phase {
    /// Between two requests: nothing of the next head has come. The time is that of the first read that had to wait.
    Idle { since: Option<Instant> },
    /// A head is arriving.
    Head { since: Instant },
    /// A body, an answer, a tunnel, or HTTP/2: deadlines are somebody else's, but for one after which whoever reads is
    /// to be told that time is over.
    Open { due: Option<Instant> },
}

#[derive(Debug)]
struct State {
    phase: Phase,
    head: Vec<u8>,
    /// Whether what is written next begins an answer.
    begins: bool,
    alarm: Alarm,
}

/// The wrapped stream. Holds the connection's `tenure` (its permits) until the connection ends.
#[derive(Debug)]
pub struct GateIo {
    io: Stream,
    caps: HeadCaps,
    /// How long it may idle between two requests.
    idle: Duration,
    state: Mutex<State>,
    /// Bytes read by `try_peek` and not yet delivered.
    peeked: Vec<u8>,
    /// To be written before anything else: the beginning of an answer, or the gate's own to a head that can't be parsed.
    held: Vec<u8>,
    /// Whether that was its own, so that Pingora's is dropped.
    rebukes: bool,
    tenure: Tenure,
}

impl GateIo {
    /// Wraps a fresh connection, whose first head is due at once.
    pub fn new(io: Stream, caps: HeadCaps, idle: Duration, tenure: Tenure) -> Self {
        let phase = Phase::Head { since: Instant::now() };
        let state = Mutex::new(State {
            phase,
            head: Vec::with_capacity(1024),
            begins: false,
            alarm: Alarm::default(),
        });
        Self { io, caps, idle, state, peeked: Vec::new(), held: Vec::new(), rebukes: false, tenure }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last request is done: the next byte starts a head.
    pub fn expect_head(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Open { .. }) {
            state.phase = Phase::Idle { since: None };
            state.head.clear();
        }
    }

    /// The head has been parsed: disarms the deadline and shows the bytes read since it began (the head, and
    /// whatever of the body came with it).
    pub fn head_done<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        let mut state = self.state();
        state.phase = Phase::Open { due: None };
        state.begins = true;
        look(&state.head)
    }

    /// From `due` on, until the next head, a read that has to wait fails: so whoever waits for anything else while it
    /// watches the client learns that time is over.
    pub fn set_due(&self, due: Instant) {
        self.state().phase = Phase::Open { due: Some(due) };
    }

    /// The connection's timer, which nobody else needs as long as a request is served.
    pub fn lend_alarm(&self) -> Alarm {
        std::mem::take(&mut self.state().alarm)
    }

    /// Takes the timer back.
    pub fn return_alarm(&self, alarm: Alarm) {
        self.state().alarm = alarm;
    }

    /// The head's bytes and what came with them, to be read again.
    pub fn rewound(&self) -> BytesMut {
        BytesMut::from(&self.state().head[..])
    }

    /// Whether reading was given up because the head is longer than the cap.
    pub fn head_is_overlong(&self) -> bool {
        self.state().head.len() >= self.caps.bytes
    }

    /// Whether bytes of a head came that never became a request (Pingora answered or closed by itself).
    fn head_abandoned(&self) -> bool {
        let state = self.state();
        matches!(state.phase, Phase::Head { .. }) && !state.head.is_empty()
    }
}

impl Drop for GateIo {
    fn drop(&mut self) {
        // An answer that breaks off behind its head is that head.
        let _ = self.poll_held(&mut Context::from_waker(Waker::noop()));
        if self.head_abandoned() {
            self.tenure.head_abandoned();
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "request head did not arrive in time")
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "time is over")
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "request head too long")
}

impl State {
    /// Accounts for `bytes` that were just read.
    fn arrived(&mut self, bytes: &[u8], caps: HeadCaps) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &self.phase {
            Phase::Open { .. } => return Ok(()),
            Phase::Idle { .. } => self.phase = Phase::Head { since: Instant::now() },
            Phase::Head { since } if since.elapsed() > caps.deadline => return Err(late()),
            Phase::Head { .. } => {}
        }
        let room = caps.bytes.saturating_sub(self.head.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if bytes.len() > room { Err(too_long()) } else { Ok(()) }
    }

    /// Whether nothing of a request has come.
    fn is_idle(&self) -> bool {
        match self.phase {
            Phase::Idle { .. } => true,
            Phase::Head { .. } => self.head.is_empty(),
            Phase::Open { .. } => false,
        }
    }

    /// A read has to wait: ready only if a deadline has passed. To whoever reads, a connection that was idle for too
    /// long is one that its client has ended.
    fn waiting(&mut self, cx: &mut Context<'_>, caps: HeadCaps, idle: Duration) -> Poll<io::Result<()>> {
        let (deadline, outcome) = match &mut self.phase {
            Phase::Idle { since } => (*since.get_or_insert_with(Instant::now) + idle, None),
            Phase::Head { since } => (*since + caps.deadline, Some(late as fn() -> io::Error)),
            Phase::Open { due: Some(due) } => (*due, Some(over as fn() -> io::Error)),
            Phase::Open { due: None } => return Poll::Pending,
        };
        self.alarm.poll(deadline, cx).map(|()| outcome.map_or(Ok(()), |error| Err(error())))
    }
}

impl AsyncRead for GateIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.peeked.is_empty() {
            let n = this.peeked.len().min(buf.remaining());
            buf.put_slice(&this.peeked[..n]);
            this.peeked.drain(..n);
            return Poll::Ready(Ok(()));
        }
        let state = this.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(state.arrived(&buf.filled()[before..], this.caps)),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            // To whoever reads it is as if the client had ended the connection.
            Poll::Pending if state.is_idle() && this.tenure.is_over(cx) => Poll::Ready(Ok(())),
            Poll::Pending => state.waiting(cx, this.caps, this.idle),
        }
    }
}

impl GateIo {
    /// Whether what is written now is Pingora's own answer to a head that it can't parse, which on the admin port no hook
    /// sees. The gate's own is written in its place, with the headers that every answer has.
    fn answers_for_pingora(&mut self) -> bool {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(state.phase, Phase::Head { .. }) && !state.head.is_empty() {
            state.phase = Phase::Open { due: None };
            self.held.extend_from_slice(UNPARSED);
            self.rebukes = true;
            self.tenure.head_unparsed();
        }
        self.rebukes
    }

    /// Keeps the beginning of an answer back, if it is no more than a head: it is sent with what follows, in one packet,
    /// or once it is flushed.
    fn holds(&mut self, bytes: &[u8]) -> bool {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let holds = std::mem::take(&mut state.begins) && bytes.len() <= HELD;
        if holds {
            self.held.extend_from_slice(bytes);
        }
        holds
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.held.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GateIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.answers_for_pingora() || this.holds(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        while !this.held.is_empty() {
            let both = [io::IoSlice::new(&this.held), io::IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, &both))?;
            let of_held = written.min(this.held.len());
            this.held.drain(..of_held);
            if written == 0 || written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.answers_for_pingora() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        ready!(this.poll_held(cx))?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for GateIo {
    async fn shutdown(&mut self) {
        let _ = self.poll_held(&mut Context::from_waker(Waker::noop()));
        self.io.shutdown().await;
    }
}

impl UniqueID for GateIo {
    fn id(&self) -> UniqueIDType {
        self.io.id()
    }
}

impl Ssl for GateIo {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.io.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.io.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.io.selected_alpn_proto()
    }
}

impl GetTimingDigest for GateIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.io.get_timing_digest()
    }
}

impl GetProxyDigest for GateIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.io.get_proxy_digest()
    }
}

impl GetSocketDigest for GateIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.io.get_socket_digest()
    }
}

#[async_trait]
impl Peek for GateIo {
    /// Fills `buf` with the HTTP/2 preface if the client sends it, and with what came first otherwise. Decided at
    /// the first byte that differs, under the head's deadline; without this, an HTTP/1 client that sends less
    /// than 24 bytes at first would be taken for HTTP/2.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let mut seen = Vec::with_capacity(H2_PREFACE.len());
        let mut chunk = [0u8; H2_PREFACE.len()];
        while seen.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&seen) {
            let room = H2_PREFACE.len() - seen.len();
            match self.read(&mut chunk[..room]).await? {
                0 => break,
                n => seen.extend_from_slice(&chunk[..n]),
            }
        }
        if seen == H2_PREFACE {
            let mut state = self.state();
            state.phase = Phase::Open { due: None };
            state.head = Vec::new();
        }
        buf.fill(0);
        let n = seen.len().min(buf.len());
        buf[..n].copy_from_slice(&seen[..n]);
        self.peeked = seen;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::protocols::l4::stream::Stream as L4;
    use tokio::io::AsyncWriteExt;

    const CAPS: HeadCaps = HeadCaps { deadline: Duration::from_millis(80), bytes: 256 };
    const IDLE: Duration = Duration::from_millis(240);

    async fn pair() -> (tokio::net::TcpStream, GateIo) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let client =
            tokio::net::TcpStream::connect(listener.local_addr().expect("addr")).await.expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        let io: L4 = server.into();
        (client, GateIo::new(Box::new(io), CAPS, IDLE, Tenure::for_test()))
    }

    /// A client that drips its head would otherwise hold a connection for ever.
    #[tokio::test]
    async fn dripping_head_is_cut_at_the_deadline() {
        let (mut client, mut io) = pair().await;
        let drip = tokio::spawn(async move {
            while client.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut buf = [0u8; 16];
        let error = loop {
            if let Err(e) = io.read(&mut buf).await {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(io);
        drip.await.expect("drip ends");
    }

    /// A head on a reused connection is under the same deadline, but idle time before it is not.
    #[tokio::test]
    async fn reused_connection_may_idle_but_not_drip() {
        let (mut client, mut io) = pair().await;
        let mut buf = [0u8; 64];
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
        let n = io.read(&mut buf).await.expect("read");
        assert!(io.head_done(|raw| raw == &buf[..n]));
        io.expect_head();
        tokio::time::timeout(CAPS.deadline * 2, io.read(&mut buf)).await.expect_err("idle is not cut here");
        client.write_all(b"GET").await.expect("write");
        assert_eq!(io.read(&mut buf).await.expect("first bytes"), 3);
        assert_eq!(io.read(&mut buf).await.expect_err("cut").kind(), io::ErrorKind::TimedOut);
        assert!(io.head_abandoned());
    }

    /// A connection whose next request never comes would be kept for ever; to whoever reads it has ended in good order.
    #[tokio::test]
    async fn an_idle_connection_ends() {
        let (mut client, mut io) = pair().await;
        let mut buf = [0u8; 64];
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
            assert_eq!(io.read(&mut buf).await.expect("read"), 18);
            io.head_done(|_| ());
            io.expect_head();
            let start = Instant::now();
            tokio::time::timeout(IDLE / 2, io.read(&mut buf)).await.expect_err("it may idle");
            tokio::time::timeout(IDLE / 4, io.read(&mut buf)).await.expect_err("however often it is read");
            assert!(start.elapsed() < IDLE);
        }
        assert_eq!(io.read(&mut buf).await.expect("an end"), 0);
    }

    /// Who waits for an app while it watches the client would wait for ever.
    #[tokio::test]
    async fn a_reader_is_told_when_time_is_over() {
        let (mut client, mut io) = pair().await;
        let mut buf = [0u8; 64];
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
        let n = io.read(&mut buf).await.expect("read");
        io.head_done(|_| ());
        io.set_due(Instant::now() + CAPS.deadline);
        client.write_all(&buf[..n]).await.expect("write");
        assert_eq!(io.read(&mut buf).await.expect("bytes that are there"), n);
        assert_eq!(io.read(&mut buf).await.expect_err("over").kind(), io::ErrorKind::TimedOut);
        io.expect_head();
        tokio::time::timeout(CAPS.deadline * 2, io.read(&mut buf))
            .await
            .expect_err("the next head is not cut");
    }

    /// An answer of a head and a few bytes would cost two packets. What is flushed or broken off must be sent all the same.
    #[tokio::test]
    async fn a_head_is_sent_with_what_follows() {
        let (mut client, mut io) = pair().await;
        let mut buf = [0u8; 64];
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
        assert_eq!(io.read(&mut buf).await.expect("read"), 18);
        for (pieces, together) in [(["head", "body"], "headbody"), (["1xx", ""], "1xx")] {
            io.head_done(|_| ());
            io.write_all(pieces[0].as_bytes()).await.expect("write");
            assert!(client.try_read(&mut buf).is_err(), "sent alone");
            match pieces[1] {
                "" => io.flush().await.expect("flush"),
                rest => io.write_all(rest.as_bytes()).await.expect("write"),
            }
            let n = client.read(&mut buf).await.expect("read");
            assert_eq!(&buf[..n], together.as_bytes());
        }
        io.write_all(b"more").await.expect("write");
        assert_eq!(client.read(&mut buf).await.expect("what follows is sent at once"), 4);
        io.head_done(|_| ());
        io.write_all(b"head").await.expect("write");
        drop(io);
        assert_eq!(client.read(&mut buf).await.expect("what broke off"), 4);
    }

    /// Pingora answers a head that it can't parse by itself, names itself, and sets no security header.
    #[tokio::test]
    async fn answers_for_unparsed_heads_are_the_gates_own() {
        let (mut client, mut io) = pair().await;
        client.write_all(b"garbage\r\n\r\n").await.expect("write");
        let mut buf = [0u8; 64];
        assert_eq!(io.read(&mut buf).await.expect("read"), 11);
        io.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: Pingora\r\n").await.expect("head");
        io.write_all(b"\r\n").await.expect("rest");
        io.flush().await.expect("flush");
        drop(io);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("answer");
        assert_eq!(got, UNPARSED);
    }

    /// An HTTP/1 request shorter than the preface must reach the HTTP/1 parser whole.
    #[tokio::test]
    async fn peek_returns_every_byte() {
        let (mut client, mut io) = pair().await;
        client.write_all(b"PRINT / HTTP/1.1\r\n").await.expect("write");
        let mut peeked = [0u8; 24];
        assert!(io.try_peek(&mut peeked).await.expect("peek"));
        assert!(peeked.starts_with(b"PRIN"));
        let mut got = vec![0u8; 18];
        io.read_exact(&mut got).await.expect("read");
        assert_eq!(got, b"PRINT / HTTP/1.1\r\n");
    }

    /// A head without end must not grow memory without end.
    #[tokio::test]
    async fn endless_head_is_cut() {
        let (mut client, mut io) = pair().await;
        client.write_all(&[b'a'; 300]).await.expect("write");
        let mut buf = [0u8; 512];
        assert_eq!(io.read(&mut buf).await.expect_err("cut").kind(), io::ErrorKind::InvalidData);
    }
}
