//! The header of a part.

use smallvec::SmallVec;

use super::super::parameters::{Parameters, is_token};
use super::Fault;

/// What a part says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part<'a> {
    /// Name of the form's field, as written; `None` where it is no form's.
    pub field: Option<&'a [u8]>,
    /// `filename`, as written.
    pub file_name: Option<&'a [u8]>,
    /// `filename*`, as written.
    pub extended_name: Option<&'a [u8]>,
    /// Media type of `Content-Type`, without parameters.
    pub content_type: Option<&'a [u8]>,
    /// Its `charset`.
    pub charset: Option<&'a [u8]>,
}

impl<'a> Part<'a> {
    /// Reads a header: lines that end in CR LF, the last of them blank. In a `form`, it has to name its field.
    pub(super) fn parse(header: &'a [u8], form: bool) -> Result<Self, Fault> {
        let lines = header.strip_suffix(b"\r\n\r\n").ok_or(Fault::Header)?;
        let mut seen: SmallVec<[&[u8]; 8]> = SmallVec::new();
        let mut part = Part::default();
        for line in lines.split(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let (name, value) = field(line)?;
            if seen.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(Fault::Header);
            }
            seen.push(name);
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if is("content-disposition") {
                part.disposition(value)?;
            } else if is("content-type") {
                part.content_type(value)?;
            } else if is("content-transfer-encoding") {
                let plain = |known: &&str| value.eq_ignore_ascii_case(known.as_bytes());
                if !["binary", "8bit", "7bit"].iter().any(plain) {
                    return Err(Fault::Nested);
                }
            } else if is("content-encoding") || is("transfer-encoding") {
                return Err(Fault::Nested);
            }
        }
        if form && part.field.is_none() { Err(Fault::Disposition) } else { Ok(part) }
    }

    fn disposition(&mut self, value: &'a [u8]) -> Result<(), Fault> {
        let read = Parameters::parse(value).map_err(|_| Fault::Disposition)?;
        // Of names in pieces or in charsets of their own (RFC 2231), each reader makes what it likes.
        let starred = |name: &[u8]| name.contains(&b'*') && !name.eq_ignore_ascii_case(b"filename*");
        if read.names().any(starred) {
            return Err(Fault::Disposition);
        }
        self.file_name = read.get("filename");
        self.extended_name = read.get("filename*");
        let field = read.get("name");
        if field.is_some_and(|name| name.contains(&b'\\')) {
            return Err(Fault::Disposition);
        }
        self.field = field.filter(|_| read.value.eq_ignore_ascii_case(b"form-data"));
        Ok(())
    }

    fn content_type(&mut self, value: &'a [u8]) -> Result<(), Fault> {
        let read = Parameters::parse(value).map_err(|_| Fault::Header)?;
        let starts = |start: &str| {
            read.value.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start.as_bytes()))
        };
        if starts("multipart/") || starts("message/") {
            return Err(Fault::Nested);
        }
        self.content_type = Some(read.value);
        self.charset = read.get("charset");
        Ok(())
    }
}

/// Name and value of one line. A folded line has no name.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let colon = line.iter().position(|b| !is_token(*b)).ok_or(Fault::Header)?;
    let (name, value) = line.split_at(colon);
    let value = value.strip_prefix(b":").filter(|_| !name.is_empty()).ok_or(Fault::Header)?;
    let odd = |b: &u8| b.is_ascii_control() && *b != b'\t';
    if value.iter().any(odd) { Err(Fault::Header) } else { Ok((name, value.trim_ascii())) }
}
