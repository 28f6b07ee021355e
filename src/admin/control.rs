//! What the admin port changes: circuit breakers and maintenance. Who may, is decided before.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::json::breaker;
use super::{document, problem};
use crate::observe::BreakerView;
use crate::proxy::NotSwitched;
use crate::state::switches::{Maintenance, Unchanged};
use crate::upstream::breaker::Mode;

/// Characters of a maintenance message, at most.
const MESSAGE_CHARS: usize = 500;

/// What can be changed by hand; `by` is the address of whoever does.
pub trait Controls {
    /// Switches the breaker of one upstream, or all; answers how they stand then.
    fn switch_breakers(
        &self,
        mode: Mode,
        upstream: Option<&str>,
        by: IpAddr,
    ) -> Result<Vec<BreakerView>, NotSwitched>;

    /// Closes the app, or opens it again.
    fn maintain(&self, wanted: Option<Maintenance>, by: IpAddr) -> Result<(), NotSwitched>;

    /// Whether what is switched stays so over a restart.
    fn keeps_switches(&self) -> bool;
}

/// An endpoint that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Breaker(Mode),
    Maintenance(bool),
}

/// The body of a request to close the app.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Closing {
    message: String,
    retry_after_s: u32,
}

impl Default for Closing {
    fn default() -> Self {
        Self { message: "The app is closed for maintenance.".into(), retry_after_s: 300 }
    }
}

impl Control {
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/api/security/circuit-breaker/open" => Self::Breaker(Mode::Open),
            "/api/security/circuit-breaker/close" => Self::Breaker(Mode::Closed),
            "/api/security/circuit-breaker/auto" => Self::Breaker(Mode::Auto),
            "/api/security/maintenance/on" => Self::Maintenance(true),
            "/api/security/maintenance/off" => Self::Maintenance(false),
            _ => return None,
        })
    }

    /// Does it, and says how things stand then.
    pub(super) fn act(
        self,
        query: Option<&str>,
        body: &[u8],
        by: IpAddr,
        controls: &impl Controls,
    ) -> Response<Vec<u8>> {
        let done = match self {
            Self::Breaker(mode) => {
                let upstream = match upstream_of(query) {
                    Ok(upstream) => upstream,
                    Err(detail) => return problem(StatusCode::BAD_REQUEST, detail),
                };
                let switched = controls.switch_breakers(mode, upstream.as_deref(), by);
                switched.map(|views| ("circuit_breakers", views.iter().map(breaker).collect()))
            }
            Self::Maintenance(on) => {
                let wanted = match on.then(|| closing(body)).transpose() {
                    Ok(wanted) => wanted,
                    Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
                };
                let shown = json!(wanted);
                controls.maintain(wanted, by).map(|()| ("maintenance", shown))
            }
        };
        match done {
            Ok((what, stands)) => {
                document(StatusCode::OK, &json!({ what: stands, "kept": controls.keeps_switches() }))
            }
            Err(why) => {
                let status = match why {
                    NotSwitched::NoSuchUpstream(_) => StatusCode::NOT_FOUND,
                    NotSwitched::Unchanged(Unchanged::HandedOver) => StatusCode::SERVICE_UNAVAILABLE,
                    NotSwitched::Unchanged(Unchanged::NotKept(_)) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                problem(status, &why.to_string())
            }
        }
    }
}

/// The upstream that a query names; a query of anything else is more likely a slip than meant for all upstreams.
fn upstream_of(query: Option<&str>) -> Result<Option<Cow<'_, str>>, &'static str> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let name = query.strip_prefix("upstream=").filter(|name| !name.is_empty() && !name.contains('&'));
    let name = name.and_then(|name| percent_decode_str(name).decode_utf8().ok());
    name.map(Some).ok_or("The query names one upstream: ?upstream=NAME; without one, all are meant.")
}

fn closing(body: &[u8]) -> Result<Maintenance, String> {
    let Closing { message, retry_after_s } = match body {
        b"" => Closing::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            format!(
                "The body is JSON such as {{\"message\":\"Back at noon.\",\"retry_after_s\":600}}: {error}."
            )
        })?,
    };
    if message.trim().is_empty() || message.chars().count() > MESSAGE_CHARS {
        return Err(format!("message has 1 to {MESSAGE_CHARS} characters."));
    }
    Ok(Maintenance { message, retry_after_s })
}
