//! The demo's answers, as its clients read them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{app, assistant, what_to_try};

async fn call(method: Method, path: &str, body: impl Into<Bytes>) -> (StatusCode, HeaderMap, String) {
    let request =
        Request::builder().method(method).uri(path).body(Full::new(body.into())).expect("a request");
    let response = app::serve(request, Duration::ZERO).await.unwrap_or_else(|never| match never {});
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

async fn post(path: &str, body: Value) -> (StatusCode, Value) {
    let (status, _, text) = call(Method::POST, path, body.to_string()).await;
    (status, serde_json::from_str(&text).expect("JSON"))
}

/// The data of each event, the `type` first where an event is named.
async fn events(path: &str, body: Value) -> Vec<Value> {
    let (status, headers, text) = call(Method::POST, path, body.to_string()).await;
    assert_eq!((status, headers["content-type"].as_bytes()), (StatusCode::OK, &b"text/event-stream"[..]));
    let each = text.strip_suffix("\n\n").expect("an ended stream").split("\n\n").map(|event| {
        let (name, data) = event.rsplit_once("data: ").expect("data");
        let data = serde_json::from_str(data).unwrap_or_else(|_| Value::from(data));
        if let Some(name) = name.strip_prefix("event: ") {
            assert_eq!(data["type"], name.trim_end());
        }
        data
    });
    each.collect()
}

fn joined<'a>(events: &'a [Value], text: impl Fn(&'a Value) -> &'a Value) -> String {
    events.iter().filter_map(|event| text(event).as_str()).collect()
}

/// A client must read the same text and the same bill whether it streams or not.
#[tokio::test]
async fn chat_completions_streamed_and_whole_agree() {
    let mut body = json!({"model": "m", "messages": [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "I am ill"}]},
    ]});
    let (_, whole) = post("/v1/chat/completions", body.clone()).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "How long have you been ill?");
    assert_eq!(whole["usage"], json!({"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}));

    body["stream"] = true.into();
    let plain = events("/v1/chat/completions", body.clone()).await;
    assert_eq!(plain.len(), 1 + 6 + 1 + 1);
    assert_eq!(plain[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(plain[7]["choices"][0]["finish_reason"], "stop");
    assert_eq!(plain[8], "[DONE]");
    assert_eq!(joined(&plain, |e| &e["choices"][0]["delta"]["content"]), "How long have you been ill?");
    assert!(plain.iter().all(|event| event.get("usage").is_none()));

    body["stream_options"] = json!({"include_usage": true});
    let counted = events("/v1/chat/completions", body).await;
    assert_eq!(counted[8]["choices"], json!([]));
    assert_eq!(counted[8]["usage"], whole["usage"]);
}

/// A cap on the answer must hold, and be told apart from an answer that ended by itself.
#[tokio::test]
async fn token_caps_are_kept_in_each_api() {
    let message = json!([{"role": "user", "content": "hello"}]);
    let (_, chat) = post("/v1/chat/completions", json!({"messages": message, "max_tokens": 2})).await;
    assert_eq!(chat["choices"][0]["finish_reason"], "length");
    assert_eq!(chat["usage"]["completion_tokens"], 2);
    let (_, response) = post("/v1/responses", json!({"input": message, "max_output_tokens": 2})).await;
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    let (_, claude) = post("/v1/messages", json!({"model": "m", "messages": message, "max_tokens": 2})).await;
    assert_eq!(claude["stop_reason"], "max_tokens");
    assert_eq!(claude["content"][0]["text"], "Hello! I");
}

/// The typed events of the responses API must lead to the same response as the whole answer.
#[tokio::test]
async fn responses_streamed_and_whole_agree() {
    let (_, whole) = post("/v1/responses", json!({"input": "hello you", "instructions": "be kind"})).await;
    assert_eq!(whole["usage"]["input_tokens"], 4);
    let body = json!({"input": "hello you", "instructions": "be kind", "stream": true});
    let stream = events("/v1/responses", body).await;
    assert!(stream.iter().enumerate().all(|(n, event)| event["sequence_number"] == n));
    let last = stream.last().expect("an event");
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["usage"], whole["usage"]);
    assert_eq!(last["response"]["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(joined(&stream, |e| &e["delta"]), whole["output"][0]["content"][0]["text"]);
}

/// The Anthropic client adds up `message_start` and `message_delta`: both must carry their half.
#[tokio::test]
async fn messages_streamed_and_whole_agree() {
    let mut body = json!({
        "model": "m", "max_tokens": 99, "system": "be kind", "messages": [{"role": "user", "content": "thanks a lot"}],
    });
    let (_, whole) = post("/v1/messages", body.clone()).await;
    assert_eq!(whole["usage"], json!({"input_tokens": 5, "output_tokens": 12}));
    body["stream"] = true.into();
    let stream = events("/v1/messages", body).await;
    assert_eq!(stream.first().expect("an event")["message"]["usage"]["input_tokens"], 5);
    assert_eq!(stream[stream.len() - 2]["usage"]["output_tokens"], 12);
    assert_eq!(stream.last().expect("an event")["type"], "message_stop");
    assert_eq!(joined(&stream, |e| &e["delta"]["text"]), whole["content"][0]["text"]);
}

/// Embeddings must be unit vectors that tell texts apart, or a vector search finds nothing.
#[tokio::test]
async fn embeddings_tell_texts_apart() {
    let body = json!({"input": ["the cat sat", "the cat ran", "stock prices fell", ""], "dimensions": 64});
    let (_, answer) = post("/v1/embeddings", body).await;
    let vector = |n: usize| -> Vec<f64> {
        serde_json::from_value(answer["data"][n]["embedding"].clone()).expect("numbers")
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    assert_eq!(vector(0).len(), 64);
    assert!((dot(&vector(0), &vector(0)) - 1.0).abs() < 1e-9);
    assert!(dot(&vector(0), &vector(1)) > dot(&vector(0), &vector(2)));
    assert!(vector(3).iter().all(|x| *x == 0.0));
    assert_eq!(answer["usage"]["total_tokens"], 9);
}

/// Each client must find the app's own refusals in the shape that its error classes read.
#[tokio::test]
async fn faults_come_in_the_shape_of_the_api() {
    let (status, _, text) = call(Method::POST, "/api/chat", "{").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.starts_with(r#"{"error":"Invalid JSON: "#), "{text}");
    let (status, error) = post("/v1/chat/completions", json!({"messages": "hello"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["error"]["param"], "messages");
    assert_eq!(error["error"]["code"], Value::Null);
    let (_, error) = post("/v1/messages", json!({"model": "m", "messages": []})).await;
    assert_eq!(
        error["error"],
        json!({"type": "invalid_request_error", "message": "'max_tokens' is required."})
    );
    for (path, body) in [
        ("/v1/embeddings", json!({"input": [1, 2]})),
        ("/v1/embeddings", json!({"input": "a", "dimensions": 0})),
        ("/v1/embeddings", json!({"input": []})),
        ("/v1/responses", json!({"input": 1})),
        ("/api/chat", json!(["message"])),
    ] {
        assert_eq!(post(path, body).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    let (status, _, text) = call(Method::GET, "/v1/models/none", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("model_not_found"));
    assert_eq!(call(Method::GET, "/v1/messages", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(call(Method::DELETE, "/", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(call(Method::POST, "/nowhere", "").await.0, StatusCode::NOT_FOUND);
}

/// HTTP/2 clients take a body after HEAD for a broken stream.
#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (_, _, page) = call(Method::GET, "/", "").await;
    let (status, headers, body) = call(Method::HEAD, "/", "").await;
    assert_eq!(
        (status, headers["content-length"].to_str().ok()),
        (StatusCode::OK, Some(&*page.len().to_string()))
    );
    assert!(body.is_empty());
}

/// An endless body must not fill the newcomer's memory.
#[tokio::test]
async fn a_body_over_the_cap_is_refused() {
    let (status, _, _) = call(Method::POST, "/api/chat", vec![b' '; 32 * 1024 * 1024 + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// The page must work under `default-src 'self'`, and its script must know which header fields are the app's own.
#[tokio::test]
async fn the_page_needs_nothing_inline_and_nothing_from_elsewhere() {
    let (_, _, page) = call(Method::GET, "/", "").await;
    assert!(!page.contains("style=") && !page.contains("<style") && !page.contains("<script>"));
    assert!(!page.contains("://") && !page.contains("data:"));
    assert!(!page.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')));
    let (_, _, script) = call(Method::GET, "/app.js", "").await;
    for path in ["/", "/app.js", "/app.css", "/icon.svg", "/health", "/v1/models"] {
        let (status, headers, _) = call(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(headers["server"], "demo-chat");
        for name in headers.keys() {
            assert!(script.contains(&format!("\"{name}\"")), "{name}");
        }
    }
    for id in ["way", "talk", "chat", "message", "stream", "log"] {
        assert!(page.contains(&format!("id=\"{id}\"")) && script.contains(&format!("by(\"{id}\")")), "{id}");
    }
}

/// Each command that is printed must name the right door.
#[test]
fn commands_name_both_doors() {
    let text = what_to_try(([127, 0, 0, 1], 8080).into(), ([127, 0, 0, 1], 9464).into());
    let commands: Vec<&str> = text.lines().filter(|line| line.starts_with("    ")).collect();
    assert_eq!(commands.len(), 7);
    assert!(commands.iter().all(|command| command.contains("http://127.0.0.1:8080/")
        || command.contains("http://127.0.0.1:9464/metrics")));
}

/// The real server must answer over a socket and end when it is told to.
#[tokio::test]
async fn serves_until_shut_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(super::serve(listener, Duration::ZERO, async { stopped.await.unwrap_or(()) }));
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let request =
        b"POST /api/chat HTTP/1.1\r\nhost: demo\r\ncontent-length: 20\r\n\r\n{\"message\": \"hello\"}";
    client.write_all(request).await.expect("written");
    let mut answer = vec![0; 1024];
    let length = client.read(&mut answer).await.expect("an answer");
    let text = String::from_utf8_lossy(&answer[..length]);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains(&assistant::answer("hello")), "{text}");
    stop.send(()).expect("a running server");
    server.await.expect("a clean end");
    assert_eq!(client.read(&mut answer).await.expect("the end"), 0);
}
