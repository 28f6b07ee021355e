//! The way that one request took, for whoever asks (`tidegate explain`): noted where the guards are asked, so that it is
//! theirs and no second telling of it.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use http::request;

use super::body::TextSeen;
use super::chain::Stage;
use super::mode::Guard;
use super::{Reason, Refusal};

/// What was not refused because its guard only observes, in the order it was found; and the trail, if one is kept. An
/// empty one holds no memory.
#[derive(Debug, Default)]
pub struct Noted {
    refusals: Vec<Refusal>,
    trail: Option<Box<Trail>>,
}

/// What came of a request, stage by stage.
#[derive(Debug)]
pub struct Trail {
    /// What was asked, in order.
    pub steps: Vec<Step>,
    /// The texts that were looked at.
    pub texts: Vec<TextSeen>,
    /// The request as the app would get it, and as much of its body as there was.
    pub forwarded: Option<(request::Parts, Bytes)>,
    stage: Stage,
    goes_on: bool,
}

/// A stage that was reached, or a guard in it that was asked.
#[derive(Debug)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// Why the guard would have refused, and whether it only observes.
    pub refused: Option<(Refusal, bool)>,
}

impl Noted {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { refusals: Vec::new(), trail: None }
    }

    /// Nothing yet, and a trail is kept. `goes_on`: what a guard refuses is noted and goes on, so that those behind it
    /// are asked, too.
    pub fn with_trail(goes_on: bool) -> Self {
        let (steps, texts) = (Vec::new(), Vec::new());
        let trail = Trail { steps, texts, forwarded: None, stage: Stage::Connections, goes_on };
        Self { refusals: Vec::new(), trail: Some(trail.into()) }
    }

    /// The request has come to a stage.
    #[inline]
    pub fn at(&mut self, stage: Stage) {
        if let Some(trail) = self.trail_mut() {
            trail.enter(stage);
        }
    }

    /// The trail, if one is kept.
    #[inline]
    pub fn trail_mut(&mut self) -> Option<&mut Trail> {
        self.trail.as_deref_mut()
    }

    /// Ends the trail; `refusal` is what ended the request, if a refusal did.
    pub fn take_trail(&mut self, refusal: Option<&Refusal>) -> Option<Trail> {
        let mut trail = *self.trail.take()?;
        let told = |step: &Step| step.refused.as_ref().is_some_and(|(known, _)| Some(known) == refusal);
        if let Some(refusal) = refusal.filter(|_| !trail.steps.iter().any(told)) {
            let stage = match refusal.reason {
                // Looked at while they stream, when the request has come further.
                Reason::MalformedUpload
                | Reason::UploadNameDenied
                | Reason::UploadTypeDenied
                | Reason::UploadTooLarge => Stage::Uploads,
                Reason::BodyTooLarge | Reason::BodyTimeout => Stage::Body,
                _ => trail.stage,
            };
            trail.steps.push(Step { stage, refused: Some((refusal.clone(), false)) });
        }
        Some(trail)
    }
}

impl Trail {
    fn enter(&mut self, stage: Stage) {
        debug_assert!(
            self.stage <= stage,
            "{stage:?} comes behind {:?}: chain.rs has another order",
            self.stage
        );
        self.stage = stage;
        self.steps.push(Step { stage, refused: None });
    }

    /// A guard has answered. Whether a refusal of it goes on.
    pub(super) fn judged(&mut self, guard: Guard, observes: bool, refusal: Option<&Refusal>) -> bool {
        let own = match guard {
            Guard::Hosts => Some(Stage::Hosts),
            Guard::Addresses => Some(Stage::Addresses),
            Guard::Caps => Some(Stage::Caps),
            Guard::Origin => Some(Stage::Origin),
            Guard::Cors => Some(Stage::Cors),
            // Streams are counted once one is known as such.
            Guard::Concurrency => Some(Stage::Concurrency).filter(|stage| self.stage <= *stage),
            Guard::Uploads => Some(Stage::Uploads),
            // Asked in several stages.
            Guard::Json
            | Guard::Text
            | Guard::Sanitize
            | Guard::Duplicates
            | Guard::Loops
            | Guard::Limits => None,
        };
        if let Some(stage) = own {
            self.enter(stage);
        }
        let refused = refusal.map(|refusal| (refusal.clone(), observes));
        self.steps.push(Step { stage: self.stage, refused });
        observes || self.goes_on
    }
}

impl Deref for Noted {
    type Target = Vec<Refusal>;

    fn deref(&self) -> &Vec<Refusal> {
        &self.refusals
    }
}

impl IntoIterator for Noted {
    type Item = Refusal;
    type IntoIter = std::vec::IntoIter<Refusal>;

    fn into_iter(self) -> Self::IntoIter {
        self.refusals.into_iter()
    }
}

impl DerefMut for Noted {
    fn deref_mut(&mut self) -> &mut Vec<Refusal> {
        &mut self.refusals
    }
}
