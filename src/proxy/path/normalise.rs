//! The walk over a path that writes its normal form, borrowing from the input as long as the two agree.

use std::borrow::Cow;

use super::octet::{Class, Utf8, class, escaped, percent_encode};
use super::{Case, EncodedSlash, PathFault, PathRules, Semicolon};

/// Whether the path is normal for certain. `/.` is left to [`normalise`], which tells `/.well-known` from a
/// dot segment.
fn is_plain(raw: &[u8], case: Case) -> bool {
    let mut after_slash = false;
    for &byte in raw {
        match class(byte) {
            Class::Slash if !after_slash => after_slash = true,
            Class::Plain if !(after_slash && byte == b'.') => after_slash = false,
            _ => return false,
        }
        if case == Case::Insensitive && byte.is_ascii_uppercase() {
            return false;
        }
    }
    true
}

/// Takes a path apart and writes its one form; see the module above for the rules.
pub(super) fn normalise<'a>(raw: &'a [u8], rules: &PathRules) -> Result<Cow<'a, [u8]>, PathFault> {
    let Some((b'/', mut rest)) = raw.split_first() else { return Err(PathFault::NotAbsolute) };
    if is_plain(raw, rules.case) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = Output { raw, same: 0, made: None };
    let mut utf8 = Utf8::default();
    out.push(b'/');
    let mut segment = 1;
    let mut parameters = false;
    while let [byte, tail @ ..] = rest {
        let (octet, encoded) = match byte {
            b'%' => (escaped(tail).ok_or(PathFault::BrokenEscape)?, true),
            raw => (*raw, false),
        };
        rest = if encoded { tail.get(2..).unwrap_or_default() } else { tail };
        utf8.push(octet)?;
        match class(octet) {
            Class::Control => return Err(PathFault::Control),
            Class::Backslash => return Err(PathFault::Backslash),
            Class::Delimiter if !encoded => return Err(PathFault::Delimiter),
            Class::Slash if encoded && rules.encoded_slash == EncodedSlash::Reject => {
                return Err(PathFault::EncodedSlash);
            }
            Class::Slash => {
                out.close_segment(segment)?;
                if !out.written().ends_with(b"/") {
                    out.push(b'/');
                }
                segment = out.written().len();
                parameters = false;
            }
            Class::Semicolon if !encoded => match rules.semicolon {
                Semicolon::Strip => parameters = true,
                Semicolon::Reject => return Err(PathFault::Semicolon),
            },
            _ if parameters => {}
            Class::Plain if !(encoded && octet == b'+') => out.push(match rules.case {
                Case::Sensitive => octet,
                Case::Insensitive => octet.to_ascii_lowercase(),
            }),
            _ => percent_encode(octet, |byte| out.push(byte)),
        }
    }
    utf8.end()?;
    out.close_segment(segment)?;
    Ok(out.finish())
}

/// What is written so far: a prefix of the input until the first byte that differs.
struct Output<'a> {
    raw: &'a [u8],
    same: usize,
    made: Option<Vec<u8>>,
}

impl<'a> Output<'a> {
    fn written(&self) -> &[u8] {
        match &self.made {
            Some(made) => made,
            None => self.raw.get(..self.same).unwrap_or_default(),
        }
    }

    fn push(&mut self, byte: u8) {
        match &mut self.made {
            Some(made) => made.push(byte),
            None if self.raw.get(self.same) == Some(&byte) => self.same += 1,
            None => {
                let mut made = Vec::with_capacity(self.raw.len() + 16);
                made.extend_from_slice(self.written());
                made.push(byte);
                self.made = Some(made);
            }
        }
    }

    fn truncate(&mut self, len: usize) {
        match &mut self.made {
            Some(made) => made.truncate(len),
            None => self.same = self.same.min(len),
        }
    }

    /// Resolves the segment that starts at `start` if it is a dot segment (RFC 3986 §5.2.4).
    fn close_segment(&mut self, start: usize) -> Result<(), PathFault> {
        match self.written().get(start..) {
            Some(b".") => self.truncate(start),
            Some(b"..") => {
                let parents = self.written().get(..start.saturating_sub(1)).unwrap_or_default();
                let parent = parents.iter().rposition(|b| *b == b'/').ok_or(PathFault::AboveRoot)?;
                self.truncate(parent + 1);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Cow<'a, [u8]> {
        match self.made {
            Some(made) => Cow::Owned(made),
            None => Cow::Borrowed(self.raw.get(..self.same).unwrap_or_default()),
        }
    }
}
