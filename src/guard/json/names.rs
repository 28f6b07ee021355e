//! The member names of all open objects, to find one that comes twice.
//!
//! Names lie on one stack; an object's names are those above the height at which it opened. A small object is
//! searched through; a larger one is indexed by a hash with a random seed, so no body can choose its collisions.
//!
//! A name that a rule names lies here in its folded spelling, so that two spellings of it meet. All others lie here as
//! written: a map of words may hold both `may` and `May`.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::text::RawStr;

/// Up to this many names comparing them all is faster than hashing.
const SEARCHED: usize = 8;

/// A name's place: an offset into the body, or beyond its end into the names kept here.
#[derive(Clone, Copy)]
pub(in crate::guard) struct Name {
    start: usize,
    length: usize,
    /// Where to look in the index; 0 for a name that isn't there.
    hash: u64,
}

#[derive(Default)]
pub(in crate::guard) struct Names {
    stack: Vec<Name>,
    /// Names that were written otherwise than they count, one after the other.
    respelt: String,
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

    /// The name that stands as `raw` at offset `start` of `body`, unescaped.
    #[inline]
    pub(super) fn read(&mut self, body: &[u8], raw: RawStr<'_>, start: usize) -> Name {
        if !raw.has_escapes() {
            return Name { start, length: raw.raw().len(), hash: 0 };
        }
        self.keep(body, |respelt| raw.decode_into(respelt))
    }

    /// A name that is written in `body` otherwise than it counts: `write` appends how it counts.
    pub(in crate::guard) fn keep(&mut self, body: &[u8], write: impl FnOnce(&mut String)) -> Name {
        let before = self.respelt.len();
        write(&mut self.respelt);
        Name { start: body.len() + before, length: self.respelt.len() - before, hash: 0 }
    }

    /// Adds a name to the object that opened at height `first`; false if the object has it already.
    #[inline]
    #[must_use]
    pub(in crate::guard) fn add(&mut self, body: &[u8], first: usize, mut name: Name) -> bool {
        let count = self.stack.len() - first;
        if count < SEARCHED {
            let bytes = self.bytes(body, name);
            if self.stack[first..].iter().any(|&other| self.bytes(body, other) == bytes) {
                return false;
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
                return false;
            }
            self.stack.push(name);
            self.index(self.stack.len() - 1);
        }
        true
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
    pub(in crate::guard) fn reset(&mut self) {
        self.close(0);
        self.respelt.clear();
        self.stack.shrink_to(256);
        self.respelt.shrink_to(4096);
        if self.slots.len() > 1024 {
            self.slots = Vec::new();
        }
    }

    /// The name as it counts.
    #[inline]
    pub(super) fn bytes<'n>(&'n self, body: &'n [u8], name: Name) -> &'n [u8] {
        match name.start.checked_sub(body.len()) {
            Some(start) => &self.respelt.as_bytes()[start..start + name.length],
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
    use crate::guard::json::{Caps, FaultKind, FieldRules, Rule, Scratch, scan};

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

    /// A parser that ignores case obeys one of the two, and not the one that was inspected; a map of words is no such
    /// pair.
    #[test]
    fn a_name_in_two_cases_is_refused_where_a_rule_names_it() {
        let rules = FieldRules::compile([Rule::text("/messages/*/task", 0)]).unwrap();
        let kind = |body: &str| {
            let caps = Caps::default();
            let outcome = scan(body.as_bytes(), &caps, &rules, &mut Scratch::default(), &mut |_| {});
            outcome.err().map(|fault| fault.kind)
        };
        let twice = Some(FaultKind::DuplicateKey);
        assert_eq!(kind(r#"{"messages":[],"Messages":[]}"#), twice);
        for (first, second) in
            [("task", "TASK"), ("Task", "tasK"), ("ta\u{17f}k", "task"), ("task", r"TAS\u212a")]
        {
            for between in ["", &format!("{},", members(20).join(","))] {
                let body = format!(r#"{{"messages":[{{"{first}":1,{between}"{second}":2}}]}}"#);
                assert_eq!(kind(&body), twice, "{body}");
                let elsewhere = format!(r#"{{"words":{{"{first}":1,{between}"{second}":2}}}}"#);
                assert_eq!(kind(&elsewhere), None, "{elsewhere}");
            }
        }
        assert_eq!(kind(r#"{"may":1,"May":2,"messages":{"a":1,"A":{"task":1},"B":{"TASK":2}}}"#), None);
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
                assert!(names.add(body.as_bytes(), outer, Name { start, length: 1, hash: 0 }));
            }
            let inner = names.height();
            for start in 0..26 {
                assert!(names.add(body.as_bytes(), inner, Name { start, length: 1, hash: 0 }));
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
