//! Takes a multipart body apart as it flows (RFC 2046 §5.1, RFC 7578), without holding more of it than a part's header.
//!
//! What the RFCs allow and readers treat differently is a fault here: a preamble or epilogue, lines that end in LF alone,
//! folded header fields, fields or parameters twice, nested bodies, encoded parts. No common client sends any of it.

mod part;
#[cfg(test)]
mod tests;

use std::fmt;

use memchr::memchr;

pub use part::Part;

use super::parameters::Parameters;

/// Longest header of a part.
const HEADER: usize = 8 * 1024;

/// RFC 2046 §5.1.1.
const BOUNDARY: usize = 70;

/// What comes out of a body, in order: for each part its header, its content in pieces, its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part begins, its content at this byte of the body.
    Part(Part<'a>, u64),
    /// More of its content.
    Content(&'a [u8]),
    /// The part is whole.
    End,
}

/// Why a body is not taken for what it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `Content-Type` names no boundary, or not one that all readers agree on.
    Boundary,
    /// Something stands in front of the first boundary.
    Preamble,
    /// Something stands behind a boundary on its line.
    Delimiter,
    /// Something stands behind the last boundary.
    Epilogue,
    /// A line of a header, or the one in front of a boundary, ends in LF alone.
    BareLineFeed,
    /// A boundary directly behind a header, where some see an empty part and some see content.
    NoContent,
    /// The header of a part is too long.
    HeaderTooLong,
    /// The header of a part is none, is folded, or names a field twice.
    Header,
    /// No `Content-Disposition: form-data` with a name, or one that readers would read differently.
    Disposition,
    /// A part that is encoded or is a multipart body itself.
    Nested,
    /// The body ends in front of its last boundary.
    Unfinished,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Boundary => "its Content-Type does not name one boundary of 1 to 70 characters",
            Fault::Preamble => "it does not begin with its boundary",
            Fault::Delimiter => "a boundary does not stand alone on its line",
            Fault::Epilogue => "something follows its last boundary",
            Fault::BareLineFeed => "a line does not end in CR LF",
            Fault::NoContent => "a boundary follows a part's header directly",
            Fault::HeaderTooLong => "a part's header is longer than 8 KiB",
            Fault::Header => "a part's header is missing, broken, folded, or names a field twice",
            Fault::Disposition => "a part's Content-Disposition does not name one field of a form",
            Fault::Nested => "a part is encoded or holds parts itself",
            Fault::Unfinished => "it ends in front of its last boundary",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the first boundary.
    Opening,
    /// Behind a boundary.
    Delimited,
    /// Behind the CR that follows it.
    DelimiterEnds,
    /// Behind the first hyphen that follows it.
    Closing,
    Header,
    Content,
    /// Behind the last boundary.
    Closed,
    /// Behind the CR that may follow it.
    ClosedEnds,
    /// Nothing more may come.
    Done,
}

/// Reads one body.
#[derive(Debug)]
pub struct Parser {
    /// LF, two hyphens, the boundary.
    delimiter: Box<[u8]>,
    /// Whether it is a form: then every part has to name its field.
    form: bool,
    state: State,
    header: Vec<u8>,
    /// Whether a CR is held back, since a delimiter may follow.
    cr: bool,
    /// Bytes of the delimiter that are held back.
    matched: usize,
    /// Whether what is held back is the end of the header.
    fresh: bool,
    /// Bytes of the body that were read.
    read: u64,
}

impl Parser {
    /// A reader for a body of this `Content-Type`.
    ///
    /// # Errors
    /// [`Fault::Boundary`].
    pub fn new(content_type: &[u8]) -> Result<Self, Fault> {
        let read = Parameters::parse(content_type).map_err(|_| Fault::Boundary)?;
        let boundary = read.get("boundary").filter(|b| is_boundary(b)).ok_or(Fault::Boundary)?;
        Ok(Self {
            delimiter: [b"\n--", boundary].concat().into(),
            form: read.value.get(..19).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/form-data")),
            state: State::Opening,
            header: Vec::new(),
            cr: false,
            // In front of the first boundary there is no line to end.
            matched: 1,
            fresh: false,
            read: 0,
        })
    }

    /// What a line would have to begin with that is no content: two hyphens and the boundary.
    pub fn mark(&self) -> &[u8] {
        self.delimiter.get(1..).unwrap_or_default()
    }

    /// Reads on; `on` is told what comes out, and may end it with an error of its own.
    ///
    /// # Errors
    /// A [`Fault`], and what `on` answers.
    pub fn feed<E: From<Fault>>(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((first, rest)) = bytes.split_first() {
            let left = match self.state {
                State::Header => self.header(bytes, &mut on)?,
                State::Content => self.content(bytes, &mut on)?,
                _ => {
                    self.state = self.step(*first)?;
                    rest
                }
            };
            self.read += (bytes.len() - left.len()) as u64;
            bytes = left;
        }
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// [`Fault::Unfinished`].
    pub fn end(&self) -> Result<(), Fault> {
        match self.state {
            State::Closed | State::Done => Ok(()),
            _ => Err(Fault::Unfinished),
        }
    }

    /// One byte of what stands around boundaries.
    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        Ok(match (self.state, byte) {
            (State::Opening, _) if self.delimiter.get(self.matched) == Some(&byte) => {
                self.matched += 1;
                if self.matched < self.delimiter.len() { State::Opening } else { State::Delimited }
            }
            (State::Opening, _) => return Err(Fault::Preamble),
            (State::Delimited, b'\r') => State::DelimiterEnds,
            (State::Delimited, b'-') => State::Closing,
            (State::DelimiterEnds, b'\n') => State::Header,
            (State::Closing, b'-') => State::Closed,
            (State::Delimited, b'\n') => return Err(Fault::BareLineFeed),
            (State::Delimited | State::DelimiterEnds | State::Closing, _) => return Err(Fault::Delimiter),
            (State::Closed, b'\r') => State::ClosedEnds,
            (State::ClosedEnds, b'\n') => State::Done,
            _ => return Err(Fault::Epilogue),
        })
    }

    /// Collects a header up to its blank line.
    fn header<'b, E: From<Fault>>(
        &mut self,
        bytes: &'b [u8],
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<&'b [u8], E> {
        let line = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let (line, rest) = bytes.split_at(line);
        if self.header.len() + line.len() > HEADER {
            return Err(Fault::HeaderTooLong.into());
        }
        self.header.extend_from_slice(line);
        if self.header.ends_with(b"\n") && !self.header.ends_with(b"\r\n") {
            return Err(Fault::BareLineFeed.into());
        }
        if self.header == b"\r\n" || self.header.ends_with(b"\r\n\r\n") {
            let content = self.read + line.len() as u64;
            on(Event::Part(Part::parse(&self.header, self.form)?, content))?;
            self.header.clear();
            self.state = State::Content;
            (self.cr, self.matched, self.fresh) = (true, 1, true);
        }
        Ok(rest)
    }

    /// Passes content on up to the next line feed, and sees whether a delimiter follows it.
    fn content<'b, E: From<Fault>>(
        &mut self,
        bytes: &'b [u8],
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<&'b [u8], E> {
        if self.matched > 0 {
            let rest = &self.delimiter[self.matched..];
            let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            self.matched += same;
            if same == rest.len() {
                self.delimited(on)?;
            } else if same < bytes.len() {
                self.release(on)?;
            }
            return Ok(&bytes[same..]);
        }
        if self.cr && bytes.first() != Some(&b'\n') {
            self.cr = false;
            on(Event::Content(b"\r"))?;
        }
        let end = memchr(b'\n', bytes);
        let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        let held = line.last() == Some(&b'\r');
        let content = &line[..line.len() - usize::from(held)];
        if !content.is_empty() {
            on(Event::Content(content))?;
        }
        self.cr = held || (self.cr && line.is_empty());
        self.matched = usize::from(end.is_some());
        Ok(rest.get(self.matched..).unwrap_or_default())
    }

    /// A delimiter is whole.
    fn delimited<E: From<Fault>>(
        &mut self,
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.fresh {
            return Err(Fault::NoContent.into());
        }
        if !self.cr {
            return Err(Fault::BareLineFeed.into());
        }
        self.state = State::Delimited;
        on(Event::End)
    }

    /// What was held back is content after all.
    fn release<E>(&mut self, on: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        // The line feed that ends the header is no content.
        let from = usize::from(self.fresh);
        if self.cr && !self.fresh {
            on(Event::Content(b"\r"))?;
        }
        if self.matched > from {
            on(Event::Content(&self.delimiter[from..self.matched]))?;
        }
        (self.cr, self.matched, self.fresh) = (false, 0, false);
        Ok(())
    }
}

/// RFC 2046 §5.1.1: `bcharsnospace`, and spaces but not at the end.
fn is_boundary(text: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(b);
    (1..=BOUNDARY).contains(&text.len()) && text.iter().all(allowed) && !text.ends_with(b" ")
}
