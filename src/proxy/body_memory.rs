//! How much memory the bodies of all requests together may hold while they are inspected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all requests share.
#[derive(Debug)]
pub struct BodyMemory {
    held: AtomicU64,
    max: u64,
}

/// What one request holds, until dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<BodyMemory>,
    bytes: u64,
}

impl BodyMemory {
    /// At most `max` bytes.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), max })
    }

    /// Bytes that all hold together.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The most that all may hold together.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// A share of nothing yet.
    pub fn share(self: &Arc<Self>) -> Held {
        Held { memory: self.clone(), bytes: 0 }
    }
}

impl Held {
    /// The most that all may hold together.
    pub fn max(&self) -> u64 {
        self.memory.max
    }

    /// Takes `bytes` more; false, and nothing taken, if there is no room.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let memory = &self.memory;
        let grown = |held: u64| held.checked_add(bytes).filter(|held| *held <= memory.max);
        let taken = memory.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many large bodies at once would otherwise take all memory there is; what is done must be given back.
    #[test]
    fn shares_are_bounded_and_given_back() {
        let memory = BodyMemory::new(10);
        let (mut a, mut b) = (memory.share(), memory.share());
        assert!(a.grow(6) && b.grow(4));
        assert!(!b.grow(1));
        drop(a);
        assert!(b.grow(6));
        assert!(!b.grow(u64::MAX));
        drop(b);
        assert_eq!(memory.held(), 0);
    }
}
