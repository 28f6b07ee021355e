//! Claims: what only one request at a time may have in hand, and which then stays taken for a while (D1, D2).

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// Names what is claimed: a digest of who asks, of what kind the claim is, and of the message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey(pub u128);

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimKey({:032x})", self.0)
    }
}

/// A claim. It stands while its request is under way; how that ends decides whether it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed.
    pub key: ClaimKey,
    /// Digest of all that was sent: the same key with another content is no repetition.
    pub content: u128,
    /// How long it stands once its request was served, counted from when it was claimed; more than zero.
    pub keep: Duration,
}

/// Who has what was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Whether its request is still under way.
    pub under_way: bool,
    /// Whether it claimed for the same content.
    pub same_content: bool,
    /// How long ago it claimed.
    pub age: Duration,
    /// When the claim will be free, if nothing frees it earlier; for a request under way, as if it were served now.
    pub free_in: Duration,
}

/// An answer that is given again to whoever claims the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// Its header fields, without those of a connection.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
    /// Its body.
    pub body: Bytes,
}

impl KeptAnswer {
    /// Bytes that it takes, nearly.
    pub fn size(&self) -> usize {
        let fields = self.headers.iter().map(|(name, value)| name.len() + value.len() + 32);
        fields.sum::<usize>() + self.body.len() + 64
    }
}
