//! Whom an operator bans, frees, or lets begin anew.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::proxy::Gate;
use crate::state::reputation::{BLAMELESS, Standing};
use crate::state::{Ban, Store, StoreError, Subject};

/// A ban by hand, where `bans` is off and no time was said.
const BAN: Duration = Duration::from_secs(15 * 60);

/// Whom an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// An address; of IPv6 its /64.
    Address(IpAddr),
    /// A user, by the 16 hex digits that logs show.
    User(String),
}

/// Why an act was not done.
#[derive(Debug)]
pub enum NotDone {
    /// Behind this address are all users of a proxy.
    Trusted(IpAddr),
    /// The settings exempt this address.
    Exempt(IpAddr),
    /// No such user has been seen lately.
    Unknown(String),
    /// Whom nothing is held against can't be freed.
    NotBanned(Subject),
    /// As many are banned as can be.
    Full,
    /// The store does not answer.
    Store(StoreError),
    /// There is no such limit; these there are.
    NoSuchLimit(String, Vec<String>),
    /// The windows can't be counted.
    Windows(String),
    /// Another process takes over.
    HandedOver,
    /// The change could not be kept or put in force, so it was not made.
    NotMade(String),
}

impl NotDone {
    /// Status of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Trusted(_) | Self::Exempt(_) => StatusCode::CONFLICT,
            Self::Unknown(_) | Self::NotBanned(_) | Self::NoSuchLimit(..) => StatusCode::NOT_FOUND,
            Self::Windows(_) => StatusCode::BAD_REQUEST,
            Self::Full | Self::Store(_) | Self::HandedOver => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotMade(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted(address) => write!(
                f,
                "address: {address} is a trusted proxy's (client.trusted_proxies): a ban would shut out all who come through it."
            ),
            Self::Exempt(address) => write!(f, "address: {address} is never banned (bans.exempt)."),
            Self::Unknown(user) => write!(
                f,
                "user: {user} is no user who has asked lately or is banned; from 16 digits only those can be told."
            ),
            Self::NotBanned(subject) => write!(f, "{subject} is not banned."),
            Self::Full => f.write_str("As many are banned as there is room for."),
            Self::Store(why) => write!(f, "The store does not answer: {why}."),
            Self::NoSuchLimit(name, known) => {
                write!(f, "limit: {name:?} is no limit that counts; known: {}.", known.join(", "))
            }
            Self::Windows(why) => write!(f, "windows: {why}."),
            Self::HandedOver => {
                f.write_str("Nothing was changed: another process takes over from this one; ask again.")
            }
            Self::NotMade(why) => write!(f, "Nothing was changed: {why}."),
        }
    }
}

impl std::error::Error for NotDone {}

impl From<StoreError> for NotDone {
    fn from(why: StoreError) -> Self {
        Self::Store(why)
    }
}

impl Gate {
    /// Every ban, and whether it is in force or only makes the next one longer.
    pub fn bans(&self) -> Vec<(Arc<Ban>, bool)> {
        let now = self.clock.now();
        let bans = self.store().bans().all();
        bans.into_iter()
            .map(|ban| {
                let holds = now < ban.until;
                (ban, holds)
            })
            .collect()
    }

    /// The callers of whom is known the worst.
    pub fn reputations(&self, most: usize) -> Vec<Standing> {
        let policy = self.live().reputation;
        policy.map_or_else(Vec::new, |policy| self.reputations.worst(most, policy.half_life))
    }

    /// Bans somebody for `time`, or for as long as the first ban of the settings. Answers the ban before, and the new one.
    ///
    /// # Errors
    /// See [`NotDone`].
    pub async fn ban(
        &self,
        whom: &Whom,
        time: Option<Duration>,
        reason: &str,
    ) -> Result<(Option<Arc<Ban>>, Ban), NotDone> {
        let live = self.live();
        if let Whom::Address(address) = *whom {
            if live.client.trusts_some_of(address) {
                return Err(NotDone::Trusted(address));
            }
            if live.bans.as_ref().is_some_and(|policy| policy.spares(address)) {
                return Err(NotDone::Exempt(address));
            }
        }
        let subject = self.subject(whom)?;
        let store = self.store();
        let last = store.bans().remembered(subject);
        let since = self.clock.now();
        let usual = || live.bans.as_ref().map_or(BAN, |policy| policy.first());
        let until = since.after(time.unwrap_or_else(usual));
        let ban = Ban {
            subject,
            since,
            until,
            // An operator's ban is no strike: it makes no later one longer than it would have been.
            remembered_until: last.as_ref().map_or(until, |last| last.remembered_until.max(until)),
            level: last.as_ref().map_or(1, |last| last.level),
            reason: reason.into(),
            by_hand: true,
        };
        if !store.ban(ban.clone()).await? {
            return Err(NotDone::Full);
        }
        store.persist().await?;
        Ok((last.filter(|last| since < last.until), ban))
    }

    /// Lifts a ban, and forgets that it ever was.
    ///
    /// # Errors
    /// See [`NotDone`].
    pub async fn unban(&self, whom: &Whom) -> Result<Arc<Ban>, NotDone> {
        let subject = self.subject(whom)?;
        let lifted = self.store().lift(subject).await?.ok_or(NotDone::NotBanned(subject))?;
        self.store().persist().await?;
        Ok(lifted)
    }

    /// Sets back all that is counted of somebody alone: limits of all routes, strikes, and what is held against it. Answers who
    /// that is, what its score was, and how many counters there are.
    ///
    /// # Errors
    /// See [`NotDone`].
    pub async fn reset_counters(&self, whom: &Whom) -> Result<(Subject, u8, usize), NotDone> {
        let subject = self.subject(whom)?;
        let live = self.live();
        let routes = live.routes.iter();
        let mut draws: Vec<_> =
            routes.flat_map(|route| route.guards.limits.draws_of(subject, &route.name)).collect();
        if let Some(policy) = &live.bans {
            draws.extend(policy.counters().map(|limit| crate::state::Draw::one(limit, subject)));
        }
        draws.sort_unstable_by(|a, b| (a.limit.name(), a.subject).cmp(&(b.limit.name(), b.subject)));
        draws.dedup_by(|a, b| a.limit.name() == b.limit.name() && a.subject == b.subject);
        for draw in &draws {
            self.store().reset(std::slice::from_ref(draw)).await?;
        }
        let score =
            live.reputation.map_or(BLAMELESS, |policy| self.reputations.score(subject, policy.half_life));
        self.reputations.forgive(subject);
        self.store().persist().await?;
        Ok((subject, score, draws.len()))
    }

    fn subject(&self, whom: &Whom) -> Result<Subject, NotDone> {
        let digest = match whom {
            Whom::Address(address) => return Ok(Subject::address(*address)),
            Whom::User(digest) => digest,
        };
        let shown = format!("user:{digest}");
        let banned = self.store().bans().all().into_iter().map(|ban| ban.subject);
        let blamed = self.reputations(usize::MAX).into_iter().map(|standing| standing.subject);
        let seen = self.observer.user_shown(digest).map(Subject::user);
        let known = seen.into_iter().chain(banned).chain(blamed).find(|subject| subject.to_string() == shown);
        known.ok_or_else(|| NotDone::Unknown(digest.clone()))
    }
}
