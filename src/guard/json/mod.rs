//! Strict JSON in one walk: the shape is checked and the fields that rules name are handed out as byte spans.
//!
//! Nothing is built and nothing is rewritten, so bytes that no guard touches leave exactly as they came.
//! Stricter than RFC 8259 where two parsers could read one body differently: no byte order mark, no lone
//! surrogates, no name twice in one object.

mod content;
#[cfg(test)]
mod differential;
mod fault;
mod fields;
mod fold;
mod looks;
mod names;
mod scan;
mod text;
mod token;

use std::ops::Range;

pub use content::content;
pub use fault::{Fault, FaultKind};
pub(super) use fields::NodeId;
pub use fields::{FieldRules, PatternError, Rule, RuleKind};
pub(super) use fold::fold;
pub use looks::{begins, opener, opens, refuted};
pub(super) use names::Names;
pub use scan::{Scratch, scan};
pub use text::{RawStr, escape_into, splice};
pub(super) use token::escape;

/// How large a shape may be, whatever its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Objects and arrays open at once; a scalar alone has depth 0.
    pub depth: u32,
    /// Members of all objects of the body together.
    pub members: u32,
}

impl Default for Caps {
    /// 64 levels, which is twice what tool schemas reach and far below where recursive parsers overflow, and
    /// 100,000 members, which is a conversation of some ten thousand messages.
    fn default() -> Self {
        Self { depth: 64, members: 100_000 }
    }
}

/// One field that a rule names.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<'b> {
    /// The tag of the rule.
    pub tag: u16,
    /// What stands there.
    pub value: Value<'b>,
    /// Where, in bytes of the body: a string's content without its quotes, or the whole token.
    pub span: Range<usize>,
    /// Where the array begins that a string is part of, if it is: an element, or the `text` of an element.
    pub part_of: Option<usize>,
}

/// A scalar as it is written in the body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'b> {
    /// A string.
    Text(RawStr<'b>),
    /// A number by the grammar of RFC 8259 §6, of any size and precision.
    Number(&'b str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}
