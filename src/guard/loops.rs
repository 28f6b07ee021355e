//! Calls that come again and again (D3): a program that repeats the same call in a loop is paused, before it has spent what
//! its owner would not.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Fault;
use super::duplicates::Sent;
use super::limits::Draws;
use crate::config::Rate;
use crate::proxy::client::SubjectId;
use crate::state::{LimitSpec, Subject, Window};

/// When a call is a loop, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How often the same caller may make the same call, to the letter.
    pub rate: Rate,
}

/// When a call is a loop, as run.
#[derive(Debug)]
pub struct Loops(LimitSpec);

impl Loops {
    /// Builds the guard.
    ///
    /// # Errors
    /// A window that can't be counted.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let Rate { max, window } = config.rate;
        let spec = LimitSpec::new("loops", [Window { length: window, max }]);
        spec.map(Self).map_err(|why| Fault::new("loops.rate", why.to_string()))
    }

    /// Adds the draw that a call makes. Safe calls may be made as often as other limits allow.
    pub fn draw<'a>(&'a self, sent: &Sent<'_>, draws: &mut Draws<'a>) {
        if !sent.head.method.is_safe() && sent.inspected && !sent.body.is_empty() {
            let call = SubjectId(sent.key(b"call", sent.body).0);
            draws.push(&self.0, Subject::call(call), "loops.rate");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::guard::Reason;
    use crate::guard::testing::{Request, rules};
    use crate::state::Standing;

    /// An agent that is stuck must be stopped; one that works, or another's, must not.
    #[test]
    fn the_same_call_by_the_same_caller_draws_from_one_counter() {
        let minute = Duration::from_secs(60);
        let loops = Loops::build(&Config { rate: Rate { max: 3, window: minute } }).expect("guard");
        let draws = |request: &Request, body: &str| {
            let head = request.head();
            let (body, rules) = (body.as_bytes(), rules());
            let sent = Sent { head: &head, rules: &rules, api: None, body, inspected: true, message: None };
            let mut draws = Draws::default();
            loops.draw(&sent, &mut draws);
            draws
        };
        let subject = |request: &Request, body: &str| draws(request, body).as_slice()[0].subject;
        let post = Request::new(Method::POST);
        let mut other = Request::new(Method::POST);
        other.client.user = Some(SubjectId(1));
        assert_eq!(subject(&post, "{}"), subject(&post, "{}"));
        assert_ne!(subject(&post, "{}"), subject(&post, "[]"));
        assert_ne!(subject(&post, "{}"), subject(&other, "{}"));
        assert!(draws(&Request::new(Method::GET), "{}").as_slice().is_empty());
        let standing = Standing { draw: 0, max: 3, remaining: 0, window: minute, reset: minute };
        let refusal = draws(&post, "{}").refusal(&standing, minute);
        assert_eq!((refusal.reason, &*refusal.setting), (Reason::LoopDetected, "loops.rate"));
    }
}
