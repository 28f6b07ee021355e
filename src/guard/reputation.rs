//! Limits by reputation (L5): whoever is refused again and again draws twice as much, until that has worn off.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Event, Fault, Reason};
use crate::config::Span;
use crate::proxy::client::Client;
use crate::state::Subject;
use crate::state::reputation::Reputations;

/// When limits are tightened, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// In this time half of what was held against a caller is forgiven.
    pub half_life: Span,
    /// Below this score, of 100, every draw counts twice.
    pub tighten_below: u8,
}

/// The same, as run.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// In this time half is forgiven.
    pub half_life: Duration,
    tighten_below: u8,
}

impl Policy {
    /// Builds the policy.
    ///
    /// # Errors
    /// Names the key of what can't be meant.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let half_life = config.half_life.duration();
        if half_life.is_zero() {
            return Err(Fault::new(
                "reputation.half_life",
                "must be more than 0; or write `reputation: off`",
            ));
        }
        if !(1..=100).contains(&config.tighten_below) {
            let message = "is a score from 1 to 100; or write `reputation: off`";
            return Err(Fault::new("reputation.tighten_below", message));
        }
        Ok(Self { half_life, tighten_below: config.tighten_below })
    }

    /// What each of a caller's draws counts.
    pub fn weight(&self, known: &Reputations, client: &Client) -> u64 {
        let low = |subject| known.score(subject, self.half_life) < self.tighten_below;
        let low =
            low(Subject::address(client.address)) || client.user.is_some_and(|user| low(Subject::user(user)));
        if low { 2 } else { 1 }
    }

    /// What a refusal costs of the score.
    pub fn points(reason: Reason) -> u8 {
        match reason.event() {
            Some(Event::SecurityAlert) => 15,
            Some(Event::RateLimitExceeded | Event::AuthFailed) => 5,
            Some(_) => 2,
            None => 0,
        }
    }
}
