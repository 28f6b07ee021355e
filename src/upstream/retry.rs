//! Calls that are tried again (K4): only what provably never left, or by choice what is idempotent; only before the first
//! byte; and only so many that a struggling upstream is not buried under them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Request, response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, CallError, RequestBody, Upstream, Wait};
use crate::config::Span;
use crate::guard::Fault;
use crate::proxy::client::Client;

/// The longest wait before a try.
const LONGEST: Duration = Duration::from_secs(1);
/// Retries that may be saved up, and with which an upstream begins: an idle gate may retry, too.
const SAVED: u32 = 10;
/// Parts of a retry: the account is kept in whole numbers.
const RETRY: u32 = 1000;

/// When a call is tried again, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Tries after the first.
    pub max: u32,
    /// Wait before the second try; it doubles with each.
    pub backoff: Span,
    /// Share of calls that may be tried again.
    pub budget: f64,
    /// Whether calls that were sent are tried again, too, if their method is idempotent (RFC 9110 §9.2.2).
    pub idempotent: bool,
}

/// When a call is tried again, as run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    max: u32,
    backoff: Duration,
    /// What a call pays in, in parts of a retry.
    deposit: u32,
    idempotent: bool,
}

impl Policy {
    /// Builds the policy.
    ///
    /// # Errors
    /// A number that would never try, or a budget that is no share.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        if config.max == 0 || config.max > SAVED {
            return Err(Fault::new(
                "retries.max",
                "is from 1 to 10; to try nothing again, write `retries: off`",
            ));
        }
        if !(config.budget > 0.0 && config.budget <= 1.0) {
            return Err(Fault::new(
                "retries.budget",
                "is a share: write a number above 0, at most 1, such as 0.1",
            ));
        }
        Ok(Self {
            max: config.max,
            backoff: config.backoff.0,
            // From 1 to RETRY, as the share is from 0 to 1.
            deposit: (config.budget * f64::from(RETRY)).ceil() as u32,
            idempotent: config.idempotent,
        })
    }

    /// The wait before try number `tried` + 1, with a random half of it off, so that callers do not come back together.
    fn wait(&self, tried: u32) -> Duration {
        let whole = self.backoff.saturating_mul(1 << tried.min(16)).min(LONGEST);
        let half = whole / 2;
        let random = RandomState::new().hash_one(tried) % 1024;
        half + half.mul_f64(random as f64 / 1024.0)
    }
}

/// Retries of one upstream, and what they may still cost.
#[derive(Debug)]
pub struct Retries {
    policy: Option<Policy>,
    account: AtomicU32,
}

/// The request once more; `None` if its body is still arriving.
fn copy_of(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    let body = RequestBody::from(request.body().whole()?.clone());
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy))
}

/// Why there is no answer, and the request if it provably never left.
pub type Failed = (CallError, Option<Box<Request<RequestBody>>>);

impl Retries {
    /// `None`: nothing is tried again.
    pub fn new(policy: Option<Policy>) -> Self {
        Self { policy, account: AtomicU32::new(SAVED * RETRY) }
    }

    /// Calls `upstream` for `client`, and again where that is allowed; `tried` counts the tries after the first. The caller
    /// bounds the time of all of them together, and says by `wait` whether it is over.
    ///
    /// # Errors
    /// What the last try came to.
    pub async fn call(
        &self,
        upstream: &Arc<Upstream>,
        (client, own_host): (&Client, bool),
        mut request: Box<Request<RequestBody>>,
        (tried, wait): (&mut u32, &Wait),
    ) -> Result<(response::Parts, Answer), CallError> {
        let Some(policy) = self.policy else {
            return upstream.call(request, client, own_host, wait).await.map_err(|(error, _)| error);
        };
        self.deposit(policy.deposit);
        let repeatable = policy.idempotent && request.method().is_idempotent();
        let mut sent = None;
        loop {
            let copy = if repeatable { copy_of(&request) } else { None };
            let (error, unsent) = match upstream.call(request, client, own_host, wait).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            // What was sent once was sent, whatever the tries after it come to.
            let error = match (unsent.is_some(), sent.take()) {
                (true, Some(broken)) => broken,
                _ => error,
            };
            let again = unsent.or(copy);
            request = match again.filter(|_| *tried < policy.max && self.withdraw()) {
                Some(request) => request,
                None => return Err(error),
            };
            sent = matches!(error, CallError::Broken(_)).then_some(error);
            tokio::time::sleep(policy.wait(*tried)).await;
            *tried += 1;
        }
    }

    fn deposit(&self, parts: u32) {
        let full = SAVED * RETRY;
        // Most of the time it is full, and nothing is written.
        if self.account.load(Ordering::Relaxed) < full {
            let add = |account: u32| Some((account + parts).min(full));
            // The closure never declines.
            let _ = self.account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    fn withdraw(&self) -> bool {
        let take = |account: u32| account.checked_sub(RETRY);
        self.account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { max: 2, backoff: Duration::from_millis(100), deposit: RETRY / 10, idempotent: false };

    /// When all calls fail, retries must not multiply the load: one for ten calls, once the savings are spent.
    #[test]
    fn retries_are_a_share_of_the_calls() {
        let retries = Retries::new(Some(POLICY));
        let mut made = 0;
        for _ in 0..1000 {
            retries.deposit(POLICY.deposit);
            while retries.withdraw() {
                made += 1;
            }
        }
        assert!((SAVED + 99..=SAVED + 100).contains(&made), "{made}");
        for _ in 0..10_000 {
            retries.deposit(POLICY.deposit);
        }
        assert_eq!((0..100).filter(|_| retries.withdraw()).count(), SAVED as usize);
    }

    /// Callers that failed together must not come back together, nor at once, nor never.
    #[test]
    fn waits_double_and_differ() {
        for (tried, whole) in [(0, 100), (1, 200), (2, 400), (9, 1000), (63, 1000)] {
            let waits: Vec<_> = (0..64).map(|_| POLICY.wait(tried).as_micros()).collect();
            assert!(
                waits.iter().all(|wait| (whole * 500..=whole * 1000).contains(wait)),
                "{tried}: {waits:?}"
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]), "all callers wait alike");
        }
    }
}
