//! Bans (L4) and what leads to them: refusals in a row, and logins that fail again and again (S11).
//!
//! A ban must not be something that a page can bring upon its visitor. So a request that a foreign page made is no strike,
//! whatever it was refused for, and foreign origins and hosts are none of the reasons.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::cidr::Networks;
use super::{Fault, Reason, Refusal};
use crate::config::{Rate, Span};
use crate::state::{Ban, LimitSpec, Subject, Timestamp, Window};

/// Who is banned, and for how long, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Refusals that bring a ban.
    pub strikes: Rate,
    /// Codes of the refusals that count.
    pub reasons: Vec<String>,
    /// Answers of the app that refuse a login, and bring a ban.
    pub login_failures: Rate,
    /// The first ban.
    pub first: Span,
    /// The longest: each ban lasts twice as long as the one before.
    pub longest: Span,
    /// How long after its end a ban makes the next one longer.
    pub remember: Span,
    /// Networks that are never banned.
    pub exempt: Vec<String>,
}

/// The same, as run.
#[derive(Debug)]
pub struct Policy {
    strikes: LimitSpec,
    logins: LimitSpec,
    reasons: Vec<Reason>,
    first: Duration,
    longest: Duration,
    remember: Duration,
    exempt: Networks,
}

impl Policy {
    /// Builds the policy.
    ///
    /// # Errors
    /// Names the key of what can't be meant.
    pub fn build(config: &Config) -> Result<Self, Fault> {
        let limit = |key: &'static str, name, rate: Rate| {
            let window = Window { length: rate.window, max: rate.max };
            LimitSpec::new(name, [window]).map_err(|why| Fault::new(key, why.to_string()))
        };
        let (first, longest) = (config.first.duration(), config.longest.duration());
        if first.is_zero() || longest < first {
            let message = "must be more than 0, and no longer than bans.longest; or write `bans: off`";
            return Err(Fault::new("bans.first", message));
        }
        let reason = |code: &String| {
            let known = Reason::ALL.iter().copied().find(|reason| reason.code() == code);
            let harmful = |reason: &Reason| reason.may_strike();
            known.filter(harmful).ok_or_else(|| {
                let why = match known {
                    None => "is no reason of a refusal",
                    Some(_) => "can't bring a ban: it is no fault of the client, or a page could bring it upon a visitor",
                };
                Fault::new("bans.reasons", format!("{code:?} {why}"))
            })
        };
        Ok(Self {
            strikes: limit("bans.strikes", "strikes", config.strikes)?,
            logins: limit("bans.login_failures", "login failures", config.login_failures)?,
            reasons: config.reasons.iter().map(reason).collect::<Result<_, _>>()?,
            first,
            longest,
            remember: config.remember.duration(),
            exempt: Networks::build("bans.exempt", &config.exempt)?,
        })
    }

    /// What counts towards a ban, if a refusal for `reason` does.
    pub fn strikes(&self, reason: Reason) -> Option<&LimitSpec> {
        self.reasons.contains(&reason).then_some(&self.strikes)
    }

    /// What failed logins count towards.
    pub const fn logins(&self) -> &LimitSpec {
        &self.logins
    }

    /// All that counts towards a ban.
    pub fn counters(&self) -> [&LimitSpec; 2] {
        [&self.strikes, &self.logins]
    }

    /// How long the first ban lasts.
    pub const fn first(&self) -> Duration {
        self.first
    }

    /// Whether an address is never banned.
    pub fn spares(&self, address: IpAddr) -> bool {
        self.exempt.contains(address)
    }

    /// The ban of `subject` that begins at `now`; `last` is the one that is still remembered.
    pub fn sentence(&self, subject: Subject, reason: Reason, last: Option<&Ban>, now: Timestamp) -> Ban {
        let level = last.map_or(0, |ban| ban.level).saturating_add(1);
        let doubled = self.first.saturating_mul(1 << u32::from(level - 1).min(30));
        let until = now.after(doubled.min(self.longest));
        Ban {
            subject,
            since: now,
            until,
            remembered_until: until.after(self.remember),
            level,
            reason: reason.code().into(),
            by_hand: false,
        }
    }
}

/// What somebody is told who is banned at `now`.
pub fn refusal(ban: &Ban, now: Timestamp) -> Refusal {
    let detail = if ban.by_hand {
        "An operator has banned this caller."
    } else {
        "Too many requests of this caller were refused; it is not served for a while."
    };
    Refusal::new(Reason::Banned, detail, "bans").after(ban.until.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::client::SubjectId;

    fn config() -> Config {
        let minutes = |n: u64| Span(Duration::from_secs(n * 60));
        Config {
            strikes: Rate { max: 5, window: Duration::from_secs(600) },
            reasons: vec!["rate_limited".into()],
            login_failures: Rate { max: 20, window: Duration::from_secs(600) },
            first: minutes(15),
            longest: minutes(24 * 60),
            remember: minutes(24 * 60),
            exempt: vec!["10.0.0.0/8".into()],
        }
    }

    /// Whoever comes back to the same mischief must wait longer each time, but not for ever.
    #[test]
    fn each_ban_lasts_twice_as_long_up_to_the_longest() {
        let policy = Policy::build(&config()).expect("policy");
        let subject = Subject::user(SubjectId(1));
        let mut now = Timestamp::from_micros(1);
        let mut last: Option<Ban> = None;
        let mut minutes = Vec::new();
        for _ in 0..40 {
            let ban = policy.sentence(subject, Reason::RateLimited, last.as_ref(), now);
            minutes.push(ban.until.since(ban.since).as_secs() / 60);
            now = ban.until;
            last = Some(ban);
        }
        assert_eq!(minutes[..9], [15, 30, 60, 120, 240, 480, 960, 1440, 1440]);
        assert!(minutes[8..].iter().all(|length| *length == 1440));
    }

    /// What nobody can be blamed for, and what a page can do in its visitor's name, must not shut anyone out.
    #[test]
    fn some_reasons_never_bring_a_ban() {
        for code in
            ["origin_denied", "host_denied", "upstream_failed", "banned", "overloaded", "no_such_code"]
        {
            let bad = Config { reasons: vec![code.into()], ..config() };
            let fault = Policy::build(&bad).expect_err(code);
            assert!(fault.key == "bans.reasons" && fault.message.contains(code), "{fault}");
        }
        let short = Config { first: Span(Duration::from_secs(90_000)), ..config() };
        assert_eq!(Policy::build(&short).expect_err("longer than the longest").key, "bans.first");
        let policy = Policy::build(&config()).expect("policy");
        assert!(
            policy.strikes(Reason::RateLimited).is_some() && policy.strikes(Reason::InvalidJson).is_none()
        );
        assert!(policy.spares([10, 1, 2, 3].into()) && !policy.spares([11, 1, 2, 3].into()));
    }
}
