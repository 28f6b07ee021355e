//! The admin port: who may ask, and what is answered; knows no server and no socket.

mod access;
mod control;
pub mod json;
mod order;
mod page;
pub mod serve;
#[cfg(test)]
mod tests;
mod token;

pub use access::AdminRequest;
pub use control::Controls;
pub use token::{AdminToken, TokenError};

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::guard::limits::LimitView;
use crate::observe::{Readiness, Snapshot, TopCaller};
use crate::state::reputation::Standing;
use crate::state::{Ban, MemoryStats};

use access::Permission;
use control::Control;

/// What the endpoints show.
pub trait Sources {
    /// The gate as it is now.
    fn snapshot(&self) -> Snapshot;

    /// The callers that ask most, most first.
    fn top(&self, most: usize) -> Vec<TopCaller>;

    /// Every ban, and whether it is in force or only remembered.
    fn bans(&self) -> Vec<(Arc<Ban>, bool)>;

    /// Every limit.
    fn limits(&self) -> Vec<LimitView>;

    /// The callers of whom is known the worst, worst first.
    fn reputations(&self, most: usize) -> Vec<Standing>;

    /// What the store holds.
    fn store(&self) -> MemoryStats;

    /// The metrics in the text exposition format, consistent with `snapshot`; `None` if they can't be rendered.
    fn metrics(&self, snapshot: &Snapshot) -> Option<String>;

    /// Has the settings read again for `asker`; the error says why they were refused, with key and line.
    fn reload(&self, asker: IpAddr) -> Result<(), String>;
}

/// Where the settings are read again.
pub const RELOAD: &str = "/api/config/reload";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Index,
    Health,
    Ready,
    Metrics,
    MetricsJson,
    Security,
    Sessions,
    Top,
    Bans,
    Limits,
    Reputation,
    State,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Index,
            "/healthz" | "/health" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/metrics.json" => Self::MetricsJson,
            "/api/security/stats" => Self::Security,
            "/api/sessions/stats" => Self::Sessions,
            "/api/security/top" => Self::Top,
            "/api/security/bans" => Self::Bans,
            "/api/security/limits" => Self::Limits,
            "/api/security/reputation" => Self::Reputation,
            "/api/state/stats" => Self::State,
            _ => return None,
        })
    }

    /// Probes come from wherever the orchestrator runs, without a token; they see a word and nothing more.
    const fn is_probe(self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }
}

/// Answers a request to the admin port. The answer is whole: `Content-Length` and security headers are set, and HEAD
/// has no body.
pub fn answer(
    request: &AdminRequest<'_>,
    token: &AdminToken,
    gate: &(impl Sources + Controls),
) -> Response<Vec<u8>> {
    let mut answer = route(request, token, gate);
    let length = answer.body().len();
    if request.method == Method::HEAD {
        answer.body_mut().clear();
    }
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    let fixed: [(HeaderName, &'static str); 8] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

fn route(
    request: &AdminRequest<'_>,
    token: &AdminToken,
    gate: &(impl Sources + Controls),
) -> Response<Vec<u8>> {
    let permission = request.permission(token);
    let endpoint = Endpoint::of(request.path);
    let reads = request.method == Method::GET || request.method == Method::HEAD;
    let probe = reads && permission == Permission::None && endpoint.is_some_and(Endpoint::is_probe);
    match permission {
        Permission::WrongToken => return unauthorized("This is not the admin token."),
        Permission::None if !probe => {
            return unauthorized(
                "Send the admin token as a bearer token. Reads go without it from this machine only, at a loopback name.",
            );
        }
        Permission::Read if !reads => {
            return unauthorized("Whatever changes state needs the admin token as a bearer token.");
        }
        _ => {}
    }
    // Whoever changes state has shown the token.
    if let Some(control) = Control::of(request.method, request.path) {
        return control.act(request, token, gate);
    }
    let changes = Control::methods(request.path);
    let Some(endpoint) = endpoint else {
        return match &*changes {
            [] => problem(StatusCode::NOT_FOUND, "There is nothing at this path."),
            _ => not_allowed("This path changes state: POST to it.", &changes.join(", ")),
        };
    };
    if !reads {
        let allowed = [&["GET", "HEAD"], &*changes].concat().join(", ");
        let only =
            if changes.is_empty() { "This path can be read only." } else { "This path takes other methods." };
        return not_allowed(only, &allowed);
    }
    let snapshot = gate.snapshot();
    match endpoint {
        Endpoint::Health if probe => document(StatusCode::OK, &json!({ "status": json::status(&snapshot) })),
        Endpoint::Health => document(StatusCode::OK, &json::health(&snapshot)),
        Endpoint::Ready => {
            let ready = snapshot.readiness == Readiness::Ready;
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            document(status, &json::readiness(&snapshot))
        }
        Endpoint::Metrics => match gate.metrics(&snapshot) {
            Some(text) => body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes()),
            None => problem(StatusCode::INTERNAL_SERVER_ERROR, "The metrics can't be rendered."),
        },
        Endpoint::MetricsJson => document(StatusCode::OK, &json::metrics(&snapshot)),
        Endpoint::Security => document(StatusCode::OK, &json::security(&snapshot)),
        Endpoint::Sessions => document(StatusCode::OK, &json::sessions(&snapshot)),
        Endpoint::Top => match json::top_asked(request.query) {
            Some(most) => document(StatusCode::OK, &json::top(&gate.top(most))),
            None => problem(StatusCode::BAD_REQUEST, "`limit` is a number from 1 to 100."),
        },
        Endpoint::Bans => document(StatusCode::OK, &json::bans(&gate.bans())),
        Endpoint::Limits => document(StatusCode::OK, &json::limits(&gate.limits())),
        Endpoint::Reputation => match json::top_asked(request.query) {
            Some(most) => document(StatusCode::OK, &json::reputations(&gate.reputations(most))),
            None => problem(StatusCode::BAD_REQUEST, "`limit` is a number from 1 to 100."),
        },
        Endpoint::State => document(StatusCode::OK, &json::state(&gate.store())),
        Endpoint::Index => index(request, &snapshot),
    }
}

/// The page for whoever names HTML in `Accept`, as browsers do and API clients don't.
fn index(request: &AdminRequest<'_>, snapshot: &Snapshot) -> Response<Vec<u8>> {
    let html = request.headers.get_all(ACCEPT).iter().any(|accept| {
        let ranges = accept.as_bytes().split(|&byte| byte == b',');
        ranges
            .map(<[u8]>::trim_ascii)
            .any(|range| range.get(..9).is_some_and(|range| range.eq_ignore_ascii_case(b"text/html")))
    });
    let mut answer = if html {
        let mut page = body(StatusCode::OK, "text/html; charset=utf-8", page::render(snapshot).into_bytes());
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
        page
    } else {
        document(StatusCode::OK, &json::security(snapshot))
    };
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}

fn not_allowed(detail: &str, allowed: &str) -> Response<Vec<u8>> {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, detail);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

fn unauthorized(detail: &str) -> Response<Vec<u8>> {
    let mut answer = problem(StatusCode::UNAUTHORIZED, detail);
    answer
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidegate admin\""));
    answer
}

/// An error as RFC 9457 shapes it.
fn problem(status: StatusCode, detail: &str) -> Response<Vec<u8>> {
    let title = status.canonical_reason().unwrap_or_default();
    let problem =
        json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut answer = document(status, &problem);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

fn document(status: StatusCode, value: &Value) -> Response<Vec<u8>> {
    body(status, "application/json", format!("{value}\n").into_bytes())
}

fn body(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Vec<u8>> {
    let mut answer = Response::new(bytes);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
