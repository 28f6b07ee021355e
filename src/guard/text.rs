//! How long a text may be (V2), which fields hold one on which kind of call, and where its text ends up (V3).

use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{FieldRules, PatternError, Rule};
use super::sanitize::{self, Target};
use super::{Fault, Reason, Refusal, Verdict};
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
    /// Of webhooks, and of calls to no API that is known.
    any: FieldSet,
    chat: FieldSet,
    model: FieldSet,
    speech: FieldSet,
}

/// Fields looked for on one kind of call.
pub struct FieldSet {
    rules: FieldRules,
    texts: Vec<TextRule>,
    counted: Box<[Box<str>]>,
}

struct TextRule {
    pattern: Box<str>,
    max: u64,
    setting: &'static str,
    target: Option<Target>,
}

/// Marks session fields.
const SESSION_TAG: u16 = u16::MAX;
/// Marks fields that name a message.
const MESSAGE_TAG: u16 = u16::MAX - 1;
/// Tags from here on, up to those, index the fields that limits count by; below, they index the texts.
const COUNTED_TAGS: u16 = 0xf000;
/// Longer than any honest id, in bytes.
const ID_BYTES: usize = 256;

/// Fields that are wanted for their value, as written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValueFields<'c> {
    /// They name a session.
    pub session: &'c [String],
    /// They name a message.
    pub message: &'c [String],
    /// Limits count by them.
    pub counted: &'c [String],
}

impl ValueFields<'_> {
    /// Each with its tag and the key that lists it.
    fn rules(&self) -> impl Iterator<Item = (&String, u16, &'static str)> {
        let session = self.session.iter().map(|field| (field, SESSION_TAG, "client.session_fields"));
        let message = self.message.iter().map(|field| (field, MESSAGE_TAG, "duplicates.fields"));
        let counted = self.counted.iter().zip(COUNTED_TAGS..).map(|(field, tag)| (field, tag, "limits"));
        session.chain(message).chain(counted)
    }
}

impl TextFields {
    /// Compiles the field rules.
    ///
    /// # Errors
    /// Names the key that holds a cap of 0 or a bad path.
    pub fn build(
        config: &Config,
        sanitize: Option<&sanitize::Config>,
        values: ValueFields<'_>,
    ) -> Result<Self, Fault> {
        let Config { chat, model, speech } = config;
        let caps =
            [("text.chat.max", chat.max), ("text.model.max", model.max), ("text.speech.max", speech.max)];
        if let Some((key, _)) = caps.into_iter().find(|(_, cap)| *cap == 0) {
            return Err(Fault::new(key, "must be more than 0"));
        }
        let list = |setting, key, max, fields| List { setting, key, max, fields, target: None };
        let typed = list("text.chat", "fields", chat.max, &*chat.fields);
        let on_chats = list("text.chat", "on_chats", chat.max, &chat.on_chats);
        let sent = list("text.model", "fields", model.max, &model.fields);
        let spoken = list("text.speech", "fields", speech.max, &speech.fields);
        // In front, so that their own sink counts where another list names them, too.
        let own: Vec<(Vec<String>, Target)> = sanitize.map_or_else(Vec::new, |config| {
            config.fields.iter().map(|(field, target)| (vec![field.to_owned()], *target)).collect()
        });
        let own: Vec<_> = own
            .iter()
            .map(|(field, target)| List {
                target: Some(*target),
                ..list("sanitize", "fields", u64::MAX, field)
            })
            .collect();
        let set = |lists: &[(List<'_>, Option<Target>)]| {
            let lists = lists.iter().map(|(list, target)| List { target: *target, ..*list });
            FieldSet::build(&own.iter().copied().chain(lists).collect::<Vec<_>>(), values)
        };
        let to_chat = sanitize.map(|config| config.chat);
        let to_model = sanitize.map(|config| config.model);
        Ok(Self {
            // A page may show what no model is known to read: `/prompt` of a home-made app is typed by a person, too.
            any: set(&[(typed, to_chat), (sent, to_chat)])?,
            chat: set(&[(typed, to_chat), (on_chats, to_chat), (sent, to_chat)])?,
            model: set(&[(typed, to_model), (sent, to_model)])?,
            speech: set(&[(spoken, sanitize.map(|config| config.speech))])?,
        })
    }

    /// The fields of a call to `api`, or to no API that is known.
    pub fn of(&self, api: Option<Api>) -> &FieldSet {
        match (api, api.map(Api::text_kind)) {
            (_, None) | (Some(Api::Webhook), _) => &self.any,
            (_, Some(TextKind::Chat)) => &self.chat,
            (_, Some(TextKind::Model)) => &self.model,
            (_, Some(TextKind::Speech)) => &self.speech,
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
    target: Option<Target>,
}

impl FieldSet {
    fn build(lists: &[List<'_>], values: ValueFields<'_>) -> Result<Self, Fault> {
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
                    target: list.target,
                });
            }
        }
        for (pattern, tag, key) in values.rules() {
            compiles(Rule::value(pattern, tag)).map_err(|e| Fault::new(key, e.to_string()))?;
            rules.push(Rule::value(pattern, tag));
        }
        let rules = FieldRules::compile(rules).map_err(|e| Fault::new("text", e.to_string()))?;
        Ok(Self { rules, texts, counted: values.counted.iter().map(|field| field.as_str().into()).collect() })
    }

    /// What a walk has to look for; what it finds belongs into a [`Reading`] of the same set.
    pub fn rules(&self) -> &FieldRules {
        &self.rules
    }

    /// A text rule: its path, the key that lists it, the characters that its texts may have (`None`: any number), and
    /// where they end up. Session fields have none.
    pub fn rule(&self, tag: u16) -> Option<(&str, &'static str, Option<u64>, Option<Target>)> {
        let TextRule { pattern, max, setting, target } = self.texts.get(usize::from(tag))?;
        Some((pattern, setting, (*max < u64::MAX).then_some(*max), *target))
    }

    /// A body or query of which nothing was read yet.
    pub fn reading(&self) -> Reading<'_> {
        Reading { set: self, named: Values::default(), too_long: None }
    }
}

fn compiles(rule: Rule<'_>) -> Result<(), PatternError> {
    FieldRules::compile([rule]).map(|_| ())
}

/// The values that a body or query names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Its session id.
    pub session: Option<String>,
    /// Its message's id.
    pub message: Option<String>,
    /// What limits count by: the field as written in the settings, and what stands there.
    pub counted: Vec<(Box<str>, String)>,
}

impl Values {
    /// Takes over what is not named yet.
    pub fn or(self, other: Self) -> Self {
        Self {
            session: self.session.or(other.session),
            message: self.message.or(other.message),
            counted: if self.counted.is_empty() { other.counted } else { self.counted },
        }
    }
}

/// What the fields of one body or query say.
pub struct Reading<'s> {
    set: &'s FieldSet,
    named: Values,
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
        if tag >= COUNTED_TAGS {
            self.note_value(tag, bytes, text);
        } else if let Some(rule) = self.set.texts.get(usize::from(tag))
            && bytes as u64 > rule.max
            && chars() as u64 > rule.max
        {
            self.too_long.get_or_insert(rule);
        }
    }

    /// The first value of a field counts; one that is too long for an id is none.
    fn note_value(&mut self, tag: u16, bytes: usize, text: impl FnOnce() -> String) {
        let Values { session, message, counted } = &mut self.named;
        if matches!(tag, SESSION_TAG | MESSAGE_TAG) && bytes > ID_BYTES {
            return;
        }
        match tag {
            SESSION_TAG if session.is_none() => *session = Some(text()),
            MESSAGE_TAG if message.is_none() => *message = Some(text()),
            SESSION_TAG | MESSAGE_TAG => {}
            _ => {
                let field = self.set.counted.get(usize::from(tag - COUNTED_TAGS));
                if let Some(field) = field.filter(|field| counted.iter().all(|(known, _)| known != *field)) {
                    counted.push((field.clone(), text()));
                }
            }
        }
    }

    /// Where the text of a field ends up, if it is to be looked at.
    pub fn target(&self, tag: u16) -> Option<Target> {
        self.set.texts.get(usize::from(tag))?.target
    }

    /// The values that were named.
    pub fn into_named(self) -> Values {
        self.named
    }

    /// Refuses if a text was too long.
    pub fn check(&self) -> Verdict {
        let Some(TextRule { pattern, max, setting, .. }) = self.too_long else { return Ok(()) };
        let place = if pattern.is_empty() { "the top" } else { pattern };
        let detail = format!("The text at {place} is longer than {max} characters.");
        Err(Refusal::new(Reason::TextTooLong, detail, *setting))
    }
}
