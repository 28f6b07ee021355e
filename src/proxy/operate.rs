//! What somebody does by hand: circuit breakers and maintenance (K2), bans, limits; all of it audited (O5).

mod limits;
mod subjects;

pub use subjects::{NotDone, Whom};

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tracing::warn;

use super::Gate;
use crate::guard::{Reason, Refusal, Verdict};
use crate::observe::audit::{Act, Audit, AuditError, Began, Outcome};
use crate::observe::{BreakerEvent, BreakerView};
use crate::state::switches::{Maintenance, Unchanged};
use crate::upstream::breaker::{Cause, Mode};

/// Why nothing was switched.
#[derive(Debug)]
pub enum NotSwitched {
    /// There is no such upstream; these there are.
    NoSuchUpstream(Vec<Box<str>>),
    /// Nothing was changed.
    Unchanged(Unchanged),
}

impl fmt::Display for NotSwitched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUpstream(known) => {
                write!(f, "There is no such upstream; known: {}.", known.join(", "))
            }
            Self::Unchanged(Unchanged::NotKept(error)) => {
                write!(f, "Nothing was switched: state_dir can't be written: {error}.")
            }
            Self::Unchanged(Unchanged::HandedOver) => {
                f.write_str("Nothing was switched: another process takes over from this one; ask again.")
            }
        }
    }
}

impl std::error::Error for NotSwitched {}

impl Gate {
    /// Writes down that an operator is about to do something.
    ///
    /// # Errors
    /// It must not be done.
    pub fn begin_act(&self, act: &Act) -> Result<Began, AuditError> {
        if !self.audit.kept() {
            warn!(act = act.act, "without a state_dir this is told among the events only: there is no audit");
        }
        self.audit.begin(act)
    }

    /// Writes down, and tells, what became of it.
    pub fn end_act(&self, act: &Act, began: Began, outcome: &Outcome) {
        if let Err(why) = self.audit.end(act, began, outcome) {
            warn!(act = act.act, "what became of an act could not be written down: {why}");
        }
        self.observer.admin_act(self.clock.now(), act, began, outcome);
    }

    /// The audit.
    pub const fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The breakers of all upstreams.
    pub fn breakers(&self) -> Vec<BreakerView> {
        self.live().outbound().iter().map(|outbound| outbound.breaker.view()).collect()
    }

    /// Switches the breaker of one upstream, or of all, for whoever asks from `by`. Answers those it switched.
    ///
    /// # Errors
    /// See [`NotSwitched`].
    pub fn switch_breakers(
        &self,
        mode: Mode,
        upstream: Option<&str>,
        by: IpAddr,
    ) -> Result<Vec<BreakerView>, NotSwitched> {
        let live = self.live();
        let wanted = |name: &str| upstream.is_none_or(|upstream| upstream == name);
        let chosen: Vec<_> =
            live.outbound().iter().map(|o| &o.breaker).filter(|breaker| wanted(breaker.name())).collect();
        if chosen.is_empty() {
            let known = live.outbound().iter().map(|o| o.breaker.name().into()).collect();
            return Err(NotSwitched::NoSuchUpstream(known));
        }
        let kept = self.switches.change(
            |positions| {
                for breaker in &chosen {
                    match mode {
                        Mode::Auto => positions.breakers.remove(breaker.name()),
                        mode => positions.breakers.insert(breaker.name().into(), mode),
                    };
                }
            },
            |_| chosen.iter().for_each(|breaker| breaker.switch(mode, by)),
        );
        kept.map_err(NotSwitched::Unchanged)?;
        Ok(chosen.iter().map(|breaker| breaker.view()).collect())
    }

    /// Closes the app for maintenance, or opens it again, for whoever asks from `by`.
    ///
    /// # Errors
    /// See [`NotSwitched`].
    pub fn maintain(&self, wanted: Option<Maintenance>, by: IpAddr) -> Result<(), NotSwitched> {
        let state = |maintenance: bool| if maintenance { "maintenance" } else { "serving" };
        let before = self.maintenance.load().is_some();
        let kept = self.switches.change(
            |positions| positions.maintenance.clone_from(&wanted),
            |positions| self.maintenance.store(positions.maintenance.clone().map(Into::into)),
        );
        kept.map_err(NotSwitched::Unchanged)?;
        self.observer().breaker_event(&BreakerEvent {
            at: self.clock().now(),
            upstream: None,
            cause: Cause::ByHand.code(),
            before: state(before),
            after: state(wanted.is_some()),
            mode: None,
            detail: wanted.as_ref().map(|maintenance| maintenance.message.as_str()),
            by: Some(by),
        });
        Ok(())
    }

    /// What callers are told while the app is closed.
    pub fn maintenance(&self) -> Option<Box<str>> {
        self.maintenance.load().as_ref().map(|maintenance| maintenance.message.as_str().into())
    }

    /// Whether what is switched stays so over a restart.
    pub fn keeps_switches(&self) -> bool {
        self.switches.kept()
    }

    /// Refuses while the app is closed.
    pub(super) fn check_maintenance(&self) -> Verdict {
        match &*self.maintenance.load() {
            None => Ok(()),
            Some(maintenance) => {
                let wait = Duration::from_secs(maintenance.retry_after_s.into());
                Err(Refusal::new(Reason::Maintenance, maintenance.message.clone(), "").after(wait))
            }
        }
    }
}
