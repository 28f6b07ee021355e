//! The harness: a real gate on real sockets, a scripted upstream behind it, clients that speak HTTP byte by byte.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of the harness")]

mod ask;
mod gate;
mod h2c;
mod issuer;
mod load;
mod names;
mod program;
mod redis_server;
mod upstream;
mod wire;

use std::future::Future;
use std::time::Duration;

pub use ask::{Ask, BOTH, Via};
pub use gate::{Gate, Scratch, assert_refused, gate, gate_with};
pub use h2c::{Feed, H2};
pub use issuer::{Issuer, Manner, NOW, Signer, encode, raw_token, set};
pub use load::Load;
pub use names::NameServer;
pub use program::{Program, kill};
pub use redis_server::{RedisServer, free_port};
pub use upstream::{BlackHole, OK_JSON, Peer, Request, Upstream, unreachable};
pub use wire::{Answer, Head, Wire};

/// Longest that anything here waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing for {PATIENCE:?}"),
    }
}

/// Lets real time pass for sockets, where the other side's having seen something can't be observed.
pub async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// A JSON object of exactly `length` bytes without any field that is looked into.
pub fn json_of(length: usize) -> Vec<u8> {
    let frame = r#"{"blob":""}"#.len();
    // Not one byte over and over: bytes that were swapped or sent twice have to show.
    let filling: String = (0..length - frame).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
    format!(r#"{{"blob":"{filling}"}}"#).into_bytes()
}
