//! Names that people set for such a gate, and that this version does nothing with: silence would look like protection.

use std::collections::BTreeSet;

use crate::config::Lookup;

/// Environment names of settings that are still to come.
pub const UNREAD: [&str; 5] = [
    "MAX_DAILY_COST",
    "MAX_DAILY_CALLS",
    "MAX_HOURLY_CALLS",
    "MAX_DAILY_TOKENS",
    "CIRCUIT_BREAKER_RECOVERY_MINUTES",
];

/// A sentence for each of [`UNREAD`] that is set, itself or as `NAME_FILE`. What the settings `read` is left out: a
/// file may use any name as `${NAME}`. Values are never shown.
pub(super) fn warnings(env: Lookup<'_>, read: &BTreeSet<String>) -> Vec<String> {
    let set = |name: &String| env(name).is_some_and(|value| !value.is_empty());
    let unread = UNREAD.into_iter().filter(|name| !read.contains(*name));
    unread
        .filter_map(|name| [name.to_owned(), format!("{name}_FILE")].into_iter().find(set))
        .map(|name| format!("{name} is set, but this version does not read it: nothing enforces it"))
        .collect()
}
