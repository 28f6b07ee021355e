//! Uploads (V7): the form of multipart bodies, the names, types and sizes of the files in them, and of files that are a
//! body by themselves; and the texts of the fields beside them. Reads along while a body streams, and holds no more of it
//! than these texts and the first bytes of one file.

mod config;
mod encoded_word;
mod fields;
mod kind;
mod multipart;
mod name;
mod parameters;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use http::header::CONTENT_TYPE;

use super::body::BodyGuard;
use super::mode::{Guard, Observed};
use super::sanitize::Splice;
use super::{Fault, Head, Reason, Refusal, Verdict};
use crate::proxy::api::Api;
pub use config::Config;
use fields::Fields;
pub use fields::Report;
use kind::{Claim, Kind, SNIFFED};
use multipart::{Event, Parser, Part};
use name::Odd;

/// Bytes of an upload that are looked at before the upstream hears of it.
const PREFIX: usize = 64 * 1024;

/// The guard, as run.
#[derive(Debug)]
pub struct Uploads {
    part: u64,
    parts: u32,
    types: Option<Vec<Kind>>,
}

/// A body on its way through the guard.
#[derive(Debug)]
pub struct Upload {
    rules: Arc<Uploads>,
    observed: Observed,
    body: Body,
    fields: Option<Fields>,
    report: Report,
}

/// Whose texts are looked into, and by what.
pub struct FormTexts {
    /// Knows the rules.
    pub guard: Arc<BodyGuard>,
    /// The API that is called, if one is.
    pub api: Option<Api>,
    /// Bytes that all texts of one form together may have.
    pub cap: u64,
}

#[derive(Debug)]
enum Body {
    Parts {
        parser: Parser,
        parts: u32,
        file: File,
    },
    /// It can't be made sense of, and is not to be refused for it.
    Unread,
    /// `is_file` as soon as that is known.
    Raw {
        file: File,
        is_file: Option<bool>,
    },
}

/// A file, or a field of a form, of which the content is arriving.
#[derive(Debug, Default)]
struct File {
    /// Number of the part; 0: the body itself.
    number: u32,
    extension: Option<String>,
    declared: Option<String>,
    size: u64,
    /// First bytes.
    start: Vec<u8>,
    /// Whether its type is still to be judged by them.
    unjudged: bool,
}

impl Uploads {
    /// Builds the guard.
    ///
    /// # Errors
    /// A cap of zero.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let zero = [("uploads.part", config.part.0), ("uploads.parts", config.parts.into())];
        if let Some((key, _)) = zero.iter().find(|(_, cap)| *cap == 0) {
            return Err(Fault::new(*key, "must be more than 0"));
        }
        let types = config.types.as_option().cloned();
        Ok(Self { part: config.part.0, parts: config.parts, types })
    }

    fn count(&self, parts: u32) -> Verdict {
        if parts > self.parts {
            let detail = format!("The upload has more than {} parts.", self.parts);
            return Err(Refusal::new(Reason::UploadTooLarge, detail, "uploads.parts"));
        }
        Ok(())
    }

    /// Begins with a body of which only the head is known.
    ///
    /// # Errors
    /// A multipart body without one sound boundary.
    pub fn begin(self: &Arc<Self>, head: &Head<'_>, texts: FormTexts) -> Result<Upload, Refusal> {
        let observed = texts.guard.observed();
        let mut fields = None;
        let mut types = head.headers.get_all(CONTENT_TYPE).iter().map(http::HeaderValue::as_bytes);
        let (content_type, another) = (types.next().unwrap_or_default(), types.next());
        let multipart = is_multipart(content_type) || another.is_some_and(is_multipart);
        let body = if multipart {
            // Which of two types counts, each reader decides for itself.
            let parser =
                if another.is_some() { Err(multipart::Fault::Boundary) } else { Parser::new(content_type) };
            let parser = parser?;
            fields = Some(Fields::new(texts.guard, texts.api, texts.cap, parser.mark()));
            Body::Parts { parser, parts: 0, file: File::default() }
        } else {
            // The path of a PUT is the name of what it stores.
            let stored = (head.method == Method::PUT).then(|| name::extension(head.path)).flatten();
            let extension = stored.filter(|extension| kind::is_known(extension));
            let declared = essence(content_type);
            let claim = Claim { extension: extension.as_deref(), declared: declared.as_deref() };
            let is_file = claim.is_file().then_some(true);
            Body::Raw { file: File { extension, declared, unjudged: true, ..File::default() }, is_file }
        };
        Ok(Upload { rules: self.clone(), observed, body, fields, report: Report::default() })
    }
}

impl Upload {
    /// Bytes that are to be looked at before the upstream hears of the request: all of a form that is no larger than other
    /// forms may be, if it says so. None of a body that may be no file: its sender may be waiting for an answer to its
    /// first words.
    pub fn prefix(&self, declared: Option<u64>) -> usize {
        let form =
            |cap| declared.filter(|length| *length <= cap).and_then(|length| usize::try_from(length).ok());
        match self.body {
            Body::Parts { .. } => {
                self.fields.as_ref().and_then(|fields| form(fields.cap())).unwrap_or(PREFIX)
            }
            Body::Raw { is_file: Some(true), .. } => PREFIX,
            Body::Raw { .. } | Body::Unread => 0,
        }
    }

    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let (rules, fields) = (&self.rules, &mut self.fields);
        let mut judge = |verdict| judge(self.observed, verdict, &mut self.report);
        match &mut self.body {
            Body::Parts { parser, parts, file } => {
                let fed = parser.feed(bytes, |event| {
                    let looked = match &event {
                        Event::Part(part, _) => {
                            *parts = parts.saturating_add(1);
                            rules.count(*parts).and_then(|()| file.begin(*parts, part))
                        }
                        Event::Content(bytes) => {
                            file.take(bytes);
                            file.check(rules)
                        }
                        Event::End => file.end(rules),
                    };
                    judge(looked)?;
                    let Some(fields) = fields else { return Ok(()) };
                    Ok(match event {
                        Event::Part(part, at) => fields.begin(&part, at),
                        Event::Content(bytes) => fields.take(bytes),
                        Event::End => fields.end(),
                    }?)
                });
                self.stopped(fed)
            }
            Body::Raw { is_file: Some(false), .. } | Body::Unread => Ok(()),
            Body::Raw { file, is_file } => {
                file.take(bytes);
                if is_file.is_none() && file.start.len() >= SNIFFED {
                    *is_file = Some(kind::is_file(&file.start));
                }
                if *is_file == Some(true) { judge(file.check(rules)) } else { Ok(()) }
            }
        }
    }

    /// The body is whole.
    pub fn end(&mut self) -> Verdict {
        match &mut self.body {
            Body::Parts { parser, .. } => {
                let ended = parser.end().map_err(Stop::from);
                self.stopped(ended)?;
            }
            Body::Raw { file, is_file } => {
                let is_file = is_file.unwrap_or_else(|| kind::is_file(&file.start));
                let looked = if is_file { file.end(&self.rules) } else { Ok(()) };
                judge(self.observed, looked, &mut self.report)?;
            }
            Body::Unread => {}
        }
        self.fields.as_mut().map_or(Ok(()), Fields::finish)
    }

    /// What came goes to the app. `promised`: so does the length of the body.
    pub fn stream(&mut self, promised: bool) -> Verdict {
        self.fields.as_mut().map_or(Ok(()), |fields| fields.stream(promised))
    }

    /// Byte of the body from which on nothing may be handed on yet.
    pub fn held_from(&self) -> Option<u64> {
        self.fields.as_ref().and_then(Fields::held_from)
    }

    /// Changes of the body that are to be made in what was not handed on yet, in order.
    pub fn take_edits(&mut self) -> Vec<Splice> {
        self.fields.as_mut().map(Fields::take_edits).unwrap_or_default()
    }

    /// What was found since it was last asked for.
    pub fn take_report(&mut self) -> Report {
        let mut report = std::mem::take(&mut self.report);
        if let Some(fields) = &mut self.fields {
            let found = fields.take_report();
            report.noted.extend(found.noted);
            report.seen.extend(found.seen);
            report.named = found.named;
        }
        report
    }

    /// A body that no two readers would take apart alike is refused, or else not looked at any more.
    fn stopped(&mut self, fed: Result<(), Stop>) -> Verdict {
        match fed {
            Ok(()) => Ok(()),
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(Stop::Fault(fault)) => {
                judge(self.observed, Err(fault.into()), &mut self.report)?;
                self.body = Body::Unread;
                self.fields.iter_mut().for_each(Fields::abandon);
                Ok(())
            }
        }
    }
}

/// Why the reading of parts ends early.
enum Stop {
    Fault(multipart::Fault),
    Refused(Refusal),
}

impl From<multipart::Fault> for Stop {
    fn from(fault: multipart::Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Notes what is only observed; each reason once, for a body may give the same one with every byte.
fn judge(observed: Observed, verdict: Verdict, report: &mut Report) -> Verdict {
    match verdict {
        Err(refusal) if observed.contains(Guard::Uploads) => {
            if report.noted.iter().all(|known| known.reason != refusal.reason) {
                report.noted.push(refusal);
            }
            Ok(())
        }
        verdict => verdict,
    }
}

impl File {
    /// The next part of a body.
    fn begin(&mut self, number: u32, part: &Part<'_>) -> Verdict {
        self.number = number;
        self.size = 0;
        self.start.clear();
        let name = file_name(part).map_err(|odd| {
            let detail = format!("The file name in {} {}.", self.title(), odd.0);
            Refusal::new(Reason::UploadNameDenied, detail, "uploads")
        })?;
        self.extension = name.as_deref().and_then(name::extension);
        self.declared = part.content_type.and_then(essence);
        let claim = Claim { extension: None, declared: self.declared.as_deref() };
        self.unjudged = name.is_some() || claim.is_file();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if self.unjudged {
            let room = SNIFFED - self.start.len().min(SNIFFED);
            self.start.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
    }

    fn check(&mut self, rules: &Uploads) -> Verdict {
        if self.start.len() >= SNIFFED {
            self.judge(rules)?;
        }
        if self.size > rules.part {
            let mut detail = format!("{} is larger than {} bytes.", self.title(), rules.part);
            detail[..1].make_ascii_uppercase();
            return Err(Refusal::new(Reason::UploadTooLarge, detail, "uploads.part"));
        }
        Ok(())
    }

    fn end(&mut self, rules: &Uploads) -> Verdict {
        self.check(rules)?;
        self.judge(rules)
    }

    fn judge(&mut self, rules: &Uploads) -> Verdict {
        let (true, Some(allowed)) = (std::mem::take(&mut self.unjudged), &rules.types) else { return Ok(()) };
        let claim = Claim { extension: self.extension.as_deref(), declared: self.declared.as_deref() };
        kind::judge(allowed, claim, &self.start).map_err(|denied| {
            let detail = format!("The file in {} is not accepted: {}.", self.title(), denied.why());
            Refusal::new(Reason::UploadTypeDenied, detail, "uploads.types")
        })
    }

    fn title(&self) -> Cow<'static, str> {
        match self.number {
            0 => "the body".into(),
            number => format!("part {number} of the upload").into(),
        }
    }
}

/// The name of a part's file; `None` if it is no file. Browsers send an empty one where no file was chosen.
fn file_name<'a>(part: &Part<'a>) -> Result<Option<Cow<'a, str>>, Odd> {
    let plain = part.file_name.map(name::decode).transpose()?;
    let extended = part.extended_name.map(name::decode_extended).transpose()?;
    let name = match (plain, extended) {
        (Some(plain), Some(extended)) if plain != extended => {
            return Err(Odd("is another in filename than in filename*"));
        }
        (Some(plain), _) => plain,
        (None, Some(extended)) => Cow::Owned(extended),
        (None, None) => return Ok(None),
    };
    if !name.is_empty() {
        name::check(&name)?;
    }
    Ok(Some(name))
}

impl From<multipart::Fault> for Refusal {
    fn from(fault: multipart::Fault) -> Self {
        let detail = format!("The multipart body can't be read in one way only (RFC 7578): {fault}.");
        Refusal::new(Reason::MalformedUpload, detail, "")
    }
}

fn is_multipart(content_type: &[u8]) -> bool {
    let content_type = content_type.trim_ascii_start();
    content_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

/// A media type without its parameters, in lower case; `None` if there is none, or one in no known script.
fn essence(content_type: &[u8]) -> Option<String> {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let text = str::from_utf8(essence).ok().filter(|text| !text.is_empty())?;
    Some(text.to_ascii_lowercase())
}
