//! What can be wrong with a form, in a sentence that never repeats it.

/// Why a form was refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Offset in bytes from the start of the form.
    pub at: usize,
    /// The rule that was broken.
    pub kind: FaultKind,
}

/// The rule that a form broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A `%` without two hexadecimal digits.
    BrokenEscape,
    /// A name, or the value of a field that a rule names, is not UTF-8.
    NotUtf8,
    /// A NUL in a name, where some parsers end it.
    Nul,
    /// A field that a rule names comes twice.
    Duplicate,
    /// A field that a rule names begins behind a `;`, which parts fields for some parsers only.
    Semicolon,
    /// More than `limit` fields.
    TooManyFields {
        /// [`Caps::members`](crate::guard::json::Caps::members)
        limit: u32,
    },
    /// A name with more than `limit` brackets.
    TooDeep {
        /// [`Caps::depth`](crate::guard::json::Caps::depth)
        limit: u32,
    },
}

impl FaultKind {
    pub(super) fn at(self, at: usize) -> Fault {
        Fault { at, kind: self }
    }
}

impl Fault {
    /// One sentence for the caller; `what` is read: "form" or "query".
    pub fn told(&self, what: &str) -> String {
        let at = self.at;
        match self.kind {
            FaultKind::BrokenEscape => {
                format!("The {what} has a % without two hexadecimal digits at byte {at}.")
            }
            FaultKind::NotUtf8 => format!("The {what} has a field that is not UTF-8 at byte {at}."),
            FaultKind::Nul => format!("The {what} has a NUL in the name of a field at byte {at}."),
            FaultKind::Duplicate => {
                format!("The {what} names the same field twice, in whatever letter case, again at byte {at}.")
            }
            FaultKind::Semicolon => {
                format!(
                    "The {what} has a raw semicolon before the name of a field at byte {at}; write it %3B."
                )
            }
            FaultKind::TooManyFields { limit } => {
                format!("The {what} has more than {limit} fields, the next at byte {at}.")
            }
            FaultKind::TooDeep { limit } => {
                format!("The {what} has a name with more than {limit} brackets at byte {at}.")
            }
        }
    }
}
