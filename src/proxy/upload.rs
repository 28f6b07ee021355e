//! An upload on its way: read from the client, looked at, and handed on as fast as the upstream takes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::http::ServerSession;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::body::{self, Unread};
use super::body_memory::Held;
use super::patience::Patience;
use super::route::Route;
use crate::guard::caps::BodyKind;
use crate::guard::mode::NotedLate;
use crate::guard::uploads::Upload;
use crate::guard::{Refusal, Verdict};
use crate::upstream::{Piece, RequestBody};

/// Why the rest of an upload is not handed on.
#[derive(Debug)]
pub enum Halted {
    /// The client is gone.
    Gone,
    /// The client is to be told.
    Refused(Refusal),
    /// The upstream does not take it.
    Stalled,
}

impl From<Unread> for Halted {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Gone => Halted::Gone,
            Unread::Refused(refusal) => Halted::Refused(refusal),
        }
    }
}

impl From<Refusal> for Halted {
    fn from(refusal: Refusal) -> Self {
        Halted::Refused(refusal)
    }
}

/// An upload that is being read.
pub struct Arriving {
    route: Arc<Route>,
    declared: Option<u64>,
    guard: Option<Upload>,
    observed: Option<NotedLate>,
    patience: Patience,
    received: u64,
}

/// An upload that is being handed on.
pub struct Sending {
    arriving: Arriving,
    /// `None` once there is nothing more to hand on.
    to: Option<mpsc::Sender<Piece>>,
    /// What was read before the upstream heard of it, and the share of memory that it holds.
    ahead: Option<(Bytes, Held)>,
    /// When the upstream is given up that does not take the next piece.
    stalled: Option<Instant>,
}

/// An upload as far as it had to be read before the upstream hears of it.
pub enum Ahead {
    /// All of it.
    Whole(Bytes, Held),
    /// Some of it.
    Begun(Box<Sending>, RequestBody),
}

impl Arriving {
    /// `guard`: looks at what comes; where it only `observed`, what it finds is noted there. `declared`: `Content-Length`.
    pub fn new(
        route: Arc<Route>,
        guard: Option<Upload>,
        observed: Option<NotedLate>,
        declared: Option<u64>,
        patience: Patience,
    ) -> Self {
        Self { route, declared, guard, observed, patience, received: 0 }
    }

    /// Reads as much as has to be looked at before the upstream hears of it, `first` included.
    pub async fn look_ahead(
        mut self,
        session: &mut ServerSession,
        first: Bytes,
        mut held: Held,
    ) -> Result<Ahead, Unread> {
        let wanted = self.guard.as_ref().map_or(0, Upload::prefix);
        self.look(&first)?;
        hold(&mut held, first.len())?;
        let mut ahead = first;
        if ahead.len() < wanted && !self.is_whole(session) {
            let mut read = BytesMut::from(ahead);
            while read.len() < wanted
                && let Some(more) = self.next(session).await?
            {
                hold(&mut held, more.len())?;
                read.extend_from_slice(&more);
            }
            ahead = read.freeze();
        }
        if self.is_whole(session) {
            self.end()?;
            return Ok(Ahead::Whole(ahead, held));
        }
        let (to, body) = RequestBody::arriving();
        let ahead = Some((ahead, held));
        let sending = Sending { arriving: self, to: Some(to), ahead, stalled: None };
        Ok(Ahead::Begun(Box::new(sending), body))
    }

    /// The next piece, once the guards have seen it; `None` at the end. Safe to drop and call again.
    async fn next(&mut self, session: &mut ServerSession) -> Result<Option<Bytes>, Unread> {
        let due = self.patience.wait(now());
        let read = timeout_at(due.into(), session.read_request_body()).await;
        let chunk = read.map_err(|_| body::too_slow())?.map_err(|error| body::unread(&error))?;
        match &chunk {
            Some(chunk) => {
                self.patience.received(now(), chunk.len());
                self.look(chunk)?;
            }
            None => self.patience.pause(now()),
        }
        Ok(chunk)
    }

    fn look(&mut self, bytes: &[u8]) -> Verdict {
        self.received += bytes.len() as u64;
        self.route.guards.caps.check_length(self.received, BodyKind::Other)?;
        let seen = self.guard.as_mut().map_or(Ok(()), |guard| guard.feed(bytes));
        self.judge(seen)
    }

    /// Notes what is only observed; the rest is then not looked at.
    fn judge(&mut self, verdict: Verdict) -> Verdict {
        match (verdict, &self.observed) {
            (Err(refusal), Some(noted)) => {
                self.guard = None;
                noted.get_or_init(|| refusal);
                Ok(())
            }
            (verdict, _) => verdict,
        }
    }

    /// Whether nothing more comes. HTTP/2 may say so behind the last byte only, when the upstream would have all of them.
    fn is_whole(&self, session: &mut ServerSession) -> bool {
        self.declared == Some(self.received) || session.is_body_done()
    }

    fn end(&mut self) -> Verdict {
        let seen = self.guard.as_mut().map_or(Ok(()), Upload::end);
        self.judge(seen)
    }
}

impl Sending {
    /// Hands on until the end of the body, or until the upstream wants no more. Safe to drop and call again.
    pub async fn run(&mut self, session: &mut ServerSession) -> Result<(), Halted> {
        let allowed = self.arriving.route.timeouts.write;
        while let Some(to) = &self.to {
            // Room first: what is read must not be lost if this is dropped.
            let Some(room) = room(to, &mut self.stalled, &mut self.arriving.patience, allowed).await? else {
                break;
            };
            let piece = match self.ahead.take() {
                Some((ahead, _)) => Some(ahead),
                None => self.arriving.next(session).await?,
            };
            match piece {
                Some(data) if data.is_empty() => {}
                Some(data) => {
                    if self.arriving.is_whole(session) {
                        self.arriving.end()?;
                    }
                    room.send(Piece::Data(data));
                }
                None => {
                    self.arriving.end()?;
                    room.send(Piece::End);
                    break;
                }
            }
        }
        self.to = None;
        Ok(())
    }
}

/// Waits until the upstream takes one piece more; `None`: it takes none any more.
async fn room<'a>(
    to: &'a mpsc::Sender<Piece>,
    stalled: &mut Option<Instant>,
    patience: &mut Patience,
    allowed: Duration,
) -> Result<Option<mpsc::Permit<'a, Piece>>, Halted> {
    if let Ok(room) = to.try_reserve() {
        *stalled = None;
        return Ok(Some(room));
    }
    patience.pause(now());
    let due = *stalled.get_or_insert_with(|| Instant::now() + allowed);
    let room = timeout_at(due, to.reserve()).await.map_err(|_| Halted::Stalled)?;
    *stalled = None;
    Ok(room.ok())
}

fn hold(held: &mut Held, bytes: usize) -> Result<(), Unread> {
    if held.grow(bytes as u64) { Ok(()) } else { Err(Unread::Refused(body::no_memory(held))) }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}
