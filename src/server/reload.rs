//! Settings read again while the server runs: all of them are built, then put in force at once, or the old ones stay.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tracing::{info, warn};

use super::look_up;
use crate::admin::AdminToken;
use crate::config::{Config, ConfigErrors};
use crate::observe::ReloadEvent;
use crate::observe::audit::{Act, Actor, Outcome};
use crate::proxy::Gate;

/// Reads the settings from where they were read at start: file, environment, command line.
pub type Read = Box<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

/// Where settings come from.
pub struct Source {
    /// What was read at start.
    pub config: Config,
    /// Reads it again.
    pub read: Read,
}

/// Who wants the settings to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A signal to the process.
    Signal,
    /// Someone with the admin token, from this address.
    Admin(IpAddr),
}

/// Reads settings again and puts them in force.
pub struct Reloader {
    read: Read,
    /// What is in force. Held while settings are read, so that one reload follows another.
    running: Mutex<Config>,
    gate: Arc<Gate>,
}

/// Why the old settings stay in force.
#[derive(Debug)]
pub enum ReloadError {
    /// They are wrong, or change what can't be changed.
    Settings(ConfigErrors),
    /// Something beside them is.
    Setup(String),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(errors) => errors.fmt(f),
            Self::Setup(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ReloadError {}

impl From<ConfigErrors> for ReloadError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Settings(errors)
    }
}

impl Reloader {
    /// Keeps `gate` under the settings of `source`.
    pub fn new(source: Source, gate: Arc<Gate>) -> Self {
        Self { read: source.read, running: Mutex::new(source.config), gate }
    }

    /// Reads the settings again. The next request runs under them; requests in flight finish under those that they began
    /// with. Blocks on files, and for some seconds at most on names of upstreams.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn reload(&self, asker: Asker) -> Result<(), ReloadError> {
        if asker == Asker::Signal {
            return self.reload_on_signal();
        }
        self.reload_for(asker)
    }

    /// Nobody has audited it yet, as the admin port does.
    fn reload_on_signal(&self) -> Result<(), ReloadError> {
        let act = Act { by: Actor::default(), act: "reload", subject: None, asked: Value::Null };
        let began = self.gate.begin_act(&act).map_err(|why| {
            warn!("settings not read again: {why}");
            ReloadError::Setup(why.to_string())
        })?;
        let done = self.reload_for(Asker::Signal);
        let outcome = match &done {
            Ok(()) => Outcome::Done(Value::Null, Value::Null),
            Err(why) => Outcome::Refused(why.to_string()),
        };
        self.gate.end_act(&act, began, &outcome);
        done
    }

    fn reload_for(&self, asker: Asker) -> Result<(), ReloadError> {
        let outcome = self.try_reload();
        let detail = outcome.as_ref().err().map(ToString::to_string);
        match &detail {
            None => info!(%asker, "settings read again"),
            Some(why) => warn!(%asker, "settings refused, the old ones stay in force: {why}"),
        }
        let client_address = match asker {
            Asker::Signal => None,
            Asker::Admin(address) => Some(address),
        };
        let at = self.gate.clock().now();
        self.gate.observer().reloaded(&ReloadEvent { at, client_address, refused: detail.as_deref() });
        outcome
    }

    /// Puts the settings that are in force in force anew, with what was changed by hand since.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn renew(&self) -> Result<(), ReloadError> {
        let running = self.running.lock();
        let live = self.gate.live();
        let settings = running.resolve_over(&live, self.gate.clock())?;
        self.gate.put_in_force(settings, None);
        Ok(())
    }

    fn try_reload(&self) -> Result<(), ReloadError> {
        let mut running = self.running.lock();
        let config = (self.read)()?;
        config.follows(&running)?;
        let live = self.gate.live();
        let settings = config.resolve_over(&live, self.gate.clock())?;
        let token = AdminToken::of(&settings.server).map_err(|why| ReloadError::Setup(why.to_string()))?;
        look_up(&settings).map_err(|why| ReloadError::Setup(why.to_string()))?;
        self.gate.put_in_force(settings, token);
        *running = config;
        Ok(())
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal => f.write_str("SIGHUP"),
            Self::Admin(address) => write!(f, "admin at {address}"),
        }
    }
}
