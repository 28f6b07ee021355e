//! The way to the server: one connection that all calls share, with a breaker in front of it.
//!
//! Calls go out while there is a connection that is trusted. One that fails, or whose answers keep coming too late, is
//! trusted no more; only the keeper opens another and tries it. So whoever asks while the server is away is told at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use super::super::admission::Settlement;
use super::config::Target;
use super::keys::{Key, Keys};
use super::script::{Call, SETTLE};

/// Calls in a row without an answer in time, after which none goes out any more.
const FAILURES: u32 = 3;

/// For a connection to be opened, with TLS and password.
const CONNECT: Duration = Duration::from_secs(1);

/// Settlements sent together, at most.
pub(super) const BATCH: usize = 128;

/// For a batch of settlements, or keys to be removed: nobody waits for these.
pub(super) const UNHURRIED: Duration = Duration::from_millis(500);

/// Calls that may wait for their turn to be written.
const QUEUE: usize = 1024;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It did not go out.
    NotSent,
    /// It may have taken effect.
    Unknown,
}

/// A connection, as long as it is trusted.
pub(super) struct Line {
    connection: MultiplexedConnection,
    /// Calls in a row that failed.
    failures: AtomicU32,
    /// Told when it is trusted no more.
    pub(super) closed: Notify,
}

/// What a link is and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Why calls do not go out now; `None`: they do.
    pub away: Option<String>,
    /// Calls that failed.
    pub failures: u64,
    /// Decisions made without the server.
    pub alone: u64,
    /// How often the server was given up.
    pub losses: u64,
}

pub(super) struct Link {
    target: Target,
    line: ArcSwapOption<Line>,
    /// Why there is no line.
    away: Mutex<String>,
    /// How many gates live, as last heard.
    gates: AtomicU32,
    failures: AtomicU64,
    alone: AtomicU64,
    losses: AtomicU64,
}

impl Line {
    async fn query(&self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn run(&self, call: &Call<'_>) -> Result<Value, RedisError> {
        match self.query(&call.by_digest()).await {
            Err(error) if is_unknown_script(&error) => self.query(&call.in_full()).await,
            answer => answer,
        }
    }

    async fn run_all(&self, calls: &Pipeline) -> Result<(), RedisError> {
        calls.query_async::<Vec<Value>>(&mut self.connection.clone()).await.map(drop)
    }
}

impl Link {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            line: ArcSwapOption::empty(),
            away: Mutex::new("it was not asked yet".to_owned()),
            gates: AtomicU32::new(1),
            failures: AtomicU64::new(0),
            alone: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        }
    }

    /// Has the server run a script, and waits no longer than `patience` for what it answers.
    pub(super) async fn call(&self, call: &Call<'_>, patience: Duration) -> Result<Value, Failure> {
        let line = self.line.load_full().ok_or(Failure::NotSent)?;
        self.ask(&line, patience, line.run(call)).await
    }

    /// As `call`, by a connection that need not be trusted yet.
    pub(super) async fn call_by(
        &self,
        line: &Arc<Line>,
        call: &Call<'_>,
        patience: Duration,
    ) -> Result<Value, Failure> {
        self.ask(line, patience, line.run(call)).await
    }

    /// Settles a batch, at most [`BATCH`] long.
    pub(super) async fn settle(&self, batch: &[Settlement], keys: &Keys, hand: u64) -> Result<(), Failure> {
        let line = self.line.load_full().ok_or(Failure::NotSent)?;
        let calls = settle_all(batch, keys, hand);
        let work = async {
            match line.run_all(&calls).await {
                Err(error) if is_unknown_script(&error) => {
                    line.query(&SETTLE.load()).await?;
                    line.run_all(&calls).await
                }
                done => done,
            }
        };
        self.ask(&line, UNHURRIED, work).await
    }

    /// Removes `keys`.
    pub(super) async fn delete(&self, keys: Vec<Key>) -> Result<(), Failure> {
        if keys.is_empty() {
            return Ok(());
        }
        let line = self.line.load_full().ok_or(Failure::NotSent)?;
        let mut command = redis::cmd("DEL");
        keys.iter().for_each(|key| _ = command.arg(key.as_slice()));
        self.ask(&line, UNHURRIED, line.query(&command)).await.map(drop)
    }

    async fn ask<T>(
        &self,
        line: &Arc<Line>,
        patience: Duration,
        work: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Failure> {
        let why = match timeout(patience, work).await {
            Ok(Ok(answer)) => {
                if line.failures.load(Ordering::Relaxed) > 0 {
                    line.failures.store(0, Ordering::Relaxed);
                }
                return Ok(answer);
            }
            Ok(Err(error)) if is_beyond_hope(&error) => {
                line.failures.store(FAILURES, Ordering::Relaxed);
                told(&error)
            }
            Ok(Err(error)) => {
                line.failures.fetch_add(1, Ordering::Relaxed);
                told(&error)
            }
            Err(_) => {
                line.failures.fetch_add(1, Ordering::Relaxed);
                format!("it does not answer within {patience:?}")
            }
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        if line.failures.load(Ordering::Relaxed) >= FAILURES {
            self.give_up(line, why);
        } else if self.line.load().is_none() {
            self.note_away(why);
        }
        Err(Failure::Unknown)
    }

    /// Trusts `line` no more.
    pub(super) fn give_up(&self, line: &Arc<Line>, why: String) {
        let trusted = self.line.compare_and_swap(line, None);
        if trusted.as_ref().is_some_and(|trusted| Arc::ptr_eq(trusted, line)) {
            self.losses.fetch_add(1, Ordering::Relaxed);
            warn!(
                why,
                "the shared store is away: limits are counted here, each gate its share; budgets are closed"
            );
            *self.away.lock() = why;
        } else if trusted.is_none() {
            self.note_away(why);
        }
        line.closed.notify_one();
    }

    /// Notes why no connection can be had.
    pub(super) fn note_away(&self, why: String) {
        let mut away = self.away.lock();
        if *away != why {
            warn!(why, "the shared store can't be reached");
            *away = why;
        }
    }

    /// Lets calls go out by `line`.
    pub(super) fn trust(&self, line: Arc<Line>) {
        self.line.store(Some(line));
    }

    /// Opens a connection to the server, or to the one that the Sentinels name.
    ///
    /// # Errors
    /// Why there is none, for people; no password is in it.
    pub(super) async fn connect(&self) -> Result<Arc<Line>, String> {
        let mut unheard = "no Sentinel knows where the server is".to_owned();
        let info = if self.target.sentinels.is_empty() {
            self.target.server.clone()
        } else {
            let mut found = None;
            for sentinel in &self.target.sentinels {
                match ask_sentinel(sentinel.clone(), &self.target.master).await {
                    Ok(Some((host, port))) => {
                        found = Some(self.target.at(host, port));
                        break;
                    }
                    Ok(None) => unheard = format!("no Sentinel knows a master {:?}", self.target.master),
                    Err(why) => unheard = format!("Sentinel {}: {why}", sentinel.addr()),
                }
            }
            found.ok_or(unheard)?
        };
        let place = info.addr().to_string();
        let connection = open(info).await.map_err(|why| format!("{place}: {why}"))?;
        Ok(Arc::new(Line { connection, failures: AtomicU32::new(0), closed: Notify::new() }))
    }

    /// Counts a decision that was made without the server.
    pub(super) fn note_alone(&self) {
        self.alone.fetch_add(1, Ordering::Relaxed);
    }

    /// How many gates live, this one counted: as last heard.
    pub(super) fn gates(&self) -> u32 {
        self.gates.load(Ordering::Relaxed)
    }

    pub(super) fn note_gates(&self, gates: u32) {
        self.gates.store(gates.max(1), Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> LinkStats {
        let away = self.line.load().is_none().then(|| self.away.lock().clone());
        LinkStats {
            away,
            failures: self.failures.load(Ordering::Relaxed),
            alone: self.alone.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
        }
    }
}

async fn open(info: redis::ConnectionInfo) -> Result<MultiplexedConnection, String> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let client = Client::open(info).map_err(|error| told(&error))?;
    match timeout(CONNECT, client.get_multiplexed_async_connection_with_config(&config)).await {
        Ok(opened) => opened.map_err(|error| told(&error)),
        Err(_) => Err(format!("no connection within {CONNECT:?}")),
    }
}

async fn ask_sentinel(info: redis::ConnectionInfo, master: &str) -> Result<Option<(String, u16)>, String> {
    let mut connection = open(info).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(master);
    match timeout(CONNECT, command.query_async(&mut connection)).await {
        Ok(answer) => answer.map_err(|error| told(&error)),
        Err(_) => Err(format!("no answer within {CONNECT:?}")),
    }
}

fn settle_all(batch: &[Settlement], keys: &Keys, hand: u64) -> Pipeline {
    let mut calls = Pipeline::with_capacity(batch.len());
    for Settlement { id, outcome, spent } in batch {
        let flag = |set: bool| if set { 1.0 } else { 0.0 };
        let spent = spent.iter().flatten().map(|spent| *spent as f64);
        // As many as a demand may hold: what is not known is spent as it was held.
        let unknown = std::iter::repeat(-1.0);
        let numbers: Vec<u8> = [hand as f64, flag(outcome.keeps_claims()), flag(outcome.spends())]
            .into_iter()
            .chain(spent.chain(unknown).take(HOLDS))
            .flat_map(f64::to_le_bytes)
            .collect();
        let (keys, id) = ([keys.record(*id)], id.0.to_be_bytes());
        calls.add_command(Call { script: &SETTLE, keys: &keys, args: &[&numbers, &id] }.by_digest()).ignore();
    }
    calls
}

/// Holds of one demand, at most, of which it can be told what was spent.
const HOLDS: usize = 16;

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the next call by this connection would fail as well: it is gone, or the server does not take writes.
fn is_beyond_hope(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(
            error.code(),
            Some(
                "READONLY"
                    | "LOADING"
                    | "MASTERDOWN"
                    | "MISCONF"
                    | "NOREPLICAS"
                    | "NOAUTH"
                    | "NOPERM"
                    | "OOM"
                    | "CLUSTERDOWN"
                    | "MOVED"
                    | "CROSSSLOT"
            )
        )
}

/// What an error says, in one line.
fn told(error: &RedisError) -> String {
    if error.is_cluster_error() || error.code() == Some("CROSSSLOT") {
        return "it is part of a cluster; one server is needed, alone or behind Sentinels".to_owned();
    }
    let text = error.to_string();
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}
