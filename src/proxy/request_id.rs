//! Request ids: passed on if a caller sent a sound one, made otherwise.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Field that carries a request's id.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes ids that do not repeat in this process and are not guessed from outside.
#[derive(Debug)]
pub struct RequestIds {
    keys: RandomState,
    next: AtomicU64,
}

impl RequestIds {
    /// Seeds the generator.
    pub fn new() -> Self {
        Self { keys: RandomState::new(), next: AtomicU64::new(0) }
    }

    /// The caller's `X-Request-Id` if it is 8–128 characters that are safe in any log, else a new one.
    pub fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(&X_REQUEST_ID) {
            Some(given) if sound(given.as_bytes()) => given.clone(),
            _ => self.make(),
        }
    }

    /// A new one.
    pub fn make(&self) -> HeaderValue {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let half = |salt: u8| {
            let mut hasher = self.keys.build_hasher();
            hasher.write_u64(n);
            hasher.write_u8(salt);
            hasher.finish()
        };
        let id = u128::from(half(0)) << 64 | u128::from(half(1));
        let mut text = [0u8; 32];
        for (i, digit) in text.iter_mut().enumerate() {
            let nibble = (id >> (124 - 4 * i)) as usize & 15;
            *digit = b"0123456789abcdef"[nibble];
        }
        // Hex digits are always header text.
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    }
}

fn sound(id: &[u8]) -> bool {
    (8..=128).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(id: &'static str) -> HeaderValue {
        let headers = HeaderMap::from_iter([(X_REQUEST_ID.clone(), HeaderValue::from_static(id))]);
        RequestIds::new().of(&headers)
    }

    /// An id that breaks log lines, or none, must not leave a request untraceable.
    #[test]
    fn sound_ids_pass_and_others_are_made() {
        assert_eq!(given("trace-0123456789"), "trace-0123456789");
        for bad in ["short", "with space 12345", "quote\"12345678"] {
            assert_eq!(given(bad).len(), 32, "{bad}");
        }
        let ids = RequestIds::new();
        assert_ne!(ids.make(), ids.make());
    }
}
