//! Rates: so many in such a time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::span::{UNITS, unit};
use super::{ByteSize, Span, text_form};

/// What is said when a text is no rate.
const EXPECTED: &str = "a rate: a whole number of 1 or more, or a size, a slash and a time, such as 60/min, 1000/h, 5/10s, 500/month or 1GiB/d";

/// What a month is where windows slide: as long as the longest that most bills agree on.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// At most `max` in any `window`: `60/min`, `1000/h`, `5/10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many, 1 or more.
    pub max: u64,
    /// In how long, never zero.
    pub window: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected {EXPECTED}");
        let (max, window) = text.split_once('/').ok_or_else(expected)?;
        let (max, window) = (max.trim(), window.trim());
        let max = match max.bytes().all(|b| b.is_ascii_digit()) {
            true if max.is_empty() => return Err(expected()),
            true => max.parse().map_err(|_| "a larger number than 64 bits can hold".to_owned())?,
            false => max.parse::<ByteSize>().map_err(|_| expected())?.bytes(),
        };
        let window = match unit(window) {
            Some(millis) => Duration::from_millis(millis),
            None if window == "month" => MONTH,
            None => window.parse::<Span>().map_err(|_| expected())?.duration(),
        };
        match (max, window) {
            (0, _) => Err(
                "a rate of 0 would refuse everything: write 1 or more, or switch the limit off with `off` \
                in place of its settings (`limits: {NAME: off}`)"
                    .into(),
            ),
            (_, Duration::ZERO) => Err(expected()),
            _ => Ok(Self { max, window }),
        }
    }
}

impl fmt::Display for Rate {
    /// `60/1m` is written as `60/min`, and so for the other units.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units =
            [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800), ("month", MONTH.as_secs())];
        match units.iter().find(|(_, secs)| self.window == Duration::from_secs(*secs)) {
            Some((name, _)) => write!(f, "{}/{name}", self.max),
            None => write!(f, "{}/{}", self.max, Span(self.window)),
        }
    }
}

text_form!(
    Rate,
    EXPECTED,
    "string",
    format!(r"^\s*0*[1-9][0-9]*\s*([kKMGT]i?B|B)?\s*/\s*(month|{UNITS}|([0-9]+\s*{UNITS}\s*)+)\s*$"),
    ["60/min", "1000/h", "5/10s", "3/15min"]
);
