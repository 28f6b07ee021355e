//! The one place that turns refusals into HTTP: status, header fields, and a body in the client's own shape.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{StatusCode, response};
use serde_json::json;

use super::api::ErrorShape;
use crate::guard::{Quota, Reason, Refusal};

/// RFC 9457 problem type of a refused draw (draft-ietf-httpapi-ratelimit-headers).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Carries the reason code on every refusal, whatever the body's shape.
static REASON: HeaderName = HeaderName::from_static("x-tidegate-reason");
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// An answer of the gate's own, before the response guards have seen it.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Header fields besides Content-Length.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; empty for 204.
    pub body: Bytes,
}

impl Reply {
    /// A JSON answer that no cache may keep.
    pub fn json(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        Self { status, headers, body }
    }

    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// The answer to a refused or failed request. `request_id` lets the caller point to the log line.
    pub fn refusal(refusal: &Refusal, shape: ErrorShape, request_id: &str) -> Self {
        let reason = refusal.reason;
        let duplicate = reason == Reason::Duplicate;
        let (status, content_type) = match shape {
            ErrorShape::Webhook if duplicate => (StatusCode::OK, "application/json"),
            ErrorShape::OpenAi | ErrorShape::Anthropic => (reason.status(), "application/json"),
            ErrorShape::Problem if duplicate => (reason.status(), "application/json"),
            ErrorShape::Problem | ErrorShape::Webhook => (reason.status(), "application/problem+json"),
        };
        let body = error_body(refusal, shape, request_id);
        let mut reply = Self::json(status, content_type, body.to_string().into());
        if duplicate {
            // The SDKs of OpenAI and Anthropic try again on 409, unless they are told not to.
            reply.headers.push((SHOULD_RETRY.clone(), HeaderValue::from_static("false")));
        }
        reply.headers.push((REASON.clone(), HeaderValue::from_static(reason.code())));
        if let Some(quota) = &refusal.quota {
            reply.quota_fields(quota);
        } else if let Some(wait) = refusal.retry_after {
            reply.wait_fields(wait);
        } else if reason.status() == StatusCode::SERVICE_UNAVAILABLE
            || matches!(reason, Reason::ConcurrencyLimited | Reason::StreamLimited)
        {
            reply.headers.push((RETRY_AFTER, HeaderValue::from_static("1")));
        }
        reply
    }

    fn wait_fields(&mut self, wait: Duration) {
        self.headers.push((RETRY_AFTER, seconds(wait).into()));
        self.headers.push((RETRY_AFTER_MS.clone(), milliseconds(wait).into()));
    }

    fn quota_fields(&mut self, quota: &Quota) {
        let (name, wait) = (&quota.limit, seconds(quota.reset));
        let number = |n: u64| HeaderValue::from(n);
        let mut text = String::with_capacity(48);
        let mut field = |arguments: std::fmt::Arguments<'_>| {
            text.clear();
            // Writing to a String cannot fail; a name that is no header text was refused when the config was built.
            let _ = text.write_fmt(arguments);
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        let policy = field(format_args!("\"{name}\";q={};w={}", quota.max, quota.window.as_secs()));
        let state = field(format_args!("\"{name}\";r={};t={wait}", quota.remaining));
        if quota.remaining == 0 {
            self.wait_fields(quota.reset);
        }
        self.headers.push((RATE_LIMIT_POLICY.clone(), policy));
        self.headers.push((RATE_LIMIT.clone(), state));
        self.headers.push((X_LIMIT.clone(), number(quota.max)));
        self.headers.push((X_REMAINING.clone(), number(quota.remaining)));
        self.headers.push((X_RESET.clone(), number(wait)));
    }

    /// The head of the answer.
    pub fn head(&self) -> response::Parts {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = self.status;
        head.headers.reserve(self.headers.len() + 16);
        head.headers.extend(self.headers.iter().cloned());
        if self.status != StatusCode::NO_CONTENT {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        head
    }
}

/// Whole seconds, rounded up: a client that waits this long is not early.
pub fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn milliseconds(wait: Duration) -> u64 {
    let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    ms.saturating_add(u64::from(!wait.subsec_nanos().is_multiple_of(1_000_000)))
}

/// A refusal as JSON, in the shape that its reader knows.
pub(super) fn error_body(refusal: &Refusal, shape: ErrorShape, request_id: &str) -> serde_json::Value {
    let message = message(refusal);
    match shape {
        ErrorShape::OpenAi => openai(refusal.reason, &message),
        ErrorShape::Anthropic => anthropic(refusal.reason, &message, request_id),
        ErrorShape::Problem | ErrorShape::Webhook if refusal.reason == Reason::Duplicate => json!({
            "status": "duplicate_blocked",
            "reason": refusal.reason.code(),
            "detail": message,
            "request_id": request_id,
        }),
        ErrorShape::Problem | ErrorShape::Webhook => problem(refusal, &message, request_id),
    }
}

/// What people are told.
pub(super) fn message(refusal: &Refusal) -> String {
    if refusal.setting.is_empty() {
        refusal.detail.to_string()
    } else {
        format!("{} (set by {})", refusal.detail, refusal.setting)
    }
}

fn openai(reason: Reason, message: &str) -> serde_json::Value {
    let (kind, code) = match reason.status().as_u16() {
        // The code that OpenAI's clients look for; the stable reason stands beside it.
        429 => ("requests", "rate_limit_exceeded"),
        401 => ("authentication_error", reason.code()),
        403 => ("permission_error", reason.code()),
        500.. => ("server_error", reason.code()),
        _ => ("invalid_request_error", reason.code()),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code, "reason": reason.code()}})
}

fn anthropic(reason: Reason, message: &str, request_id: &str) -> serde_json::Value {
    let kind = match reason.status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let error = json!({"type": kind, "message": message, "reason": reason.code()});
    json!({"type": "error", "error": error, "request_id": request_id})
}

fn problem(refusal: &Refusal, message: &str, request_id: &str) -> serde_json::Value {
    let status = refusal.reason.status();
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": message,
        "code": refusal.reason.code(),
        "request_id": request_id,
    });
    if let Some(quota) = &refusal.quota {
        body["type"] = QUOTA_EXCEEDED.into();
        body["violated-policies"] = json!([quota.limit]);
    }
    if let Some(wait) = refusal.quota.as_ref().map(|quota| quota.reset).or(refusal.retry_after) {
        body["retry_after"] = seconds(wait).into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited() -> Refusal {
        let quota = Quota {
            limit: "ai".into(),
            max: 5,
            remaining: 0,
            window: Duration::from_secs(60),
            reset: Duration::from_millis(41_001),
        };
        Refusal {
            quota: Some(Box::new(quota)),
            ..Refusal::new(Reason::RateLimited, "Too many calls.", "limits.ai (RATE_LIMIT_AI_PER_MINUTE)")
        }
    }

    fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(n, _)| n == name)?.1.to_str().ok()
    }

    /// A client that retries when it is told to must not be refused again for being a fraction early.
    #[test]
    fn waits_are_rounded_up() {
        let reply = Reply::refusal(&limited(), ErrorShape::Problem, "r1");
        assert_eq!(field(&reply, "retry-after"), Some("42"));
        assert_eq!(field(&reply, "retry-after-ms"), Some("41001"));
        assert_eq!(field(&reply, "ratelimit-policy"), Some("\"ai\";q=5;w=60"));
        assert_eq!(field(&reply, "ratelimit"), Some("\"ai\";r=0;t=42"));
        assert_eq!(seconds(Duration::from_secs(3)), 3);
    }

    /// Each client must find its own shape and the setting to change.
    #[test]
    fn shapes() {
        let body = |shape| -> serde_json::Value {
            serde_json::from_slice(&Reply::refusal(&limited(), shape, "r1").body).expect("json")
        };
        let openai = body(ErrorShape::OpenAi);
        assert_eq!(openai["error"]["code"], "rate_limit_exceeded");
        assert_eq!(openai["error"]["param"], serde_json::Value::Null);
        let anthropic = body(ErrorShape::Anthropic);
        assert_eq!(anthropic["error"]["type"], "rate_limit_error");
        assert_eq!(anthropic["request_id"], "r1");
        let problem = body(ErrorShape::Problem);
        assert_eq!(problem["code"], "rate_limited");
        assert_eq!(problem["violated-policies"][0], "ai");
        assert!(problem["detail"].as_str().expect("text").contains("RATE_LIMIT_AI_PER_MINUTE"));
    }
}
