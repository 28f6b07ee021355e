//! The OpenAI-compatible endpoints: models, chat completions, responses, embeddings. Only what is documented here is
//! read from a request; parameters that steer sampling or tools are ignored.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::app::{CREATED, Fault, Output, fnv, id, required, text_of};
use super::assistant::{answer, cut, pieces, tokens};
use super::paced::{event, typed};

/// The one model there is. Others are accepted by name, as small inference servers do, and answer the same.
const MODEL: &str = "demo-words";
/// Length of an embedding unless `dimensions` says otherwise.
const DIMENSIONS: u64 = 16;
const MAX_DIMENSIONS: u64 = 1024;

/// `GET /v1/models`.
pub(super) fn models() -> Value {
    json!({"object": "list", "data": [model()]})
}

/// `GET /v1/models/{name}`.
pub(super) fn model_named(name: &str) -> Result<Value, Fault> {
    if name == MODEL {
        return Ok(model());
    }
    Err(Fault::new(StatusCode::NOT_FOUND, "The model does not exist.").param("model").code("model_not_found"))
}

fn model() -> Value {
    json!({"id": MODEL, "object": "model", "created": CREATED, "owned_by": "tidegate-demo"})
}

/// `POST /v1/chat/completions`: `messages`, `stream`, `stream_options.include_usage`, `max_completion_tokens`.
pub(super) fn chat_completions(body: &Value) -> Result<Output, Fault> {
    let messages = required(body, "messages", Value::as_array)?;
    let (prompt, last) = conversation(messages);
    let limit = body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64());
    let (text, was_cut) = cut(answer(&last), limit);
    let finish = if was_cut { "length" } else { "stop" };
    let completion = tokens(&text);
    let usage = json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
    });
    let (id, model) = (id("chatcmpl-", body), model_of(body));

    if body["stream"] != true {
        let message = json!({"role": "assistant", "content": text, "refusal": null});
        return Ok(Output::Json(json!({
            "id": id, "object": "chat.completion", "created": CREATED, "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
            "usage": usage,
        })));
    }
    let wants_usage = body["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": CREATED, "model": model, "choices": choices,
        });
        if wants_usage {
            chunk["usage"] = usage;
        }
        event(&chunk)
    };
    let delta = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        chunk(json!([choice]), Value::Null)
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(pieces(&text).map(|piece| delta(json!({"content": piece}), Value::Null)));
    events.push(delta(json!({}), finish.into()));
    if wants_usage {
        events.push(chunk(json!([]), usage));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    Ok(Output::Events(events))
}

/// `POST /v1/responses`: `input` (text or messages), `instructions`, `stream`, `max_output_tokens`.
pub(super) fn responses(body: &Value) -> Result<Output, Fault> {
    let input = required(body, "input", Some)?;
    let (mut prompt, last) = match input {
        Value::Array(messages) => conversation(messages),
        Value::String(text) => (tokens(text), text.clone()),
        _ => return Err(Fault::invalid("'input' must be a string or an array of messages.").param("input")),
    };
    prompt += tokens(&text_of(&body["instructions"]));
    let (text, was_cut) = cut(answer(&last), body["max_output_tokens"].as_u64());
    let completion = tokens(&text);
    let (status, incomplete) = if was_cut {
        ("incomplete", json!({"reason": "max_output_tokens"}))
    } else {
        ("completed", Value::Null)
    };
    let (response_id, item_id) = (id("resp_", body), id("msg_", body));
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let item = |status: &str, content: Value| {
        let mut item = json!({"type": "message", "id": item_id, "status": status, "role": "assistant"});
        item["content"] = content;
        item
    };
    let response = |status: &str, output: Value, incomplete: Value, usage: Value| {
        json!({
            "id": response_id, "object": "response", "created_at": CREATED, "status": status, "error": null,
            "incomplete_details": incomplete, "instructions": body["instructions"], "model": model_of(body),
            "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "usage": usage,
        })
    };
    let whole = item(status, json!([part(&text)]));
    let usage = json!({
        "input_tokens": prompt, "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    });
    let done = response(status, json!([whole]), incomplete, usage);
    if body["stream"] != true {
        return Ok(Output::Json(done));
    }

    let begun = response("in_progress", json!([]), Value::Null, Value::Null);
    let at = |mut fields: Value| {
        fields["item_id"] = item_id.as_str().into();
        fields["output_index"] = 0.into();
        fields["content_index"] = 0.into();
        fields
    };
    let mut steps = vec![
        ("response.created", json!({"response": begun})),
        ("response.in_progress", json!({"response": begun})),
        ("response.output_item.added", json!({"output_index": 0, "item": item("in_progress", json!([]))})),
        ("response.content_part.added", at(json!({"part": part("")}))),
    ];
    let delta = |piece| ("response.output_text.delta", at(json!({"delta": piece, "logprobs": []})));
    steps.extend(pieces(&text).map(delta));
    let end = if was_cut { "response.incomplete" } else { "response.completed" };
    steps.extend([
        ("response.output_text.done", at(json!({"text": text, "logprobs": []}))),
        ("response.content_part.done", at(json!({"part": part(&text)}))),
        ("response.output_item.done", json!({"output_index": 0, "item": whole})),
        (end, json!({"response": done})),
    ]);
    let number = |(sequence, (name, mut fields)): (usize, (&str, Value))| {
        fields["sequence_number"] = sequence.into();
        typed(name, fields)
    };
    Ok(Output::Events(steps.into_iter().enumerate().map(number).collect()))
}

/// `POST /v1/embeddings`: `input` (a text or several) and `dimensions`. Vectors come as numbers whatever
/// `encoding_format` says; the official clients take both.
pub(super) fn embeddings(body: &Value) -> Result<Output, Fault> {
    let input = required(body, "input", Some)?;
    let texts: Option<Vec<&str>> = match input {
        Value::String(text) => Some(vec![text]),
        Value::Array(texts) if !texts.is_empty() => texts.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let texts = texts.ok_or_else(|| {
        Fault::invalid("'input' must be a string or an array of strings; token arrays are not read.")
            .param("input")
    })?;
    let dimensions = match &body["dimensions"] {
        Value::Null => DIMENSIONS,
        given => given.as_u64().filter(|n| (1..=MAX_DIMENSIONS).contains(n)).ok_or_else(|| {
            Fault::invalid("'dimensions' must be a whole number from 1 to 1024.").param("dimensions")
        })?,
    };
    let prompt: usize = texts.iter().map(|text| tokens(text)).sum();
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": embed(text, dimensions)}))
        .collect();
    let usage = json!({"prompt_tokens": prompt, "total_tokens": prompt});
    Ok(Output::Json(json!({"object": "list", "data": data, "model": model_of(body), "usage": usage})))
}

/// Signed feature hashing (Weinberger et al., 2009): texts that share words get near vectors, of length 1.
fn embed(text: &str, dimensions: u64) -> Vec<f64> {
    let mut vector = vec![0.0; usize::try_from(dimensions).unwrap_or(0)];
    for word in text.split_whitespace() {
        let hash = fnv(word.to_lowercase().as_bytes());
        let slot = usize::try_from(hash % dimensions).ok().and_then(|at| vector.get_mut(at));
        if let Some(slot) = slot {
            *slot += if hash >> 63 == 0 { 1.0 } else { -1.0 };
        }
    }
    let norm = vector.iter().map(|x: &f64| x * x).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vector
}

/// Tokens of the whole conversation, and the text of its last message.
fn conversation(messages: &[Value]) -> (usize, String) {
    let texts = messages.iter().map(|message| text_of(&message["content"]));
    texts.fold((0, String::new()), |(sum, _), text| (sum + tokens(&text), text))
}

fn model_of(body: &Value) -> &str {
    body["model"].as_str().unwrap_or(MODEL)
}
