//! An issuer that publishes its keys (a JSON Web Key Set at a URL), as the guards see it: the keys of the last answer.
//!
//! Whoever fetches them does so in the background. An answer that can't be used changes nothing; keys that are known stay
//! in force while the issuer is gone, for a bounded time. A key that is no longer published goes on for a while, so that
//! no token fails that was signed just before.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::key::Key;
use crate::state::Timestamp;
use crate::upstream::Document;

/// Keys that are no longer published and still in force, at most.
const RETIRING: usize = 64;
/// The end of time.
const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);

/// When keys are fetched, and how long they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Age at which they are fetched again.
    pub refresh: Duration,
    /// Between two fetches that tokens with unknown keys ask for, and between two that fail.
    pub cooldown: Duration,
    /// How long they hold without an answer of the issuer's.
    pub keep: Duration,
    /// How long one goes on that is no longer published.
    pub retire: Duration,
}

/// Keys in force.
pub struct Published {
    /// Tells this set from all before it.
    pub number: u64,
    /// The keys.
    pub keys: Vec<Key>,
    /// Until when each is.
    until: Vec<Timestamp>,
}

/// An issuer.
pub struct Issuer {
    /// Name in the config of the token that it signs.
    pub name: Arc<str>,
    /// Where its keys are.
    pub document: Document,
    schedule: Schedule,
    known: Arc<Known>,
    tended: AtomicBool,
}

/// What is known of an issuer; outlives a reload.
struct Known {
    published: ArcSwap<Published>,
    /// When keys came last, in microseconds.
    fetched: AtomicU64,
    /// When they were asked for last, whatever came of it.
    tried: AtomicU64,
    /// When a token asked for them last.
    asked: AtomicU64,
    /// Whether they are to be fetched at once.
    due: AtomicBool,
    /// Whether they are being fetched.
    under_way: AtomicBool,
    /// Why the last fetch failed, if it did.
    failure: ArcSwapOption<String>,
    wanted: Notify,
    /// Counts fetches that are over.
    done: watch::Sender<u64>,
}

/// How an issuer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerState {
    /// Name in the config of the token that it signs.
    pub token: Arc<str>,
    /// Keys in force.
    pub keys: usize,
    /// Whether the last fetch went well.
    pub up: bool,
}

static NOTHING: LazyLock<Arc<Published>> =
    LazyLock::new(|| Arc::new(Published { number: u64::MAX, keys: Vec::new(), until: Vec::new() }));

impl Issuer {
    /// An issuer of which no key is known yet. Its keys are fetched as soon as somebody tends it.
    pub fn new(name: Arc<str>, document: Document, schedule: Schedule) -> Self {
        let known = Known {
            published: ArcSwap::from_pointee(Published { number: 1, keys: Vec::new(), until: Vec::new() }),
            fetched: AtomicU64::new(0),
            tried: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            due: AtomicBool::new(true),
            under_way: AtomicBool::new(false),
            failure: ArcSwapOption::empty(),
            wanted: Notify::new(),
            done: watch::Sender::new(0),
        };
        Self { name, document, schedule, known: Arc::new(known), tended: AtomicBool::new(false) }
    }

    /// Takes over what is known of the same issuer under settings that were in force before.
    pub fn adopt(&mut self, running: &Self) {
        if self.name == running.name && self.document.is_same(&running.document) {
            self.known = running.known.clone();
        }
    }

    /// Whether nobody tends it yet; only the first who asks is told so.
    pub fn take_over(&self) -> bool {
        !self.tended.swap(true, Ordering::Relaxed)
    }

    /// The keys in force: none, if they are too old.
    pub fn keys(&self, now: Timestamp) -> Arc<Published> {
        let fetched = Timestamp::from_micros(self.known.fetched.load(Ordering::Acquire));
        if now.since(fetched) > self.schedule.keep {
            return NOTHING.clone();
        }
        let published = self.known.published.load_full();
        if published.until.iter().all(|until| now < *until) {
            return published;
        }
        self.known.published.rcu(|published| published.without_retired(now));
        self.known.published.load_full()
    }

    /// Whether it is time to fetch the keys; then they count as being fetched.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let known = &self.known;
        let since = |time: &AtomicU64| now.since(Timestamp::from_micros(time.load(Ordering::Acquire)));
        let failed = known.failure.load().is_some();
        let wait =
            if failed { self.schedule.cooldown.min(self.schedule.refresh) } else { self.schedule.refresh };
        let due = known.due.load(Ordering::Acquire) || since(&known.tried) >= wait;
        if due {
            // In this order: who looks meanwhile sees one or the other. Who asks from here on is served by this fetch, or
            // leaves a mark that outlives it.
            known.under_way.store(true, Ordering::SeqCst);
            known.due.store(false, Ordering::SeqCst);
        }
        due
    }

    /// Waits until somebody wants the keys.
    pub async fn wanted(&self) {
        self.known.wanted.notified().await;
    }

    /// Takes what a fetch has come to, and says so to all who wait.
    ///
    /// # Errors
    /// Why it could not be used; then the keys are as they were.
    pub fn take(&self, fetched: Result<impl AsRef<[u8]>, String>, now: Timestamp) -> Result<(), String> {
        let known = &self.known;
        let outcome = fetched.and_then(|document| Key::set(document.as_ref()));
        let outcome = match outcome {
            Ok(keys) => {
                known.published.rcu(|published| published.followed_by(&keys, now, self.schedule.retire));
                known.fetched.store(now.as_micros(), Ordering::Release);
                known.failure.store(None);
                Ok(())
            }
            Err(why) => {
                known.failure.store(Some(Arc::new(why.clone())));
                Err(why)
            }
        };
        known.tried.store(now.as_micros(), Ordering::Release);
        known.under_way.store(false, Ordering::SeqCst);
        known.done.send_modify(|count| *count += 1);
        outcome
    }

    /// How many fetches are over.
    pub fn fetches(&self) -> u64 {
        *self.known.done.borrow()
    }

    /// Has the keys fetched again, and waits for it: for a token whose key is not known. Whoever invents keys is not
    /// served more often than the cooldown allows, and all who ask at once share one fetch.
    /// Returns at once if a fetch is over that was not among `fetches`: its keys were not looked at yet.
    pub async fn renew(&self, now: Timestamp, fetches: u64) {
        let known = &self.known;
        let mut done = known.done.subscribe();
        if *done.borrow_and_update() != fetches {
            return;
        }
        if !known.is_pending() {
            let last = Timestamp::from_micros(known.asked.load(Ordering::Acquire));
            if now.since(last) >= self.schedule.cooldown {
                // In this order: who sees the time of this question sees that it is pending, too.
                known.due.store(true, Ordering::SeqCst);
                known.asked.store(now.as_micros(), Ordering::Release);
                known.wanted.notify_one();
            } else if !known.is_pending() {
                return;
            }
        }
        // The fetch has its own deadline; this one is for a gate that is about to stop.
        let _ = timeout(self.document.timeout() + Duration::from_secs(1), done.changed()).await;
    }

    /// Whether the last fetch went well.
    pub fn is_well(&self) -> bool {
        self.known.failure.load().is_none()
    }

    /// How it is.
    pub fn state(&self, now: Timestamp) -> IssuerState {
        IssuerState { token: self.name.clone(), keys: self.keys(now).keys.len(), up: self.is_well() }
    }

    /// What is wrong with it, in a sentence, if anything is.
    pub fn ailment(&self, now: Timestamp) -> Option<String> {
        let failure = self.known.failure.load();
        let (why, name, host) = (failure.as_ref()?, &self.name, self.document.host());
        Some(match self.keys(now).keys.len() {
            0 => format!("No key of the token {name} is known: what {host} answers {why}."),
            keys => format!(
                "The keys of the token {name} can't be renewed: what {host} answers {why}. {keys} stay in force for now."
            ),
        })
    }
}

impl Known {
    fn is_pending(&self) -> bool {
        self.due.load(Ordering::SeqCst) || self.under_way.load(Ordering::SeqCst)
    }
}

impl Published {
    /// The keys once the issuer publishes `keys`.
    fn followed_by(&self, keys: &[Key], now: Timestamp, retire: Duration) -> Self {
        let mut next = Self { number: self.number, keys: keys.to_vec(), until: vec![NEVER; keys.len()] };
        let before = self.keys.iter().zip(&self.until);
        let gone = before
            .filter(|(key, _)| !keys.contains(key))
            .map(|(key, until)| (key, (*until).min(now.after(retire))));
        for (key, until) in gone.filter(|(_, until)| now < *until).take(RETIRING) {
            next.keys.push(key.clone());
            next.until.push(until);
        }
        if next.keys != self.keys {
            next.number += 1;
        }
        next
    }

    fn without_retired(&self, now: Timestamp) -> Self {
        let left = self.keys.iter().zip(&self.until).filter(|(_, until)| now < **until);
        let (keys, until) = left.map(|(key, until)| (key.clone(), *until)).unzip();
        Self { number: self.number + 1, keys, until }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Signer;
    use super::*;
    use crate::upstream::{Resolver, Trust};

    const HOUR: u64 = 3600;

    fn issuer() -> Issuer {
        let trust = Trust { verify: true, ca: None };
        let document = Document::build(
            "http://127.0.0.1:1/jwks.json",
            &trust,
            Resolver::default(),
            Duration::from_secs(1),
        );
        let schedule = Schedule {
            refresh: Duration::from_secs(600),
            cooldown: Duration::from_secs(10),
            keep: Duration::from_secs(24 * HOUR),
            retire: Duration::from_secs(300),
        };
        Issuer::new("main".into(), document.expect("a document"), schedule)
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros((1_790_000_000 + second) * 1_000_000)
    }

    fn set(signers: &[&Signer]) -> Result<String, String> {
        Ok(json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string())
    }

    fn dead() -> Result<String, String> {
        Err("nothing in time".to_owned())
    }

    /// An issuer that is down must not lock everyone out at once, nor have a key that it took back believed for ever.
    #[test]
    fn keys_outlive_their_issuer_for_a_bounded_time() {
        let (issuer, a) = (issuer(), Signer::ed25519("a"));
        let count = |second| issuer.keys(at(second)).keys.len();
        assert_eq!(count(0), 0);
        issuer.take(set(&[&a]), at(0)).expect("taken");
        assert!(issuer.take(dead(), at(600)).is_err());
        assert!(issuer.take(Ok("<html>"), at(700)).is_err());
        assert!(issuer.take(Ok(r#"{"keys":[]}"#), at(800)).is_err(), "no issuer has no keys");
        assert_eq!((count(24 * HOUR), count(24 * HOUR + 1)), (1, 0));
        assert!(issuer.ailment(at(900)).expect("it fails").contains("127.0.0.1:1"));
        issuer.take(set(&[&a]), at(25 * HOUR)).expect("taken");
        assert_eq!((count(25 * HOUR), issuer.ailment(at(25 * HOUR))), (1, None));
    }

    /// Tokens that were signed just before a rotation are still on their way when the key is gone.
    #[test]
    fn keys_that_are_gone_go_on_for_a_while() {
        let (issuer, a, b) = (issuer(), Signer::ed25519("a"), Signer::ed25519("b"));
        let keys = |second| issuer.keys(at(second));
        issuer.take(set(&[&a]), at(0)).expect("taken");
        let before = keys(0).number;
        issuer.take(set(&[&a]), at(600)).expect("taken");
        assert_eq!(keys(600).number, before, "the same keys: what was verified with them stays verified");
        issuer.take(set(&[&b]), at(1200)).expect("taken");
        issuer.take(set(&[&b]), at(1300)).expect("taken");
        assert_eq!((keys(1499).keys.len(), keys(1500).keys.len()), (2, 1));
        assert!(keys(1499).number > before && keys(1500).number > before);
        issuer.take(set(&[&a, &b]), at(1600)).expect("taken");
        assert_eq!(keys(9000).keys.len(), 2, "a key that came back does not retire");
    }

    /// Fetched too seldom, new keys are not known; too often, the gate is a burden to its issuer.
    #[test]
    fn keys_are_fetched_when_it_is_time() {
        let (issuer, a) = (issuer(), Signer::ed25519("a"));
        let due = |second| issuer.is_due(at(second));
        assert!(due(0));
        issuer.take(set(&[&a]), at(0)).expect("taken");
        assert_eq!([due(1), due(599), due(600)], [false, false, true]);
        assert!(issuer.take(dead(), at(600)).is_err());
        assert_eq!([due(601), due(609), due(610)], [false, false, true]);
    }

    /// A flood of invented keys must not become a flood towards the issuer; and those who wait must be told.
    #[tokio::test]
    async fn unknown_keys_are_asked_for_once_in_a_while() {
        let (issuer, a) = (Arc::new(issuer()), Signer::ed25519("a"));
        assert!(issuer.is_due(at(0)));
        issuer.take(set(&[&a]), at(0)).expect("taken");
        let ask = |second| {
            let issuer = issuer.clone();
            tokio::spawn(async move { issuer.renew(at(second), issuer.fetches()).await })
        };
        let waiting = [ask(20), ask(20), ask(21)];
        issuer.wanted().await;
        assert!(issuer.is_due(at(21)));
        issuer.take(set(&[&a]), at(21)).expect("taken");
        for waits in waiting {
            waits.await.expect("no panic");
        }
        // Asked for while an answer is on its way: that may be older than the key.
        assert!(issuer.is_due(at(40)) || issuer.is_due(at(621)));
        issuer.known.due.store(true, Ordering::SeqCst);
        issuer.take(set(&[&a]), at(25)).expect("taken");
        assert!(issuer.is_due(at(25)), "the question outlives the answer");
        issuer.take(set(&[&a]), at(25)).expect("taken");
        ask(29).await.expect("answered at once");
        assert!(!issuer.is_due(at(29)));
        let waits = ask(31);
        issuer.wanted().await;
        assert!(issuer.is_due(at(31)));
        assert!(issuer.take(dead(), at(31)).is_err());
        waits.await.expect("told of a failure, too");
    }
}
