//! Log rotation: on SIGUSR1 the logs are opened anew, as nginx does.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::observe::Observer;

/// Waits for the signal.
pub struct Rotation(pub Arc<Observer>);

#[async_trait]
impl BackgroundService for Rotation {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut asked = match signal(SignalKind::user_defined1()) {
            Ok(asked) => asked,
            Err(error) => return warn!(%error, "cannot watch for SIGUSR1: logs can't be rotated"),
        };
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                Some(()) = asked.recv() => {
                    info!("opening the logs anew");
                    self.0.reopen();
                }
            }
        }
    }
}
