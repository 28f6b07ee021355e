//! Bodies that come in parts: the fields of a multipart form, which carry their texts as they are.

use std::ops::Range;

use super::{BodyGuard, SCRATCH, Scratch, Walked};
use crate::guard::form::{self, Tags};
use crate::guard::json::fold;
use crate::guard::mode::{Guard, Noted, Observed};
use crate::guard::sanitize::{Action, Carrier, Outcome, Target, Texts};
use crate::guard::text::Reading;
use crate::guard::{Reason, Refusal};
use crate::proxy::api::Api;

/// A field that rules name.
#[derive(Debug)]
pub struct PartField {
    /// The rules.
    tags: Tags,
    /// Its name, as every reader that would take it for the same spells it.
    pub name: String,
    /// Whether it is one of several, as brackets in its name say.
    pub listed: bool,
    /// Where its text stands among those that were collected.
    pub text: Range<usize>,
}

impl BodyGuard {
    /// The guards that only observe.
    pub(in crate::guard) fn observed(&self) -> Observed {
        self.observed
    }

    /// The field `name` of a form for `api`, its text to begin at `start`; `None` if no rule names it.
    pub(in crate::guard) fn part_field(
        &self,
        name: &str,
        api: Option<Api>,
        start: usize,
    ) -> Option<PartField> {
        let mut spelling = String::new();
        // PHP, for one, does not see spaces in front.
        let tags = form::wanting(self.fields.of(api).rules(), name.trim_start_matches(' '), &mut spelling);
        if tags.is_empty() {
            return None;
        }
        let listed = spelling.contains('[');
        Some(PartField { tags, name: fold(&spelling), listed, text: start..start })
    }

    /// Looks at the texts of whole fields. What is to be changed is told in bytes of `texts`.
    pub(in crate::guard) fn check_parts(
        &self,
        texts: &[u8],
        fields: &[&PartField],
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<Walked, Refusal> {
        let mut reading = self.fields.of(api).reading();
        for field in fields {
            let Ok(text) = str::from_utf8(&texts[field.text.clone()]) else {
                let detail = "The form has a field that is not UTF-8.";
                let refusal = Refusal::new(Reason::InvalidForm, detail, "");
                self.observed.judge::<()>(Guard::Json, Err(refusal), noted)?;
                return Ok(Walked::default());
            };
            for tag in &field.tags {
                reading.note(*tag, text.len(), || text.chars().count(), || text.to_owned());
            }
        }
        self.observed.judge(Guard::Text, reading.check(), noted)?;
        let outcome = self.look_at(texts, fields.iter().copied(), &reading);
        Ok(Walked { named: reading.into_named(), outcome })
    }

    /// Looks once more at fields that an app may join, and of which some are on their way: there is no change to be made
    /// any more.
    pub(in crate::guard) fn check_joined(
        &self,
        texts: &[u8],
        fields: &[&PartField],
        api: Option<Api>,
    ) -> Outcome {
        let reading = self.fields.of(api).reading();
        // What is escaped says nothing to HTML, however it is joined, and would be escaped again.
        let joined = |field: &&PartField| {
            field.listed && target(field, &reading).is_some_and(|(_, target)| target.action != Action::Escape)
        };
        self.look_at(texts, fields.iter().copied().filter(joined), &reading)
    }

    fn look_at<'f>(
        &self,
        texts: &[u8],
        fields: impl Iterator<Item = &'f PartField>,
        reading: &Reading<'_>,
    ) -> Outcome {
        SCRATCH.with_borrow_mut(|Scratch { parts, .. }| {
            let mut found = Texts::of(&self.sanitizer, Carrier::Plain, texts, parts);
            for field in fields {
                if let Some((tag, target)) = target(field, reading)
                    && let Ok(text) = str::from_utf8(&texts[field.text.clone()])
                {
                    found.add(target, field.listed.then_some(usize::from(tag)), field.text.clone(), text);
                }
            }
            found.finish()
        })
    }
}

/// Several rules may name one field: the first that has a target decides.
fn target(field: &PartField, reading: &Reading<'_>) -> Option<(u16, Target)> {
    field.tags.iter().find_map(|tag| Some((*tag, reading.target(*tag)?)))
}
