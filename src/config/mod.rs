//! The config file: YAML to a tree that knows where each value was written, the environment put in, defaults and
//! routes merged, and the typed settings read from it with errors that name the key, the line and the remedy.

mod bodies;
pub mod de;
mod error;
mod explain;
pub mod file;
mod interpolate;
mod level;
mod load;
mod merge;
mod named;
mod parse;
mod path;
mod production;
mod reload;
mod resolve;
mod routes;
mod schema;
mod secret;
pub(crate) mod shown;
mod toggle;
mod tree;
pub mod units;
mod upstreams;

pub use de::{from_node, from_node_at, secret_paths};
pub use error::{ConfigError, ConfigErrors};
pub use explain::{Explain, explain};
pub use interpolate::Lookup;
pub use load::{Config, Overrides};
pub use merge::merge;
pub use named::Named;
pub use parse::parse;
pub use production::Production;
pub use resolve::{ServerSettings, Settings};
pub use schema::schema;
pub use secret::Secret;
pub use toggle::Toggle;
pub use tree::{Key, Node, Origin, Scalar, Source, Value};
pub use units::{ByteSize, Rate, Span};
