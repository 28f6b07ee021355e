use proptest::prelude::*;

use super::super::window::SLOTS;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn policy() -> Policy {
    Policy {
        window: 10 * SECOND,
        min_calls: 4,
        error_ratio: Some(0.5),
        consecutive_failures: Some(3),
        failure_statuses: vec![500, 503],
        slow: Some((SECOND, 0.75)),
        recovery: 5 * SECOND,
    }
}

fn circuit() -> Circuit {
    Circuit::new(Some(policy()), Mode::Auto)
}

/// One call, whose end is `failed` and `slow`.
fn call(circuit: &mut Circuit, failed: bool, slow: bool, now: Timestamp) -> Option<Move> {
    let ticket = circuit.enter(now).expect("let through");
    circuit.report(ticket, failed, slow, now).0
}

fn opened(cause: Cause) -> Option<Move> {
    Some(Move { before: State::Closed, after: State::Open, cause })
}

/// An upstream that is down costs each caller a timeout until the breaker opens.
#[test]
fn each_of_the_three_rules_opens_it() {
    let mut in_a_row = circuit();
    assert_eq!(call(&mut in_a_row, true, false, START), None);
    assert_eq!(call(&mut in_a_row, false, false, START), None, "a success breaks the row");
    assert_eq!(call(&mut in_a_row, true, false, START), None);

    let mut dead = circuit();
    for _ in 0..2 {
        assert_eq!(call(&mut dead, true, false, START), None);
    }
    assert_eq!(call(&mut dead, true, false, START), opened(Cause::ConsecutiveFailures));

    let mut half = circuit();
    for failed in [true, false, true] {
        assert_eq!(call(&mut half, failed, false, START), None, "too few calls to judge");
    }
    assert_eq!(call(&mut half, false, false, START), opened(Cause::ErrorRatio));

    let mut late = circuit();
    for slow in [true, true, false] {
        assert_eq!(call(&mut late, false, slow, START), None);
    }
    assert_eq!(call(&mut late, false, true, START), opened(Cause::SlowFirstBytes));
}

/// Failures of an hour ago would keep tripping an upstream that has recovered.
#[test]
fn what_left_the_window_does_not_count() {
    let mut circuit = circuit();
    for failed in [true, false, true] {
        call(&mut circuit, failed, false, START);
    }
    let later = START.after(10 * SECOND);
    assert_eq!(call(&mut circuit, false, false, later), None);
    assert_eq!(circuit.counts(later), Counts { calls: 1, failures: 0, slow: 0 });
}

/// A client that comes back when it is told to must find the door as it was told.
#[test]
fn the_wait_is_exact_and_then_one_call_probes() {
    let mut circuit = circuit();
    while circuit.state() == State::Closed {
        call(&mut circuit, true, false, START);
    }
    let nearly = START.after(4 * SECOND + SECOND / 4);
    assert_eq!((circuit.tick(nearly), circuit.enter(nearly)), (None, Err(3 * SECOND / 4)));
    let due = START.after(5 * SECOND);
    assert_eq!(circuit.tick(due).map(|moved| moved.after), Some(State::HalfOpen));
    let probe = circuit.enter(due).expect("the probe");
    assert!(probe.is_probe() && circuit.enter(due) == Err(PROBING), "exactly one");
    circuit.release(probe);
    let probe = circuit.enter(due).expect("a probe that was given back is free");
    assert_eq!(circuit.report(probe, true, false, due).0.map(|moved| moved.cause), Some(Cause::ProbeFailed));
    assert_eq!(circuit.enter(due), Err(5 * SECOND), "it waits anew");

    let again = due.after(5 * SECOND);
    circuit.tick(again);
    let probe = circuit.enter(again).expect("the probe");
    let (moved, rest) = circuit.report(probe, false, false, again);
    assert_eq!(moved.map(|moved| (moved.after, moved.cause)), Some((State::Closed, Cause::ProbeSucceeded)));
    circuit.report(rest, true, false, again);
    assert_eq!(circuit.counts(again).failures, 1, "the rest of the probe counts like any call");
}

/// A call from before the breaker opened that comes back late would close it, or open it anew.
#[test]
fn late_news_of_an_earlier_time_is_ignored() {
    let mut circuit = circuit();
    let (good, bad) = (circuit.enter(START).expect("in"), circuit.enter(START).expect("in"));
    while circuit.state() == State::Closed {
        call(&mut circuit, true, false, START);
    }
    assert_eq!(circuit.report(good, false, false, START).0, None);
    let due = START.after(5 * SECOND);
    circuit.tick(due);
    let _probe = circuit.enter(due).expect("the probe");
    circuit.release(bad);
    assert_eq!(circuit.report(bad, true, false, due).0, None);
    assert_eq!(circuit.enter(due), Err(PROBING), "the probe is still under way");
}

/// What the operator says counts, until it is taken back.
#[test]
fn a_hand_holds_it() {
    let mut circuit = circuit();
    assert_eq!(circuit.switch(Mode::Open).map(|moved| (moved.after, moved.cause)), {
        Some((State::Open, Cause::ByHand))
    });
    let later = START.after(1000 * SECOND);
    assert_eq!((circuit.tick(later), circuit.enter(later)), (None, Err(HELD)));
    assert_eq!(circuit.switch(Mode::Open), None, "it is open already");
    circuit.switch(Mode::Closed);
    for _ in 0..100 {
        assert_eq!(call(&mut circuit, true, true, later), None);
    }
    assert_eq!(circuit.state(), State::Closed);
    circuit.switch(Mode::Auto);
    assert_eq!(circuit.counts(later), Counts::default(), "auto begins anew");
    assert_eq!(call(&mut circuit, true, false, later), None);
}

/// `breaker: off` means that nothing but a hand keeps a call back.
#[test]
fn without_a_policy_only_a_hand_moves_it() {
    let mut circuit = Circuit::new(None, Mode::Auto);
    for _ in 0..1000 {
        assert_eq!(call(&mut circuit, true, true, START), None);
    }
    circuit.switch(Mode::Open);
    assert!(circuit.enter(START).is_err());
}

/// A reload must neither forget that an upstream is down nor hold it by rules that are gone.
#[test]
fn a_reload_keeps_the_state_and_takes_the_rules() {
    let mut circuit = circuit();
    while circuit.state() == State::Closed {
        call(&mut circuit, true, false, START);
    }
    circuit.adopt(Some(Policy { consecutive_failures: None, ..policy() }));
    assert_eq!(circuit.state(), State::Open);
    circuit.adopt(None);
    assert_eq!(circuit.state(), State::Closed);
}

/// Slow and obvious: every call is remembered, and everything is counted anew each time.
struct Model {
    mode: Mode,
    /// `None`: closed; else until when it is open, and whether a probe is under way.
    open: Option<(Timestamp, bool)>,
    half: bool,
    era: u64,
    calls: Vec<(Timestamp, bool, bool)>,
}

impl Model {
    fn recent(&self, now: Timestamp) -> Vec<(Timestamp, bool, bool)> {
        let slot = |at: Timestamp| at.as_micros() / (10_000_000 / SLOTS as u64);
        self.calls.iter().filter(|(at, ..)| slot(*at) + SLOTS as u64 > slot(now)).copied().collect()
    }

    fn trips(&self, now: Timestamp) -> bool {
        let row = self.calls.iter().rev().take_while(|(_, failed, _)| *failed).count();
        let recent = self.recent(now);
        let share = |of: fn(&(Timestamp, bool, bool)) -> bool| {
            recent.iter().filter(|call| of(call)).count() as f64 / recent.len() as f64
        };
        row >= 3 || (recent.len() >= 4 && (share(|call| call.1) >= 0.5 || share(|call| call.2) >= 0.75))
    }

    fn go(&mut self, open: Option<Timestamp>, half: bool) {
        self.open = open.map(|until| (until, false));
        self.half = half;
        self.era += 1;
        if open.is_none() {
            self.calls.clear();
        }
    }

    fn tick(&mut self, now: Timestamp) {
        if let (Mode::Auto, Some((until, _)), false) = (self.mode, self.open, self.half)
            && now >= until
        {
            self.go(Some(until), true);
        }
    }

    fn enter(&mut self, now: Timestamp) -> Result<(u64, bool), Duration> {
        match (self.mode, &mut self.open) {
            (Mode::Open, _) => Err(HELD),
            (Mode::Closed, _) | (_, None) => Ok((self.era, false)),
            (_, Some((_, true))) => Err(PROBING),
            (_, Some((_, probing))) if self.half => {
                *probing = true;
                Ok((self.era, true))
            }
            (_, Some((until, _))) => Err(until.since(now)),
        }
    }

    fn report(&mut self, (era, probe): (u64, bool), failed: bool, slow: bool, now: Timestamp) {
        if era != self.era {
            return;
        }
        let reopens = now.after(5 * SECOND);
        match (probe, failed || slow) {
            (true, true) => self.go(Some(reopens), false),
            (true, false) => self.go(None, false),
            (false, _) => {
                self.calls.push((now, failed, slow));
                if self.mode == Mode::Auto && self.trips(now) {
                    self.go(Some(reopens), false);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter,
    Report { which: usize, failed: bool, slow: bool },
    Release { which: usize },
    Wait(u64),
    Switch(Mode),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Enter),
        6 => (0..8usize, any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(which, failed, slow)| Step::Report { which, failed, slow }),
        1 => (0..8usize).prop_map(|which| Step::Release { which }),
        3 => (0..4_000u64).prop_map(Step::Wait),
        1 => prop_oneof![Just(Mode::Auto), Just(Mode::Auto), Just(Mode::Open), Just(Mode::Closed)]
            .prop_map(Step::Switch),
    ]
}

proptest! {
    /// Whatever happens in whichever order, it does what the obvious one does, and never lets two probes out.
    #[test]
    fn it_does_what_the_obvious_one_does(steps in prop::collection::vec(step(), 1..200)) {
        let mut circuit = circuit();
        let mut model = Model { mode: Mode::Auto, open: None, half: false, era: 0, calls: Vec::new() };
        let mut now = START;
        let mut open = Vec::new();
        for step in steps {
            circuit.tick(now);
            model.tick(now);
            match step {
                Step::Enter => match (circuit.enter(now), model.enter(now)) {
                    (Ok(ticket), Ok(expected)) => {
                        prop_assert_eq!(ticket.is_probe(), expected.1);
                        open.push((ticket, expected));
                    }
                    (got, expected) => prop_assert_eq!(got.err(), expected.err()),
                },
                Step::Report { which, failed, slow } if !open.is_empty() => {
                    let (ticket, expected) = open.swap_remove(which % open.len());
                    circuit.report(ticket, failed, slow, now);
                    model.report(expected, failed, slow, now);
                }
                Step::Release { which } if !open.is_empty() => {
                    let (ticket, (era, probe)) = open.swap_remove(which % open.len());
                    circuit.release(ticket);
                    if let (Some((_, probing)), true) = (&mut model.open, probe && era == model.era) {
                        *probing = false;
                    }
                }
                Step::Report { .. } | Step::Release { .. } => {}
                Step::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Step::Switch(mode) => {
                    circuit.switch(mode);
                    if model.mode != mode {
                        model.mode = mode;
                        model.go(None, false);
                    }
                }
            }
            let state = match (model.mode, model.open, model.half) {
                (Mode::Open, ..) => State::Open,
                (Mode::Closed, ..) | (_, None, _) => State::Closed,
                (_, Some(_), true) => State::HalfOpen,
                (_, Some(_), false) => State::Open,
            };
            prop_assert_eq!(circuit.state(), state);
            if state == State::Closed {
                prop_assert_eq!(circuit.counts(now).calls as usize, model.recent(now).len());
            }
            let probes = open.iter().filter(|(t, _)| t.probe && t.generation == circuit.generation).count();
            prop_assert!(probes <= 1, "{} probes at once", probes);
        }
    }
}
