//! The texts of a form's fields (V2, V3) on their way through: measured and made harmless as in any other form.
//!
//! A body streams, and its length may have been told to the app already. So a text can be changed in two cases: as long
//! as the app has heard nothing (a form that is read whole, and the first 64 KiB of a larger one), and where no length was
//! told. Else the request is refused: an app that is told a wrong length waits for ever, or takes the next request's
//! bytes for the rest. A text is held back until it is whole, so that none is seen in halves.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;

use super::encoded_word;
use super::multipart::Part;
use crate::guard::body::{BodyGuard, PartField, Walked, threat};
use crate::guard::form;
use crate::guard::json::splice;
use crate::guard::mode::{Guard, Noted};
use crate::guard::sanitize::{Outcome, Sightings, Splice};
use crate::guard::text::Values;
use crate::guard::{Reason, Refusal, Verdict};
use crate::proxy::api::Api;

/// The fields of one body.
pub struct Fields {
    guard: Arc<BodyGuard>,
    api: Option<Api>,
    /// Bytes that all texts together may have.
    cap: u64,
    /// What a boundary's line begins with.
    mark: Box<[u8]>,
    /// Fields that rules name, and where the text of each begins in the body.
    list: Vec<(PartField, u64)>,
    /// Their texts, one after the other, as they are handed on.
    texts: Vec<u8>,
    /// Whether the text of the last is still arriving.
    open: bool,
    /// How many were looked at.
    checked: usize,
    way: Way,
    edits: Vec<Splice>,
    report: Report,
}

/// How much of a body is still in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All that came: texts are looked at together, since an app may join them.
    Held,
    /// What is not held back is gone: texts are looked at one by one.
    Streams,
    /// Likewise, and its length is told.
    Promised,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// What guards that only observe would have refused.
    pub noted: Noted,
    /// What texts hold.
    pub seen: Sightings,
    /// The values that fields name.
    pub named: Values,
}

impl Fields {
    /// The fields of a form for `api`. `cap`: bytes that all texts together may have; `mark`: two hyphens and the boundary.
    pub fn new(guard: Arc<BodyGuard>, api: Option<Api>, cap: u64, mark: &[u8]) -> Self {
        Self {
            guard,
            api,
            cap,
            mark: mark.into(),
            list: Vec::new(),
            texts: Vec::new(),
            open: false,
            checked: 0,
            way: Way::Held,
            edits: Vec::new(),
            report: Report::default(),
        }
    }

    /// Bytes that all texts together may have.
    pub fn cap(&self) -> u64 {
        self.cap
    }

    /// A part begins, its content at byte `at` of the body. Only where all readers see a file is there no text: some take
    /// a part for a field that has an empty `filename` (Go), or a `filename*` alone (PHP).
    pub fn begin(&mut self, part: &Part<'_>, at: u64) -> Verdict {
        let Some(name) = part.field.filter(|_| part.file_name.is_none_or(<[u8]>::is_empty)) else {
            return Ok(());
        };
        let name = String::from_utf8_lossy(name);
        // ASP.NET decodes these in names as well.
        let decoded = encoded_word::decode(&name).and_then(Result::ok);
        let name = decoded.as_deref().unwrap_or(&name);
        let Some(field) = self.guard.part_field(name, self.api, self.texts.len()) else { return Ok(()) };
        let judged = self.readable(part, &field, at);
        self.open = self.guard.observed().judge(Guard::Json, judged, &mut self.report.noted)?.is_some();
        if self.open {
            self.list.push((field, at));
        }
        Ok(())
    }

    /// Whether all readers make one text of it.
    fn readable(&self, part: &Part<'_>, field: &PartField, at: u64) -> Verdict {
        let utf8 = |charset: &[u8]| {
            ["utf-8", "utf8", "us-ascii", "ascii"]
                .iter()
                .any(|known| charset.eq_ignore_ascii_case(known.as_bytes()))
        };
        if part.charset.is_some_and(|charset| !utf8(charset)) {
            let detail = "Forms are UTF-8; the Content-Type of a part names another charset.";
            return Err(Refusal::new(Reason::UnsupportedCharset, detail, ""));
        }
        // `[]` stands for the next element, so it may come again.
        if !field.name.contains("[]") && self.list.iter().any(|(known, _)| known.name == field.name) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let fault = form::Fault { at, kind: form::FaultKind::Duplicate };
            return Err(Refusal::new(Reason::InvalidForm, fault.told("form"), ""));
        }
        Ok(())
    }

    /// More of a part's content.
    pub fn take(&mut self, bytes: &[u8]) -> Verdict {
        if !self.open {
            return Ok(());
        }
        if (self.texts.len() + bytes.len()) as u64 > self.cap {
            let detail = format!("The texts of the form are larger than {} bytes.", self.cap);
            return Err(Refusal::new(Reason::BodyTooLarge, detail, "caps.body.json"));
        }
        self.texts.extend_from_slice(bytes);
        Ok(())
    }

    /// A part is whole.
    pub fn end(&mut self) -> Verdict {
        if std::mem::take(&mut self.open)
            && let Some((field, _)) = self.list.last_mut()
        {
            field.text.end = self.texts.len();
            if self.way != Way::Held {
                return self.check();
            }
        }
        Ok(())
    }

    /// What comes behind can't be made sense of.
    pub fn abandon(&mut self) {
        if std::mem::take(&mut self.open) {
            self.list.pop();
        }
    }

    /// Byte of the body from which on nothing may be handed on yet.
    pub fn held_from(&self) -> Option<u64> {
        self.list.last().filter(|_| self.open).map(|(_, at)| *at)
    }

    /// What came goes to the app. `promised`: so does the length of the body.
    pub fn stream(&mut self, promised: bool) -> Verdict {
        self.check()?;
        self.way = if promised { Way::Promised } else { Way::Streams };
        Ok(())
    }

    /// The body is whole.
    pub fn finish(&mut self) -> Verdict {
        if self.way == Way::Held {
            return self.check();
        }
        let joined: Vec<_> = self.list.iter().map(|(field, _)| field).collect();
        let Outcome { splices, seen, refused } = self.guard.check_joined(&self.texts, &joined, self.api);
        let joined = if refused || !splices.is_empty() { Err(threat("form", &seen)) } else { Ok(()) };
        self.judge(Guard::Sanitize, joined)
    }

    /// Changes of the body that are to be made in what was not handed on yet, in order.
    pub fn take_edits(&mut self) -> Vec<Splice> {
        std::mem::take(&mut self.edits)
    }

    /// What was found since it was last asked for.
    pub fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    fn judge(&mut self, guard: Guard, verdict: Verdict) -> Verdict {
        self.guard.observed().judge(guard, verdict, &mut self.report.noted).map(drop)
    }

    /// Looks at the fields that are whole and were not looked at yet.
    fn check(&mut self) -> Verdict {
        let whole = self.list.len() - usize::from(self.open);
        let Some(fields) = self.list.get(self.checked..whole).filter(|fields| !fields.is_empty()) else {
            return Ok(());
        };
        let fields: Vec<_> = fields.iter().map(|(field, _)| field).collect();
        let Walked { named, outcome } =
            self.guard.check_parts(&self.texts, &fields, self.api, &mut self.report.noted)?;
        let first = std::mem::replace(&mut self.checked, whole);
        self.report.named = std::mem::take(&mut self.report.named).or(named);
        let verdict = self.change(first..whole, &outcome);
        self.report.seen.extend(outcome.seen);
        self.judge(Guard::Sanitize, verdict)
    }

    fn change(&mut self, fields: Range<usize>, outcome: &Outcome) -> Verdict {
        if outcome.refused {
            return Err(threat("form", &outcome.seen));
        }
        if outcome.splices.is_empty() {
            return Ok(());
        }
        if self.way == Way::Promised {
            let mut refusal = threat("form", &outcome.seen);
            refusal.detail = format!(
                "{} It comes too late to be changed, for the length of the form is told: send texts in front of files.",
                refusal.detail
            )
            .into();
            return Err(refusal);
        }
        let start = self.list.get(fields.start).map_or(0, |(field, _)| field.text.start);
        let (mut texts, mut splices) = (self.texts[..start].to_vec(), outcome.splices.iter().peekable());
        for (field, at) in &mut self.list[fields] {
            let old = std::mem::replace(&mut field.text, texts.len()..texts.len());
            let own: Vec<Splice> = std::iter::from_fn(|| splices.next_if(|(span, _)| span.end <= old.end))
                .map(|(span, with)| (span.start - old.start..span.end - old.start, with.clone()))
                .collect();
            let new = splice(&self.texts[old], &own).filter(|new| {
                // What is taken out may have parted a boundary: with it gone, the app would see parts that were not seen here.
                own.is_empty() || memmem::find(new, &self.mark).is_none()
            });
            texts.extend(new.ok_or_else(|| threat("form", &outcome.seen))?);
            field.text.end = texts.len();
            let place = usize::try_from(*at).unwrap_or(usize::MAX);
            self.edits
                .extend(own.into_iter().map(|(span, with)| (span.start + place..span.end + place, with)));
        }
        self.texts = texts;
        Ok(())
    }
}

impl std::fmt::Debug for Fields {
    /// Without the texts, which are nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fields")
            .field("found", &self.list.len())
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}
