//! Which API a path belongs to: what counts as a call to a model or chat, which fields hold its text, and in
//! which shape its clients read errors.

use http::Method;
use smallvec::SmallVec;

/// An API that Tidegate knows by its path.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// OpenAI chat completions, completions, and whatever else speaks OpenAI's error shape.
    OpenAi,
    /// OpenAI-compatible text to speech.
    OpenAiSpeech,
    /// Anthropic messages.
    Anthropic,
    /// Gemini `generateContent` and its kin.
    Gemini,
    /// Ollama chat, generate and embeddings.
    Ollama,
    /// ElevenLabs text to speech.
    ElevenLabs,
    /// A webhook of a workflow engine such as n8n.
    Webhook,
    /// A home-made chat endpoint.
    Chat,
}

/// Shape in which a client reads errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"type":"error","error":{"type","message"},"request_id"}`.
    Anthropic,
    /// RFC 9457.
    Problem,
    /// The same, but that a duplicate is no failure: senders of webhooks try again whatever is not answered with 200.
    Webhook,
}

/// How long a text may be depends on who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// Typed by a person into a chat box.
    Chat,
    /// Sent to a model by a program, with history and context.
    Model,
    /// To be spoken.
    Speech,
}

impl Api {
    /// Shape of errors on this API.
    pub fn error_shape(self) -> ErrorShape {
        match self {
            Api::OpenAi | Api::OpenAiSpeech => ErrorShape::OpenAi,
            Api::Anthropic => ErrorShape::Anthropic,
            Api::Webhook => ErrorShape::Webhook,
            Api::Gemini | Api::Ollama | Api::ElevenLabs | Api::Chat => ErrorShape::Problem,
        }
    }

    /// Who reads the text fields of this API.
    pub fn text_kind(self) -> TextKind {
        match self {
            Api::OpenAi | Api::Anthropic | Api::Gemini | Api::Ollama => TextKind::Model,
            Api::OpenAiSpeech | Api::ElevenLabs => TextKind::Speech,
            Api::Webhook | Api::Chat => TextKind::Chat,
        }
    }

    /// Whether pictures and sound come inline, so that bodies are large.
    pub fn is_model(self) -> bool {
        self.text_kind() == TextKind::Model
    }
}

/// Ends of OpenAI paths that call a model; whatever stands before them is where the API is mounted.
const OPENAI: &[&str] = &[
    "/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/rerank",
    "/v1/score",
    "/v1/batches",
    "/v1/videos",
];

/// Paths at which vLLM, llama.cpp, LiteLLM and text-generation-inference serve models without a version in front.
const BARE: &[&str] = &[
    "/completions",
    "/completion",
    "/responses",
    "/embeddings",
    "/embedding",
    "/messages",
    "/rerank",
    "/score",
    "/pooling",
    "/generate",
    "/generate_stream",
    "/infill",
];

const OLLAMA: &[&str] = &["/api/generate", "/api/embed", "/api/embeddings"];

/// First segments of n8n's paths that start a workflow.
const WEBHOOKS: &[&str] = &["webhook", "webhook-test", "webhook-waiting", "form", "form-test"];

/// Segments of ElevenLabs paths that make sound.
const ELEVENLABS: &[&str] =
    &["text-to-speech", "speech-to-speech", "sound-generation", "text-to-sound-effects", "music"];

/// Recognises a call to a model or chat by its normalised path. Case does not count: an upstream may ignore it.
/// `events`: the client waits for events, which it may do with a GET.
pub fn recognise(method: &Method, path: &str, events: bool) -> Option<Api> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments: SmallVec<[&str; 8]> = path.split('/').collect();
    let has = |name: &str| segments.iter().any(|segment| segment.eq_ignore_ascii_case(name));
    let first = segments.get(1).copied().unwrap_or_default();
    if WEBHOOKS.iter().any(|name| first.eq_ignore_ascii_case(name)) || has("webhook") {
        return Some(Api::Webhook);
    }
    if method.is_safe() && !events {
        return None;
    }
    let any = |ends: &[&str]| ends.iter().any(|end| ends_with(path, end));
    if ends_with(path, "/v1/audio/speech") || (has("deployments") && ends_with(path, "/audio/speech")) {
        return Some(Api::OpenAiSpeech);
    }
    let mounted = starts_with(path, "/openai/deployments/") || has("engines");
    let run = has("threads") && ends_with(path, "/runs");
    if any(OPENAI) || mounted || run {
        return Some(Api::OpenAi);
    }
    if any(&["/v1/messages", "/v1/messages/batches", "/v1/complete"]) {
        return Some(Api::Anthropic);
    }
    if is_gemini(path) {
        return Some(Api::Gemini);
    }
    if has("v1") && ELEVENLABS.iter().any(|name| has(name)) {
        return Some(Api::ElevenLabs);
    }
    if any(OLLAMA) || ends_with(path, "/ollama/api/chat") {
        return Some(Api::Ollama);
    }
    if BARE.iter().any(|bare| path.eq_ignore_ascii_case(bare)) {
        return Some(Api::OpenAi);
    }
    // Flowise, Botpress, Dify, LibreChat.
    let apps = ["prediction", "converse"].iter().any(|name| has(name))
        || any(&["/chat-messages", "/completion-messages"])
        || starts_with(path, "/api/agents/chat/");
    if apps
        || starts_with(path, "/api/chat")
        || first.eq_ignore_ascii_case("chat")
        || ends_with(path, "/chat")
    {
        return Some(Api::Chat);
    }
    None
}

/// Shape of errors for a path on which no model is called (listing models, a wrong path under the API).
pub fn error_shape_of(path: &str, anthropic_version: bool) -> ErrorShape {
    if anthropic_version {
        ErrorShape::Anthropic
    } else if starts_with(path, "/v1/") || contains(path, "/openai/") {
        ErrorShape::OpenAi
    } else {
        ErrorShape::Problem
    }
}

/// `…/models/{model}:generateContent` and the other verbs that generate, count or embed.
fn is_gemini(path: &str) -> bool {
    let Some((head, verb)) = path.rsplit_once(':') else { return false };
    let verbs = [
        "generateContent",
        "streamGenerateContent",
        "batchGenerateContent",
        "embedContent",
        "batchEmbedContents",
        "predict",
        "predictLongRunning",
        "rawPredict",
        "streamRawPredict",
    ];
    head.split('/').any(|segment| segment.eq_ignore_ascii_case("models"))
        && verbs.iter().any(|v| verb.eq_ignore_ascii_case(v))
}

fn ends_with(path: &str, end: &str) -> bool {
    let (path, end) = (path.as_bytes(), end.as_bytes());
    path.len() >= end.len() && path[path.len() - end.len()..].eq_ignore_ascii_case(end)
}

fn starts_with(path: &str, start: &str) -> bool {
    let (path, start) = (path.as_bytes(), start.as_bytes());
    path.len() >= start.len() && path[..start.len()].eq_ignore_ascii_case(start)
}

/// `part` starts with a slash, which has no other case.
fn contains(path: &str, part: &str) -> bool {
    let (path, part) = (path.as_bytes(), part.as_bytes());
    path.windows(part.len()).any(|w| w.first() == part.first() && w.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that is not recognised escapes the AI limits, and its caller pays.
    #[test]
    fn model_calls_are_recognised_wherever_they_are_mounted() {
        let known = [
            ("/v1/chat/completions", Api::OpenAi),
            ("/openai/v1/chat/completions/", Api::OpenAi),
            ("/api/chat/completions", Api::OpenAi),
            ("/V1/Chat/Completions", Api::OpenAi),
            ("/v1/responses", Api::OpenAi),
            ("/v1/embeddings", Api::OpenAi),
            ("/v1/audio/speech", Api::OpenAiSpeech),
            ("/v1/messages", Api::Anthropic),
            ("/v1beta/models/gemini-2.5-pro:generateContent", Api::Gemini),
            ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", Api::Gemini),
            ("/v1/text-to-speech/voice-id/stream", Api::ElevenLabs),
            ("/api/generate", Api::Ollama),
            ("/ollama/api/chat", Api::Ollama),
            ("/api/chat", Api::Chat),
            ("/api/chat/send", Api::Chat),
            ("/api/chatbot", Api::Chat),
            ("/chat", Api::Chat),
            ("/webhook/abc/chat", Api::Webhook),
            ("/webhook-test/abc", Api::Webhook),
            ("/webhook-waiting/7", Api::Webhook),
            ("/completion", Api::OpenAi),
            ("/openai/deployments/d/completions", Api::OpenAi),
            ("/openai/deployments/d/audio/speech", Api::OpenAiSpeech),
            ("/v1/threads/t/runs", Api::OpenAi),
            ("/v1/messages/batches", Api::Anthropic),
            ("/v1/models/m:batchGenerateContent", Api::Gemini),
            ("/v1/sound-generation", Api::ElevenLabs),
            ("/chat/stream", Api::Chat),
            ("/api/v1/prediction/flow-id", Api::Chat),
            ("/api/v1/bots/b/converse/u", Api::Chat),
            ("/v1/chat-messages", Api::Chat),
            ("/v1/completion-messages", Api::Chat),
            ("/api/agents/chat/openAI", Api::Chat),
        ];
        for (path, api) in known {
            assert_eq!(recognise(&Method::POST, path, false), Some(api), "{path}");
        }
        assert_eq!(recognise(&Method::GET, "/webhook/abc", false), Some(Api::Webhook));
    }

    /// Pages and listings must not be counted as model calls.
    #[test]
    fn other_paths_are_not() {
        for path in ["/", "/v1/models", "/chats", "/api/users", "/assets/chat.js"] {
            assert_eq!(recognise(&Method::POST, path, false), None, "{path}");
        }
        assert_eq!(recognise(&Method::GET, "/chat", false), None);
        assert_eq!(recognise(&Method::GET, "/chat/stream", true), Some(Api::Chat));
    }
}
