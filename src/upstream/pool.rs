//! The exchange's HTTP/1 connections to one endpoint.
//!
//! A connection has no task of its own: whoever waits for its answer drives it, which saves two task switches and a
//! channel at each step. So the answer is read only as fast as the client takes it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, response};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::body::RequestBody;
use super::connect::connect;
use super::endpoint::Endpoint;
use super::stream::Stream;
use super::turn::{Rotation, Turn};

/// Unused connections kept, at most.
const KEPT: usize = 1024;
/// Header fields of an answer, at most.
const FIELDS: usize = 200;

/// Why there is no answer.
#[derive(Debug)]
pub enum CallError {
    /// No connection could be opened.
    Connect(io::Error),
    /// The connection broke, or what came is not HTTP.
    Broken(hyper::Error),
}

/// Why one server gave no answer.
pub(super) enum Unanswered {
    /// The request provably never left, so it may be sent to another.
    Unsent(Box<Request<RequestBody>>, io::Error),
    /// It may have left.
    Broken(hyper::Error),
}

/// The connections to one endpoint that are not in use.
#[derive(Default)]
pub struct Pool {
    /// The one used last is at the end, and is used first.
    idle: Mutex<Vec<(Instant, Box<Link>)>>,
}

/// One connection.
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    /// `None` once it has ended: a request that it had not begun is given back only when it is dropped.
    connection: Option<Connection<TokioIo<Stream>, RequestBody>>,
}

/// An answer on its way. Dropped before its end, its connection closes.
pub struct Answer {
    turn: Turn,
    link: Option<Box<Link>>,
    body: Incoming,
}

impl Turn {
    /// Sends `request`, whose target must be in origin form, and waits for the head of the answer; a new connection is
    /// opened within its share of the time that there is. A request that provably never left on a kept connection is sent
    /// again on another.
    pub(super) async fn ask(
        self,
        mut request: Box<Request<RequestBody>>,
        rotation: &Rotation,
    ) -> Result<(response::Parts, Answer), Unanswered> {
        loop {
            let kept = self.endpoint.pool.take(self.upstream.settings.timeouts.idle);
            let reused = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                // Rare, and large enough to slow every request that would carry it along: hence the box.
                None => match Box::pin(Link::open(&self.endpoint, rotation.share())).await {
                    Ok(link) => link,
                    Err(error) => {
                        self.failed(&error);
                        return Err(Unanswered::Unsent(request, error));
                    }
                },
            };
            match link.ask(*request).await {
                Ok(response) => {
                    self.answered();
                    let (parts, body) = response.into_parts();
                    let mut answer = Answer { turn: self, link: Some(link), body };
                    if answer.is_end() {
                        answer.give_back();
                    }
                    return Ok((parts, answer));
                }
                Err((_, Some(unsent))) if reused => request = Box::new(unsent),
                Err((error, unsent)) => {
                    self.failed(&error);
                    return Err(match unsent {
                        Some(unsent) => Unanswered::Unsent(Box::new(unsent), io::Error::other(error)),
                        None => Unanswered::Broken(error),
                    });
                }
            }
        }
    }
}

impl Pool {
    /// Closes connections that were not used for `keep`. Meant for a timer, some seconds apart: such a connection is not
    /// used again without it, only kept open.
    pub(super) fn sweep(&self, keep: Duration) {
        let mut idle = self.idle.lock();
        let stale = idle.partition_point(|(since, _)| since.elapsed() >= keep);
        let closed: Vec<_> = idle.drain(..stale).collect();
        drop(idle);
        drop(closed);
    }

    /// A kept connection that is still good.
    fn take(&self, keep: Duration) -> Option<Box<Link>> {
        loop {
            let (since, mut link) = self.idle.lock().pop()?;
            if since.elapsed() < keep && link.is_free() {
                return Some(link);
            }
        }
    }

    fn keep(&self, mut link: Box<Link>) {
        if link.is_done() || link.is_free() {
            let mut idle = self.idle.lock();
            if idle.len() < KEPT {
                idle.push((Instant::now(), link));
            }
        }
    }
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, deadline: Duration) -> io::Result<Box<Self>> {
        let stream = connect(endpoint, deadline).await?;
        let handshake = Builder::new().max_headers(FIELDS).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        Ok(Box::new(Self { sender, connection: Some(connection) }))
    }

    /// Sends a request; if it could not be sent, it comes back with the error.
    pub(super) fn ask(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, (hyper::Error, Option<Request<RequestBody>>)>> {
        // Queued here and now, or the future would carry the request along.
        let answer = self.sender.try_send_request(request);
        let connection = &mut self.connection;
        async move {
            let (mut answer, mut asked) = (pin!(answer), false);
            let answered = poll_fn(|cx| {
                if asked {
                    drive(connection, Waker::noop());
                    if let Poll::Ready(answered) = answer.as_mut().poll(&mut quiet()) {
                        return Poll::Ready(answered);
                    }
                }
                asked = true;
                drive(connection, cx.waker());
                answer.as_mut().poll(&mut quiet())
            });
            answered.await.map_err(|mut error| {
                let unsent = error.take_message();
                (error.into_error(), unsent)
            })
        }
    }

    /// Whether it waits for a request: the last one is done, and the upstream has neither closed nor sent anything.
    fn is_free(&mut self) -> bool {
        drive(&mut self.connection, Waker::noop());
        self.is_done()
    }

    /// Whether the last request is done, as far as was seen.
    fn is_done(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// Lets a connection read and write. Its errors reach whoever waits for the answer or its body.
fn drive(connection: &mut Option<Connection<TokioIo<Stream>, RequestBody>>, waker: &Waker) {
    let going = connection.as_mut().map(Pin::new);
    if going.is_some_and(|going| going.poll(&mut Context::from_waker(waker)).is_ready()) {
        *connection = None;
    }
}

/// Wakes nobody.
///
/// A connection tells by a wake-up when there is an answer, or more of it. Nobody drives it but whoever waits for that,
/// and looks right after: woken, it would be polled once more for nothing. So it looks first with nobody to wake, and
/// waits only when nothing has come.
fn quiet() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Answer {
    /// Whether nothing more comes.
    pub fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next piece; `None` at the end. Safe to drop and call again.
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let frame = poll_fn(|cx| self.poll_frame(cx)).await;
        let last = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers() || self.body.is_end_stream(),
            Some(Err(_)) => false,
        };
        if last {
            self.give_back();
        }
        frame
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(Link { connection, .. }) = self.link.as_deref_mut() else {
            return Pin::new(&mut self.body).poll_frame(cx);
        };
        // Asked first, since the connection reads only what is wanted.
        let mut frame = Pin::new(&mut self.body).poll_frame(&mut quiet());
        for waker in [Waker::noop(), cx.waker()] {
            if frame.is_pending() {
                drive(connection, waker);
                frame = Pin::new(&mut self.body).poll_frame(&mut quiet());
            }
        }
        frame
    }

    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            self.turn.endpoint.pool.keep(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{Upstream, Wait, testing};
    use super::*;

    /// An upstream that answers `answers` requests on each connection, then closes it; and its count of connections.
    async fn upstream(answers: usize) -> (Arc<Upstream>, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    for _ in 0..answers {
                        // A whole request comes in one piece here.
                        if !matches!(peer.read(&mut [0; 1024]).await, Ok(1..)) {
                            return;
                        }
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        peer.write_all(answer).await.expect("answer");
                    }
                });
            }
        });
        (testing::upstream(&[&url]), connections)
    }

    async fn call(upstream: &Arc<Upstream>) -> Answer {
        let request = Request::post("/").header("host", "a").body(Bytes::from_static(b"{}").into());
        let request = Box::new(request.expect("request"));
        let called = upstream.call(request, &testing::client(), false, &Wait::default()).await;
        let (head, answer) = called.expect("an answer");
        assert_eq!(head.status, 200);
        answer
    }

    async fn ask(upstream: &Arc<Upstream>) -> Vec<u8> {
        let mut answer = call(upstream).await;
        let mut body = Vec::new();
        while let Some(frame) = answer.frame().await {
            body.extend_from_slice(&frame.expect("frame").into_data().expect("data"));
        }
        body
    }

    fn pool(upstream: &Upstream) -> Arc<Endpoint> {
        upstream.fleet.endpoints.load()[0].clone()
    }

    /// Each connection more is a round trip more, and a slot less in an upstream that has few.
    #[tokio::test]
    async fn a_connection_serves_one_request_after_another() {
        let (upstream, connections) = upstream(usize::MAX).await;
        for _ in 0..3 {
            assert_eq!(ask(&upstream).await, b"ok");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }

    /// An upstream that closes what idles, as all do, must not cost the next caller a 502.
    #[tokio::test]
    async fn a_connection_that_the_upstream_closed_is_not_used() {
        let (upstream, connections) = upstream(1).await;
        for call in 1..=3 {
            assert_eq!(ask(&upstream).await, b"ok");
            // The reactor has to hear of the end before the pool can; if it has already, nothing is kept.
            let endpoint = pool(&upstream);
            let kept = endpoint.pool.idle.lock().pop();
            if let Some((since, mut link)) = kept {
                let closed = async {
                    while link.is_free() {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the end is seen");
                endpoint.pool.idle.lock().push((since, link));
            }
            assert_eq!(connections.load(Ordering::SeqCst), call);
        }
    }

    /// Half an answer that nobody read must not be taken for the next caller's.
    #[tokio::test]
    async fn an_answer_that_was_not_read_ends_its_connection() {
        let (upstream, connections) = upstream(usize::MAX).await;
        drop(call(&upstream).await);
        assert!(pool(&upstream).pool.idle.lock().is_empty());
        assert_eq!(ask(&upstream).await, b"ok");
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }

    /// What is kept for ever holds sockets on both sides for ever.
    #[tokio::test]
    async fn what_idles_too_long_is_closed() {
        let (upstream, _) = upstream(usize::MAX).await;
        let endpoint = pool(&upstream);
        let idle = &endpoint.pool.idle;
        ask(&upstream).await;
        upstream.sweep();
        assert_eq!(idle.lock().len(), 1);
        if let Some((since, _)) = idle.lock().first_mut() {
            *since = since.checked_sub(upstream.settings.timeouts.idle).expect("the past");
        }
        upstream.sweep();
        assert!(idle.lock().is_empty());
    }

    /// Least connections and the gauge are worth what this count is worth: it must fall on each way out.
    #[tokio::test]
    async fn what_is_in_use_is_counted_until_the_answer_is_dropped() {
        let (upstream, _) = upstream(usize::MAX).await;
        let answer = call(&upstream).await;
        assert_eq!(upstream.states()[0].in_use, 1);
        drop(answer);
        assert_eq!(upstream.states()[0].in_use, 0);
    }
}
