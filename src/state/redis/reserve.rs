//! What may be spent while the server is away, if anything: a reserve beside the budgets, and how the server hears of it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::super::admission::{Settlement, Spent};
use super::super::budget::{BudgetSpec, Hold, Period};
use super::super::transaction::{AdmissionId, Decision, Demand};
use super::super::{Store, StoreError};
use super::Shared;
use super::keys::Key;
use super::link::{Failure, Line, UNHURRIED};
use super::script::{CHARGE, Call};

/// What is held in, or spent of, one account.
struct Charge {
    account: Key,
    amount: u64,
    max: u64,
    period: Period,
}

type Charges = SmallVec<[Charge; 2]>;

/// Admissions that hold something without the server, and what was spent without it that it has yet to hear of.
#[derive(Default)]
pub(super) struct Reserve {
    open: Mutex<HashMap<AdmissionId, Charges>>,
    spent: Mutex<Vec<(AdmissionId, Charges)>>,
}

impl Shared {
    /// Decides without the server about a demand with holds: by this gate's share of the reserve, if there is one. What the
    /// others spend meanwhile is not known.
    pub(super) async fn hold_alone(&self, demand: &Demand<'_>) -> Result<Decision, StoreError> {
        let percent = self.config.outage_reserve;
        let Some(id) = demand.id.filter(|_| percent > 0) else { return Err(StoreError::BudgetsAway) };
        let replicas = self.replicas();
        let parts: SmallVec<[BudgetSpec; 2]> =
            demand.holds.iter().map(|hold| hold.budget.part(percent, replicas)).collect();
        let holds: SmallVec<[Hold<'_>; 2]> =
            demand.holds.iter().zip(&parts).map(|(hold, budget)| Hold { budget, ..*hold }).collect();
        let decision = self.local.admit(&Demand { holds: &holds, ..*demand }).await?;
        if decision.is_granted() {
            let charge = |hold: &Hold<'_>| Charge {
                account: self.keys.account(hold.budget, hold.subject),
                amount: hold.amount,
                max: hold.budget.max(),
                period: hold.budget.period(self.time.now()),
            };
            self.reserve.open.lock().insert(id, demand.holds.iter().map(charge).collect());
        }
        Ok(decision)
    }

    /// Notes what an admission has spent without the server, for it to hear. The server may have granted it as well, but
    /// must not count it twice: answers what to tell it of each hold that it has.
    pub(super) fn note_spent_alone(&self, settlement: &Settlement) -> Option<Spent> {
        if self.config.outage_reserve == 0 {
            return None;
        }
        let mut charges = self.reserve.open.lock().remove(&settlement.id)?;
        let nothing = charges.iter().map(|_| 0).collect();
        for (at, charge) in charges.iter_mut().enumerate() {
            let known = settlement.spent.as_ref().and_then(|spent| spent.get(at).copied());
            charge.amount = if settlement.outcome.spends() { known.unwrap_or(charge.amount) } else { 0 };
        }
        charges.retain(|charge| charge.amount > 0);
        if !charges.is_empty() {
            self.reserve.spent.lock().push((settlement.id, charges));
        }
        Some(nothing)
    }

    /// Tells the server what was spent without it.
    pub(super) async fn charge(&self, line: &Arc<Line>) -> Result<(), Failure> {
        loop {
            // It stays in its place until the server has heard of it.
            let Some((id, keys, numbers)) = self.reserve.spent.lock().last().map(|(id, charges)| {
                let accounts = charges.iter().map(|charge| charge.account.clone());
                let keys: Vec<Key> = [self.keys.charged(*id)].into_iter().chain(accounts).collect();
                let of = |charge: &Charge| {
                    let Period { start, end } = charge.period;
                    [charge.amount, charge.max, start.as_micros(), end.as_micros()]
                };
                let numbers = [self.time.by_hand()].into_iter().chain(charges.iter().flat_map(of));
                (*id, keys, numbers.flat_map(|number| (number as f64).to_le_bytes()).collect::<Vec<u8>>())
            }) else {
                return Ok(());
            };
            self.link
                .call_by(line, &Call { script: &CHARGE, keys: &keys, args: &[&numbers] }, UNHURRIED)
                .await?;
            self.reserve.spent.lock().retain(|(other, _)| *other != id);
        }
    }
}
