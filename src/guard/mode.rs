//! Shadow mode (V8): guards that only tell what they would have refused.
//!
//! What protects the gate itself is no matter of mode: hygiene, paths, caps on connections and bodies, deadlines, memory,
//! breakers. Nor is maintenance, which somebody switched on.

use std::sync::{Arc, Mutex};

use schemars::JsonSchema;
use serde::Deserialize;

use super::Refusal;
use super::sanitize::Sightings;
pub use super::trail::Noted;

/// What the guards of a route do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They refuse.
    Enforce,
    /// All of them only tell what they would have refused.
    Observe,
}

macro_rules! guards {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A guard that may only observe, by the key that sets it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum Guard { $($(#[$doc])* $variant,)* }

        impl Guard {
            /// Every one.
            pub const ALL: &'static [Guard] = &[$(Guard::$variant,)*];

            /// Its name in the config.
            pub const fn name(self) -> &'static str {
                match self { $(Guard::$variant => $name,)* }
            }
        }
    };
}

guards! {
    /// Hosts that are served.
    Hosts = "hosts",
    /// Client addresses.
    Addresses = "addresses",
    /// Caps on heads.
    Caps = "caps",
    /// Origin and referer.
    Origin = "origin",
    /// Preflights.
    Cors = "cors",
    /// Shape, coding and charset of JSON and forms.
    Json = "json",
    /// Files that are sent.
    Uploads = "uploads",
    /// Length of texts.
    Text = "text",
    /// What texts hold.
    Sanitize = "sanitize",
    /// Messages that come twice.
    Duplicates = "duplicates",
    /// The same call again and again.
    Loops = "loops",
    /// Rate limits.
    Limits = "limits",
    /// Requests in flight.
    Concurrency = "concurrency",
}

/// What comes of a body while it streams, for when the request is written down.
#[derive(Debug, Default)]
pub struct Late {
    /// What was not refused because its guard only observes.
    pub noted: Noted,
    /// What was found in its texts.
    pub seen: Sightings,
}

/// The same, shared with who hands the body on.
pub type NotedLate = Arc<Mutex<Late>>;

/// The guards of a route that only observe: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed(u16);

impl Observed {
    /// All guards with [`Mode::Observe`], else those that are listed.
    pub fn new(mode: Mode, listed: &[Guard]) -> Self {
        let chosen = match mode {
            Mode::Observe => Guard::ALL,
            Mode::Enforce => listed,
        };
        Self(chosen.iter().fold(0, |bits, guard| bits | bit(*guard)))
    }

    /// Whether a guard only observes.
    pub const fn contains(self, guard: Guard) -> bool {
        self.0 & bit(guard) != 0
    }

    /// Those that only observe.
    pub fn iter(self) -> impl Iterator<Item = Guard> {
        Guard::ALL.iter().copied().filter(move |guard| self.contains(*guard))
    }

    /// Lets the refusal of a guard that only observes pass, and notes it: then there is `None` to go on with.
    ///
    /// # Errors
    /// The refusal of a guard that enforces.
    pub fn judge<T>(
        self,
        guard: Guard,
        answer: Result<T, Refusal>,
        noted: &mut Noted,
    ) -> Result<Option<T>, Refusal> {
        let observes = self.contains(guard);
        let goes_on = match noted.trail_mut() {
            Some(trail) => trail.judged(guard, observes, answer.as_ref().err()),
            None => observes,
        };
        match answer {
            Ok(granted) => Ok(Some(granted)),
            Err(refusal) if goes_on => {
                noted.push(refusal);
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        }
    }
}

const fn bit(guard: Guard) -> u16 {
    1 << guard as u16
}

#[cfg(test)]
mod tests {
    use super::super::Reason;
    use super::*;

    /// A guard that observes must refuse nothing, and one that was not named must go on refusing.
    #[test]
    fn only_what_observes_lets_pass() {
        let refusal = || Refusal::new(Reason::HostDenied, "no", "hosts");
        for observing in Guard::ALL {
            let observed = Observed::new(Mode::Enforce, &[*observing]);
            assert_eq!(observed.iter().collect::<Vec<_>>(), [*observing]);
            for guard in Guard::ALL {
                let mut noted = Noted::new();
                let judged = observed.judge::<()>(*guard, Err(refusal()), &mut noted);
                match guard == observing {
                    true => assert_eq!((judged, &*noted), (Ok(None), &vec![refusal()]), "{guard:?}"),
                    false => assert_eq!((judged, &*noted), (Err(refusal()), &vec![]), "{guard:?}"),
                }
            }
        }
        let all = Observed::new(Mode::Observe, &[]);
        assert!(Guard::ALL.iter().all(|guard| all.contains(*guard)));
        assert_eq!(all.judge(Guard::Hosts, Ok(7), &mut Noted::new()), Ok(Some(7)));
    }
}
