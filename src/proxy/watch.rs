//! Watches the client while the gate works for it.

use std::future::Future;

use pingora::protocols::http::ServerSession;
use pingora::{ErrorType, Result};

/// The client is gone: nobody is left to answer.
#[derive(Debug)]
pub struct Gone;

/// Sees the client leave. A closed sending half is not leaving (the answer can still be read), and early bytes of a
/// next request are not either: a paid call must not be lost to them.
#[derive(Debug)]
pub struct Watch {
    blind: bool,
}

impl Watch {
    /// Starts watching; the request must have been read whole.
    pub fn new(session: &mut ServerSession) -> Self {
        session.set_abort_on_close(false);
        Self { blind: false }
    }

    /// From now on a closed sending half counts as leaving: the answer is a stream without end, and browsers close
    /// both halves at once.
    pub fn strict(&mut self, session: &mut ServerSession) {
        session.set_abort_on_close(true);
    }

    /// Resolves when the client has left, else never.
    pub async fn gone(&mut self, session: &mut ServerSession) -> Gone {
        if !self.blind {
            match session.read_body_or_idle(true).await {
                Err(e) if *e.etype() == ErrorType::ConnectError => {
                    // "Sent data after end of body": a byte of the next request is lost, so this one is the last.
                    self.blind = true;
                    session.set_keepalive(None);
                }
                Err(_) => return Gone,
                Ok(_) => self.blind = true,
            }
        }
        std::future::pending().await
    }

    /// Does `work` unless the client leaves first.
    pub async fn during<T>(
        &mut self,
        session: &mut ServerSession,
        work: impl Future<Output = T>,
    ) -> Result<T, Gone> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            gone = self.gone(session) => Err(gone),
        }
    }
}
