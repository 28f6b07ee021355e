//! Bans that all gates share. Each keeps its own copy, which requests look at; the keeper brings in what others change.
//!
//! A change that is made here is in force here at once, and stays so until the server has put it in its place among the
//! others': what is heard of before must not undo it. When the server has lost its data, the gates tell it theirs.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{FromRedisValue, Value};

use super::super::Store;
use super::super::bans::Ban;
use super::super::clock::Timestamp;
use super::super::subject::Subject;
use super::Shared;
use super::keeper::Beat;
use super::link::{Failure, Line};
use super::script::{BAN, CHANGES, Call};
use super::server_time::ServerTime;

/// Changes asked for at once.
const PAGE: usize = 1000;

/// For how long it is known that a ban was lifted, so that no gate that missed it brings the ban back.
const LIFTED: Duration = Duration::from_secs(24 * 3600);

/// For the answer about them.
const PATIENCE: Duration = Duration::from_secs(1);

/// A change that was made here.
enum Own {
    /// The server has yet to be told. The number tells it from a later one.
    Pending(u64, Option<Ban>),
    /// It has its place among the others'.
    Placed(u64),
}

/// What is known of the changes.
pub(super) struct SharedBans {
    /// Random: names this gate among those that live.
    gate: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    own: HashMap<Subject, Own>,
    serial: u64,
    /// The server's data, once heard of.
    epoch: Option<String>,
    /// Place of the last change that was heard of.
    heard: u64,
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

impl Default for SharedBans {
    fn default() -> Self {
        Self { gate: random(), state: Mutex::default() }
    }
}

impl SharedBans {
    pub(super) fn gate(&self) -> u64 {
        self.gate
    }

    /// What an empty server is to call its data: never the same twice.
    pub(super) fn new_epoch() -> String {
        format!("{:016x}", random())
    }
}

impl Shared {
    /// Tells the server that `subject` is banned, or free; later, if it is away.
    pub(super) async fn tell(&self, subject: Subject, ban: Option<Ban>) {
        let serial = {
            let mut state = self.bans.state.lock();
            state.serial += 1;
            let serial = state.serial;
            state.own.insert(subject, Own::Pending(serial, ban.clone()));
            serial
        };
        let (packed, lasts) = self.packed(ban.as_ref());
        let keys = [self.keys.ban(subject), self.keys.changes()];
        let args: [&[u8]; 4] = [&subject.to_bytes(), &packed, lasts.as_bytes(), b"0"];
        let call = Call { script: &BAN, keys: &keys, args: &args };
        if let Ok(answer) = self.link.call(&call, self.config.timeout).await {
            self.note_placed(subject, serial, answer);
        }
    }

    /// Tells what could not be told before.
    pub(super) async fn tell_pending(&self, line: &Arc<Line>) {
        let pending: Vec<_> = {
            let state = self.bans.state.lock();
            let pending = state.own.iter().filter_map(|(subject, own)| match own {
                Own::Pending(serial, ban) => Some((*subject, *serial, ban.clone())),
                Own::Placed(_) => None,
            });
            pending.collect()
        };
        for (subject, serial, ban) in pending {
            match self.put(line, subject, ban.as_ref(), false).await {
                Ok(answer) => self.note_placed(subject, serial, answer),
                Err(_) => return,
            }
        }
    }

    async fn put(
        &self,
        line: &Arc<Line>,
        subject: Subject,
        ban: Option<&Ban>,
        only_new: bool,
    ) -> Result<Value, Failure> {
        let (packed, lasts) = self.packed(ban);
        let keys = [self.keys.ban(subject), self.keys.changes()];
        let only_new: &[u8] = if only_new { b"1" } else { b"0" };
        let args: [&[u8]; 4] = [&subject.to_bytes(), &packed, lasts.as_bytes(), only_new];
        self.link.call_by(line, &Call { script: &BAN, keys: &keys, args: &args }, PATIENCE).await
    }

    fn note_placed(&self, subject: Subject, serial: u64, answer: Value) {
        let Ok((place, _)) = <(u64, Option<Vec<u8>>)>::from_redis_value(answer) else { return };
        let mut state = self.bans.state.lock();
        let heard = state.heard;
        match state.own.get_mut(&subject) {
            Some(Own::Pending(own, _)) if *own != serial => {}
            Some(own) if place > heard => *own = Own::Placed(place),
            _ => _ = state.own.remove(&subject),
        }
    }

    /// Brings in what has changed since the last beat.
    pub(super) async fn hear(&self, line: &Arc<Line>, beat: &Beat) -> Result<(), Failure> {
        let (known, heard) = {
            let state = self.bans.state.lock();
            (state.epoch.as_ref() == Some(&beat.epoch), state.heard)
        };
        if !known || beat.last_change < heard {
            return self.hear_all(line, beat).await;
        }
        if beat.last_change > heard {
            self.hear_since(line, heard).await?;
        }
        Ok(())
    }

    /// Brings in every ban there is. A server that has lost some is told first what is known here.
    pub(super) async fn hear_all(&self, line: &Arc<Line>, beat: &Beat) -> Result<(), Failure> {
        let lost = {
            let mut state = self.bans.state.lock();
            let other = state.epoch.as_ref().is_some_and(|epoch| *epoch != beat.epoch);
            let lost = other || beat.last_change < state.heard;
            state.epoch = Some(beat.epoch.clone());
            state.heard = 0;
            lost
        };
        if lost {
            for ban in self.local.bans().all() {
                self.put(line, ban.subject, Some(&ban), true).await?;
            }
        }
        let listed = self.hear_since(line, 0).await?;
        let state = self.bans.state.lock();
        for ban in self.local.bans().all() {
            if !listed.contains(&ban.subject) && !state.own.contains_key(&ban.subject) {
                self.local.bans().remove(ban.subject);
            }
        }
        Ok(())
    }

    /// Brings in the changes after a place; answers whom they are about.
    async fn hear_since(
        &self,
        line: &Arc<Line>,
        mut place: u64,
    ) -> Result<std::collections::HashSet<Subject>, Failure> {
        let mut subjects = std::collections::HashSet::new();
        loop {
            let (keys, bans) = ([self.keys.changes()], self.keys.bans());
            let (since, page) = (place.to_string(), PAGE.to_string());
            let args: [&[u8]; 3] = [since.as_bytes(), page.as_bytes(), &bans];
            let call = Call { script: &CHANGES, keys: &keys, args: &args };
            let answer = self.link.call_by(line, &call, PATIENCE).await?;
            let changes =
                <Vec<(Vec<u8>, u64, Vec<u8>)>>::from_redis_value(answer).map_err(|_| Failure::Unknown)?;
            for (subject, at, packed) in &changes {
                place = place.max(*at);
                let bytes = subject.as_slice().try_into().ok();
                if let Some(subject) = bytes.and_then(|bytes: [u8; 17]| Subject::from_bytes(bytes)) {
                    subjects.insert(subject);
                    self.apply(subject, *at, packed);
                }
            }
            let mut state = self.bans.state.lock();
            state.heard = state.heard.max(place);
            state.own.retain(|_, own| !matches!(own, Own::Placed(own) if *own <= place));
            if changes.len() < PAGE {
                return Ok(subjects);
            }
        }
    }

    fn apply(&self, subject: Subject, place: u64, packed: &[u8]) {
        // Held until the change is in force, so that one made here meanwhile comes after it.
        let state = self.bans.state.lock();
        match state.own.get(&subject) {
            Some(Own::Pending(..)) => return,
            Some(Own::Placed(own)) if place < *own => return,
            _ => {}
        }
        match unpack(subject, packed, &self.time) {
            Some(ban) => _ = self.local.bans().put(ban),
            None => _ = self.local.bans().remove(subject),
        }
    }

    /// A ban as the server keeps it, and for how many milliseconds; empty for none.
    fn packed(&self, ban: Option<&Ban>) -> (Vec<u8>, String) {
        let Some(ban) = ban else { return (Vec::new(), LIFTED.as_millis().to_string()) };
        let lasts = ban.remembered_until.since(self.time.local()).as_millis().max(1);
        (pack(ban, &self.time), lasts.to_string())
    }
}

/// Since when, until when and how long remembered, by the server's clock; level; whether by hand; why.
fn pack(ban: &Ban, time: &ServerTime) -> Vec<u8> {
    let mut packed = Vec::with_capacity(26 + ban.reason.len());
    for at in [ban.since, ban.until, ban.remembered_until] {
        packed.extend_from_slice(&time.to_server(at).as_micros().to_le_bytes());
    }
    packed.extend([ban.level, u8::from(ban.by_hand)]);
    packed.extend_from_slice(ban.reason.as_bytes());
    packed
}

/// What [`pack`] was given, by this gate's clock; `None` for any other bytes.
fn unpack(subject: Subject, mut packed: &[u8], time: &ServerTime) -> Option<Ban> {
    let mut at = || {
        let micros = u64::from_le_bytes(*packed.split_off(..8)?.first_chunk()?);
        Some(time.to_local(Timestamp::from_micros(micros)))
    };
    let (since, until, remembered_until) = (at()?, at()?, at()?);
    let (level, by_hand) = (*packed.split_off_first()?, *packed.split_off_first()? == 1);
    let reason = std::str::from_utf8(packed).ok()?.into();
    Some(Ban { subject, since, until, remembered_until, level, reason, by_hand })
}
