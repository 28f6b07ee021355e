//! Watches the client while the gate works for it, and hands on what still comes of its upload.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pingora::ErrorType;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use super::upload::{Halted, Sending};
use crate::server::Alarm;
use crate::upstream::Wait;

/// The client is gone: nobody is left to answer.
#[derive(Debug)]
pub struct Gone;

/// Sees the client leave. A closed sending half is not leaving (the answer can still be read), and early bytes of a
/// next request are not either: a paid call must not be lost to them.
pub struct Watch {
    blind: bool,
    upload: Option<Box<Sending>>,
    /// When the last of the upload was handed on.
    sent: Option<Instant>,
}

impl Watch {
    /// Starts watching; what is not an `upload` must have been read whole.
    pub fn new(session: &mut ServerSession, upload: Option<Box<Sending>>) -> Self {
        session.set_abort_on_close(false);
        Self { blind: false, upload, sent: None }
    }

    /// Whether more of the request is to come.
    pub fn is_sending(&self) -> bool {
        self.upload.is_some()
    }

    /// How long the upstream has had the whole request, which was begun to be sent at `started`.
    pub fn since_sent(&self, started: Instant) -> Duration {
        if self.is_sending() { Duration::ZERO } else { self.sent.unwrap_or(started).elapsed() }
    }

    /// From now on a closed sending half counts as leaving: the answer is a stream without end, and browsers close
    /// both halves at once.
    pub fn strict(&mut self, session: &mut ServerSession) {
        session.set_abort_on_close(true);
    }

    /// Resolves when the client has left or its upload is halted, else never.
    pub async fn gone(&mut self, session: &mut ServerSession) -> Halted {
        // In a box, as most requests have no upload.
        if self.is_sending()
            && let Err(halted) = Box::pin(self.send(session)).await
        {
            return halted;
        }
        if !self.blind {
            match session.read_body_or_idle(true).await {
                Err(e) if *e.etype() == ErrorType::ConnectError => {
                    // "Sent data after end of body": a byte of the next request is lost, so this one is the last.
                    self.blind = true;
                    session.set_keepalive(None);
                }
                Err(_) => return Halted::Gone,
                Ok(_) => self.blind = true,
            }
        }
        std::future::pending().await
    }

    /// Hands on the rest of the upload.
    async fn send(&mut self, session: &mut ServerSession) -> Result<(), Halted> {
        if let Some(upload) = &mut self.upload {
            upload.run(session).await?;
            self.upload = None;
            self.sent = Some(Instant::now());
        }
        Ok(())
    }

    /// Does `work` unless the client leaves first or its upload is halted. `None`: it took longer than `allowed`, which
    /// counts from the end of the request; that is `started`, but for an upload. A work that took too long, or does not take
    /// the upload, is given up by `wait`.
    pub async fn during<T>(
        &mut self,
        session: &mut ServerSession,
        mut work: Pin<&mut impl Future<Output = T>>,
        (wait, alarm): (&Wait, &mut Alarm),
        started: Instant,
        allowed: Duration,
    ) -> Result<Option<T>, Halted> {
        if self.is_sending() {
            tokio::select! {
                biased;
                done = &mut work => return Ok(Some(done)),
                sent = Box::pin(self.send(session)) => {
                    if matches!(sent, Err(Halted::Stalled)) {
                        wait.give_up();
                    }
                    sent?;
                }
            }
        }
        let due = self.sent.unwrap_or(started) + allowed;
        tokio::select! {
            biased;
            done = work => Ok(Some(done)),
            () = alarm.until(due) => {
                wait.give_up();
                Ok(None)
            }
            halted = self.gone(session) => Err(halted),
        }
    }
}
