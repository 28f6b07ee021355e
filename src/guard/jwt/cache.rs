//! Tokens that were verified before, so that a caller who sends the same one with each request is verified once.
//!
//! A fixed number of slots, one for each token by its hash; the newest has it. So a flood of tokens costs no memory, and
//! whoever holds many pushes others out at worst. Only what was verified enters.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};

use crate::state::Timestamp;

/// Slots; a power of two. An entry takes some 200 bytes.
const SLOTS: usize = 4096;

/// What stands for a token: its SHA-256, for which nobody finds a second token.
pub type Print = [u8; 32];

/// What was found under a token.
pub struct Known<T> {
    print: Print,
    /// Number of the set of keys that it was found with.
    keys: u64,
    /// From then on it is not known any more.
    until: Timestamp,
    value: T,
}

/// Values by token.
pub struct Cache<T>(Box<[ArcSwapOption<Known<T>>]>);

impl<T: Clone> Cache<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self((0..SLOTS).map(|_| ArcSwapOption::empty()).collect())
    }

    /// What stands for a token.
    pub fn print(token: &str) -> Print {
        digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap_or_default()
    }

    /// What is known, if it was found with these keys and still holds.
    pub fn get(&self, print: &Print, keys: u64, now: Timestamp) -> Option<T> {
        let known = self.slot(print)?.load();
        let known = known.as_ref()?;
        (known.print == *print && known.keys == keys && now < known.until).then(|| known.value.clone())
    }

    /// Keeps a value until `until`.
    pub fn put(&self, print: Print, keys: u64, until: Timestamp, value: T) {
        if let Some(slot) = self.slot(&print) {
            slot.store(Some(Arc::new(Known { print, keys, until, value })));
        }
    }

    fn slot(&self, print: &Print) -> Option<&ArcSwapOption<Known<T>>> {
        let start = print.first_chunk().copied().map(u64::from_le_bytes)?;
        self.0.get(start as usize % SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    /// A token that was good once must not be good for ever, nor after its key is gone, nor stand for another.
    #[test]
    fn what_is_known_ends() {
        let cache = Cache::new();
        let [a, b] = ["a", "b"].map(Cache::<u8>::print);
        cache.put(a, 1, at(10), 7);
        assert_eq!(cache.get(&a, 1, at(9)), Some(7));
        assert_eq!(cache.get(&a, 1, at(10)), None);
        assert_eq!(cache.get(&a, 2, at(9)), None);
        assert_eq!(cache.get(&b, 1, at(9)), None);
        let mut near = a;
        near[31] ^= 1;
        assert_eq!(cache.get(&near, 1, at(9)), None, "the same slot, another token");
    }
}
