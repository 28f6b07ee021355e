//! What can be wrong with a body, in a sentence that never repeats the body.

use std::fmt;

/// Why a body was refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Offset in bytes from the start of the body; its length where the body ends too early.
    pub at: usize,
    /// The rule that was broken.
    pub kind: FaultKind,
}

/// The rule that a body broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing but white space.
    Empty,
    /// Not valid UTF-8.
    NotUtf8,
    /// Something else than the grammar allows; holds what would have been right.
    Syntax(&'static str),
    /// A raw character below U+0020 in a string.
    ControlCharacter,
    /// Half of an escaped UTF-16 pair without the other.
    LoneSurrogate,
    /// Two members of one object have the same name once escapes are resolved and, where a rule names it, letter case
    /// is put aside.
    DuplicateKey,
    /// More data after the value.
    TrailingData,
    /// More than `limit` objects and arrays open at once.
    TooDeep {
        /// [`Caps::depth`](super::Caps::depth)
        limit: u32,
    },
    /// More than `limit` members in all objects together.
    TooManyMembers {
        /// [`Caps::members`](super::Caps::members)
        limit: u32,
    },
}

impl FaultKind {
    pub(super) fn at(self, at: usize) -> Fault {
        Fault { at, kind: self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.kind {
            FaultKind::Empty => write!(f, "The body is empty where JSON is expected."),
            FaultKind::NotUtf8 => write!(f, "The body is not UTF-8 at byte {at}."),
            FaultKind::Syntax(expected) => {
                write!(f, "The body is not valid JSON: {expected} is expected at byte {at}.")
            }
            FaultKind::ControlCharacter => {
                write!(f, "The body has an unescaped control character in a string at byte {at}.")
            }
            FaultKind::LoneSurrogate => {
                write!(f, "The body has an escaped surrogate without its other half at byte {at}.")
            }
            FaultKind::DuplicateKey => {
                write!(
                    f,
                    "The body has an object that names the same member twice, in whatever letter case, again at byte {at}."
                )
            }
            FaultKind::TrailingData => write!(f, "The body goes on after its JSON value at byte {at}."),
            FaultKind::TooDeep { limit } => {
                write!(f, "The body nests objects and arrays deeper than {limit} at byte {at}.")
            }
            FaultKind::TooManyMembers { limit } => {
                write!(f, "The body has more than {limit} object members, the next at byte {at}.")
            }
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_learns_the_rule_and_the_place() {
        let said = FaultKind::Syntax("`,` or `}`").at(17).to_string();
        assert_eq!(said, "The body is not valid JSON: `,` or `}` is expected at byte 17.");
        let said = FaultKind::TooDeep { limit: 64 }.at(64).to_string();
        assert_eq!(said, "The body nests objects and arrays deeper than 64 at byte 64.");
    }
}
