//! Amounts of data.

use std::fmt;
use std::str::FromStr;

use super::{leading_number, text_form};

/// What is said when a text is no amount of data.
const EXPECTED: &str = "an amount of data: a whole number of bytes, or with a unit: B, KiB, \
    MiB, GiB (1024), kB, MB, GB (1000), k, m, g (1024, as in nginx)";

/// An amount of data in bytes: `512`, `512B`, `64KiB`, `20MB`, `1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; on a 32-bit machine no more than it can hold.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is no data at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Bytes in a unit, in any case: `kb` is what `kB` and `KB` are.
fn unit(name: &str) -> Option<u64> {
    match name.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        "k" | "ki" | "kib" => Some(1 << 10),
        "m" | "mi" | "mib" => Some(1 << 20),
        "g" | "gi" | "gib" => Some(1 << 30),
        "t" | "ti" | "tib" => Some(1 << 40),
        _ => None,
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected {EXPECTED}");
        let (number, name) = leading_number(text.trim()).ok_or_else(expected)?;
        let unit = unit(name.trim_start()).ok_or_else(expected)?;
        number.checked_mul(unit).map(Self).ok_or_else(|| "more bytes than 64 bits can count".into())
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit that gives a whole number, of 1024 if that is possible: `64KiB`, `20MB`, `1500B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let decimal = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
        let whole = |(_, unit): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*unit);
        match units.iter().find(whole).or_else(|| decimal.iter().find(whole)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

text_form!(
    ByteSize,
    EXPECTED,
    ["string", "integer"],
    r"^\s*[0-9]+\s*([bB]|[kKmMgGtT]([iI]?[bB]?))?\s*$",
    ["512B", "64KiB", "20MB", "1m"]
);
