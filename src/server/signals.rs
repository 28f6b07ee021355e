//! What signals do to a running server: end it, have it read its settings again, or hand over to the next process.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::reload::{Asker, Reloader};
use super::stop::Stop;
use super::upgrade::Succession;
use crate::state::AnyStore;

/// Tells Pingora when to stop: after the drain.
pub(super) struct Signals {
    pub(super) stop: Arc<Stop>,
    /// Absent: the settings can't be read again, and SIGHUP does what it does to any program.
    pub(super) reloader: Option<Arc<Reloader>>,
    /// Absent: there is no place where sockets could change hands.
    pub(super) succession: Option<Arc<Succession>>,
    /// To be handed over with the sockets.
    pub(super) store: Arc<AnyStore>,
    /// Told once signals no longer do what they do to any program.
    pub(super) ready: SyncSender<()>,
}

/// Signals of this process.
struct Watched {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Option<Signal>,
}

enum Told {
    End,
    Reload,
    HandOver,
}

impl Watched {
    fn new(reloads: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: reloads.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    async fn ended(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn told(&mut self) -> Told {
        let reload = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.quit.recv() => Told::HandOver,
            _ = reload => Told::Reload,
        }
    }
}

impl Signals {
    /// Waits for the end; what else is asked meanwhile is done.
    async fn serve(&self, watched: &mut Watched) {
        loop {
            let told = tokio::select! {
                told = watched.told() => told,
                () = self.stop.asked() => return,
            };
            match told {
                Told::End => return,
                Told::Reload => self.reload().await,
                Told::HandOver => tokio::select! {
                    gone = self.hand_over() => if gone { return },
                    () = watched.ended() => return,
                },
            }
        }
    }

    async fn reload(&self) {
        let Some(reloader) = self.reloader.clone() else { return };
        let mut reloading = vec![NotifyState::Reloading];
        reloading.extend(NotifyState::monotonic_usec_now());
        tell_manager(&reloading);
        // Files are read and names looked up: not on the thread that signals are watched on.
        let done = spawn_blocking(move || reloader.reload(Asker::Signal)).await;
        let status = match done {
            Ok(Ok(())) => "Settings read again".to_owned(),
            Ok(Err(refused)) => format!("Serving under the old settings: {refused}"),
            Err(_) => "Serving under the old settings: reading them again panicked".to_owned(),
        };
        tell_manager(&[NotifyState::Ready, NotifyState::Status(&status.replace('\n', "; "))]);
    }

    /// Whether another process has the sockets now.
    async fn hand_over(&self) -> bool {
        let Some(succession) = self.succession.clone() else {
            warn!("SIGQUIT ignored: without runtime_dir or state_dir no process can take over");
            return false;
        };
        match succession.hand_over().await {
            Ok(()) => {
                info!("another process has the sockets");
                self.stop.handed_over();
                // It waits for the store before it accepts.
                let store = self.store.clone();
                let _ = spawn_blocking(move || store.hand_over()).await;
                true
            }
            Err(why) => {
                error!("serving on: {why}");
                false
            }
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let watched = Watched::new(self.reloader.is_some());
        // Whoever waited may have given up.
        let _ = self.ready.try_send(());
        match watched {
            Ok(mut watched) => {
                tell_manager(&[NotifyState::Ready]);
                self.serve(&mut watched).await;
                tell_manager(&[NotifyState::Stopping]);
                info!(in_flight = self.stop.in_flight(), "stopping");
                tokio::select! {
                    () = self.stop.drain() => {}
                    () = watched.ended() => warn!(in_flight = self.stop.in_flight(), "stopping at once, as told twice"),
                }
            }
            Err(why) => {
                warn!(%why, "cannot watch for signals; only an internal stop will end the server");
                self.stop.asked().await;
                self.stop.drain().await;
            }
        }
        ShutdownSignal::FastShutdown
    }
}

/// Tells the service manager, if there is one that wants to know (sd_notify(3)).
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(state) {
        warn!(%why, "cannot tell the service manager");
    }
}
