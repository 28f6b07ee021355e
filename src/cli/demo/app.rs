//! The demo app itself: a chat backend as many are written, with no protection of its own.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, SERVER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::Body;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::assistant::answer;
use super::paced::{Answer, Paced};
use super::{anthropic, openai};

/// Time stamp of every answer: fixed, so that the same call gives the same bytes, with the gate and without it.
pub(super) const CREATED: u64 = 1_735_689_600;
/// More than the gate lets through by default, so that the refusal a newcomer sees is the gate's.
const MAX_BODY: usize = 32 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const STATIC: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("app.js")),
    ("/app.css", "text/css; charset=utf-8", include_str!("app.css")),
    ("/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// What a handler makes of a request.
pub(super) enum Output {
    /// One JSON answer.
    Json(Value),
    /// Server-sent events.
    Events(Vec<Bytes>),
}

/// Why the app itself refuses a request; [`Shape`] decides how that is written.
pub(super) struct Fault {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }
}

/// How an API writes its errors.
#[derive(Clone, Copy)]
enum Shape {
    App,
    OpenAi,
    Anthropic,
}

impl Shape {
    fn of(path: &str) -> Self {
        match path {
            _ if path == "/v1/messages" || path.starts_with("/v1/messages/") => Shape::Anthropic,
            _ if path.starts_with("/v1/") => Shape::OpenAi,
            _ => Shape::App,
        }
    }

    fn write(self, fault: &Fault) -> Value {
        let message = &fault.message;
        let kind = match fault.status {
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            _ => "invalid_request_error",
        };
        match self {
            Shape::App => json!({"error": message}),
            Shape::OpenAi => json!({"error": {
                "message": message, "type": "invalid_request_error", "param": fault.param, "code": fault.code,
            }}),
            Shape::Anthropic => json!({"type": "error", "error": {"type": kind, "message": message}}),
        }
    }
}

type Handler = fn(&Value) -> Result<Output, Fault>;

/// The endpoints that take JSON.
fn handler(path: &str) -> Option<Handler> {
    Some(match path {
        "/api/chat" => chat,
        "/v1/chat/completions" => openai::chat_completions,
        "/v1/responses" => openai::responses,
        "/v1/embeddings" => openai::embeddings,
        "/v1/messages" => anthropic::messages,
        _ => return None,
    })
}

/// `POST /api/chat`: `{"message"}` → `{"reply"}`.
fn chat(body: &Value) -> Result<Output, Fault> {
    let message = required(body, "message", Value::as_str)?;
    Ok(Output::Json(json!({"reply": answer(message)})))
}

/// Answers one request. Streams send one event per `pace`.
pub(super) async fn serve<B>(request: Request<B>, pace: Duration) -> Result<Response<Answer>, Infallible>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let mut response = match (handler(path), head.method == Method::POST) {
        (Some(handler), true) => match read(body).await.and_then(|body| handler(&body)) {
            Ok(Output::Json(value)) => whole(StatusCode::OK, JSON, value.to_string()),
            Ok(Output::Events(events)) => stream(events, pace),
            Err(fault) => refusal(path, &fault),
        },
        (None, false) if head.method == Method::GET || head.method == Method::HEAD => fetch(path),
        _ => not_found(path),
    };
    if head.method == Method::HEAD {
        without_body(&mut response);
    }
    // What a naive app tells the world about itself; the gate takes both away.
    response.headers_mut().insert(SERVER, HeaderValue::from_static("demo-chat"));
    response.headers_mut().insert("x-powered-by", HeaderValue::from_static("Demo"));
    Ok(response)
}

fn fetch(path: &str) -> Response<Answer> {
    if let Some((_, content_type, text)) = STATIC.iter().find(|(at, ..)| *at == path) {
        return whole(StatusCode::OK, content_type, *text);
    }
    let found = match path {
        "/health" => Ok(json!({"status": "ok"})),
        "/v1/models" => Ok(openai::models()),
        _ => match path.strip_prefix("/v1/models/") {
            Some(name) => openai::model_named(name),
            None => return not_found(path),
        },
    };
    match found {
        Ok(value) => whole(StatusCode::OK, JSON, value.to_string()),
        Err(fault) => refusal(path, &fault),
    }
}

fn not_found(path: &str) -> Response<Answer> {
    refusal(path, &Fault::new(StatusCode::NOT_FOUND, format!("There is nothing at {path}.")))
}

fn refusal(path: &str, fault: &Fault) -> Response<Answer> {
    whole(fault.status, JSON, Shape::of(path).write(fault).to_string())
}

fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Leaves the length and takes the body: hyper does so by itself on HTTP/1 but not on HTTP/2.
fn without_body(response: &mut Response<Answer>) {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Either::Left(Full::default());
}

fn stream(events: Vec<Bytes>, pace: Duration) -> Response<Answer> {
    let mut response = Response::new(Either::Right(Paced::new(events, pace)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn read<B>(body: B) -> Result<Value, Fault>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let body = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect())
        .await
        .map_err(|_| Fault::new(StatusCode::REQUEST_TIMEOUT, "The body took too long."))?
        .map_err(|error| match error.is::<LengthLimitError>() {
            true => Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 32 MiB."),
            false => Fault::invalid("The body could not be read."),
        })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| Fault::invalid(format!("Invalid JSON: {error}.")))
}

/// A field that the request must have, as the type that `get` reads.
pub(super) fn required<'a, T>(
    body: &'a Value,
    name: &'static str,
    get: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<T, Fault> {
    let field = body.get(name);
    field.and_then(get).ok_or_else(|| {
        let problem = if field.is_some() { "has the wrong type" } else { "is required" };
        Fault::invalid(format!("'{name}' {problem}.")).param(name)
    })
}

/// The text of a content field: a string, or the texts of an array of parts, a line each.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str()));
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// An id that follows from the request, so that the same call gives the same bytes.
pub(super) fn id(prefix: &str, body: &Value) -> String {
    format!("{prefix}demo{:016x}", fnv(body.to_string().as_bytes()))
}

/// FNV-1a, 64 bits: stable across builds, which the standard hasher does not promise.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
