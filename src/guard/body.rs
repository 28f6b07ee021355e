//! The guard of bodies: the shape of JSON and forms (V1), the length of their texts (V2), what these hold (V3), all in one
//! walk; and the session that they name.

mod as_json;
mod as_parts;
#[cfg(test)]
mod properties;
mod seen;

use std::cell::RefCell;

use serde::Deserialize;

use super::form::{self, Strictness};
use super::json::{self, Caps, Value};
use super::mode::{Guard, Noted, Observed};
use super::sanitize::{self, Carrier, Outcome, Parts, Sanitizer, Sightings, Sink, Target, Texts};
use super::text::{self, TextFields, ValueFields, Values};
use super::{Fault, Reason, Refusal, Verdict};
use crate::proxy::api::Api;

pub use as_json::Hold;
pub(super) use as_parts::PartField;
pub use seen::TextSeen;

/// Shape caps, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonConfig {
    /// Objects and arrays open at once; in a form, brackets in one name.
    pub depth: u32,
    /// Members of all objects together; in a form, fields.
    pub members: u32,
}

/// What an inspected body is. It may be both: `curl -d` declares JSON a form unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syntax {
    /// JSON, as declared or by its looks.
    pub json: bool,
    /// A form, as declared or by its looks.
    pub form: bool,
    /// How it is held to JSON's grammar.
    pub hold: Hold,
}

/// The guard, as run.
pub struct BodyGuard {
    pub(super) caps: Caps,
    pub(super) fields: TextFields,
    pub(super) sanitizer: Sanitizer,
    pub(super) path: Option<Target>,
    pub(super) observed: Observed,
}

/// What the walk brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The values that it names.
    pub named: Values,
    /// The body as it is to be forwarded, if it was changed.
    pub rewritten: Option<Vec<u8>>,
    /// What was found in its texts.
    pub seen: Sightings,
    /// Whether it only began as JSON does, and is something else.
    pub other: bool,
}

/// Working memory of the walks.
#[derive(Default)]
struct Scratch {
    json: json::Scratch,
    form: form::Scratch,
    parts: Parts,
    decoded: String,
}

/// What a huge text made it grow to is given back down to this many bytes.
const KEPT: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What one walk brought to light.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) named: Values,
    pub(super) outcome: Outcome,
}

/// What a form is called towards the caller.
const FORM: &str = "form";

impl BodyGuard {
    /// Compiles the field rules. The error names the key that holds the bad path.
    pub fn build(
        json: &JsonConfig,
        text: &text::Config,
        sanitize: Option<&sanitize::Config>,
        values: ValueFields<'_>,
        observed: Observed,
    ) -> Result<Self, Fault> {
        let mut caps = [("json.depth", json.depth), ("json.members", json.members)].into_iter();
        if let Some((key, _)) = caps.find(|(_, cap)| *cap == 0) {
            return Err(Fault::new(key, "must be more than 0"));
        }
        // The others take text out, and a slash with it: the app would be asked for another path.
        if sanitize.is_some_and(|config| !matches!(config.path.sink, Sink::Html | Sink::Model)) {
            return Err(Fault::new("sanitize.path.sink", "must be html or model"));
        }
        let sanitize = sanitize.cloned().map(|config| match observed.contains(Guard::Sanitize) {
            true => config.observing(),
            false => config,
        });
        let sanitize = sanitize.as_ref();
        Ok(Self {
            caps: Caps { depth: json.depth, members: json.members },
            fields: TextFields::build(text, sanitize, values)?,
            sanitizer: Sanitizer::default(),
            path: sanitize.map(|config| config.path),
            observed,
        })
    }

    /// Walks `body` once for each syntax that it has. What can't be read, and may not be refused for it, is not looked
    /// into: no text of it is measured or sanitized.
    pub fn check(
        &self,
        body: &[u8],
        syntax: Syntax,
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<Findings, Refusal> {
        let mut findings = Findings::default();
        if syntax.json {
            let walked = self.check_json(body, syntax.hold, api, noted)?;
            findings.other = walked.is_none();
            let walked = walked.unwrap_or_default();
            findings.named = walked.named;
            self.observed.judge(Guard::Sanitize, findings.take(body, walked.outcome), noted)?;
        }
        if syntax.form {
            // What is JSON as well is held to JSON's grammar; prose in it may have a bare `%`.
            let strictness = if syntax.json { Strictness::Lenient } else { Strictness::Strict };
            let walked = self.check_pairs(body, strictness, FORM, api, noted)?;
            findings.named = findings.named.or(walked.named);
            findings.seen.extend(walked.outcome.seen);
            let outcome = Outcome { seen: Sightings::default(), ..walked.outcome };
            self.observed.judge(Guard::Sanitize, findings.take(body, outcome), noted)?;
        }
        Ok(findings)
    }

    /// One walk over one JSON value; a `Fault` where it is none.
    fn walk_json(
        &self,
        body: &[u8],
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<Result<Walked, json::Fault>, Refusal> {
        let set = self.fields.of(api);
        let mut reading = set.reading();
        SCRATCH.with_borrow_mut(|Scratch { json, parts, decoded, .. }| {
            let mut texts = Texts::of(&self.sanitizer, Carrier::Json, body, parts);
            let mut looked_at = None;
            let mut visit = |found: json::Found<'_>| {
                let text = match found.value {
                    Value::Text(text) => text,
                    Value::Number(number) => {
                        return reading.note(found.tag, number.len(), || number.len(), || number.to_owned());
                    }
                    Value::Bool(_) | Value::Null => return,
                };
                reading.note(found.tag, text.raw().len(), || text.chars(), || text.decode().into_owned());
                // Several rules may name one string: the first that has a target decides.
                let Some(target) = reading.target(found.tag).filter(|_| looked_at != Some(found.span.start))
                else {
                    return;
                };
                looked_at = Some(found.span.start);
                texts.add_written(target, found.part_of, found.span, text, decoded);
            };
            if let Err(fault) = json::scan(body, &self.caps, set.rules(), json, &mut visit) {
                return Ok(Err(fault));
            }
            self.observed.judge(Guard::Text, reading.check(), noted)?;
            let outcome = texts.finish();
            decoded.shrink_to(KEPT);
            Ok(Ok(Walked { named: reading.into_named(), outcome }))
        })
    }

    pub(super) fn check_pairs(
        &self,
        pairs: &[u8],
        strictness: Strictness,
        what: &'static str,
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<Walked, Refusal> {
        let set = self.fields.of(api);
        let mut reading = set.reading();
        SCRATCH.with_borrow_mut(|Scratch { form, parts, .. }| {
            let mut texts = Texts::of(&self.sanitizer, Carrier::Percent, pairs, parts);
            let mut looked_at = None;
            let mut visit = |found: form::Found<'_>| {
                let text = found.text;
                reading.note(found.tag, text.len(), || text.chars().count(), || text.to_owned());
                let Some(target) = reading.target(found.tag).filter(|_| looked_at != Some(found.span.start))
                else {
                    return;
                };
                looked_at = Some(found.span.start);
                texts.add(target, found.listed.then_some(usize::from(found.tag)), found.span, text);
            };
            let scanned = form::scan(pairs, strictness, &self.caps, set.rules(), form, &mut visit);
            let scanned = scanned.map_err(|fault| {
                let setting = match fault.kind {
                    form::FaultKind::TooDeep { .. } => "json.depth",
                    form::FaultKind::TooManyFields { .. } => "json.members",
                    _ => "",
                };
                Refusal::new(Reason::InvalidForm, fault.told(what), setting)
            });
            if self.observed.judge(Guard::Json, scanned, noted)?.is_none() {
                return Ok(Walked::default());
            }
            self.observed.judge(Guard::Text, reading.check(), noted)?;
            Ok(Walked { named: reading.into_named(), outcome: texts.finish() })
        })
    }
}

impl Findings {
    /// Applies what a walk over `body` asks for. A body that is two things can be rewritten as one of them only.
    fn take(&mut self, body: &[u8], outcome: Outcome) -> Verdict {
        let splices = outcome.splices;
        let twice = self.rewritten.is_some() && !splices.is_empty();
        self.seen.extend(outcome.seen);
        if outcome.refused || twice {
            return Err(threat("body", &self.seen));
        }
        if !splices.is_empty() {
            self.rewritten = json::splice(body, &splices);
            if self.rewritten.is_none() {
                return Err(threat("body", &self.seen));
            }
        }
        Ok(())
    }
}

/// The refusal of what can't or may not be made harmless.
pub(super) fn threat(what: &str, seen: &Sightings) -> Refusal {
    let kinds = seen.iter().flat_map(|(_, found)| found.names()).collect::<Vec<_>>().join(", ");
    let detail = format!("A text of the {what} holds what a page would run or what nobody sees: {kinds}.");
    Refusal::new(Reason::ThreatDetected, detail, "sanitize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::text::{ChatConfig, KindConfig};

    const JSON: Syntax = Syntax { json: true, form: false, hold: Hold::Strict };
    const FORM: Syntax = Syntax { json: false, form: true, hold: Hold::Strict };

    fn list(fields: &[&str]) -> Vec<String> {
        fields.iter().map(|f| (*f).to_owned()).collect()
    }

    fn guard() -> BodyGuard {
        let text = text::Config {
            chat: ChatConfig {
                max: 5,
                fields: list(&["/message", "/chatInput"]),
                on_chats: list(&["/text"]),
            },
            model: KindConfig { max: 10, fields: list(&["/messages", "/system"]) },
            speech: KindConfig { max: 3, fields: list(&["/input"]) },
        };
        let (session, message, counted) =
            (["/sessionId".into()], ["/id".into(), "/update_id".into()], ["/list/id".into()]);
        let values = ValueFields { session: &session, message: &message, counted: &counted };
        BodyGuard::build(&JsonConfig { depth: 8, members: 20 }, &text, None, values, Observed::default())
            .expect("guard")
    }

    fn refused(body: &str, syntax: Syntax, api: Option<Api>) -> Option<Reason> {
        guard().check(body.as_bytes(), syntax, api, &mut Noted::new()).err().map(|r| r.reason)
    }

    fn reason(body: &str, api: Option<Api>) -> Option<Reason> {
        refused(body, JSON, api)
    }

    /// A text one character over the cap costs the operator; one at the cap must pass.
    #[test]
    fn texts_are_counted_in_code_points() {
        assert_eq!(reason(r#"{"message":"12345"}"#, None), None);
        assert_eq!(reason(r#"{"message":"123456"}"#, None), Some(Reason::TextTooLong));
        assert_eq!(reason(r#"{"message":"äöüß€"}"#, None), None);
        assert_eq!(reason(r#"{"message":"\ud83d\ude00\u00e4345"}"#, None), None);
        assert_eq!(reason(r#"{"m\u0065ssage":"123456"}"#, None), Some(Reason::TextTooLong));
        assert_eq!(reason(r#"{"Message":"123456"}"#, None), Some(Reason::TextTooLong));
        for (form, longer) in
            [("message=%C3%A4+345", false), ("message=%C3%A4+3456", true), ("m%45ssage[]=123456", true)]
        {
            assert_eq!(refused(form, FORM, None), longer.then_some(Reason::TextTooLong), "{form}");
        }
    }

    /// Parts are texts, too, and each kind of call has its own fields.
    #[test]
    fn fields_depend_on_the_api() {
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"12345678901"}]}]}"#;
        assert_eq!(reason(parts, Some(Api::OpenAi)), Some(Reason::TextTooLong));
        assert_eq!(reason(parts, Some(Api::OpenAiSpeech)), None);
        assert_eq!(reason(r#"{"input":"1234"}"#, Some(Api::OpenAiSpeech)), Some(Reason::TextTooLong));
        assert_eq!(reason(r#"{"input":"1234"}"#, Some(Api::OpenAi)), None);
        for (api, refused) in [(Some(Api::Chat), true), (Some(Api::Webhook), false), (None, false)] {
            assert_eq!(reason(r#"{"text":"123456"}"#, api).is_some(), refused, "{api:?}");
        }
    }

    /// Shape faults name their setting and never the value.
    #[test]
    fn faults_say_what_to_change() {
        let fault = |body: &[u8], syntax| guard().check(body, syntax, None, &mut Noted::new());
        let deep = "[".repeat(20);
        let refusal = fault(deep.as_bytes(), JSON).expect_err("too deep");
        assert_eq!((refusal.reason, &*refusal.setting), (Reason::InvalidJson, "json.depth"));
        let twice = fault(br#"{"secret-key":1,"secret-key":2}"#, JSON).expect_err("duplicate");
        assert!(!twice.detail.contains("secret-key"));
        let many = fault("&".repeat(20).as_bytes(), FORM).expect_err("too many");
        assert_eq!((many.reason, &*many.setting), (Reason::InvalidForm, "json.members"));
    }

    /// n8n's chat names its session in the body.
    #[test]
    fn session_is_found() {
        for (body, syntax) in
            [(r#"{"sessionId":"s-1","chatInput":"hi"}"#, JSON), ("chatInput=hi&sessionId=s%2D1", FORM)]
        {
            let found =
                guard().check(body.as_bytes(), syntax, Some(Api::Webhook), &mut Noted::new()).expect("good");
            assert_eq!(found.named.session.as_deref(), Some("s-1"));
        }
    }

    /// Telegram counts its messages, and a limit on a playlist must know which one is meant.
    #[test]
    fn messages_and_what_limits_count_by_are_found() {
        for (body, syntax) in [
            (r#"{"update_id":42,"id":"m","list":{"id":7},"x":{"id":1}}"#, JSON),
            ("update_id=42&id=m&list[id]=7&x[id]=1", FORM),
        ] {
            let found = guard().check(body.as_bytes(), syntax, None, &mut Noted::new()).expect("good");
            assert_eq!(found.named.message.as_deref(), Some("42"), "the first counts");
            assert_eq!(found.named.counted, [("/list/id".into(), "7".to_owned())]);
        }
    }

    /// `curl -d '{…}'` says form and means JSON: each reader must find what it would read, and the `%` in prose must pass.
    #[test]
    fn a_body_may_be_json_and_form() {
        let both = Syntax { json: true, form: true, hold: Hold::Strict };
        assert_eq!(refused(r#"{"message":"9 %"}"#, both, None), None);
        assert_eq!(refused(r#"{"message":"123456"}"#, both, None), Some(Reason::TextTooLong));
        assert_eq!(refused(r#"{"x":"&message=123456"}"#, both, None), Some(Reason::TextTooLong));
        assert_eq!(refused(r#"{"x":"&message=123456"}"#, JSON, None), None);
    }

    /// A path that can't be compiled is the operator's typing error, told at start.
    #[test]
    fn bad_paths_are_named() {
        let key = |chat: &[&str], on_chats: &[&str]| {
            let kind = KindConfig { max: 1, fields: Vec::new() };
            let chat = ChatConfig { max: 1, fields: list(chat), on_chats: list(on_chats) };
            let text = text::Config { chat, model: kind.clone(), speech: kind };
            let error = BodyGuard::build(
                &JsonConfig { depth: 1, members: 1 },
                &text,
                None,
                ValueFields::default(),
                Observed::default(),
            )
            .err()
            .expect("bad");
            assert!(error.message.contains("message"), "{error}");
            error.key
        };
        assert_eq!(key(&["message"], &[]), "text.chat.fields");
        assert_eq!(key(&[], &["message"]), "text.chat.on_chats");
    }
}
