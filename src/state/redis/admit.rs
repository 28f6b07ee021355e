//! A demand as the script takes it, and what it answers.

use std::time::Duration;

use smallvec::SmallVec;

use super::super::budget::Hold;
use super::super::claim::Holder;
use super::super::clock::micros;
use super::super::transaction::{Balance, Decision, Demand, Denial, Standing, Standings};
use super::keys::{Key, Keys};
use super::script::{ADMIT, Call};
use super::server_time::ServerTime;

/// Numbers travel as doubles, which hold whole numbers up to here.
const WHOLE: u64 = 1 << 53;

// The words of scripts/admit.lua.
const GRANTED: u64 = 0;
const CLAIMED: u64 = 1;
const LIMITED: u64 = 2;
const SPENT: u64 = 3;
const LATE: u64 = 4;
const OTHER_PERIOD: u64 = 5;
const SETTLED: u64 = 6;

/// A demand on its way to the server.
pub(super) struct Admit<'a> {
    demand: Demand<'a>,
    keys: Vec<Key>,
    numbers: Numbers,
    /// Id, gate and contents, if anything is claimed.
    claimed: Vec<u8>,
    gates: Key,
}

/// What the server answered.
pub(super) enum Verdict {
    /// Granted or denied.
    Decided(Decision),
    /// It came after its deadline, and takes nothing.
    Late(u64),
    /// The server is in another period of a budget than was asked about. Nothing is taken.
    OtherPeriod(u64),
    /// The admission has ended before it began. Nothing is taken.
    Settled,
}

#[derive(Default)]
struct Numbers(Vec<u8>);

impl Numbers {
    /// More than a double holds exactly counts as the most that it does: as a weight it fits nowhere, as a maximum it
    /// refuses nothing.
    fn push(&mut self, number: u64) {
        self.0.extend_from_slice(&(number.min(WHOLE) as f64).to_le_bytes());
    }
}

impl<'a> Admit<'a> {
    /// Asks for `demand`, to be granted within `patience` or not at all.
    pub(super) fn new(
        demand: &Demand<'a>,
        keys: &Keys,
        time: &ServerTime,
        patience: Duration,
        gate: u64,
    ) -> Self {
        Self::build(demand, keys, time, time.deadline(patience), gate, false)
    }

    /// Asks how the budgets of `holds` stand.
    pub(super) fn looks(holds: &'a [Hold<'a>], keys: &Keys, time: &ServerTime) -> Self {
        Self::build(&Demand { holds, ..Demand::default() }, keys, time, 0, 0, true)
    }

    fn build(
        demand: &Demand<'a>,
        names: &Keys,
        time: &ServerTime,
        deadline: u64,
        gate: u64,
        looks: bool,
    ) -> Self {
        let Demand { id, claims, draws, holds } = *demand;
        let mut keys: Vec<Key> = Vec::with_capacity(draws.len() * 2 + holds.len() + claims.len() + 1);
        let mut cells: SmallVec<[u64; 8]> = SmallVec::new();
        for draw in draws {
            for window in draw.limit.sliding() {
                cells.push(place(&mut keys, 0, names.counter(draw.limit, window, draw.subject)));
            }
        }
        let counters = keys.len();
        let accounts_of: SmallVec<[u64; 4]> = holds
            .iter()
            .map(|hold| place(&mut keys, counters, names.account(hold.budget, hold.subject)))
            .collect();
        let accounts = keys.len() - counters;
        keys.extend(claims.iter().map(|claim| names.claim(claim.key)));
        let recorded = id.filter(|_| !claims.is_empty() || !holds.is_empty());
        keys.extend(recorded.map(|id| names.record(id)));

        let mut numbers =
            Numbers(Vec::with_capacity(8 * (9 + 5 * (holds.len() + cells.len()) + claims.len())));
        let counts =
            [counters, accounts, claims.len(), usize::from(recorded.is_some()), holds.len(), cells.len()];
        [time.by_hand(), deadline, u64::from(looks)].into_iter().for_each(|number| numbers.push(number));
        counts.into_iter().for_each(|count| numbers.push(count as u64));
        for (hold, account) in holds.iter().zip(accounts_of) {
            let period = hold.budget.period(time.now());
            let (start, end) = (period.start.as_micros(), period.end.as_micros());
            let amount = if looks { 0 } else { hold.amount };
            let of_hold = [account, amount, hold.budget.max(), start, end];
            of_hold.into_iter().for_each(|number| numbers.push(number));
        }
        claims.iter().for_each(|claim| numbers.push(micros(claim.keep)));
        let windows =
            draws.iter().flat_map(|draw| draw.limit.sliding().iter().map(|window| (draw.weight, window)));
        for ((weight, window), counter) in windows.zip(cells) {
            let of_cell = [counter, weight, window.max, window.length, window.grain];
            of_cell.into_iter().for_each(|number| numbers.push(number));
        }
        let mut claimed = Vec::new();
        if let (Some(id), false) = (id, claims.is_empty()) {
            claimed.extend_from_slice(&id.0.to_be_bytes());
            claimed.extend_from_slice(&gate.to_be_bytes());
            claims.iter().for_each(|claim| claimed.extend_from_slice(&claim.content.to_be_bytes()));
        }
        let gates = if claims.is_empty() { Key::new() } else { names.gates() };
        Self { demand: *demand, keys, numbers, claimed, gates }
    }

    /// The arguments of the call.
    pub(super) fn args(&self) -> SmallVec<[&[u8]; 3]> {
        let mut args: SmallVec<[&[u8]; 3]> = SmallVec::new();
        args.push(&self.numbers.0);
        if !self.claimed.is_empty() {
            args.extend([self.claimed.as_slice(), self.gates.as_slice()]);
        }
        args
    }

    /// The call with these [`args`](Self::args).
    pub(super) fn call<'c>(&'c self, args: &'c [&'c [u8]]) -> Call<'c> {
        Call { script: &ADMIT, keys: &self.keys, args }
    }

    /// What the server's answer says; `None` if it makes no sense.
    pub(super) fn verdict(&self, answer: &redis::Value) -> Option<Verdict> {
        let redis::Value::BulkString(bytes) = answer else { return None };
        let mut numbers = Answer(bytes);
        let (word, now) = (numbers.whole()?, numbers.whole()?);
        let decision = match word {
            GRANTED => Decision::Granted,
            CLAIMED => Decision::Denied(Denial::Claimed {
                claim: numbers.whole()? as usize,
                by: Holder {
                    under_way: numbers.whole()? == 1,
                    same_content: numbers.whole()? == 1,
                    age: numbers.span()?,
                    free_in: numbers.span()?,
                },
            }),
            LIMITED => {
                let (draw, window) = self.cell(numbers.whole()? as usize)?;
                let (used, reset, wait) = (numbers.whole()?, numbers.span()?, numbers.next()?);
                let retry_after = (wait >= 0.0).then(|| Duration::from_micros(wait as u64));
                Decision::Denied(Denial::Limited {
                    standing: Standing::new(draw, window, used, reset),
                    retry_after,
                })
            }
            SPENT => {
                let hold = numbers.whole()? as usize;
                let max = self.demand.holds.get(hold)?.budget.max();
                let balance = numbers.balance(max)?;
                Decision::Denied(Denial::Spent { hold, balance })
            }
            LATE => return Some(Verdict::Late(now)),
            OTHER_PERIOD => return Some(Verdict::OtherPeriod(now)),
            SETTLED => return Some(Verdict::Settled),
            _ => return None,
        };
        Some(Verdict::Decided(decision))
    }

    /// The balances that were asked for; `None` if the answer holds none.
    pub(super) fn balances(&self, answer: &redis::Value) -> Option<Vec<Balance>> {
        let redis::Value::BulkString(bytes) = answer else { return None };
        let mut numbers = Answer(bytes);
        if numbers.whole()? != GRANTED {
            return None;
        }
        numbers.whole()?;
        self.demand.holds.iter().map(|hold| numbers.balance(hold.budget.max())).collect()
    }

    /// How the windows stand after a grant; `None` if the answer is none.
    pub(super) fn standings(&self, answer: &redis::Value) -> Option<Standings> {
        let redis::Value::BulkString(bytes) = answer else { return None };
        let mut numbers = Answer(bytes);
        if numbers.whole()? != GRANTED {
            return None;
        }
        numbers.whole()?;
        let mut standings = Standings::default();
        for (at, draw) in self.demand.draws.iter().enumerate() {
            for window in draw.limit.sliding() {
                let (used, reset) = (numbers.whole()?, numbers.span()?);
                standings.push(Standing::new(at, window, used, reset));
            }
        }
        Some(standings)
    }

    /// The draw of the `at`th window, and the window.
    fn cell(&self, at: usize) -> Option<(usize, &super::super::limit::Sliding)> {
        let draws = self.demand.draws.iter().enumerate();
        draws.flat_map(|(draw, of)| of.limit.sliding().iter().map(move |window| (draw, window))).nth(at)
    }
}

/// Where `key` stands among those from `first` on, counted from 1 as scripts do; it is added if it is new.
fn place(keys: &mut Vec<Key>, first: usize, key: Key) -> u64 {
    let known = keys.iter().skip(first).position(|known| *known == key);
    let at = known.unwrap_or_else(|| {
        keys.push(key);
        keys.len() - 1 - first
    });
    at as u64 + 1
}

/// The numbers of an answer, one after the other.
struct Answer<'a>(&'a [u8]);

impl Answer<'_> {
    fn next(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(*self.0.split_off(..8)?.first_chunk()?))
    }

    fn whole(&mut self) -> Option<u64> {
        self.next().map(|number| number as u64)
    }

    fn span(&mut self) -> Option<Duration> {
        self.whole().map(Duration::from_micros)
    }

    fn balance(&mut self, max: u64) -> Option<Balance> {
        Some(Balance { max, spent: self.whole()?, held: self.whole()?, reset: self.span()? })
    }
}
