//! How a value may appear in an error or an explanation: short, on one line, without credentials.

use std::borrow::Cow;

use crate::observe::redact;

/// The longest part of a value that an error repeats, in characters.
const LONGEST: usize = 40;

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// The value in quotes, cut to 40 characters, control characters escaped, the credentials of a URL left out.
pub(crate) fn short(text: &str) -> String {
    let text = without_credentials(text);
    let mut kept: String = text.chars().take(LONGEST).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    format!("{kept:?}")
}

/// The text with the `user:password@` of every URL in it hidden.
pub(super) fn without_credentials(text: &str) -> Cow<'_, str> {
    redact::without_credentials(text, HIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Redis URL with its password would end up in a terminal's scrollback, or in a CI log.
    #[test]
    fn url_passwords_are_not_repeated() {
        assert_eq!(short("redis://:hunter2@cache:6379/0"), r#""redis://(hidden)@cache:6379/0""#);
        assert_eq!(
            without_credentials("a http://u:p@ss@h,b http://x/y@z"),
            "a http://(hidden)@h,b http://x/y@z"
        );
        assert_eq!(
            short("redis://:pa,ss@a,redis://:hunter2@b"),
            r#""redis://(hidden)@a,redis://(hidden)@b""#
        );
    }

    /// An error is one line, whatever the value is.
    #[test]
    fn long_and_odd_values_stay_on_one_short_line() {
        assert_eq!(short("a\nb"), r#""a\nb""#);
        assert_eq!(short(&"é".repeat(41)).chars().count(), 43);
    }
}
