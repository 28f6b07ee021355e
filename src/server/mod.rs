//! Puts the server together: sockets, services, threads, and an orderly end.

mod alarm;
mod canned;
pub mod door;
mod gate_io;
mod keys;
pub mod reload;
mod rotation;
mod signals;
mod sockets;
mod stop;
mod upgrade;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use tokio::time::timeout;
use tracing::{info, warn};

pub use alarm::Alarm;
pub use gate_io::{GateIo, HeadCaps};
pub use reload::Source;
pub use sockets::Sockets;
pub use stop::{InFlight, Stop};

use crate::admin::serve::Admin;
use crate::admin::{AdminToken, TokenError};
use crate::config::{ServerSettings, Settings};
use crate::observe::Observer;
use crate::proxy::{Entry, Gate};
use crate::state::settle::SettleActor;
use crate::state::switches::Switches;
use crate::state::{AnyStore, Clock};
use door::Door;
use keys::Keys;
use reload::Reloader;
use rotation::Rotation;
use signals::Signals;
use sockets::Inherited;
use upgrade::Succession;

/// How long the start waits for the names of upstreams.
const LOOK_UP: Duration = Duration::from_secs(2);

/// How often idle connections are closed and expired counters swept.
const UPKEEP: Duration = Duration::from_secs(15);

/// How often the watch looks at the clock.
const WATCH: Duration = Duration::from_secs(1);

/// Admissions open or waiting to be settled, at most; beyond, requests that draw on shared limits are refused.
const SETTLE_QUEUE: usize = 65_536;

/// How long a process that is about to end may take to let the store go: in a restart, and in an upgrade.
const STORE_PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

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

/// What a server is started with.
pub struct Launch {
    settings: Settings,
    clock: Clock,
    sockets: Sockets,
    source: Option<Source>,
    upgrade: bool,
}

impl Launch {
    /// A server under `settings`, on sockets of its own.
    pub fn new(settings: Settings, clock: Clock) -> Self {
        Self { settings, clock, sockets: Sockets::default(), source: None, upgrade: false }
    }

    /// Accepts on these sockets where the settings name their addresses.
    pub fn on(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// Reads the settings again from `source`, of which they were made, when asked to.
    pub fn reloading(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Takes over the sockets of the process that runs.
    pub fn taking_over(mut self) -> Self {
        self.upgrade = true;
        self
    }

    /// Takes the sockets, starts all threads, and returns as soon as connections are accepted.
    ///
    /// # Errors
    /// Nothing was started; the text says what to do.
    pub fn start(self) -> Result<Running, StartError> {
        let Self { mut settings, clock, mut sockets, source, upgrade } = self;
        do_without_implied(&mut settings.server);
        settings.keep_digest_key().map_err(|error| StartError::Setup(error.to_string()))?;
        let server_settings = settings.server.clone();
        let switches = Switches::open(server_settings.state_dir.as_deref());
        let switches = Arc::new(switches.map_err(|error| StartError::Setup(error.to_string()))?);
        let observer = Observer::start(&settings.observe, clock.now());
        let observer = Arc::new(observer.map_err(|error| StartError::Setup(error.to_string()))?);
        let store = settings.store.clone();
        store.start().map_err(StartError::System)?;
        if !upgrade {
            open(&store, STORE_PATIENCE.0)?;
        }
        let settling = SettleActor::start(store.clone(), SETTLE_QUEUE);
        let (settler, settle) = settling.map_err(StartError::System)?;
        let stop = Arc::new(Stop::new(server_settings.drain));
        warn_of_unverified(&settings);
        look_up(&settings)?;
        let token = admin_token(&server_settings).map_err(|why| StartError::Setup(why.to_string()))?;

        // As late as can be: from here on, another process may have stopped accepting in favour of this one.
        let place = server_settings.runtime_dir.as_ref().or(server_settings.state_dir.as_ref());
        if upgrade {
            let place = place.ok_or_else(|| {
                StartError::Setup(
                    "--upgrade needs runtime_dir or state_dir, the same as the process that runs".into(),
                )
            })?;
            sockets.hand_over(upgrade::take_over(place)?);
            open(&store, STORE_PATIENCE.1)?;
            // Until now the process before switched; from now on this one alone does.
            if let Err(why) = switches.read_again() {
                warn!("what was switched by hand a moment ago may not be in force: {why}");
            }
        }
        let traffic = sockets.take(&server_settings.listen)?;
        let admin = sockets.take(&server_settings.admin_listen)?;
        sockets.finish(&[&traffic, &admin])?;
        let succession = place
            .map(|place| Succession::announce(place, &[&traffic, &admin], &switches))
            .transpose()?
            .map(Arc::new);
        let (traffic_address, admin_address) = (traffic.address, admin.address);
        let gate =
            Gate::new(settings, token, clock.clone(), observer.clone(), settler, stop.clone(), switches);
        if let Err(why) = gate.audit().open() {
            warn!("nothing can be changed on the admin port until this is mended: {why}");
        }
        let reloader = source.map(|source| Arc::new(Reloader::new(source, gate.clone())));
        let admin_app = Admin::new(gate.clone(), reloader.clone());

        let conf = ServerConf {
            threads: server_settings.threads,
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            upstream_keepalive_pool_size: 128,
            // Tries to connect: what is tried is the upstream's matter.
            max_retries: 64,
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        let entry = Entry::new(gate.clone(), &server.configuration);
        let door = Door::new(entry, server_settings.connections.clone(), observer.clone(), clock.clone())
            .for_traffic(stop.clone())
            .banning(gate.store().clone());
        server.add_service(Inherited::new("traffic", door, traffic, stop.closing(), None));
        let admin_door = Door::new(admin_app, server_settings.admin_connections(), observer.clone(), clock);
        server.add_service(Inherited::new("admin", admin_door, admin, stop.leaving(), Some(1)));
        server.add_service(background_service("watch", Watch { gate: gate.clone() }));
        server.add_service(background_service("keys", Keys(gate.clone())));
        server.add_service(background_service("upkeep", Upkeep { gate }));
        server.add_service(background_service("rotation", Rotation(observer.clone())));

        let (ready, is_ready) = sync_channel(1);
        let signals = Signals { stop: stop.clone(), reloader, succession, store: store.clone(), ready };
        let thread = std::thread::Builder::new()
            .name("tidegate".into())
            .spawn(move || {
                server.run(RunArgs { shutdown_signal: Box::new(signals) });
                // The services' runtimes are gone, so nothing is admitted any more: what is queued can be settled.
                let report = settle.shutdown(PATIENCE);
                store.close();
                info!(settled = report.settled, lost = report.lost, "stopped");
                observer.close(PATIENCE);
            })
            .map_err(StartError::System)?;
        // An error means that the thread is gone already, which whoever waits for its end will see.
        let _ = is_ready.recv();
        Ok(Running { traffic: traffic_address, admin: admin_address, stop, thread: Some(thread) })
    }
}

/// Does without a directory that nobody chose and that can't be used.
fn do_without_implied(settings: &mut ServerSettings) {
    let Some(directory) = settings.state_dir.as_ref().filter(|_| settings.state_dir_implied) else { return };
    let probe = directory.join(".probe");
    let usable = upgrade::private(directory)
        .and_then(|()| fs::write(&probe, ""))
        .and_then(|()| fs::remove_file(&probe));
    if let Err(why) = usable {
        warn!(
            directory = %directory.display(), %why,
            "nothing is kept: limits, bans and budgets begin anew at each start; set state_dir (STATE_DIR)"
        );
        settings.state_dir = None;
    }
}

/// Opens the store, and says if nothing is kept.
fn open(store: &AnyStore, patience: Duration) -> Result<(), StartError> {
    match store.open(patience) {
        Ok(None) if store.kept().is_none() && store.shared().is_none() => {
            warn!("limits, bans and budgets are counted in memory: they begin anew at each start");
        }
        Ok(None) => {}
        Ok(Some(why)) => warn!("limits, bans and budgets are counted in memory: {why}"),
        Err(why) => return Err(StartError::Setup(why.to_string())),
    }
    Ok(())
}

/// The token that is set or kept, or one that nobody knows.
fn admin_token(settings: &ServerSettings) -> Result<AdminToken, TokenError> {
    if let Some(token) = AdminToken::of(settings)? {
        if let (None, Some(directory)) = (&settings.admin_token, &settings.state_dir) {
            info!(directory = %directory.display(), "the admin token is kept in this directory, in admin.token");
        }
        return Ok(token);
    }
    warn!("no admin token and no state_dir: the admin endpoints can be read from this machine only");
    AdminToken::nobodys()
}

/// Says what an operator may have left as it was for a try only.
fn warn_of_unverified(settings: &Settings) {
    for upstream in settings.upstreams.iter().filter(|upstream| upstream.is_unverified()) {
        warn!(upstream = %upstream.name, "tls.verify is false: anyone may pose as a server of this upstream");
    }
}

/// Looks up the names of upstreams that have no address yet, before the first request; one that can't be looked up yet
/// is tried again later.
fn look_up(settings: &Settings) -> Result<(), StartError> {
    let names: Vec<_> = settings.upstreams.iter().filter(|upstream| !upstream.is_located()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::System)?;
    let names = join_all(names.into_iter().map(|upstream| upstream.look_up()));
    if runtime.block_on(async { timeout(LOOK_UP, names).await }).is_err() {
        warn!("not all names of upstreams could be looked up in time; the gate goes on trying");
    }
    Ok(())
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

/// Work that belongs to no request.
struct Upkeep {
    gate: Arc<Gate>,
}

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            self.gate.upkeep();
            tokio::select! {
                _ = shutdown.changed() => return,
                () = self.gate.changed() => {}
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
