//! Uploads (V7): the form of multipart bodies, the names, types and sizes of the files in them, and of files that are a
//! body by themselves. Reads along while a body streams, and holds no more of it than the first bytes of one file.

mod config;
mod encoded_word;
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

use super::{Fault, Head, Reason, Refusal, Verdict};
pub use config::Config;
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
    body: Body,
}

#[derive(Debug)]
enum Body {
    Parts {
        parser: Parser,
        parts: u32,
        file: File,
    },
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

    /// Begins with a body of which only the head is known.
    ///
    /// # Errors
    /// A multipart body without one sound boundary.
    pub fn begin(self: &Arc<Self>, head: &Head<'_>) -> Result<Upload, Refusal> {
        let mut types = head.headers.get_all(CONTENT_TYPE).iter().map(http::HeaderValue::as_bytes);
        let (content_type, another) = (types.next().unwrap_or_default(), types.next());
        let multipart = is_multipart(content_type) || another.is_some_and(is_multipart);
        let body = if multipart {
            // Which of two types counts, each reader decides for itself.
            let parser =
                if another.is_some() { Err(multipart::Fault::Boundary) } else { Parser::new(content_type) };
            Body::Parts { parser: parser?, parts: 0, file: File::default() }
        } else {
            // The path of a PUT is the name of what it stores.
            let stored = (head.method == Method::PUT).then(|| name::extension(head.path)).flatten();
            let extension = stored.filter(|extension| kind::is_known(extension));
            let declared = essence(content_type);
            let claim = Claim { extension: extension.as_deref(), declared: declared.as_deref() };
            let is_file = claim.is_file().then_some(true);
            Body::Raw { file: File { extension, declared, unjudged: true, ..File::default() }, is_file }
        };
        Ok(Upload { rules: self.clone(), body })
    }
}

impl Upload {
    /// Bytes that are to be looked at before the upstream hears of the request. None of a body that may be no file: its
    /// sender may be waiting for an answer to its first words.
    pub fn prefix(&self) -> usize {
        match self.body {
            Body::Parts { .. } | Body::Raw { is_file: Some(true), .. } => PREFIX,
            Body::Raw { .. } => 0,
        }
    }

    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let rules = &self.rules;
        match &mut self.body {
            Body::Parts { parser, parts, file } => parser.feed(bytes, |event| match event {
                Event::Part(part) => {
                    *parts += 1;
                    if *parts > rules.parts {
                        let detail = format!("The upload has more than {} parts.", rules.parts);
                        return Err(Refusal::new(Reason::UploadTooLarge, detail, "uploads.parts"));
                    }
                    file.begin(*parts, &part)
                }
                Event::Content(bytes) => {
                    file.take(bytes);
                    file.check(rules)
                }
                Event::End => file.end(rules),
            }),
            Body::Raw { is_file: Some(false), .. } => Ok(()),
            Body::Raw { file, is_file } => {
                file.take(bytes);
                if is_file.is_none() && file.start.len() >= SNIFFED {
                    *is_file = Some(kind::is_file(&file.start));
                }
                if *is_file == Some(true) { file.check(rules) } else { Ok(()) }
            }
        }
    }

    /// The body is whole.
    pub fn end(&mut self) -> Verdict {
        match &mut self.body {
            Body::Parts { parser, .. } => Ok(parser.end()?),
            Body::Raw { file, is_file } => {
                let is_file = is_file.unwrap_or_else(|| kind::is_file(&file.start));
                if is_file { file.end(&self.rules) } else { Ok(()) }
            }
        }
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
