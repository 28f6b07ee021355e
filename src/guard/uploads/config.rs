//! Uploads, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::kind::Kind;
use crate::config::Toggle;
use crate::config::units::ByteSize;

/// Uploads, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One part of a multipart body, or a file that is a body by itself.
    pub part: ByteSize,
    /// Parts of one body.
    pub parts: u32,
    /// Kinds of file, judged by content and by name; off: any.
    pub types: Toggle<Vec<Kind>>,
}
