//! The member names of all open objects, to find one that comes twice.
//!
//! Names lie on one stack; an object's names are those above the height at which it opened. A small object is
//! searched through; a larger one is indexed by a hash with a random seed, so no body can choose its collisions.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::text::RawStr;

/// Up to this many names comparing them all is faster than hashing.
const SEARCHED: usize = 8;

/// A name's place: an offset into the body, or beyond its end into the unescaped names.
#[derive(Clone, Copy)]
struct Name {
    start: usize,
    length: usize,
    /// Where to look in the index; 0 for a name that isn't there.
    hash: u64,
}

#[derive(Default)]
pub(super) struct Names {
    stack: Vec<Name>,
    /// Names that were written with escapes, one after the other.
    unescaped: String,
    /// Linear probing, a power of two of slots, at most half of them full; a slot is a place in `stack` plus 1,
    /// 0 if free. The object that opened last leaves first, with all its names, so clearing a slot never breaks
    /// the chain of a name that stays.
    slots: Vec<usize>,
    indexed: usize,
    seed: RandomState,
}

impl Names {
    /// The height to give to `add` and `close` for an object that opens now.
    pub(super) fn height(&self) -> usize {
        self.stack.len()
    }

    /// Adds a name to the object that opened at height `first` and answers it unescaped; `None` if the object
    /// has it already. `start` is the offset of `raw` in `body`.
    #[inline]
    pub(super) fn add<'n>(
        &'n mut self,
        body: &'n [u8],
        first: usize,
        raw: RawStr<'n>,
        start: usize,
    ) -> Option<&'n [u8]> {
        let mut name = Name { start, length: raw.raw().len(), hash: 0 };
        if raw.has_escapes() {
            let before = self.unescaped.len();
            raw.decode_into(&mut self.unescaped);
            name = Name { start: body.len() + before, length: self.unescaped.len() - before, hash: 0 };
        }
        let count = self.stack.len() - first;
        if count < SEARCHED {
            let bytes = self.bytes(body, name);
            if self.stack[first..].iter().any(|&other| self.bytes(body, other) == bytes) {
                return None;
            }
            self.stack.push(name);
        } else {
            if count == SEARCHED {
                for place in first..self.stack.len() {
                    self.stack[place].hash = self.hash(body, first, self.stack[place]);
                    self.index(place);
                }
            }
            name.hash = self.hash(body, first, name);
            if self.is_indexed(body, first, name) {
                return None;
            }
            self.stack.push(name);
            self.index(self.stack.len() - 1);
        }
        Some(self.bytes(body, name))
    }

    /// Forgets the names of the object that opened at height `first`, and of all inside of it.
    #[inline]
    pub(super) fn close(&mut self, first: usize) {
        if self.indexed > 0 {
            for place in first..self.stack.len() {
                self.unindex(place);
            }
        }
        self.stack.truncate(first);
    }

    /// Makes ready for the next body, keeping memory for an ordinary one only.
    pub(super) fn reset(&mut self) {
        self.close(0);
        self.unescaped.clear();
        self.stack.shrink_to(256);
        self.unescaped.shrink_to(4096);
        if self.slots.len() > 1024 {
            self.slots = Vec::new();
        }
    }

    fn bytes<'n>(&'n self, body: &'n [u8], name: Name) -> &'n [u8] {
        match name.start.checked_sub(body.len()) {
            Some(start) => &self.unescaped.as_bytes()[start..start + name.length],
            None => &body[name.start..name.start + name.length],
        }
    }

    /// Mixes in the object, so that objects inside of each other with the same names don't share chains.
    fn hash(&self, body: &[u8], first: usize, name: Name) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write_usize(first);
        hasher.write(self.bytes(body, name));
        hasher.finish().max(1)
    }

    /// The slots in the order in which `hash` tries them.
    fn chain(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len().wrapping_sub(1);
        (0..self.slots.len()).map(move |step| (hash as usize).wrapping_add(step) & mask)
    }

    fn is_indexed(&self, body: &[u8], first: usize, name: Name) -> bool {
        let places = self.chain(name.hash).map(|slot| self.slots[slot]).take_while(|&place| place != 0);
        places.map(|place| place - 1).any(|place| {
            let other = self.stack[place];
            place >= first && other.hash == name.hash && self.bytes(body, other) == self.bytes(body, name)
        })
    }

    fn index(&mut self, place: usize) {
        if (self.indexed + 1) * 2 > self.slots.len() {
            self.slots = vec![0; (self.slots.len() * 2).max(64)];
            self.indexed = 0;
            for earlier in 0..place {
                self.occupy(earlier);
            }
        }
        self.occupy(place);
    }

    fn occupy(&mut self, place: usize) {
        let hash = self.stack[place].hash;
        if hash == 0 {
            return;
        }
        if let Some(slot) = self.chain(hash).find(|&slot| self.slots[slot] == 0) {
            self.slots[slot] = place + 1;
            self.indexed += 1;
        }
    }

    fn unindex(&mut self, place: usize) {
        let hash = self.stack[place].hash;
        if hash == 0 {
            return;
        }
        if let Some(slot) = self.chain(hash).find(|&slot| self.slots[slot] == place + 1) {
            self.slots[slot] = 0;
            self.indexed -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::guard::json::{Caps, FaultKind, FieldRules, Scratch, scan};

    fn kind(body: &str) -> Option<FaultKind> {
        let caps = Caps { depth: 1_000, members: u32::MAX };
        let rules = FieldRules::compile([]).unwrap();
        scan(body.as_bytes(), &caps, &rules, &mut Scratch::default(), &mut |_| {})
            .err()
            .map(|fault| fault.kind)
    }

    fn members(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("\"k{i}\":0")).collect()
    }

    /// On both sides of where searching turns into hashing, and of where the index grows.
    #[test]
    fn a_repeat_is_found_wherever_it_stands() {
        for count in [1, 7, 8, 9, 10, 31, 32, 33, 64, 65, 500] {
            let names = members(count);
            assert_eq!(kind(&format!("{{{}}}", names.join(","))), None);
            for repeated in 0..count {
                for spelt in [format!("\"k{repeated}\":1"), format!("\"\\u006b{repeated}\":1")] {
                    let body = format!("{{{},{spelt}}}", names.join(","));
                    assert_eq!(kind(&body), Some(FaultKind::DuplicateKey), "{repeated} of {count}");
                }
            }
        }
    }

    /// Inner objects of the same names, closed in the midst of the outer one, must neither hide nor feign a repeat.
    #[test]
    fn objects_inside_of_each_other_keep_their_names_apart() {
        let inner = format!("{{{}}}", members(40).join(","));
        let outer: Vec<String> = (0..40).map(|i| format!("\"k{i}\":{inner}")).collect();
        let nested = format!("{{{},\"deep\":{{{}}},\"last\":1}}", outer.join(","), outer.join(","));
        assert_eq!(kind(&nested), None);
        let repeated = nested.replace("\"last\"", "\"k3\"");
        assert_eq!(kind(&repeated), Some(FaultKind::DuplicateKey));
    }

    #[test]
    fn the_index_is_left_empty() {
        let mut names = Names::default();
        let body = "abcdefghijklmnopqrstuvwxyz";
        for _ in 0..3 {
            let outer = names.height();
            for start in 0..20 {
                assert!(
                    names
                        .add(body.as_bytes(), outer, RawStr::new(&body[start..=start], false), start)
                        .is_some()
                );
            }
            let inner = names.height();
            for start in 0..26 {
                assert!(
                    names
                        .add(body.as_bytes(), inner, RawStr::new(&body[start..=start], false), start)
                        .is_some()
                );
            }
            assert_eq!(names.indexed, 46);
            names.close(inner);
            assert_eq!(names.indexed, 20);
            names.close(outer);
            assert!(names.indexed == 0 && names.slots.iter().all(|&slot| slot == 0));
        }
    }

    /// A quadratic search would take minutes over these, at the price of one small request to the attacker.
    #[test]
    fn a_megabyte_of_names_takes_no_time_to_speak_of() {
        let escaped = |i: usize| format!("\"\\u006b{i}\":0");
        let flat = format!("{{{}}}", (0..1 << 16).map(escaped).collect::<Vec<_>>().join(","));
        let shared: String = (0..400).map(|_| format!("{{{},\"in\":", members(200).join(","))).collect();
        let shared = format!("{shared}0{}", "}".repeat(400));
        for body in [flat, shared] {
            let start = Instant::now();
            assert_eq!(kind(&body), None);
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        }
    }
}
