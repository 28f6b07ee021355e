//! The guards: one file each, with its config type, its check and its tests.
//!
//! A guard sees a borrowed view of the request and answers [`Verdict`]: nothing, or a [`Refusal`] that names
//! the reason, the rule and the setting that would change it. No guard opens a socket, reads the clock or the
//! config file, or renders a response; `proxy::reply` turns refusals into HTTP, `chain` runs and measures the guards.

pub mod authority;
pub mod bans;
pub mod body;
pub mod caps;
pub mod chain;
pub mod cidr;
pub mod concurrency;
pub mod cors;
pub mod duplicates;
mod fault;
pub mod form;
pub mod host;
pub mod hygiene;
pub mod json;
pub mod leaks;
pub mod limits;
pub mod loops;
pub mod mode;
pub mod origin;
pub mod origin_list;
mod reason;
pub mod reputation;
pub mod sanitize;
pub mod security_headers;
pub mod target;
#[cfg(test)]
mod testing;
pub mod text;
pub mod trail;
pub mod uploads;

pub use chain::{GuardParts, Guards};
pub use fault::Fault;
pub use reason::{Event, Reason};

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, Method, Version};

use crate::proxy::client::Client;

/// What a guard answers: pass, or one refusal.
pub type Verdict = Result<(), Refusal>;

/// Which limits a request counts towards (`page`, `api`, `ai` in the config).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Safe methods outside APIs.
    Page,
    /// State-changing or inspected.
    Api,
    /// A call to a model or to a chat backend.
    Ai,
}

/// The head of a request as the guards see it, after normalisation and after the client was decided.
pub struct Head<'a> {
    /// Request method.
    pub method: &'a Method,
    /// Protocol version the client speaks.
    pub version: Version,
    /// Normalised path: the form that routes and is forwarded, never empty, starts with `/`.
    pub path: &'a str,
    /// Query string without the `?`, as received.
    pub query: Option<&'a str>,
    /// Header fields as received.
    pub headers: &'a HeaderMap,
    /// `Host` or `:authority` as received, with its port if one was given.
    pub authority: Option<&'a str>,
    /// Who is asking.
    pub client: &'a Client,
    /// What the request counts as.
    pub traffic: Traffic,
    /// Whether the client asks to leave HTTP (any `Upgrade` header, or an extended CONNECT).
    pub upgrade: bool,
}

/// Why a request is refused, with all that the answer, the log and the event need.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Stable reason.
    pub reason: Reason,
    /// One sentence for the caller that names the field and the rule, never the offending value in full.
    pub detail: Cow<'static, str>,
    /// The config key (and environment name, if one is bound) that sets the rule that was met; empty if none does.
    pub setting: Cow<'static, str>,
    /// The limit that refused, for the rate-limit header fields.
    pub quota: Option<Box<Quota>>,
    /// When to come back, where no limit says so.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without quota fields.
    pub fn new(
        reason: Reason,
        detail: impl Into<Cow<'static, str>>,
        setting: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { reason, detail: detail.into(), setting: setting.into(), quota: None, retry_after: None }
    }

    /// The same, with the time after which it may go better.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

/// The window that refused a request or that is nearest to refusing the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// Name of the limit in the config.
    pub limit: Box<str>,
    /// Draws allowed in the window.
    pub max: u64,
    /// Draws left.
    pub remaining: u64,
    /// Length of the window.
    pub window: Duration,
    /// Until the next draw can be granted (refused), or until the window is whole again (granted).
    pub reset: Duration,
}
