//! How long a text may be (V2), and which fields hold one on which kind of call.

use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{FieldRules, PatternError, Rule};
use super::{Fault, Reason, Refusal};
use crate::proxy::api::{Api, TextKind};

/// Text caps, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What people type into a chat box.
    pub chat: ChatConfig,
    /// What programs send to models, with history and context.
    pub model: KindConfig,
    /// What is to be spoken: on text-to-speech calls, which have no other texts.
    pub speech: KindConfig,
}

/// Typed text, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatConfig {
    /// Unicode code points in one text.
    pub max: u64,
    /// Fields on every inspected body.
    pub fields: Vec<String>,
    /// Further fields on calls to chats: names that other apps use for other things.
    pub on_chats: Vec<String>,
}

/// One kind of text, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KindConfig {
    /// Unicode code points in one text.
    pub max: u64,
    /// Fields, as paths with `*` for any member or element; a field may be a string, an array, or objects that hold a
    /// `text` or `content`.
    pub fields: Vec<String>,
}

/// Fields by the kind of call, as run.
pub struct TextFields {
    common: FieldSet,
    chat: FieldSet,
    speech: FieldSet,
}

/// Fields looked for on one kind of call.
pub struct FieldSet {
    rules: FieldRules,
    texts: Vec<TextRule>,
}

struct TextRule {
    pattern: Box<str>,
    max: u64,
    setting: &'static str,
}

/// Tags from here on mark session fields; below, they index the texts.
const SESSION_TAG: u16 = u16::MAX;
/// Longer than any honest session id.
const SESSION_CHARS: usize = 256;

impl TextFields {
    /// Compiles the field rules.
    ///
    /// # Errors
    /// Names the key that holds a cap of 0 or a bad path.
    pub fn build(config: &Config, session_fields: &[String]) -> Result<Self, Fault> {
        let Config { chat, model, speech } = config;
        let caps =
            [("text.chat.max", chat.max), ("text.model.max", model.max), ("text.speech.max", speech.max)];
        if let Some((key, _)) = caps.into_iter().find(|(_, cap)| *cap == 0) {
            return Err(Fault::new(key, "must be more than 0"));
        }
        let typed = List { setting: "text.chat", key: "fields", max: chat.max, fields: &chat.fields };
        let on_chats = List { key: "on_chats", fields: &chat.on_chats, ..typed };
        let sent = List { setting: "text.model", key: "fields", max: model.max, fields: &model.fields };
        let spoken = List { setting: "text.speech", key: "fields", max: speech.max, fields: &speech.fields };
        Ok(Self {
            common: FieldSet::build(&[typed, sent], session_fields)?,
            chat: FieldSet::build(&[typed, on_chats, sent], session_fields)?,
            speech: FieldSet::build(&[spoken], session_fields)?,
        })
    }

    /// The fields of a call to `api`, or to no API that is known.
    pub fn of(&self, api: Option<Api>) -> &FieldSet {
        match api {
            Some(Api::Chat) => &self.chat,
            Some(api) if api.text_kind() == TextKind::Speech => &self.speech,
            _ => &self.common,
        }
    }
}

/// One list of the config.
#[derive(Clone, Copy)]
struct List<'c> {
    setting: &'static str,
    key: &'static str,
    max: u64,
    fields: &'c [String],
}

impl FieldSet {
    fn build(lists: &[List<'_>], session_fields: &[String]) -> Result<Self, Fault> {
        let mut texts = Vec::new();
        let mut rules = Vec::new();
        for list in lists {
            for pattern in list.fields {
                let fault = |why: String| Fault::new(format!("{}.{}", list.setting, list.key), why);
                let tag = u16::try_from(texts.len()).map_err(|_| fault("too many fields".into()))?;
                compiles(Rule::text(pattern, tag)).map_err(|e| fault(e.to_string()))?;
                rules.push(Rule::text(pattern, tag));
                texts.push(TextRule {
                    pattern: pattern.as_str().into(),
                    max: list.max,
                    setting: list.setting,
                });
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

    /// What a walk has to look for; what it finds belongs into a [`Reading`] of the same set.
    pub fn rules(&self) -> &FieldRules {
        &self.rules
    }

    /// A body or query of which nothing was read yet.
    pub fn reading(&self) -> Reading<'_> {
        Reading { set: self, session: None, too_long: None }
    }
}

fn compiles(rule: Rule<'_>) -> Result<(), PatternError> {
    FieldRules::compile([rule]).map(|_| ())
}

/// What the fields of one body or query say.
pub struct Reading<'s> {
    set: &'s FieldSet,
    session: Option<String>,
    too_long: Option<&'s TextRule>,
}

impl Reading<'_> {
    /// Takes in a field. `bytes`: as written, never fewer than it has characters, which are counted only if it matters.
    pub fn note(
        &mut self,
        tag: u16,
        bytes: usize,
        chars: impl FnOnce() -> usize,
        text: impl FnOnce() -> String,
    ) {
        if tag == SESSION_TAG {
            if self.session.is_none() && bytes <= SESSION_CHARS {
                self.session = Some(text());
            }
        } else if let Some(rule) = self.set.texts.get(usize::from(tag))
            && bytes as u64 > rule.max
            && chars() as u64 > rule.max
        {
            self.too_long.get_or_insert(rule);
        }
    }

    /// The session id that was named, if no text was too long.
    pub fn conclude(self) -> Result<Option<String>, Refusal> {
        let Some(TextRule { pattern, max, setting }) = self.too_long else { return Ok(self.session) };
        let place = if pattern.is_empty() { "the top" } else { pattern };
        let detail = format!("The text at {place} is longer than {max} characters.");
        Err(Refusal::new(Reason::TextTooLong, detail, *setting))
    }
}
