//! Frames: records that were written together, with their numbers and a checksum. A frame is there whole or not at all,
//! wherever a write was cut off and whatever a file held before.

use crc32fast::Hasher;
use memchr::memmem;

use super::super::codec::{Reader, put_bytes};

/// Begins each frame.
const MAGIC: [u8; 4] = *b"TGf1";

/// Magic, checksum, number of the first record, length of all, count.
const HEAD: usize = 4 + 4 + 8 + 4 + 4;

/// Tells the frames of one store from those of others.
pub(super) type StoreId = u64;

/// A frame that is being filled.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    first: u64,
    count: u32,
}

impl Frame {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEAD], first: 0, count: 0 }
    }

    pub(super) fn push(&mut self, number: u64, record: &[u8]) {
        if self.count == 0 {
            self.first = number;
        }
        self.count += 1;
        put_bytes(&mut self.bytes, record);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The number of its last record.
    pub(super) fn last(&self) -> u64 {
        (self.first + u64::from(self.count)).saturating_sub(1)
    }

    /// Its bytes, as they are written.
    pub(super) fn seal(&mut self, store: StoreId) -> &[u8] {
        let length = (self.bytes.len() - HEAD) as u32;
        if let Some(head) = self.bytes.get_mut(..HEAD) {
            head[..4].copy_from_slice(&MAGIC);
            head[8..16].copy_from_slice(&self.first.to_le_bytes());
            head[16..20].copy_from_slice(&length.to_le_bytes());
            head[20..].copy_from_slice(&self.count.to_le_bytes());
        }
        let sum = checksum(store, self.bytes.get(8..).unwrap_or_default());
        if let Some(place) = self.bytes.get_mut(4..8) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        &self.bytes
    }

    /// Empties it; the memory of a great one is given back.
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(HEAD);
        self.bytes.shrink_to(1 << 20);
        self.count = 0;
    }
}

fn checksum(store: StoreId, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&store.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// A frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The number of its first record.
    pub(super) first: u64,
    /// How many records it has.
    pub(super) count: u32,
    records: Box<[u8]>,
}

impl Found {
    /// The number of its last record.
    pub(super) fn last(&self) -> u64 {
        (self.first + u64::from(self.count)).saturating_sub(1)
    }

    /// Its records with their numbers.
    pub(super) fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut reader = Reader(&self.records);
        (self.first..).map_while(move |number| Some((number, reader.bytes()?)))
    }
}

/// The frame at the beginning of `bytes`, and how long it is.
fn read(bytes: &[u8], store: StoreId) -> Option<(Found, usize)> {
    let mut reader = Reader(bytes);
    if reader.take(4)? != MAGIC {
        return None;
    }
    let sum = u32::from_le_bytes(reader.take(4)?.try_into().ok()?);
    let mut head = reader;
    let first = head.u64()?;
    let both = head.u64()?;
    let (length, count) = (both as u32 as usize, (both >> 32) as u32);
    let records = head.take(length)?;
    let checked = reader.take(HEAD - 8 + length)?;
    (checksum(store, checked) == sum)
        .then(|| (Found { first, count, records: records.into() }, HEAD + length))
}

/// All frames in `bytes` that are whole, in the order in which they stand; and where the last of those ends that follow
/// each other without a gap from the beginning on.
pub(super) fn scan(bytes: &[u8], store: StoreId) -> (Vec<Found>, usize) {
    let (mut found, mut at, mut whole) = (Vec::new(), 0, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match read(rest, store) {
            Some((frame, length)) => {
                found.push(frame);
                if whole == at {
                    whole += length;
                }
                at += length;
            }
            // What is broken may stand before what is not.
            None => match memmem::find(&rest[1..], &MAGIC) {
                Some(next) => at += 1 + next,
                None => break,
            },
        }
    }
    (found, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = 7;

    fn frame(first: u64, records: &[&[u8]]) -> Vec<u8> {
        let mut frame = Frame::new();
        (first..).zip(records).for_each(|(number, record)| frame.push(number, record));
        frame.seal(STORE).to_vec()
    }

    fn numbers(bytes: &[u8]) -> Vec<(u64, u64)> {
        scan(bytes, STORE).0.iter().map(|found| (found.first, found.last())).collect()
    }

    /// What was cut off by a crash must count as not written, and must not hide what was written before.
    #[test]
    fn a_frame_is_whole_or_not_there_wherever_it_is_cut() {
        let (one, two) = (frame(5, &[b"a", b"bc"]), frame(7, &[b"TGf1 in a record", b""]));
        let whole = [&*one, &*two].concat();
        let (found, end) = scan(&whole, STORE);
        assert_eq!((found.len(), end), (2, whole.len()));
        let records: Vec<_> = found.iter().flat_map(Found::records).collect();
        assert_eq!(records, [(5, &b"a"[..]), (6, b"bc"), (7, b"TGf1 in a record"), (8, b"")]);
        for cut in one.len()..whole.len() {
            assert_eq!(numbers(&whole[..cut]), [(5, 6)]);
            let zeroed = [&whole[..cut], &vec![0; whole.len() - cut][..]].concat();
            if zeroed != whole {
                assert_eq!(numbers(&zeroed), [(5, 6)], "zeros from {cut} on");
            }
        }
    }

    /// A disk that lost one page must not take all that follows with it, nor pass off what is broken as whole.
    #[test]
    fn what_is_broken_or_foreign_is_passed_over() {
        let (one, two, three) = (frame(5, &[b"a", b"bc"]), frame(7, &[b"d"]), frame(8, &[b"e"]));
        for broken in 0..two.len() {
            let mut middle = two.clone();
            middle[broken] ^= 0x10;
            let bytes = [&*one, &*middle, &*three].concat();
            let (found, end) = scan(&bytes, STORE);
            assert_eq!(found.iter().map(|found| found.first).collect::<Vec<_>>(), [5, 8], "byte {broken}");
            assert_eq!(end, one.len());
        }
        assert!(scan(&one, STORE + 1).0.is_empty());
    }
}
