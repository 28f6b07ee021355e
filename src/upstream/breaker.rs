//! The circuit breaker of an upstream (K1, K2): what keeps failing is left alone for a while, and then tried by one call.

mod circuit;
mod config;
mod window;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use crate::observe::{BreakerEvent, BreakerSeries, BreakerView, Observer};
use crate::state::{Clock, Timestamp};

pub use circuit::{Cause, Mode, Move, State};
use circuit::{Circuit, Ticket};
pub use config::{Config, Policy};

/// The breaker of one upstream.
pub struct Breaker {
    name: Box<str>,
    clock: Clock,
    circuit: Mutex<Circuit>,
    series: BreakerSeries,
    observer: Arc<Observer>,
}

/// Leave for one call. Report how it went; dropped without a report, it counts for nothing, unless the answer had begun.
#[must_use = "a call that is not reported counts for nothing"]
pub struct Permit {
    breaker: Arc<Breaker>,
    ticket: Ticket,
    progress: Progress,
}

enum Progress {
    Waiting,
    /// The answer began well.
    Begun {
        slow: bool,
    },
    Reported,
}

impl Breaker {
    /// Leave for one call, or how long to wait before asking again. A request that is still `arriving` is no probe.
    pub fn enter(self: &Arc<Self>, arriving: bool) -> Result<Permit, Duration> {
        let now = self.clock.now();
        let ticket = self.with(now, |circuit| match arriving {
            true => circuit.enter_unprobing(now),
            false => circuit.enter(now),
        })?;
        Ok(Permit { breaker: self.clone(), ticket, progress: Progress::Waiting })
    }

    /// Name of its upstream.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Switches it by hand, for whoever asks from `by`.
    pub fn switch(&self, mode: Mode, by: IpAddr) {
        let now = self.clock.now();
        self.with(now, |circuit| {
            let before = circuit.mode();
            if let Some(moved) = circuit.switch(mode) {
                self.tell(moved, before, mode, Some(by), now);
            }
        });
    }

    /// The breaker as it is now.
    pub fn view(&self) -> BreakerView {
        let now = self.clock.now();
        self.with(now, |circuit| BreakerView {
            upstream: self.name.clone(),
            state: circuit.state().name(),
            is_open: circuit.state() == State::Open,
            mode: circuit.mode().name(),
            failures: circuit.counts(now).failures,
            calls: circuit.counts(now).calls,
            reason: circuit.cause().filter(|_| circuit.state() != State::Closed).map(Cause::code),
        })
    }

    /// Does `work` on the circuit after bringing it up to date.
    fn with<T>(&self, now: Timestamp, work: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuit = self.circuit.lock();
        if let Some(moved) = circuit.tick(now) {
            self.tell(moved, Mode::Auto, Mode::Auto, None, now);
        }
        work(&mut circuit)
    }

    fn report(&self, ticket: Ticket, failed: bool, slow: bool) -> Ticket {
        let now = self.clock.now();
        let mut circuit = self.circuit.lock();
        let (moved, ticket) = circuit.report(ticket, failed, slow, now);
        if let Some(moved) = moved {
            self.tell(moved, Mode::Auto, Mode::Auto, None, now);
        }
        ticket
    }

    /// Called under the lock, so that the moves are told in their order; they are rare, and telling never waits.
    fn tell(&self, moved: Move, mode_before: Mode, mode: Mode, by: Option<IpAddr>, now: Timestamp) {
        if moved.before != moved.after {
            self.series.moved(moved.after);
        }
        self.observer.breaker_event(&BreakerEvent {
            at: now,
            upstream: Some(&self.name),
            cause: moved.cause.code(),
            before: moved.before.name(),
            after: moved.after.name(),
            mode: Some((mode_before.name(), mode.name())),
            detail: None,
            by,
        });
    }
}

impl Permit {
    /// The answer has begun, so long after the call. A probe is decided by this; of another call the end counts, too.
    pub fn answered(&mut self, status: StatusCode, first_byte: Duration) {
        let (failed, slow) = self.breaker.circuit.lock().judge(status, first_byte);
        if failed {
            self.breaker.report(self.ticket, true, slow);
            self.progress = Progress::Reported;
            return;
        }
        if self.ticket.is_probe() {
            // Nobody is to wait for the end of a long answer: from here on it is a call like any other.
            self.ticket = self.breaker.report(self.ticket, false, slow);
        }
        self.progress = Progress::Begun { slow };
    }

    /// The upstream could not be reached, took too long, or broke off.
    pub fn failed(mut self) {
        if !matches!(self.progress, Progress::Reported) {
            let slow = matches!(self.progress, Progress::Begun { slow: true });
            self.breaker.report(self.ticket, true, slow);
            self.progress = Progress::Reported;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.progress {
            Progress::Waiting => self.breaker.circuit.lock().release(self.ticket),
            Progress::Begun { slow } => {
                self.breaker.report(self.ticket, false, slow);
            }
            Progress::Reported => {}
        }
    }
}

/// All breakers by the names of their upstreams. They outlive the settings: a reload finds them as they were.
pub struct Breakers {
    clock: Clock,
    observer: Arc<Observer>,
    by_name: Mutex<BTreeMap<Box<str>, Arc<Breaker>>>,
}

impl Breakers {
    /// None yet.
    pub fn new(clock: Clock, observer: Arc<Observer>) -> Self {
        Self { clock, observer, by_name: Mutex::default() }
    }

    /// The breaker of the upstream `name`, from now on under `policy` (`None`: only a hand moves it). One that is new
    /// begins in `mode`.
    pub fn of(&self, name: &str, policy: Option<Policy>, mode: Mode) -> Arc<Breaker> {
        let mut all = self.by_name.lock();
        if let Some(known) = all.get(name) {
            known.circuit.lock().adopt(policy);
            return known.clone();
        }
        let circuit = Circuit::new(policy, mode);
        let series = self.observer.metrics().breaker(name);
        series.set(circuit.state());
        let breaker = Arc::new(Breaker {
            name: name.into(),
            clock: self.clock.clone(),
            circuit: Mutex::new(circuit),
            series,
            observer: self.observer.clone(),
        });
        all.insert(name.into(), breaker.clone());
        breaker
    }
}
