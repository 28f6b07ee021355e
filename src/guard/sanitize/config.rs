//! What is done about which texts, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cleaned, Edits, Sanitizer, Sink};
use crate::config::Named;

/// Sanitizing, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Texts that a page may show: the fields of `text.chat` and `text.model`, but on calls to known model APIs.
    pub chat: Target,
    /// Texts that a model reads: all fields on calls to known model APIs.
    pub model: Target,
    /// Texts to be spoken: the fields of `text.speech`, on text-to-speech calls.
    pub speech: Target,
    /// The path of any request.
    pub path: Target,
    /// Fields that have a sink of their own, by path as in `text`; they need not be listed there.
    pub fields: Named<Target>,
}

/// Where a text ends up, and what is done with what may not get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Where the app puts the text.
    pub sink: Sink,
    /// What is done.
    pub action: Action,
}

/// What is done with a text that holds what its sink may not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// What the sink calls for: made inert, stripped, cut down.
    Sanitize,
    /// Every character that HTML reads is written as an entity, in every text.
    Escape,
    /// What a page would run refuses the request.
    Reject,
    /// It is told and passes.
    Observe,
}

impl Action {
    /// What became of the text where the request was served, in events.
    pub fn done(self) -> &'static str {
        match self {
            Action::Sanitize | Action::Escape => "sanitized",
            Action::Reject | Action::Observe => "observed",
        }
    }
}

impl Config {
    /// The same, but no text is changed. What would be refused is still said to be.
    pub fn observing(mut self) -> Self {
        let Self { chat, model, speech, path, fields } = &mut self;
        let own = fields.0.iter_mut().map(|(_, target)| target);
        for target in [chat, model, speech, path].into_iter().chain(own) {
            if target.action != Action::Reject {
                target.action = Action::Observe;
            }
        }
        self
    }
}

impl Target {
    /// What is found in `text`, with the edits that the action allows.
    pub(super) fn look(self, sanitizer: &Sanitizer, text: &str) -> Option<Cleaned> {
        match self.action {
            Action::Sanitize => sanitizer.check(text, self.sink),
            Action::Escape => sanitizer.escape(text),
            Action::Reject | Action::Observe => {
                sanitizer.check(text, self.sink).map(|cleaned| Cleaned { edits: Edits::new(), ..cleaned })
            }
        }
    }
}
