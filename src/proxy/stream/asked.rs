//! Whether a request asks for a stream, as far as can be told before the answer.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::super::api::Api;

/// Whether a call to `api` asks for a stream: by `Accept` (`accepts_events`), by its path (Gemini), or by `stream` in
/// its body (OpenAI, Anthropic and their kin; Ollama streams unless told not to).
pub fn asks_for_stream(api: Option<Api>, path: &str, accepts_events: bool, body: &[u8]) -> bool {
    accepts_events
        || match api {
            None => false,
            Some(Api::Gemini) => path.ends_with(":streamGenerateContent"),
            Some(Api::Ollama) => stream_member(body) != Some(false),
            Some(_) => stream_member(body) == Some(true),
        }
}

/// The value of a member `stream`, at whatever depth. No walk is needed: in valid JSON these bytes are its name, since
/// quotes within a text are escaped.
fn stream_member(body: &[u8]) -> Option<bool> {
    static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"stream\""));
    NAME.find_iter(body).find_map(|at| {
        let value =
            body[at + NAME.needle().len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        match value {
            [b't', ..] => Some(true),
            [b'f', ..] => Some(false),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A caller who leaves before the first word of a stream would still pay for all of it.
    #[test]
    fn streams_are_known_by_what_asks_for_them() {
        let asks = |api, path, body: &str| asks_for_stream(Some(api), path, false, body.as_bytes());
        let (chat, yes) = ("/v1/chat/completions", "{\"messages\":[],\"stream\" :\n true}");
        assert!(asks(Api::OpenAi, chat, yes));
        assert!(asks(Api::Anthropic, "/v1/messages", yes));
        assert!(!asks(Api::OpenAi, chat, r#"{"stream":false}"#));
        assert!(!asks(Api::OpenAi, chat, r#"{"stream":null}"#));
        assert!(!asks(Api::OpenAi, chat, r#"{"messages":[{"content":"\"stream\":true"}]}"#));
        assert!(!asks(Api::OpenAi, chat, r#"["stream",true]"#));
        assert!(!asks(Api::OpenAi, chat, r#"{"a":"stream","b":1}"#));
        assert!(asks(Api::Ollama, "/api/chat", "{}"));
        assert!(!asks(Api::Ollama, "/api/chat", r#"{"stream": false}"#));
        assert!(asks(Api::Gemini, "/v1beta/models/g:streamGenerateContent", "{}"));
        assert!(!asks(Api::Gemini, "/v1beta/models/g:generateContent", "{}"));
        assert!(asks_for_stream(None, "/events", true, b""));
        assert!(!asks_for_stream(None, "/x", false, yes.as_bytes()));
    }
}
