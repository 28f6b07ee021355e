//! A report as people read it.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use serde_json::Value;

use super::report::{Answer, Outcome, Report, StageReport, TextReport};
use crate::proxy::explain::{Forwarded, Understood};

/// Columns of what stands to the left.
const LEFT: usize = 31;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        write!(f, "{} {} at {}, from {}", request.method, request.target, request.host, request.from)?;
        writeln!(f, ", {} bytes of body", request.body_bytes)?;
        if let Some(understood) = &self.understood {
            show_understood(f, understood, self.route_place.as_deref())?;
        }
        writeln!(f, "\nThe way")?;
        self.way.iter().try_for_each(|stage| show_stage(f, stage))?;
        if !self.texts.is_empty() {
            writeln!(f, "\nTexts")?;
            self.texts.iter().try_for_each(|text| show_text(f, text))?;
        }
        if !self.limits.is_empty() {
            writeln!(
                f,
                "\nLimits that it draws on, had nothing been counted yet (`rate_limit_status` tells what a gate that runs has counted)"
            )?;
            self.limits.iter().try_for_each(|limit| show_limit(f, limit))?;
        }
        if let Some(forwarded) = &self.forwarded {
            show_forwarded(f, forwarded, self.understood.as_ref())?;
        }
        match &self.answer {
            Some(answer) => show_answer(f, answer),
            None if self.forwarded.is_some() => writeln!(f, "\nThe app answers."),
            None if self.understood.as_ref().is_some_and(|understood| understood.websocket) => {
                writeln!(f, "\nThe app is asked for the WebSocket.")
            }
            None => writeln!(f, "\nNo answer: the connection ends."),
        }
    }
}

fn row(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "  {name:LEFT$}{value}")
}

fn show_understood(f: &mut Formatter<'_>, of: &Understood, place: Option<&str>) -> fmt::Result {
    row(f, "path", &of.path)?;
    let written = place.map(|place| format!(" ({place})")).unwrap_or_default();
    let why = if of.passed_over.is_empty() { "the first that fits" } else { "the first that fits; not" };
    let passed: Vec<_> =
        of.passed_over.iter().map(|(name, misfit)| format!("{name} (its {misfit})")).collect();
    row(
        f,
        "route",
        format_args!("{}{written}, {why} {}", of.route, passed.join(", ")).to_string().trim_end(),
    )?;
    let said = if of.forwarded_for { "as a trusted proxy says" } else { "of the connection" };
    let tls = if of.https { ", over TLS" } else { "" };
    row(f, "address", format_args!("{} {said}{tls}", of.address))?;
    let or_none = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "none".into());
    row(f, "user", format_args!("{}, class {}", or_none(&of.user), word(&of.class)))?;
    row(f, "session, device", format_args!("{}, {}", or_none(&of.session), or_none(&of.device)))?;
    let api = of.api.map_or_else(|| "none that is known".to_owned(), |api| word(&api));
    row(f, "API", format_args!("{api}; counts as {}", word(&of.traffic)))?;
    row(f, "upstream", &of.upstream)
}

/// A value by its word in settings and JSON.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

fn show_stage(f: &mut Formatter<'_>, stage: &StageReport) -> fmt::Result {
    let outcome = match stage.outcome {
        Outcome::Passed => "passes",
        Outcome::Refused => "REFUSES",
        Outcome::WouldRefuse => "would refuse, too",
        Outcome::Observed => "would refuse, but only observes",
        Outcome::NothingToDo => "off, or nothing to do here",
        Outcome::NotAsked => "not asked here",
        Outcome::NotReached => "not reached",
    };
    row(f, stage.stage, outcome)?;
    for refusal in &stage.refusals {
        let set = match refusal.setting.as_str() {
            "" => "no setting allows it".to_owned(),
            setting => format!("set by {setting}"),
        };
        row(f, "", format_args!("{} {}, {set}", refusal.status, refusal.reason))?;
        row(f, "", &refusal.detail)?;
    }
    Ok(())
}

fn show_text(f: &mut Formatter<'_>, text: &TextReport) -> fmt::Result {
    let most = text.most.map(|most| format!(" of {most}")).unwrap_or_default();
    let over = if text.most.is_some_and(|most| text.characters > most) { ": TOO LONG" } else { "" };
    let name = match (text.part, text.field.as_str()) {
        ("path", _) => "path".to_owned(),
        (part, "") => format!("{part} as a whole"),
        (part, field) => format!("{part} {field}"),
    };
    let sink = match (text.sink, text.action) {
        (Some(sink), Some(action)) => format!("sink {}, action {}", sink.name(), word(&action)),
        _ => "not sanitized".to_owned(),
    };
    row(f, &name, format_args!("{}{most} characters{over} ({}); {sink}", text.characters, text.setting))?;
    match &text.after {
        None => row(f, "", format_args!("{:?} stays as it is", text.before)),
        Some(after) => {
            row(f, "", format_args!("{:?}", text.before))?;
            row(f, "", format_args!("becomes {after:?}"))
        }
    }
}

fn show_limit(f: &mut Formatter<'_>, limit: &Value) -> fmt::Result {
    let number = |name: &str| limit[name].as_u64().unwrap_or_default();
    let text = |name: &str| limit[name].as_str().unwrap_or_default().to_owned();
    let name = format!("{} by {}", text("name"), text("by"));
    let (left, most, window) = (number("remaining"), number("limit"), number("window_s"));
    row(f, &name, format_args!("{left} of {most} in {window} s left after it"))
}

fn show_forwarded(f: &mut Formatter<'_>, forwarded: &Forwarded, of: Option<&Understood>) -> fmt::Result {
    let upstream = of.map_or("the app", |of| &of.upstream);
    let why = forwarded.fallback.map(|why| format!(", the fallback ({why})")).unwrap_or_default();
    writeln!(f, "\nWhat {upstream}{why} gets")?;
    writeln!(f, "  {} {}", forwarded.method, forwarded.target)?;
    forwarded.fields.iter().try_for_each(|(name, value)| writeln!(f, "  {name}: {value}"))?;
    let changed = if forwarded.body_changed { "changed" } else { "as it came" };
    if forwarded.body_bytes > 0 {
        writeln!(f, "  ({} bytes of body, {changed})", forwarded.body_bytes)
    } else {
        Ok(())
    }
}

fn show_answer(f: &mut Formatter<'_>, answer: &Answer) -> fmt::Result {
    writeln!(f, "\nThe gate's answer\n  {}", answer.status)?;
    answer.fields.iter().try_for_each(|(name, value)| writeln!(f, "  {name}: {value}"))?;
    if answer.body.is_empty() { Ok(()) } else { writeln!(f, "\n  {}", answer.body.trim_end()) }
}
