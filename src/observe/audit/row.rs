//! A row of the audit, as it stands in the file.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::Timestamp;

/// What stands before a row's own hash.
const HASH: &str = ",\"hash\":\"";

/// Hash before the first row.
pub(super) const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One row: an act, or what became of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Its number, from 1.
    pub row: u64,
    /// When, RFC 3339.
    pub ts: String,
    /// Address of whoever acted; none if it was a signal, or the gate itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Mark of the token presented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What was done.
    pub act: String,
    /// To whom or what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `begun`; in a later row `done`, `refused` or `failed`.
    pub outcome: String,
    /// Number of the row in which it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// What was asked for.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub asked: Value,
    /// How it stood before.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// How it stands since.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub after: Value,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Hash of the row before.
    pub prev: String,
    /// SHA-256 of the line up to here, `prev` in it.
    #[serde(skip_serializing)]
    pub hash: String,
}

impl Row {
    /// The line that it is in the file; fills in its hash.
    pub(super) fn line(&mut self) -> serde_json::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.pop();
        self.hash = sha256(line.as_bytes());
        line.push_str(HASH);
        line.push_str(&self.hash);
        line.push_str("\"}\n");
        Ok(line)
    }

    /// The line without its end, as it was read.
    ///
    /// # Errors
    /// None is known.
    pub fn as_written(&self) -> serde_json::Result<String> {
        let mut line = self.clone().line()?;
        line.pop();
        Ok(line)
    }

    /// Reads a line without its end; `None` unless it is a row whose hash is right.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (hashed, hash) = line.rsplit_once(HASH)?;
        let row: Self = serde_json::from_str(line).ok()?;
        let sound = row.hash == sha256(hashed.as_bytes()) && hash.strip_suffix("\"}") == Some(&row.hash);
        sound.then_some(row)
    }

    /// When it was written.
    pub fn at(&self) -> Option<Timestamp> {
        let at: jiff::Timestamp = self.ts.parse().ok()?;
        u64::try_from(at.as_microsecond()).ok().map(Timestamp::from_micros)
    }
}

/// In lower-case hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
