//! The Anthropic-compatible endpoint: messages, as JSON or as typed events.

use serde_json::{Value, json};

use super::app::{Fault, Output, id, required, text_of};
use super::assistant::{answer, cut, pieces, tokens};
use super::paced::typed;

/// `POST /v1/messages`: `model`, `messages`, `max_tokens` (all three required, as there), `system`, `stream`.
pub(super) fn messages(body: &Value) -> Result<Output, Fault> {
    let model = required(body, "model", Value::as_str)?;
    let messages = required(body, "messages", Value::as_array)?;
    let limit = required(body, "max_tokens", Value::as_u64)?;
    let texts: Vec<String> = messages.iter().map(|message| text_of(&message["content"])).collect();
    let input = tokens(&text_of(&body["system"])) + texts.iter().map(|text| tokens(text)).sum::<usize>();
    let (text, was_cut) = cut(answer(texts.last().map_or("", String::as_str)), Some(limit));
    let stop = if was_cut { "max_tokens" } else { "end_turn" };
    let id = id("msg_", body);
    let message = |content: Value, stop: Value, output: usize| {
        json!({
            "id": id, "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": input, "output_tokens": output},
        })
    };
    let output = tokens(&text);
    if body["stream"] != true {
        return Ok(Output::Json(message(json!([{"type": "text", "text": text}]), stop.into(), output)));
    }

    let delta = |piece: &str| json!({"index": 0, "delta": {"type": "text_delta", "text": piece}});
    let mut steps = vec![
        ("message_start", json!({"message": message(json!([]), Value::Null, 0)})),
        ("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})),
        ("ping", json!({})),
    ];
    steps.extend(pieces(&text).map(|piece| ("content_block_delta", delta(piece))));
    let end =
        json!({"delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": output}});
    steps.extend([
        ("content_block_stop", json!({"index": 0})),
        ("message_delta", end),
        ("message_stop", json!({})),
    ]);
    Ok(Output::Events(steps.into_iter().map(|(name, fields)| typed(name, fields)).collect()))
}
