//! The one that keeps the connection: opens it, shows the server a sign of life, hears what the other gates have changed,
//! and sends what had to wait. Nobody else ever waits for a server that is away.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::info;

use super::Shared;
use super::bans::SharedBans;
use super::link::{Failure, Line};
use super::script::{BEAT, Call};

/// Between two signs of life, and so how late a ban of another gate is heard of.
const BEAT_EVERY: Duration = Duration::from_millis(500);

/// For the answer to one, at least: no caller waits for it.
const BEAT_PATIENCE: Duration = Duration::from_millis(250);

/// Pauses between tries to connect: doubled from the first up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A connection that lasts this long was no mistake: the next pause is the first again.
const STEADY: Duration = Duration::from_secs(5);

/// What the server says to a sign of life.
pub(super) struct Beat {
    pub(super) epoch: String,
    /// Place of the last change of bans.
    pub(super) last_change: u64,
}

/// Keeps the connection until `stop` ends. Tells `tried` once the first try is over.
pub(super) async fn keep(shared: &Shared, mut stop: watch::Receiver<()>, tried: SyncSender<()>) {
    let mut pause = PAUSES.0;
    loop {
        match shared.link.connect().await {
            Err(why) => shared.link.note_away(why),
            Ok(line) => match shared.greet(&line).await {
                // The link has said why.
                Err(_) => {}
                Ok(()) => {
                    info!(gates = shared.link.gates(), "the shared store is there");
                    shared.link.trust(line.clone());
                    // Full: nobody waits any more.
                    let _ = tried.try_send(());
                    let since = Instant::now();
                    let ended = tokio::select! {
                        _ = stop.changed() => true,
                        () = shared.tend(&line) => false,
                    };
                    if ended {
                        return;
                    }
                    if since.elapsed() > STEADY {
                        pause = PAUSES.0;
                    }
                }
            },
        }
        let _ = tried.try_send(());
        tokio::select! {
            _ = stop.changed() => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

impl Shared {
    /// All that has to be right before the first caller uses `line`.
    async fn greet(&self, line: &Arc<Line>) -> Result<(), Failure> {
        let beat = self.beat(line).await?;
        self.hear_all(line, &beat).await
    }

    /// Returns when `line` is trusted no more.
    async fn tend(&self, line: &Arc<Line>) {
        loop {
            self.send_what_waited(line).await;
            tokio::select! {
                () = line.closed.notified() => return,
                () = sleep(BEAT_EVERY) => {}
            }
            // What fails counts against the line, which then closes.
            if let Ok(beat) = self.beat(line).await {
                let _ = self.hear(line, &beat).await;
            }
        }
    }

    async fn send_what_waited(&self, line: &Arc<Line>) {
        self.tell_pending(line).await;
        // What fails is tried again after the next beat.
        let _ = self.charge(line).await;
        let waiting = std::mem::take(&mut *self.outbox.lock());
        if !waiting.is_empty() && self.send(&waiting).await.is_err() {
            self.outbox.lock().extend(waiting);
        }
    }

    /// Shows a sign of life, and learns the server's time and how many gates there are.
    async fn beat(&self, line: &Arc<Line>) -> Result<Beat, Failure> {
        let keys = [self.keys.gates(), self.keys.changes(), self.keys.epoch()];
        let (gate, epoch, bans) = (self.bans.gate().to_be_bytes(), SharedBans::new_epoch(), self.keys.bans());
        let args: [&[u8]; 3] = [&gate, epoch.as_bytes(), &bans];
        let asked = self.time.local();
        let call = Call { script: &BEAT, keys: &keys, args: &args };
        let answer = self.link.call_by(line, &call, BEAT_PATIENCE.max(self.config.timeout)).await?;
        let (now, gates, epoch, last_change) =
            <(u64, u32, String, u64)>::from_redis_value(answer).map_err(|_| Failure::Unknown)?;
        self.time.learn(asked, now);
        self.link.note_gates(gates);
        Ok(Beat { epoch, last_change })
    }
}
