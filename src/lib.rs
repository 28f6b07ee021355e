//! Tidegate: a reverse-proxy sidecar that stands in front of an unmodified chat or AI upstream, and lets through only
//! what its operator would want to pay for and answer for.
//!
//! One request, one way through:
//!
//! ```text
//! listener → client → head guards → body → body guards → admit → upstream → response guards → settle → record
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | one file a subcommand |
//! | [`config`] | settings as written, and how they become settings as run |
//! | [`server`] | sockets, the door, reload, an orderly end |
//! | [`proxy`] | Pingora's hooks; the exchange and the passthrough; routes, paths, clients, replies |
//! | [`guard`] | one file a guard, and the chain that orders them |
//! | [`upstream`] | where upstreams are and how they are reached |
//! | [`state`] | the store of counters, admissions, the settle actor, the clock |
//! | [`observe`] | metrics, access log, security events, health, sessions, the watch |
//! | [`admin`] | the admin endpoints |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod guard;
pub mod observe;
pub mod proxy;
pub mod server;
pub mod state;
pub mod upstream;
