//! The exchange's HTTP/1 connections to one upstream.
//!
//! A connection has no task of its own: whoever waits for its answer drives it, which saves two task switches and a
//! channel at each step. So the answer is read only as fast as the client takes it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, response};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::Endpoints;
use super::connect::connect;

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

/// The connections to one upstream that are not in use.
pub struct Pool {
    endpoints: Arc<Endpoints>,
    connect_deadline: Duration,
    keep: Duration,
    /// The one used last is at the end, and is used first.
    idle: Mutex<Vec<(Instant, Box<Link>)>>,
}

/// One connection.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<TcpStream>, Full<Bytes>>,
    ended: bool,
}

/// An answer on its way. Dropped before its end, its connection closes.
pub struct Answer<'a> {
    pool: &'a Pool,
    link: Option<Box<Link>>,
    body: Incoming,
}

impl Pool {
    pub(super) fn new(endpoints: Arc<Endpoints>, connect_deadline: Duration, keep: Duration) -> Self {
        Self { endpoints, connect_deadline, keep, idle: Mutex::default() }
    }

    /// Sends `request`, whose target must be in origin form, and waits for the head of the answer. A request that
    /// provably never left on a kept connection is sent again on another; any other is sent once.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(response::Parts, Answer<'_>), CallError> {
        loop {
            let kept = self.take();
            let reused = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                None => self.open().await?,
            };
            match link.ask(request).await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    let mut answer = Answer { pool: self, link: Some(link), body };
                    if answer.is_end() {
                        answer.give_back();
                    }
                    return Ok((parts, answer));
                }
                Err((_, Some(unsent))) if reused => request = unsent,
                Err((error, _)) => return Err(CallError::Broken(error)),
            }
        }
    }

    /// Closes connections that were not used for too long. Meant for a timer, some seconds apart: such a connection
    /// is not used again without it, only kept open.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock();
        let stale = idle.partition_point(|(since, _)| since.elapsed() >= self.keep);
        let closed: Vec<_> = idle.drain(..stale).collect();
        drop(idle);
        drop(closed);
    }

    async fn open(&self) -> Result<Box<Link>, CallError> {
        let stream = connect(&self.endpoints, self.connect_deadline).await.map_err(CallError::Connect)?;
        let handshake = Builder::new().max_headers(FIELDS).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(CallError::Broken)?;
        Ok(Box::new(Link { sender, connection, ended: false }))
    }

    /// A kept connection that is still good.
    fn take(&self) -> Option<Box<Link>> {
        loop {
            let (since, mut link) = self.idle.lock().pop()?;
            if since.elapsed() < self.keep && link.is_free() {
                return Some(link);
            }
        }
    }

    fn keep(&self, mut link: Box<Link>) {
        if link.is_free() {
            let mut idle = self.idle.lock();
            if idle.len() < KEPT {
                idle.push((Instant::now(), link));
            }
        }
    }
}

impl Link {
    /// Sends a request; if it could not be sent, it comes back with the error.
    async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Full<Bytes>>>)> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        let answered = poll_fn(|cx| {
            drive(connection, ended, cx);
            answer.as_mut().poll(cx)
        });
        answered.await.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }

    /// Whether it waits for a request: the last one is done, and the upstream has neither closed nor sent anything.
    fn is_free(&mut self) -> bool {
        // Nobody waits, so nobody is to be woken.
        drive(&mut self.connection, &mut self.ended, &mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }
}

/// Lets a connection read and write. Its errors reach whoever waits for the answer or its body.
fn drive(
    connection: &mut Connection<TokioIo<TcpStream>, Full<Bytes>>,
    ended: &mut bool,
    cx: &mut Context<'_>,
) {
    if !*ended {
        *ended = Pin::new(connection).poll(cx).is_ready();
    }
}

impl Answer<'_> {
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
        // Asked first, since the connection reads only what is wanted.
        let ready = Pin::new(&mut self.body).poll_frame(cx);
        match (ready, &mut self.link) {
            (Poll::Pending, Some(link)) => {
                drive(&mut link.connection, &mut link.ended, cx);
                Pin::new(&mut self.body).poll_frame(cx)
            }
            (ready, _) => ready,
        }
    }

    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            self.pool.keep(link);
        }
    }
}
