//! Signed tokens (S1): JSON Web Tokens (RFC 7519) are verified, and minted for the app.
//!
//! What a token says of itself decides nothing: the settings name the algorithms, the keys and where tokens stand. Crypto
//! is a library's; what stands in a token is read here, strictly, and by the gate's own clock. Keys that an issuer
//! publishes are fetched in the background; a guard only sees the last snapshot.

mod algorithm;
mod cache;
mod claims;
mod compact;
mod config;
mod identity;
mod issuer;
mod key;
mod mint;
mod place;
#[cfg(test)]
pub(super) mod testing;
mod verifier;

pub use algorithm::Algorithm;
pub use config::{Config, MintFile, TokenFile};
pub use identity::Identity;
pub use issuer::{Issuer, IssuerState};
pub use mint::Minter;
pub use place::Place;
pub use verifier::{Accepted, Bad, Verifier};

/// Bytes of the longest token that is looked at.
const TOKEN_BYTES: usize = 8 * 1024;
