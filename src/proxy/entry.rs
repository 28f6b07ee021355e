//! Where requests come in: reads a head, serves the request, and hands what is to stream through on to Pingora's proxy.
//!
//! What the gate answers or exchanges never enters that proxy: its future is so large that to set it up for a request
//! costs more than all guards together.

use std::cell::Cell;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::ErrorType;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use tracing::debug;

use super::context::Context;
use super::{Gate, Shared};
use crate::server::GateIo;
use crate::server::door::client_stream;

tokio::task_local! {
    static HANDED_ON: Cell<Option<Box<Context>>>;
}

/// The request that is being handed on to Pingora's proxy, the first time this is asked for it.
pub fn handed_on() -> Option<Box<Context>> {
    HANDED_ON.try_with(Cell::take).ok().flatten()
}

/// The app behind the door.
pub struct Entry {
    gate: Arc<Gate>,
    carrier: Arc<HttpProxy<Shared>>,
}

impl Entry {
    /// The way into `gate`.
    pub fn new(gate: Arc<Gate>, conf: &Arc<ServerConf>) -> Self {
        let carrier = Arc::new(pingora::proxy::http_proxy(conf, Shared(gate.clone())));
        Self { gate, carrier }
    }
}

#[async_trait]
impl HttpServerApp for Entry {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // The future is copied into its box, so what is large is not kept in it.
        let mut session = Box::new(session);
        match read_head(&mut session).await {
            Read::Whole => {}
            Read::Unreadable => {
                Box::pin(self.gate.refuse_unreadable(*session)).await;
                return None;
            }
            Read::Nothing => return None,
        }
        let mut ctx = self.gate.begin(&mut session);
        match self.gate.serve(&mut session, &mut ctx).await {
            Ok(true) => {
                self.gate.record(&session, None, &mut ctx);
                self.gate.draw_flown(&session, &ctx).await;
                self.gate.sanction(&session, &ctx).await;
                let settings = HttpPersistentSettings::for_session(&session);
                let stream = match *session {
                    // What `finish` does, whose future has room for sessions of all kinds.
                    ServerSession::H1(mut session) => {
                        session.finish_body().await.ok()?;
                        session.reuse().await.ok()??
                    }
                    session => Box::pin(session.finish()).await.ok()??,
                };
                Some(ReusedHttpStream::from_reusable_stream(stream, settings))
            }
            Ok(false) => {
                let session = rewound(*session)?;
                let carried = self.carrier.process_new_http(session, shutdown);
                HANDED_ON.scope(Cell::new(Some(ctx)), carried).await
            }
            Err(error) => {
                self.gate.record(&session, Some(&error), &mut ctx);
                self.gate.draw_flown(&session, &ctx).await;
                None
            }
        }
    }

    // The carrier is not told of the end: it would drop a request that it has yet to read, and idles never.
    async fn http_cleanup(&self) {}
}

/// What came of waiting for a request.
pub(super) enum Read {
    /// A head that can be served or refused.
    Whole,
    /// A head that Pingora can't parse, or that is longer than any that is read.
    Unreadable,
    /// The client left, or was too slow.
    Nothing,
}

/// Waits for a request.
pub(super) async fn read_head(session: &mut ServerSession) -> Read {
    match session.read_request().await {
        Ok(true) => return Read::Whole,
        Ok(false) => return Read::Nothing,
        Err(error) => {
            debug!(kind = error.etype().as_str(), "no request could be read");
            let overlong = || client_stream(session).is_some_and(GateIo::head_is_overlong);
            if *error.etype() == ErrorType::InvalidHTTPHeader || overlong() {
                return Read::Unreadable;
            }
        }
    }
    session.shutdown().await;
    Read::Nothing
}

/// The session as it was before its request was read: Pingora's proxy wants to read it itself. In HTTP/2 there is
/// nothing to go back to: the head stays with the session, and so does what was read of the body.
fn rewound(session: ServerSession) -> Option<ServerSession> {
    let reuses = session.get_keepalive_reuses_remaining();
    let raw = client_stream(&session).map(|io| io.rewound());
    let ServerSession::H1(read) = session else { return Some(session) };
    let mut fresh = ServerSession::new_http1(read.into_inner());
    fresh.set_keepalive_reuses_remaining(reuses);
    fresh.set_pipelined_prefix(raw?);
    Some(fresh)
}
