//! Which store counts, as the settings say.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::embedded::{EmbeddedConfig, EmbeddedStore, OnFailure};
use super::{AnyStore, Clock, MemoryConfig, MemoryStore};

/// Where the store is, under the state directory.
const DIRECTORY: &str = "store";

/// Where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// On the disk if there is a directory for it, or else in memory.
    Auto,
    /// In memory, forgotten at the end.
    Memory,
    /// On the disk.
    Embedded,
}

/// The store, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreFile {
    /// Where it is counted.
    pub kind: StoreKind,
    /// What becomes of requests while the disk can't be written.
    pub on_failure: OnFailure,
}

/// The directory for all that is kept.
#[derive(Clone, Copy, Debug)]
pub struct StateDir<'a> {
    /// The directory.
    pub path: &'a Path,
    /// Nobody chose it.
    pub implied: bool,
}

impl StoreFile {
    /// A store that is not open yet.
    ///
    /// # Errors
    /// The key that is at fault, and why.
    pub fn build(
        &self,
        directory: Option<StateDir<'_>>,
        clock: &Clock,
    ) -> Result<AnyStore, (&'static str, String)> {
        let memory = || AnyStore::Memory(MemoryStore::new(MemoryConfig::default(), clock.clone()));
        match (self.kind, directory) {
            (StoreKind::Memory, _) | (StoreKind::Auto, None) => Ok(memory()),
            (StoreKind::Embedded, None) => {
                let message = "is embedded, and there is no state_dir; set it (STATE_DIR), or write memory";
                Err(("store.kind", message.to_owned()))
            }
            (StoreKind::Auto | StoreKind::Embedded, Some(StateDir { path, implied })) => {
                let config = EmbeddedConfig {
                    directory: path.join(DIRECTORY),
                    implied: implied && self.kind == StoreKind::Auto,
                    on_failure: self.on_failure,
                    memory: MemoryConfig::default(),
                };
                Ok(AnyStore::Embedded(EmbeddedStore::new(config, clock.clone())))
            }
        }
    }
}
