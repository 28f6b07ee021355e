//! Fetches the keys that issuers publish, in the background: the guards only see what came.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::guard::jwt::Issuer;
use crate::proxy::Gate;
use crate::state::Clock;

/// How often the clock is looked at, and how soon an issuer that a reload brings is known.
const TICK: Duration = Duration::from_secs(1);

/// Sees to all issuers of the settings in force.
pub struct Keys(pub Arc<Gate>);

#[async_trait]
impl BackgroundService for Keys {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            for issuer in self.0.live().issuers().filter(|issuer| issuer.take_over()) {
                tokio::spawn(follow(Arc::downgrade(issuer), self.0.clock().clone()));
            }
            tokio::select! {
                _ = shutdown.changed() => return,
                () = sleep(TICK) => {}
            }
        }
    }
}

/// Fetches an issuer's keys again and again, until no settings name it.
async fn follow(issuer: Weak<Issuer>, clock: Clock) {
    while let Some(issuer) = issuer.upgrade() {
        if issuer.is_due(clock.now()) {
            let was_well = issuer.is_well();
            let fetched = issuer.document.fetch().await;
            let (token, host) = (&*issuer.name, issuer.document.host());
            match issuer.take(fetched, clock.now()) {
                Ok(()) if was_well => {}
                Ok(()) => info!(token, host, "the issuer tells its keys again"),
                Err(why) if was_well => {
                    warn!(token, host, "the issuer does not tell its keys: what it answers {why}")
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = issuer.wanted() => {}
            () = sleep(TICK) => {}
        }
    }
}
