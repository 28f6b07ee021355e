//! The breaker as a state machine: pure, the time is passed in.
//!
//! ```text
//!            failures in a row, share of failures, share of late first bytes
//!   closed ───────────────────────────────────────────────────────────────▶ open
//!     ▲                                                                    │  ▲
//!     │ the probe succeeded                                     recovery   │  │ the probe failed
//!     └──────────────────────────────── half-open ◀────────────────────────┘  │
//!                                           └─────────────────────────────────┘
//! ```

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::config::Policy;
use super::window::{Counts, Window};
use crate::state::Timestamp;

/// Told to callers while a probe is under way: it may end at any moment.
const PROBING: Duration = Duration::from_secs(1);
/// Told to callers while it is held open by hand: nobody knows for how long.
const HELD: Duration = Duration::from_secs(30);

/// Who decides: the breaker itself, or somebody by hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What the calls come to.
    #[default]
    Auto,
    /// Held open: no call goes through.
    Open,
    /// Held closed: every call goes through.
    Closed,
}

/// Whether calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All do.
    Closed,
    /// One does, as a probe.
    HalfOpen,
    /// None does.
    Open,
}

/// Why a breaker moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// So many calls in a row failed.
    ConsecutiveFailures,
    /// Too large a share of the calls failed.
    ErrorRatio,
    /// Too large a share of the first bytes came late.
    SlowFirstBytes,
    /// It was open long enough.
    RecoveryDue,
    /// The probe came back well.
    ProbeSucceeded,
    /// The probe failed, or was late.
    ProbeFailed,
    /// Somebody switched it.
    ByHand,
}

/// A move from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// State before.
    pub before: State,
    /// State after.
    pub after: State,
    /// Why.
    pub cause: Cause,
}

/// A call that was let through: of which generation, and whether it is the probe. Reports of calls from before the last
/// move are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

impl Ticket {
    /// Whether all others wait for this call.
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Timestamp },
    HalfOpen { probing: bool },
}

/// The state machine of one breaker.
#[derive(Debug)]
pub struct Circuit {
    policy: Option<Policy>,
    mode: Mode,
    phase: Phase,
    cause: Option<Cause>,
    generation: u64,
    in_a_row: u32,
    window: Window,
}

impl Mode {
    /// Its name in commands, events and stats.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Open => "open",
            Mode::Closed => "closed",
        }
    }
}

impl State {
    /// Every state; the index is the value of the metric.
    pub const ALL: [State; 3] = [State::Closed, State::HalfOpen, State::Open];

    /// Its name in events and stats.
    pub const fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::HalfOpen => "half_open",
            State::Open => "open",
        }
    }
}

impl Cause {
    /// Its code in events and stats.
    pub const fn code(self) -> &'static str {
        match self {
            Cause::ConsecutiveFailures => "consecutive_failures",
            Cause::ErrorRatio => "error_ratio",
            Cause::SlowFirstBytes => "slow_first_bytes",
            Cause::RecoveryDue => "recovery_due",
            Cause::ProbeSucceeded => "probe_succeeded",
            Cause::ProbeFailed => "probe_failed",
            Cause::ByHand => "by_hand",
        }
    }
}

impl Circuit {
    /// A closed one, unless `mode` holds it open. Without a policy nothing but a hand moves it.
    pub fn new(policy: Option<Policy>, mode: Mode) -> Self {
        let window = window_of(policy.as_ref());
        let cause = (mode != Mode::Auto).then_some(Cause::ByHand);
        Self { policy, mode, phase: Phase::Closed, cause, generation: 0, in_a_row: 0, window }
    }

    /// Takes another policy over; what was counted under the old one is forgotten if it differs.
    pub fn adopt(&mut self, policy: Option<Policy>) {
        if self.policy != policy {
            self.window = window_of(policy.as_ref());
            self.in_a_row = 0;
            if policy.is_none() && self.phase != Phase::Closed {
                self.phase = Phase::Closed;
                self.generation += 1;
            }
            self.policy = policy;
        }
    }

    /// Who decides.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether calls go through.
    pub fn state(&self) -> State {
        match (self.mode, self.phase) {
            (Mode::Open, _) => State::Open,
            (Mode::Closed, _) | (Mode::Auto, Phase::Closed) => State::Closed,
            (Mode::Auto, Phase::HalfOpen { .. }) => State::HalfOpen,
            (Mode::Auto, Phase::Open { .. }) => State::Open,
        }
    }

    /// Why it moved last; `None` if it never did.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// What the calls of the window came to.
    pub fn counts(&self, now: Timestamp) -> Counts {
        self.window.counts(now)
    }

    /// Goes from open to half-open once that is due.
    pub fn tick(&mut self, now: Timestamp) -> Option<Move> {
        match self.phase {
            Phase::Open { until } if self.mode == Mode::Auto && now >= until => {
                self.go(Phase::HalfOpen { probing: false }, Cause::RecoveryDue)
            }
            _ => None,
        }
    }

    /// Lets a call through, or says how long to wait. After [`Self::tick`].
    pub fn enter(&mut self, now: Timestamp) -> Result<Ticket, Duration> {
        let generation = self.generation;
        match (self.mode, &mut self.phase) {
            (Mode::Open, _) => Err(HELD),
            (Mode::Closed, _) | (Mode::Auto, Phase::Closed) => Ok(Ticket { generation, probe: false }),
            (Mode::Auto, Phase::HalfOpen { probing: true }) => Err(PROBING),
            (Mode::Auto, Phase::HalfOpen { probing }) => {
                *probing = true;
                Ok(Ticket { generation, probe: true })
            }
            (Mode::Auto, Phase::Open { until }) => Err(until.since(now)),
        }
    }

    /// Whether an answer that began like this is a failure, and whether it was late.
    pub fn judge(&self, status: StatusCode, first_byte: Duration) -> (bool, bool) {
        let Some(policy) = &self.policy else { return (false, false) };
        let failed = policy.failure_statuses.contains(&status.as_u16());
        (failed, policy.slow.is_some_and(|(late, _)| first_byte > late))
    }

    /// As [`Self::enter`], for a call that may last long before its answer begins: it is no probe, for which all others
    /// would have to wait.
    pub fn enter_unprobing(&mut self, now: Timestamp) -> Result<Ticket, Duration> {
        if self.state() == State::HalfOpen { Err(PROBING) } else { self.enter(now) }
    }

    /// Counts a call that ended, and moves if that is what it takes. Also answers the ticket under which the rest of the
    /// call counts.
    pub fn report(
        &mut self,
        ticket: Ticket,
        failed: bool,
        slow: bool,
        now: Timestamp,
    ) -> (Option<Move>, Ticket) {
        let current = ticket.generation == self.generation;
        let moved = match self.phase {
            Phase::HalfOpen { .. } if current && ticket.probe => match failed || slow {
                true => self.open(Cause::ProbeFailed, now),
                false => self.go(Phase::Closed, Cause::ProbeSucceeded),
            },
            Phase::Closed if current => self.count(failed, slow, now),
            _ => None,
        };
        (moved, Ticket { generation: self.generation, probe: false })
    }

    /// Takes back a call of which nothing became known: the probe is free for the next one.
    pub fn release(&mut self, ticket: Ticket) {
        if ticket.generation == self.generation && ticket.probe {
            self.phase = Phase::HalfOpen { probing: false };
        }
    }

    /// Switches by hand; `Auto` begins closed, with nothing counted. `None` if it is in that mode already.
    pub fn switch(&mut self, mode: Mode) -> Option<Move> {
        if self.mode == mode {
            return None;
        }
        let before = self.state();
        self.mode = mode;
        self.go(Phase::Closed, Cause::ByHand);
        Some(Move { before, after: self.state(), cause: Cause::ByHand })
    }

    fn count(&mut self, failed: bool, slow: bool, now: Timestamp) -> Option<Move> {
        self.window.add(failed, slow, now);
        self.in_a_row = if failed { self.in_a_row.saturating_add(1) } else { 0 };
        let policy = self.policy.as_ref().filter(|_| self.mode == Mode::Auto)?;
        if policy.consecutive_failures.is_some_and(|most| self.in_a_row >= most) {
            return self.open(Cause::ConsecutiveFailures, now);
        }
        let counts = self.window.counts(now);
        let reached = |part: u32, share: f64| {
            counts.calls >= policy.min_calls && f64::from(part) >= share * f64::from(counts.calls)
        };
        if policy.error_ratio.is_some_and(|share| reached(counts.failures, share)) {
            return self.open(Cause::ErrorRatio, now);
        }
        if policy.slow.is_some_and(|(_, share)| reached(counts.slow, share)) {
            return self.open(Cause::SlowFirstBytes, now);
        }
        None
    }

    fn open(&mut self, cause: Cause, now: Timestamp) -> Option<Move> {
        let recovery = self.policy.as_ref()?.recovery;
        self.go(Phase::Open { until: now.after(recovery) }, cause)
    }

    fn go(&mut self, phase: Phase, cause: Cause) -> Option<Move> {
        let before = self.state();
        (self.phase, self.cause) = (phase, Some(cause));
        self.generation += 1;
        self.in_a_row = 0;
        if phase == Phase::Closed {
            self.window.clear();
        }
        Some(Move { before, after: self.state(), cause })
    }
}

/// Without a policy nothing is judged, so the window's length does not matter.
fn window_of(policy: Option<&Policy>) -> Window {
    Window::new(policy.map_or(Duration::from_secs(60), |policy| policy.window))
}

#[cfg(test)]
mod tests;
