//! How long a request may take, part by part (K3). None is infinite.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::Span;
use crate::guard::Fault;

macro_rules! timeouts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Times that are allowed, as written.
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Config { $($(#[doc = $doc])* pub $name: Span,)* }

        /// Times that are allowed, as run.
        #[derive(Clone, Copy, Debug)]
        pub struct Timeouts { $($(#[doc = $doc])* pub $name: Duration,)* }

        impl Timeouts {
            /// Builds them.
            ///
            /// # Errors
            /// A time of zero: it would cut everything, which nobody means.
            pub fn build(config: &Config) -> Result<Self, Fault> {
                $(if config.$name.0.is_zero() {
                    let key = concat!("timeouts.", stringify!($name));
                    return Err(Fault::new(key, "is 0, which would let nothing through; write 1s or more"));
                })*
                Ok(Self { $($name: config.$name.0,)* })
            }
        }
    };
}

timeouts! {
    /// For a whole body that is inspected.
    request_body,
    /// For a body to stay away, or to fall short of `caps.body.min_rate`.
    body_idle,
    /// From the request's last byte to the answer's first.
    first_byte,
    /// Between two reads of an answer.
    between_bytes,
    /// Between two reads of a stream of events.
    stream_idle,
    /// A stream of events as a whole.
    stream_total,
    /// A WebSocket in which both sides are silent.
    tunnel_idle,
    /// A WebSocket as a whole.
    tunnel_total,
    /// For one write to make progress, on either side.
    write,
}
