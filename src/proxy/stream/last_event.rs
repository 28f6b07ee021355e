//! The last event of a stream that the gate ends: what the client's library raises as an error.

use http::HeaderValue;
use serde_json::{Value, json};

use super::Form;
use super::borders::LineEnd;
use crate::guard::Refusal;
use crate::proxy::api::{Api, ErrorShape};
use crate::proxy::reply::{error_body, message};

/// Who reads a stream.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The API that was called.
    pub api: Option<Api>,
    /// Shape in which errors are read.
    pub shape: ErrorShape,
    /// Id of the request.
    pub request_id: &'a HeaderValue,
}

/// The event's bytes, its border included.
pub fn last_event(form: Form, end: LineEnd, why: &Refusal, reader: &Reader<'_>) -> String {
    let end = end.text();
    match (form, reader.api, reader.shape) {
        // Ollama's clients raise the text of `error`; other streams of lines have no rule.
        (Form::Lines, ..) => format!("{}\n", json!({ "error": message(why) })),
        (Form::Events, Some(Api::Gemini), _) => format!("data: {}{end}{end}", gemini(why)),
        // OpenAI's clients raise `error` in the data; some read no `event` field at all.
        (Form::Events, _, ErrorShape::OpenAi) => format!("data: {}{end}{end}", body(why, reader)),
        (Form::Events, _, ErrorShape::Anthropic | ErrorShape::Problem | ErrorShape::Webhook) => {
            format!("event: error{end}data: {}{end}{end}", body(why, reader))
        }
    }
}

fn body(why: &Refusal, reader: &Reader<'_>) -> Value {
    error_body(why, reader.shape, reader.request_id.to_str().unwrap_or_default())
}

/// google.rpc.Status as JSON.
fn gemini(why: &Refusal) -> Value {
    let code = why.reason.status().as_u16();
    let status = if code == 504 { "DEADLINE_EXCEEDED" } else { "UNAVAILABLE" };
    json!({ "error": { "code": code, "message": message(why), "status": status } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Reason;

    fn told(form: Form, end: LineEnd, api: Option<Api>, shape: ErrorShape) -> String {
        let why = Refusal::new(Reason::StreamIdle, "The upstream fell silent.", "timeouts.stream_idle");
        last_event(form, end, &why, &Reader { api, shape, request_id: &HeaderValue::from_static("r1") })
    }

    /// A client that does not see the error takes half an answer for the whole.
    #[test]
    fn each_client_gets_the_error_that_it_raises() {
        let events = |api, shape| told(Form::Events, LineEnd::Lf, api, shape);
        let data = |event: &str| -> Value {
            let data = event.split("data: ").nth(1).expect("data");
            serde_json::from_str(data.strip_suffix("\n\n").expect("a border")).expect("JSON")
        };
        let openai = events(Some(Api::OpenAi), ErrorShape::OpenAi);
        assert!(openai.starts_with("data: "), "{openai}");
        assert_eq!(data(&openai)["error"]["code"], "stream_idle");
        let anthropic = events(Some(Api::Anthropic), ErrorShape::Anthropic);
        assert!(anthropic.starts_with("event: error\ndata: "), "{anthropic}");
        assert_eq!(data(&anthropic)["error"]["type"], "timeout_error");
        let plain = events(None, ErrorShape::Problem);
        assert!(plain.starts_with("event: error\ndata: "), "{plain}");
        assert_eq!(data(&plain)["code"], "stream_idle");
        assert_eq!(data(&events(Some(Api::Gemini), ErrorShape::Problem))["error"]["code"], 504);
        let ollama = told(Form::Lines, LineEnd::Lf, Some(Api::Ollama), ErrorShape::Problem);
        let line: Value = serde_json::from_str(ollama.strip_suffix('\n').expect("a line")).expect("JSON");
        assert!(line["error"].as_str().is_some_and(|text| text.contains("timeouts.stream_idle")), "{line}");
    }

    /// The event has to end where its readers look for the end.
    #[test]
    fn lines_end_as_the_streams_do() {
        let event = told(Form::Events, LineEnd::CrLf, None, ErrorShape::Problem);
        assert!(event.starts_with("event: error\r\ndata: ") && event.ends_with("\r\n\r\n"), "{event:?}");
    }
}
