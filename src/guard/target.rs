//! The guard of a request's target: the texts of the query on calls to APIs, by the rules for bodies; and markup in the
//! path of any request.

use super::Refusal;
use super::body::{BodyGuard, threat};
use super::form::{Strictness, percent_decoded};
use super::json::splice;
use super::mode::{Guard, Noted};
use super::sanitize::{Carrier, Outcome, Sightings, Texts};
use crate::proxy::api::Api;

/// What a target turned out to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TargetFindings {
    /// The path as it is to be forwarded, if it was changed.
    pub path: Option<String>,
    /// The query as it is to be forwarded, if it was changed.
    pub query: Option<String>,
    /// What was found in them.
    pub seen: Sightings,
}

impl BodyGuard {
    /// Looks at `path`, in its one form, and at the query of a call to `api`.
    pub fn check_target(
        &self,
        path: &str,
        query: Option<&str>,
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<TargetFindings, Refusal> {
        let mut findings = TargetFindings::default();
        let path = findings.take("path", path, self.check_path(path));
        findings.path = self.observed.judge(Guard::Sanitize, path, noted)?.flatten();
        if let (Some(query), Some(_)) = (query, api) {
            let walked = self.check_pairs(query.as_bytes(), Strictness::Lenient, "query", api, noted)?;
            let query = findings.take("query", query, Some(walked.outcome));
            findings.query = self.observed.judge(Guard::Sanitize, query, noted)?.flatten();
        }
        Ok(findings)
    }

    /// In its one form, a path writes all that could be markup, or is not seen, with a percent sign.
    pub(super) fn check_path(&self, path: &str) -> Option<Outcome> {
        let target = self.path.filter(|_| path.contains('%'))?;
        let text = percent_decoded(path)?;
        let mut parts = Default::default();
        let mut texts = Texts::of(&self.sanitizer, Carrier::Percent, path.as_bytes(), &mut parts);
        texts.add(target, None, 0..path.len(), &text);
        let outcome = texts.finish();
        // A file's name may hold odd characters; it names the file only as long as it stays what it is.
        let active = outcome.seen.iter().any(|(_, found)| found.is_active());
        active.then_some(outcome)
    }
}

impl TargetFindings {
    fn take(&mut self, what: &str, old: &str, outcome: Option<Outcome>) -> Result<Option<String>, Refusal> {
        let Some(Outcome { splices, seen, refused }) = outcome else { return Ok(None) };
        self.seen.extend(seen);
        if splices.is_empty() && !refused {
            return Ok(None);
        }
        let new = splice(old.as_bytes(), &splices).filter(|_| !refused);
        match new.and_then(|new| String::from_utf8(new).ok()) {
            Some(new) => Ok(Some(new)),
            None => Err(threat(what, &self.seen)),
        }
    }
}
