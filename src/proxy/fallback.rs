//! What serves a request when its upstream can't (K5): an answer that stands in the settings, or another upstream.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::reply::Reply;
use crate::guard::{Fault, Reason};
use crate::upstream::{Targets, Upstream};

/// Marks what a fallback served, with the reason why the upstream did not.
pub static X_FALLBACK: HeaderName = HeaderName::from_static("x-tidegate-fallback");

const EVENTS: &str = "text/event-stream";

/// What serves in place of the upstream, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Another upstream, for requests of which the first one provably saw nothing.
    #[serde(default)]
    pub upstream: Option<Targets>,
    /// An answer, where no upstream gives one.
    #[serde(default)]
    pub answer: Option<AnswerConfig>,
}

/// An answer, as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerConfig {
    /// Status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: String,
    /// Body.
    pub body: String,
}

/// What serves in place of the upstream, as run.
#[derive(Debug, Default)]
pub struct Fallback {
    /// Another upstream.
    pub upstream: Option<Arc<Upstream>>,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    content_type: HeaderValue,
    events: bool,
    body: Bytes,
}

impl Fallback {
    /// Builds the fallback; `upstream` is the one that `config` names.
    ///
    /// # Errors
    /// Neither an upstream nor an answer, or an answer that can't be sent.
    pub fn build(config: &Config, upstream: Option<Arc<Upstream>>) -> Result<Self, Fault> {
        if config.upstream.is_none() && config.answer.is_none() {
            return Err(Fault::new("fallback", "names neither an upstream nor an answer; write one, or off"));
        }
        let answer = config.answer.as_ref().map(Answer::build).transpose()?;
        Ok(Self { upstream, answer })
    }

    /// The answer to a request that failed with `reason`, if it is one that this stands in for: the upstream was not
    /// asked, or gave no answer. A client that waits for `events` is not given something else.
    pub fn answer(&self, reason: Reason, events: bool) -> Option<Reply> {
        let answer = self.answer.as_ref().filter(|_| stands_in_for(reason))?;
        if events && !answer.events {
            return None;
        }
        let headers = vec![
            (CONTENT_TYPE, answer.content_type.clone()),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (X_FALLBACK.clone(), HeaderValue::from_static(reason.code())),
        ];
        Some(Reply { status: answer.status, headers, body: answer.body.clone() })
    }
}

impl Answer {
    fn build(config: &AnswerConfig) -> Result<Self, Fault> {
        let status = StatusCode::from_u16(config.status).ok();
        let bodied = |status: &StatusCode| {
            !status.is_informational()
                && !matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        };
        let status = status.filter(bodied).ok_or_else(|| {
            Fault::new("fallback.answer.status", "is no status of an answer with a body, such as 200 or 503")
        })?;
        let content_type = HeaderValue::from_str(&config.content_type).map_err(|_| {
            Fault::new("fallback.answer.content_type", "is no media type; write it like application/json")
        })?;
        let essence = config.content_type.split(';').next().unwrap_or_default().trim();
        let events = essence.eq_ignore_ascii_case(EVENTS);
        Ok(Self { status, content_type, events, body: config.body.clone().into() })
    }
}

/// What the gate refuses stays refused; so does maintenance, whose message is the operator's own.
fn stands_in_for(reason: Reason) -> bool {
    reason == Reason::CircuitOpen || reason.is_upstreams()
}

#[cfg(test)]
mod tests {

    use super::*;

    fn fallback(status: u16, content_type: &str) -> Result<Fallback, Fault> {
        let answer = AnswerConfig { status, content_type: content_type.into(), body: "{}".into() };
        Fallback::build(&Config { upstream: None, answer: Some(answer) }, None)
    }

    /// A refusal that turns into a 200 is a guard that is not there; a page given to an event reader is an error there.
    #[test]
    fn only_what_the_upstream_owes_is_replaced() {
        let (json, events) =
            (fallback(200, "application/json"), fallback(200, "text/event-stream; charset=utf-8"));
        let (json, events) = (json.expect("good"), events.expect("good"));
        for reason in Reason::ALL {
            let replaced = json.answer(*reason, false).is_some();
            assert_eq!(replaced, stands_in_for(*reason), "{}", reason.code());
            assert!(!replaced || reason.status().is_server_error(), "{}", reason.code());
        }
        assert!(json.answer(Reason::CircuitOpen, true).is_none());
        assert!(events.answer(Reason::CircuitOpen, true).is_some());
        assert!(json.answer(Reason::Maintenance, false).is_none());
    }

    /// What can't be sent is told at start, not by a broken answer in an outage.
    #[test]
    fn bad_answers_are_named() {
        for (status, content_type, key) in [
            (99, "text/plain", "fallback.answer.status"),
            (101, "text/plain", "fallback.answer.status"),
            (204, "text/plain", "fallback.answer.status"),
            (200, "text/plain\n", "fallback.answer.content_type"),
        ] {
            assert_eq!(fallback(status, content_type).expect_err("bad").key, key);
        }
        assert_eq!(
            Fallback::build(&Config { upstream: None, answer: None }, None).expect_err("empty").key,
            "fallback"
        );
    }
}
