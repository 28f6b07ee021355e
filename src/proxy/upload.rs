//! An upload on its way: read from the client, looked at, and handed on as fast as the upstream takes it.

use std::mem::take;
use std::sync::{Arc, PoisonError};
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
use crate::guard::json::splice;
use crate::guard::mode::NotedLate;
use crate::guard::text::Values;
use crate::guard::uploads::{Report, Upload};
use crate::guard::{Reason, Refusal, Verdict};
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
    late: NotedLate,
    patience: Patience,
    received: u64,
    /// What came and may not be handed on yet, and the share of memory that it holds.
    behind: BytesMut,
    held: Held,
    /// The values that fields of a form name.
    named: Values,
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
pub struct Ahead {
    /// The rest, if more is to come.
    pub sending: Option<Box<Sending>>,
    /// What the upstream gets.
    pub body: RequestBody,
    /// The share of memory that it holds, if all of it is there.
    pub held: Option<Held>,
    /// The values that fields of a form name.
    pub named: Values,
}

impl Arriving {
    /// `guard`: looks at what comes; what it finds is noted in `late`. `declared`: `Content-Length`. `held`: for what is
    /// held back.
    pub fn new(
        route: Arc<Route>,
        guard: Option<Upload>,
        late: NotedLate,
        declared: Option<u64>,
        patience: Patience,
        held: Held,
    ) -> Self {
        let behind = BytesMut::new();
        Self { route, declared, guard, late, patience, received: 0, behind, held, named: Values::default() }
    }

    /// Reads as much as has to be looked at before the upstream hears of it, `first` included. A text that begins there is
    /// read to its end.
    pub async fn look_ahead(
        mut self,
        session: &mut ServerSession,
        first: Bytes,
        mut held: Held,
    ) -> Result<Ahead, Unread> {
        let wanted = self.guard.as_ref().map_or(0, |guard| guard.prefix(self.declared));
        self.look(&first)?;
        hold(&mut held, first.len())?;
        let mut ahead = first;
        if (ahead.len() < wanted || self.holds()) && !self.is_whole(session) {
            let mut read = BytesMut::from(ahead);
            while (read.len() < wanted || self.holds())
                && let Some(more) = self.read(session).await?
            {
                hold(&mut held, more.len())?;
                read.extend_from_slice(&more);
            }
            ahead = read.freeze();
        }
        let came = ahead.len() as u64;
        if self.is_whole(session) {
            self.end()?;
            let body = self.edited(ahead, 0)?.into();
            return Ok(Ahead { sending: None, body, held: Some(held), named: self.named });
        }
        let promised = self.declared.is_some();
        let begun = self.guard.as_mut().map_or(Ok(()), |guard| guard.stream(promised));
        self.note(begun)?;
        let ahead = self.edited(ahead, 0)?;
        let length = self.declared.map(|declared| declared.saturating_sub(came) + ahead.len() as u64);
        let (to, body) = RequestBody::arriving(length);
        let named = take(&mut self.named);
        let ahead = Some((ahead, held));
        let sending = Box::new(Sending { arriving: self, to: Some(to), ahead, stalled: None });
        Ok(Ahead { sending: Some(sending), body, held: None, named })
    }

    /// Whether a text is held back until it is whole.
    fn holds(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.held_from().is_some())
    }

    /// The next piece to be handed on; empty where it is held back, `None` at the end. Safe to drop and call again.
    async fn next(&mut self, session: &mut ServerSession) -> Result<Option<Bytes>, Unread> {
        match self.read(session).await? {
            Some(chunk) => Ok(Some(self.pass(chunk)?)),
            None => Ok(None),
        }
    }

    /// The next piece that came, once the guards have seen it. Safe to drop and call again.
    async fn read(&mut self, session: &mut ServerSession) -> Result<Option<Bytes>, Unread> {
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
        self.note(seen)
    }

    /// Writes down what was found. What the texts of a refused request hold is told by the refusal.
    fn note(&mut self, verdict: Verdict) -> Verdict {
        let Some(guard) = &mut self.guard else { return verdict };
        let Report { noted, seen, named } = guard.take_report();
        self.named = take(&mut self.named).or(named);
        if !noted.is_empty() || !seen.is_empty() {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.noted.extend(noted);
            if verdict.is_ok() {
                late.seen.extend(seen);
            }
        }
        verdict
    }

    /// What of all that came may be handed on, `chunk` being the last of it.
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, Refusal> {
        let held_from = self.guard.as_ref().and_then(Upload::held_from);
        let came = chunk.len();
        let whole = if self.behind.is_empty() {
            if held_from.is_none() {
                let from = self.received - chunk.len() as u64;
                return self.edited(chunk, from);
            }
            BytesMut::from(chunk)
        } else {
            let mut behind = std::mem::take(&mut self.behind);
            behind.extend_from_slice(&chunk);
            behind
        };
        let from = self.received - whole.len() as u64;
        let mut ready = whole;
        if let Some(held_from) = held_from {
            let length = usize::try_from(held_from.saturating_sub(from)).unwrap_or(usize::MAX);
            self.behind = ready.split_off(length.min(ready.len()));
            if !self.held.grow(self.behind.len().min(came) as u64) {
                return Err(body::no_memory(&self.held));
            }
        }
        self.edited(ready.freeze(), from)
    }

    /// What stands at byte `from` of the body, as the guard wants it.
    fn edited(&mut self, bytes: Bytes, from: u64) -> Result<Bytes, Refusal> {
        let mut edits = self.guard.as_mut().map(Upload::take_edits).unwrap_or_default();
        if edits.is_empty() {
            return Ok(bytes);
        }
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for (span, _) in &mut edits {
            *span = span.start.saturating_sub(from)..span.end.saturating_sub(from);
        }
        let edited = splice(&bytes, &edits).map(Bytes::from);
        // No edit reaches beyond what is handed on; if one did, what it was to make harmless would pass.
        edited.ok_or_else(|| {
            Refusal::new(Reason::ThreatDetected, "The form can't be made harmless.", "sanitize")
        })
    }

    /// Whether nothing more comes. HTTP/2 may say so behind the last byte only, when the upstream would have all of them.
    fn is_whole(&self, session: &mut ServerSession) -> bool {
        self.declared == Some(self.received) || session.is_body_done()
    }

    fn end(&mut self) -> Verdict {
        let seen = self.guard.as_mut().map_or(Ok(()), Upload::end);
        self.note(seen)
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
                    // A text that never ended, in a form that was not to be refused for it.
                    let rest = std::mem::take(&mut self.arriving.behind);
                    if !rest.is_empty() {
                        room.send(Piece::Data(rest.freeze()));
                        continue;
                    }
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
