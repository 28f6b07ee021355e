//! Which store counts, as the settings say.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::embedded::{EmbeddedConfig, EmbeddedStore, OnFailure};
use super::{AnyStore, Clock, MemoryConfig, MemoryStore, RedisFile, RedisStore};
use crate::guard::Fault;

/// Where the store is, under the state directory.
const DIRECTORY: &str = "store";

/// Where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the server that is shared if one is named, else on the disk if there is a directory for it, else in memory.
    Auto,
    /// In memory, forgotten at the end.
    Memory,
    /// On the disk.
    Embedded,
    /// In a server that several gates share.
    Redis,
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
        redis: &RedisFile,
        clock: &Clock,
    ) -> Result<AnyStore, Fault> {
        let memory = MemoryConfig::default();
        match (self.kind, directory) {
            (StoreKind::Auto, _) if redis.is_set() => Self::shared(redis, clock),
            (StoreKind::Redis, _) => Self::shared(redis, clock),
            (StoreKind::Memory, _) | (StoreKind::Auto, None) => {
                Ok(AnyStore::Memory(MemoryStore::new(memory, clock.clone())))
            }
            (StoreKind::Embedded, None) => {
                let message = "is embedded, and there is no state_dir; set it (STATE_DIR), or write memory";
                Err(Fault::new("store.kind", message))
            }
            (StoreKind::Auto | StoreKind::Embedded, Some(StateDir { path, implied })) => {
                let config = EmbeddedConfig {
                    directory: path.join(DIRECTORY),
                    implied: implied && self.kind == StoreKind::Auto,
                    on_failure: self.on_failure,
                    memory,
                };
                Ok(AnyStore::Embedded(EmbeddedStore::new(config, clock.clone())))
            }
        }
    }

    fn shared(redis: &RedisFile, clock: &Clock) -> Result<AnyStore, Fault> {
        let config = redis.build();
        let config = config.map_err(|fault| Fault::new(format!("redis.{}", fault.key), fault.message))?;
        Ok(AnyStore::Shared(RedisStore::new(config, MemoryConfig::default(), clock.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;

    fn redis(sentinels: &[&str]) -> RedisFile {
        RedisFile {
            url: None,
            ca: None,
            sentinels: sentinels.iter().map(|&sentinel| sentinel.to_owned()).collect(),
            master: "mymaster".to_owned(),
            sentinel_password: None,
            prefix: "tidegate".to_owned(),
            timeout: Span(std::time::Duration::from_millis(20)),
            replicas: 0,
            outage_reserve: 0,
        }
    }

    /// Gates that were told of a shared store and count each for itself let through many times the limit, and say nothing.
    #[test]
    fn auto_is_the_shared_store_before_the_disk_before_memory() {
        let directory = StateDir { path: Path::new("/nowhere"), implied: false };
        let (named, unnamed) = (redis(&["10.0.0.1:26379"]), redis(&[]));
        let built = |kind, directory, redis: &RedisFile| {
            let file = StoreFile { kind, on_failure: OnFailure::Serve };
            file.build(directory, redis, &Clock::system()).map(|store| match store {
                AnyStore::Memory(_) => StoreKind::Memory,
                AnyStore::Embedded(_) => StoreKind::Embedded,
                AnyStore::Shared(_) => StoreKind::Redis,
            })
        };
        for (kind, directory, redis, expected) in [
            (StoreKind::Auto, Some(directory), &named, StoreKind::Redis),
            (StoreKind::Auto, Some(directory), &unnamed, StoreKind::Embedded),
            (StoreKind::Auto, None, &unnamed, StoreKind::Memory),
            (StoreKind::Embedded, Some(directory), &named, StoreKind::Embedded),
            (StoreKind::Memory, Some(directory), &named, StoreKind::Memory),
            (StoreKind::Redis, Some(directory), &named, StoreKind::Redis),
        ] {
            assert_eq!(built(kind, directory, redis).ok(), Some(expected), "{kind:?}, {directory:?}");
        }
        let missing = |kind| built(kind, None, &unnamed).map_err(|fault| fault.key.to_string());
        assert_eq!(missing(StoreKind::Redis), Err("redis.url".to_owned()));
        assert_eq!(missing(StoreKind::Embedded), Err("store.kind".to_owned()));
    }
}
