//! Bodies that are JSON, and those that only begin as JSON does.

use super::{BodyGuard, Walked};
use crate::guard::json::{self, FaultKind};
use crate::guard::mode::{Guard, Noted};
use crate::guard::sanitize::Splice;
use crate::guard::{Reason, Refusal};
use crate::proxy::api::Api;

/// What becomes of a body that begins as JSON does and does not parse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// It is refused: JSON was declared, or nothing, or the API that is called takes JSON.
    #[default]
    Strict,
    /// It is refused if it begins with a member or a string: apps that read JSON from plain text read it more laxly than
    /// it is read here. Prose in brackets is prose.
    Text,
    /// JSON in lines was declared to such an API: each line is held strictly.
    Lines,
    /// It is what it says it is.
    Loose,
}

impl Hold {
    /// Whether a body of this fault is no JSON. What only some parsers take offence at is JSON to the others.
    fn lets_pass(self, fault: json::Fault, body: &[u8]) -> bool {
        use FaultKind::{ControlCharacter, Empty, NotUtf8, Syntax};
        matches!(fault.kind, ControlCharacter | Empty | NotUtf8 | Syntax(_))
            && (self == Hold::Loose || self == Hold::Text && !json::begins(body))
    }
}

impl BodyGuard {
    /// `None`: the body is no JSON, and need not be.
    pub(super) fn check_json(
        &self,
        body: &[u8],
        hold: Hold,
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<Option<Walked>, Refusal> {
        match self.walk_json(body, api, noted)? {
            Ok(walked) => Ok(Some(walked)),
            Err(fault) if fault.kind == FaultKind::TrailingData && hold != Hold::Strict => {
                self.check_lines(body, hold, api, noted).map(Some)
            }
            Err(fault) if hold.lets_pass(fault, body) && !self.marks_json(body, hold) => Ok(None),
            Err(fault) => {
                self.observed.judge::<()>(Guard::Json, Err(unfit(fault)), noted)?;
                Ok(Some(Walked::default()))
            }
        }
    }

    /// Whether JSON stands behind a byte order mark, which some apps pass over.
    fn marks_json(&self, body: &[u8], hold: Hold) -> bool {
        let Some(rest) = body.strip_prefix("\u{feff}".as_bytes()) else { return false };
        match self.walk_json(rest, None, &mut Noted::new()) {
            Ok(Err(fault)) => !hold.lets_pass(fault, rest),
            Ok(Ok(_)) | Err(_) => true,
        }
    }

    /// A text that begins with a JSON value and goes on: JSON in lines, or a text after all. What an app may read as JSON
    /// is looked into: each value that begins a line.
    fn check_lines(
        &self,
        body: &[u8],
        hold: Hold,
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<Walked, Refusal> {
        // Of a text, the lines are not what its app reads as JSON.
        let hold = if hold == Hold::Lines { hold } else { Hold::Loose };
        let mut all = Walked::default();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
            let line = &body[start..end];
            let walked = match self.walk_json(line, api, noted)? {
                Err(fault)
                    if fault.kind == FaultKind::TrailingData
                        && hold == Hold::Loose
                        && !json::opens(&line[fault.at..]) =>
                {
                    self.walk_json(&line[..fault.at], api, noted)?
                }
                walked => walked,
            };
            match walked {
                Ok(Walked { named, outcome }) => {
                    all.named = all.named.or(named);
                    all.outcome.refused |= outcome.refused;
                    all.outcome.seen.extend(outcome.seen);
                    let moved = |(span, with): Splice| (span.start + start..span.end + start, with);
                    all.outcome.splices.extend(outcome.splices.into_iter().map(moved));
                }
                Err(fault) if fault.kind == FaultKind::Empty || hold.lets_pass(fault, line) => {}
                Err(fault) => {
                    let fault = json::Fault { at: fault.at + start, ..fault };
                    self.observed.judge::<()>(Guard::Json, Err(unfit(fault)), noted)?;
                    return Ok(Walked::default());
                }
            }
            start = end + 1;
        }
        Ok(all)
    }
}

/// The refusal of what is to be JSON and is not.
fn unfit(fault: json::Fault) -> Refusal {
    let setting = match fault.kind {
        FaultKind::TooDeep { .. } => "json.depth",
        FaultKind::TooManyMembers { .. } => "json.members",
        _ => "",
    };
    Refusal::new(Reason::InvalidJson, fault.to_string(), setting)
}
