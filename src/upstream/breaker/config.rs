//! The breaker's settings.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{Span, Toggle};
use crate::guard::Fault;

/// When an upstream is left alone, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How far back calls are counted.
    pub window: Span,
    /// Calls in the window below which no share is judged.
    pub min_calls: u32,
    /// Share of failed calls that opens it.
    pub error_ratio: Toggle<f64>,
    /// Failures in a row that open it.
    pub consecutive_failures: Toggle<u32>,
    /// Statuses of the upstream's that are failures.
    pub failure_statuses: Vec<u16>,
    /// Late first bytes.
    pub slow: Toggle<SlowConfig>,
    /// How long it stays open before one call may probe.
    pub recovery: Span,
}

/// When late first bytes open it, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowConfig {
    /// A first byte that comes later is late.
    pub first_byte: Span,
    /// Share of late calls that opens it.
    pub ratio: f64,
}

/// When an upstream is left alone, as run.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(super) window: Duration,
    pub(super) min_calls: u32,
    pub(super) error_ratio: Option<f64>,
    pub(super) consecutive_failures: Option<u32>,
    pub(super) failure_statuses: Vec<u16>,
    pub(super) slow: Option<(Duration, f64)>,
    pub(super) recovery: Duration,
}

impl Policy {
    /// Builds the policy.
    ///
    /// # Errors
    /// A time or number of zero, a share that is none, or a status that is no error.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let share = |key: &'static str, value: f64| match value {
            value if value > 0.0 && value <= 1.0 => Ok(value),
            _ => Err(Fault::new(key, "is a share: write a number above 0, at most 1, such as 0.5")),
        };
        let positive = |key: &'static str, zero: bool| match zero {
            true => Err(Fault::new(key, "must be more than 0")),
            false => Ok(()),
        };
        positive("breaker.window", config.window.0.is_zero())?;
        positive("breaker.recovery", config.recovery.0.is_zero())?;
        positive("breaker.min_calls", config.min_calls == 0)?;
        positive("breaker.consecutive_failures", config.consecutive_failures.as_option() == Some(&0))?;
        if config.failure_statuses.iter().any(|status| !(500..=599).contains(status)) {
            let message = "an upstream's failures are statuses from 500 to 599";
            return Err(Fault::new("breaker.failure_statuses", message));
        }
        let slow = config.slow.as_option().map(|slow| {
            positive("breaker.slow.first_byte", slow.first_byte.0.is_zero())?;
            Ok((slow.first_byte.0, share("breaker.slow.ratio", slow.ratio)?))
        });
        let error_ratio = config.error_ratio.as_option().map(|ratio| share("breaker.error_ratio", *ratio));
        Ok(Self {
            window: config.window.0,
            min_calls: config.min_calls,
            error_ratio: error_ratio.transpose()?,
            consecutive_failures: config.consecutive_failures.as_option().copied(),
            failure_statuses: config.failure_statuses.clone(),
            slow: slow.transpose()?,
            recovery: config.recovery.0,
        })
    }
}
