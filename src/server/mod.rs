//! Puts the server together: sockets, services, threads, and an orderly end.

mod canned;
pub mod door;
mod gate_io;
mod rotation;
mod stop;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use pingora::services::{Service, listening};
use tracing::{info, warn};

pub use gate_io::{GateIo, HeadCaps};
pub use stop::{InFlight, Stop};

use crate::admin::serve::Admin;
use crate::config::Settings;
use crate::observe::Observer;
use crate::proxy::{Entry, Gate};
use crate::state::Clock;
use crate::state::settle::SettleActor;
use door::Door;
use rotation::Rotation;
use stop::Signals;

/// How long the start waits for the name of an upstream.
const LOOK_UP: Duration = Duration::from_secs(2);

/// How often names of upstreams are looked up again, and expired counters swept.
const UPKEEP: Duration = Duration::from_secs(15);

/// How often the watch looks at the clock.
const WATCH: Duration = Duration::from_secs(1);

/// Admissions open or waiting to be settled, at most; beyond, requests that draw on shared limits are refused.
const SETTLE_QUEUE: usize = 65_536;

/// How long the last settlements and log lines may take once the server has stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// A gate that serves.
pub struct Running {
    traffic: SocketAddr,
    admin: SocketAddr,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// Why a gate could not start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Bind {
        /// The address.
        address: String,
        /// What the system says.
        cause: io::Error,
    },
    /// Something else that the system refused.
    System(io::Error),
    /// A file or directory that is needed can't be used.
    Setup(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind { address, cause } => {
                write!(f, "cannot listen on {address}: {cause}; choose another address, or stop what uses it")
            }
            StartError::System(cause) => write!(f, "cannot start: {cause}"),
            StartError::Setup(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StartError {}

/// Binds the sockets, starts all threads, and returns as soon as connections are accepted.
pub fn start(settings: Settings, clock: Clock) -> Result<Running, StartError> {
    let traffic = bind(&settings.server.listen)?;
    let admin = bind(&settings.server.admin_listen)?;
    let address = |socket: &TcpListener| socket.local_addr().map_err(StartError::System);
    let (traffic_address, admin_address) = (address(&traffic)?, address(&admin)?);
    let server_settings = settings.server.clone();
    let observer = Observer::start(&settings.observe, clock.now());
    let observer = Arc::new(observer.map_err(|error| StartError::Setup(error.to_string()))?);
    let settling = SettleActor::start(settings.store.clone(), SETTLE_QUEUE);
    let (settler, settle) = settling.map_err(StartError::System)?;
    let stop = Arc::new(Stop::new(server_settings.drain));
    look_up(&settings)?;
    let gate = Gate::new(settings, clock.clone(), observer.clone(), settler, stop.clone());
    let admin_app = Admin::new(&server_settings, gate.clone()).map_err(StartError::Setup)?;

    let conf = ServerConf {
        threads: server_settings.threads,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        upstream_keepalive_pool_size: 128,
        max_retries: 2,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let entry = Entry::new(gate.clone(), &server.configuration);
    let door = Door::new(entry, server_settings.connections.clone(), observer.clone(), clock.clone());
    server.add_service(Inherited::new("traffic", door, traffic, traffic_address, None));
    let admin_door =
        Door::new(admin_app, server_settings.admin_connections(), observer.clone(), clock).uncounted();
    server.add_service(Inherited::new("admin", admin_door, admin, admin_address, Some(1)));
    server.add_service(background_service("watch", Watch { gate: gate.clone() }));
    server.add_service(background_service("upkeep", Upkeep { gate }));
    server.add_service(background_service("rotation", Rotation(observer.clone())));

    let signals = Signals::new(stop.clone());
    let thread = std::thread::Builder::new()
        .name("tidegate".into())
        .spawn(move || {
            server.run(RunArgs { shutdown_signal: Box::new(signals) });
            // The services' runtimes are gone, so nothing is admitted any more: what is queued can be settled.
            let report = settle.shutdown(PATIENCE);
            info!(settled = report.settled, lost = report.lost, "stopped");
            observer.close(PATIENCE);
        })
        .map_err(StartError::System)?;
    Ok(Running { traffic: traffic_address, admin: admin_address, stop, thread: Some(thread) })
}

/// Looks the upstreams' names up before the first request; one that can't be looked up yet is tried again later.
fn look_up(settings: &Settings) -> Result<(), StartError> {
    let names: Vec<_> =
        settings.upstreams.iter().filter(|upstream| !upstream.endpoints().is_literal()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::System)?;
    runtime.block_on(async {
        for upstream in names {
            let found = tokio::time::timeout(LOOK_UP, upstream.endpoints().resolve()).await;
            if !matches!(found, Ok(Ok(()))) {
                warn!(upstream = %upstream.name, "cannot look up the upstream's name yet");
            }
        }
    });
    // A resolver that hangs does so on a thread of its own, which must not hold up the start.
    runtime.shutdown_background();
    Ok(())
}

fn bind(address: &str) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    bound.map_err(|cause| StartError::Bind { address: address.into(), cause })
}

impl Running {
    /// Where traffic is accepted.
    pub fn traffic(&self) -> SocketAddr {
        self.traffic
    }

    /// Where the admin endpoints are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until a signal has ended the server.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the server's thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.ask();
        self.join();
    }
}

/// A listening service whose socket was bound before, so that start-up fails early and port 0 works.
struct Inherited<A> {
    inner: listening::Service<A>,
    socket: Option<TcpListener>,
    address: String,
}

impl<A: ServerApp + Send + Sync + 'static> Inherited<A> {
    fn new(name: &str, app: A, socket: TcpListener, address: SocketAddr, threads: Option<usize>) -> Self {
        let address = address.to_string();
        let mut inner = listening::Service::new(name.into(), app);
        inner.threads = threads;
        inner.add_tcp(&address);
        Self { inner, socket: Some(socket), address }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Inherited<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, tasks: usize) {
        if let (Some(fds), Some(socket)) = (&fds, self.socket.take()) {
            fds.lock().add(self.address.clone(), socket.into_raw_fd());
        }
        self.inner.start_service(fds, shutdown, tasks).await;
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }
}

/// Work that belongs to no request.
struct Upkeep {
    gate: Arc<Gate>,
}

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            self.gate.upkeep().await;
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(UPKEEP) => {}
            }
        }
    }
}

/// Summaries and alerts.
struct Watch {
    gate: Arc<Gate>,
}

#[async_trait]
impl BackgroundService for Watch {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            self.gate.watch();
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(WATCH) => {}
            }
        }
    }
}
