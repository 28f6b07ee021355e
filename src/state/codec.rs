//! Numbers and subjects as bytes, for what is kept on disk. Little-endian; varints are LEB128.

use super::subject::{Kind, Subject};

pub(super) fn put_u64(into: &mut Vec<u8>, value: u64) {
    into.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u128(into: &mut Vec<u8>, value: u128) {
    into.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

pub(super) fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

pub(super) fn put_subject(into: &mut Vec<u8>, subject: Subject) {
    into.push(subject.kind().code());
    match subject.kind() {
        Kind::AddressV4 | Kind::NetworkV4 => into.extend_from_slice(&(subject.bits() as u32).to_le_bytes()),
        Kind::Global | Kind::Rest => {}
        _ => put_u128(into, subject.bits()),
    }
}

/// Reads what was put, in the same order; `None` wherever it ends too early or is not what was put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.varint()?;
        self.take(usize::try_from(count).ok()?)
    }

    pub(super) fn subject(&mut self) -> Option<Subject> {
        let kind = Kind::of_code(self.u8()?)?;
        let bits = match kind {
            Kind::AddressV4 | Kind::NetworkV4 => self.array().map(u32::from_le_bytes)?.into(),
            Kind::Global | Kind::Rest => 0,
            _ => self.u128()?,
        };
        Some(Subject::of(kind, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A count that came back as another would free who is at a limit, or lock out who is not.
    #[test]
    fn what_is_put_is_read_and_nothing_else() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let subjects = Kind::ALL.map(|kind| Subject::of(kind, 0xc0a8_0001));
        let mut bytes = Vec::new();
        for number in numbers {
            put_varint(&mut bytes, number);
            put_u64(&mut bytes, number);
        }
        subjects.iter().for_each(|subject| put_subject(&mut bytes, *subject));
        put_bytes(&mut bytes, b"reason");
        let read = |bytes| {
            let mut reader = Reader(bytes);
            for number in numbers {
                assert_eq!((reader.varint()?, reader.u64()?), (number, number));
            }
            for subject in subjects {
                let expected = if subject.kind() == Kind::Global || subject.kind() == Kind::Rest {
                    Subject::of(subject.kind(), 0)
                } else {
                    subject
                };
                assert_eq!(reader.subject()?, expected);
            }
            assert_eq!(reader.bytes()?, b"reason");
            reader.is_empty().then_some(())
        };
        assert!(read(&bytes).is_some());
        assert!((0..bytes.len()).all(|end| read(&bytes[..end]).is_none()));
        assert_eq!(Reader(&[0xff; 11]).varint(), None, "a varint has an end");
    }
}
