//! The suite over a real server, and what only this store promises.

#[path = "../../../tests/common/redis_server.rs"]
#[allow(dead_code, reason = "the black-box tests use the rest")]
mod redis_server;

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use redis_server::RedisServer;

use super::*;
use crate::state::suite;

/// So patient that a busy machine fails no call.
fn file(server: &RedisServer, prefix: &str) -> RedisFile {
    RedisFile {
        url: Some(server.url().into()),
        ca: None,
        sentinels: Vec::new(),
        master: "tidegate".to_owned(),
        sentinel_password: None,
        prefix: prefix.to_owned(),
        timeout: crate::config::Span::from_secs(10),
        replicas: 0,
    }
}

fn store(file: &RedisFile, clock: Clock) -> RedisStore {
    let store = RedisStore::new(file.build().unwrap(), MemoryConfig::default(), clock);
    store.start().unwrap();
    assert_eq!(store.link().away, None);
    store
}

#[test]
fn the_suite_passes() {
    let server = RedisServer::start();
    let made = AtomicU32::new(0);
    suite::run(|clock| {
        let prefix = format!("suite-{}", made.fetch_add(1, Ordering::Relaxed));
        store(&file(&server, &prefix), clock)
    });
}
