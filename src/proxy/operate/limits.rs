//! Limits whose windows somebody has changed by hand.

use std::collections::BTreeMap;

use super::subjects::NotDone;
use crate::config::Rate;
use crate::guard::limits::LimitView;
use crate::proxy::Gate;
use crate::state::switches::{Positions, Unchanged};
use crate::state::{LimitSpec, Window};

impl Gate {
    /// Every limit once, with the routes that it counts for.
    pub fn limits(&self) -> Vec<LimitView> {
        let mut limits: BTreeMap<String, LimitView> = BTreeMap::new();
        for route in &self.live().routes {
            for view in route.guards.limits.views() {
                let known = limits.entry(view.limit.clone()).or_insert(view);
                known.routes.push(route.name.clone());
            }
        }
        limits.into_values().collect()
    }

    /// Gives the limit `name` other windows, for all routes that it counts for; `None`: those of the settings. They are in
    /// force once `put_in_force` has put the settings in force again. Answers how it was, and is now.
    ///
    /// # Errors
    /// See [`NotDone`].
    pub fn set_limit(
        &self,
        name: &str,
        windows: Option<&[Rate]>,
        put_in_force: impl Fn() -> Result<(), String>,
    ) -> Result<(LimitView, LimitView), NotDone> {
        let limits = self.limits();
        let Some(before) = limits.iter().find(|view| view.limit == name).cloned() else {
            let known = limits.into_iter().map(|view| view.limit).collect();
            return Err(NotDone::NoSuchLimit(name.into(), known));
        };
        if let Some(windows) = windows {
            let windows = windows.iter().map(|rate| Window { length: rate.window, max: rate.max });
            LimitSpec::new(name, windows).map_err(|why| NotDone::Windows(why.to_string()))?;
        }
        let set = |windows: Option<Vec<Rate>>| {
            let change = |positions: &mut Positions| {
                match windows {
                    Some(windows) => positions.limits.insert(name.into(), windows),
                    None => positions.limits.remove(name),
                };
            };
            self.switches.change(change, |_| ())
        };
        let earlier = before.by_hand.then(|| before.windows.clone());
        set(windows.map(<[Rate]>::to_vec)).map_err(|why| match why {
            Unchanged::HandedOver => NotDone::HandedOver,
            Unchanged::NotKept(why) => NotDone::NotMade(format!("state_dir can't be written: {why}")),
        })?;
        if let Err(why) = put_in_force() {
            // Nothing is kept that is not in force.
            let _ = set(earlier);
            return Err(NotDone::NotMade(why));
        }
        let after =
            self.limits().into_iter().find(|view| view.limit == name).unwrap_or_else(|| before.clone());
        Ok((before, after))
    }
}
