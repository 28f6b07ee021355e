//! The body guard for JSON: its shape (V1) and the length of its texts (V2), in one walk; and the session it names.

use std::cell::RefCell;

use serde::Deserialize;

use super::json::{self, Caps, FieldRules, Found, PatternError, Rule, Scratch, Value, scan};
use super::{Fault, Reason, Refusal};
use crate::proxy::api::{Api, TextKind};

/// Shape caps, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonConfig {
    /// Objects and arrays open at once.
    pub depth: u32,
    /// Members of all objects together.
    pub members: u32,
}

/// Text caps, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// What people type into a chat box: on every inspected body.
    pub chat: KindConfig,
    /// What programs send to models: on calls to models and chats.
    pub model: KindConfig,
    /// What is to be spoken: on text-to-speech calls.
    pub speech: KindConfig,
}

/// One kind of text, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KindConfig {
    /// Unicode code points in one field.
    pub max: u64,
    /// Fields, as paths with `*` for any member or element; a field may be a string or an array of parts.
    pub fields: Vec<String>,
}

/// Fields looked for on one kind of call.
struct FieldSet {
    rules: FieldRules,
    texts: Vec<TextRule>,
}

struct TextRule {
    pattern: Box<str>,
    max: u64,
    setting: &'static str,
}

/// The guard, as run.
pub struct BodyGuard {
    caps: Caps,
    plain: FieldSet,
    model: FieldSet,
    speech: FieldSet,
}

/// What the walk brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Session id named in the body.
    pub session: Option<String>,
}

/// Tags from here on mark session fields; below, they index the texts.
const SESSION_TAG: u16 = u16::MAX;
/// Longer than any honest session id.
const SESSION_CHARS: usize = 256;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

impl BodyGuard {
    /// Compiles the field rules. The error names the key that holds the bad path.
    pub fn build(json: &JsonConfig, text: &TextConfig, session_fields: &[String]) -> Result<Self, Fault> {
        let caps = [("json.depth", json.depth.into()), ("json.members", json.members.into())];
        let texts = [("text.chat.max", text.chat.max), ("text.model.max", text.model.max)];
        let mut all = caps.into_iter().chain(texts).chain([("text.speech.max", text.speech.max)]);
        if let Some((key, _)) = all.find(|(_, cap): &(&str, u64)| *cap == 0) {
            return Err(Fault::new(key, "must be more than 0"));
        }
        let set = |kinds: &[(&'static str, &KindConfig)]| FieldSet::build(kinds, session_fields);
        let chat = ("text.chat", &text.chat);
        Ok(Self {
            caps: Caps { depth: json.depth, members: json.members },
            plain: set(&[chat])?,
            model: set(&[chat, ("text.model", &text.model)])?,
            speech: set(&[("text.speech", &text.speech)])?,
        })
    }

    /// Walks `body` once.
    pub fn check(&self, body: &[u8], api: Option<Api>) -> Result<Findings, Refusal> {
        let set = match api.map(Api::text_kind) {
            None => &self.plain,
            Some(TextKind::Chat | TextKind::Model) => &self.model,
            Some(TextKind::Speech) => &self.speech,
        };
        let mut findings = Findings::default();
        let mut too_long = None;
        let mut visit = |found: Found<'_>| {
            let Value::Text(text) = found.value else { return };
            if found.tag == SESSION_TAG {
                if findings.session.is_none() && text.raw().len() <= SESSION_CHARS {
                    findings.session = Some(text.decode().into_owned());
                }
            } else if let Some(rule) = set.texts.get(usize::from(found.tag))
                && text.raw().len() as u64 > rule.max
                && text.chars() as u64 > rule.max
            {
                too_long.get_or_insert(found.tag);
            }
        };
        let walked =
            SCRATCH.with_borrow_mut(|scratch| scan(body, &self.caps, &set.rules, scratch, &mut visit));
        walked.map_err(|fault| Refusal::new(Reason::InvalidJson, fault.to_string(), setting_of(&fault)))?;
        match too_long.and_then(|tag| set.texts.get(usize::from(tag))) {
            Some(rule) => {
                let detail = format!("The text at {} is longer than {} characters.", rule.pattern, rule.max);
                Err(Refusal::new(Reason::TextTooLong, detail, rule.setting))
            }
            None => Ok(findings),
        }
    }
}

impl FieldSet {
    fn build(kinds: &[(&'static str, &KindConfig)], session_fields: &[String]) -> Result<Self, Fault> {
        let mut texts = Vec::new();
        let mut rules = Vec::new();
        for (setting, kind) in kinds {
            for pattern in &kind.fields {
                let fault = |why: String| Fault::new(format!("{setting}.fields"), why);
                let tag = u16::try_from(texts.len()).map_err(|_| fault("too many fields".into()))?;
                compiles(Rule::text(pattern, tag)).map_err(|e| fault(e.to_string()))?;
                rules.push(Rule::text(pattern, tag));
                texts.push(TextRule { pattern: pattern.as_str().into(), max: kind.max, setting });
            }
        }
        for pattern in session_fields {
            let fault = |why: String| Fault::new("client.session_fields", why);
            compiles(Rule::value(pattern, SESSION_TAG)).map_err(|e| fault(e.to_string()))?;
            rules.push(Rule::value(pattern, SESSION_TAG));
        }
        let rules = FieldRules::compile(rules).map_err(|e| Fault::new("text", e.to_string()))?;
        Ok(Self { rules, texts })
    }
}

fn compiles(rule: Rule<'_>) -> Result<(), PatternError> {
    FieldRules::compile([rule]).map(|_| ())
}

fn setting_of(fault: &json::Fault) -> &'static str {
    match fault.kind {
        json::FaultKind::TooDeep { .. } => "json.depth",
        json::FaultKind::TooManyMembers { .. } => "json.members",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> BodyGuard {
        let kind = |max, fields: &[&str]| KindConfig {
            max,
            fields: fields.iter().map(|f| (*f).to_owned()).collect(),
        };
        let text = TextConfig {
            chat: kind(5, &["/message", "/chatInput"]),
            model: kind(10, &["/messages/*/content", "/system"]),
            speech: kind(3, &["/input"]),
        };
        BodyGuard::build(&JsonConfig { depth: 8, members: 20 }, &text, &["/sessionId".into()]).expect("guard")
    }

    fn reason(body: &str, api: Option<Api>) -> Option<Reason> {
        guard().check(body.as_bytes(), api).err().map(|r| r.reason)
    }

    /// A text one character over the cap costs the operator; one at the cap must pass.
    #[test]
    fn texts_are_counted_in_code_points() {
        assert_eq!(reason(r#"{"message":"12345"}"#, None), None);
        assert_eq!(reason(r#"{"message":"123456"}"#, None), Some(Reason::TextTooLong));
        assert_eq!(reason(r#"{"message":"äöüß€"}"#, None), None);
        assert_eq!(reason(r#"{"message":"\ud83d\ude00\u00e4345"}"#, None), None);
        assert_eq!(reason(r#"{"m\u0065ssage":"123456"}"#, None), Some(Reason::TextTooLong));
    }

    /// Parts are texts, too, and each API has its own fields.
    #[test]
    fn fields_depend_on_the_api() {
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"12345678901"}]}]}"#;
        assert_eq!(reason(parts, Some(Api::OpenAi)), Some(Reason::TextTooLong));
        assert_eq!(reason(parts, None), None);
        assert_eq!(reason(r#"{"input":"1234"}"#, Some(Api::OpenAiSpeech)), Some(Reason::TextTooLong));
        assert_eq!(reason(r#"{"input":"1234"}"#, Some(Api::OpenAi)), None);
    }

    /// Shape faults name their setting and never the value.
    #[test]
    fn faults_say_what_to_change() {
        let deep = "[".repeat(20);
        let refusal = guard().check(deep.as_bytes(), None).expect_err("too deep");
        assert_eq!((refusal.reason, &*refusal.setting), (Reason::InvalidJson, "json.depth"));
        let twice = guard().check(br#"{"secret-key":1,"secret-key":2}"#, None).expect_err("duplicate");
        assert!(!twice.detail.contains("secret-key"));
    }

    /// n8n's chat names its session in the body.
    #[test]
    fn session_is_found() {
        let found =
            guard().check(br#"{"sessionId":"s-1","chatInput":"hi"}"#, Some(Api::Webhook)).expect("good");
        assert_eq!(found.session.as_deref(), Some("s-1"));
    }

    /// A path that can't be compiled is the operator's typing error, told at start.
    #[test]
    fn bad_paths_are_named() {
        let kind = KindConfig { max: 1, fields: vec!["message".into()] };
        let text = TextConfig { chat: kind.clone(), model: kind.clone(), speech: kind };
        let error = BodyGuard::build(&JsonConfig { depth: 1, members: 1 }, &text, &[]).err().expect("bad");
        assert_eq!(error.key, "text.chat.fields");
        assert!(error.message.contains("message"), "{error}");
    }
}
