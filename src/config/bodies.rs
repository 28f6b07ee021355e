//! Body guards, each built once however many routes have the same settings, and built anew by a reload only if those
//! changed: to compile their field rules is half of what settings take to build.

use std::sync::Arc;

use crate::guard::Fault;
use crate::guard::body::{BodyGuard, JsonConfig};
use crate::guard::mode::Observed;
use crate::guard::text::ValueFields;
use crate::guard::{sanitize, text};

/// What a body guard is built from.
#[derive(Clone, PartialEq)]
pub(super) struct BodyParts {
    pub json: JsonConfig,
    pub text: text::Config,
    pub sanitize: Option<sanitize::Config>,
    pub session_fields: Vec<String>,
    pub message_fields: Vec<String>,
    pub counted_fields: Vec<String>,
    pub observed: Observed,
}

/// Body guards, by what they were built from.
#[derive(Clone, Default)]
pub(super) struct BodyGuards {
    known: Vec<(BodyParts, Arc<BodyGuard>)>,
    built: Vec<(BodyParts, Arc<BodyGuard>)>,
}

impl BodyGuards {
    /// None is built yet; those of the settings that are `running` are there to be taken over.
    pub fn over(running: Option<&Self>) -> Self {
        Self { known: running.map(|running| running.built.clone()).unwrap_or_default(), built: Vec::new() }
    }

    /// The guard of these settings.
    ///
    /// # Errors
    /// The key whose value can't be used.
    pub fn get(&mut self, parts: BodyParts) -> Result<Arc<BodyGuard>, Fault> {
        let of_same = |list: &[(BodyParts, Arc<BodyGuard>)]| {
            list.iter().find(|(known, _)| *known == parts).map(|(_, guard)| guard.clone())
        };
        if let Some(built) = of_same(&self.built) {
            return Ok(built);
        }
        let guard = match of_same(&self.known) {
            Some(known) => known,
            None => {
                let values = ValueFields {
                    session: &parts.session_fields,
                    message: &parts.message_fields,
                    counted: &parts.counted_fields,
                };
                let BodyParts { json, text, sanitize, observed, .. } = &parts;
                Arc::new(BodyGuard::build(json, text, sanitize.as_ref(), values, *observed)?)
            }
        };
        self.built.push((parts, guard.clone()));
        Ok(guard)
    }

    /// The same, without those that no route has any more.
    pub fn built(self) -> Self {
        Self { known: Vec::new(), built: self.built }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::text::{ChatConfig, KindConfig};

    fn parts(max: u64) -> BodyParts {
        let kind = KindConfig { max, fields: vec!["/input".into()] };
        let chat = ChatConfig { max, fields: vec!["/message".into()], on_chats: Vec::new() };
        BodyParts {
            json: JsonConfig { depth: 8, members: 20 },
            text: text::Config { chat, model: kind.clone(), speech: kind },
            sanitize: None,
            session_fields: Vec::new(),
            message_fields: Vec::new(),
            counted_fields: Vec::new(),
            observed: Observed::default(),
        }
    }

    /// A gate with a hundred routes must not take a hundred times as long to reload; nor may a route get a neighbour's guard,
    /// or a reload keep the old one.
    #[test]
    fn one_is_built_for_each_settings() {
        let mut first = BodyGuards::over(None);
        let get = |from: &mut BodyGuards, max| from.get(parts(max)).expect("good settings");
        let (one, other) = (get(&mut first, 5), get(&mut first, 6));
        assert!(Arc::ptr_eq(&one, &get(&mut first, 5)) && !Arc::ptr_eq(&one, &other));
        let mut second = BodyGuards::over(Some(&first.built()));
        assert!(Arc::ptr_eq(&one, &get(&mut second, 5)) && !Arc::ptr_eq(&one, &get(&mut second, 7)));
        // Nothing is kept for ever: what the second has no use for is gone by the third.
        let mut third = BodyGuards::over(Some(&second.built()));
        assert!(!Arc::ptr_eq(&other, &get(&mut third, 6)));
    }
}
