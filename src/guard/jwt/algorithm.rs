//! Algorithms of signatures (RFC 7518 §3.1, RFC 8037), by the name that settings and tokens give them.

use jsonwebtoken::Algorithm as Library;
use schemars::JsonSchema;
use serde::Deserialize;

/// What a key is, which decides the algorithms that it may be used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret that both sides know.
    Secret,
    /// An RSA key.
    Rsa,
    /// A key on the curve P-256.
    P256,
    /// A key on the curve P-384.
    P384,
    /// An Ed25519 key.
    Ed25519,
}

macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident;)*) => {
        /// How a token is signed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
        pub enum Algorithm { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl Algorithm {
            /// The algorithm of that name, letter for letter.
            pub fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Algorithm::$variant),)* _ => None }
            }

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Algorithm::$variant => $name,)* }
            }

            /// The keys that it takes.
            pub const fn kind(self) -> Kind {
                match self { $(Algorithm::$variant => Kind::$kind,)* }
            }

            pub(super) const fn library(self) -> Library {
                match self { $(Algorithm::$variant => Library::$variant,)* }
            }
        }
    };
}

algorithms! {
    /// HMAC with SHA-256.
    HS256 = "HS256", Secret;
    /// HMAC with SHA-384.
    HS384 = "HS384", Secret;
    /// HMAC with SHA-512.
    HS512 = "HS512", Secret;
    /// RSA PKCS #1 v1.5 with SHA-256.
    RS256 = "RS256", Rsa;
    /// RSA PKCS #1 v1.5 with SHA-384.
    RS384 = "RS384", Rsa;
    /// RSA PKCS #1 v1.5 with SHA-512.
    RS512 = "RS512", Rsa;
    /// RSA PSS with SHA-256.
    PS256 = "PS256", Rsa;
    /// RSA PSS with SHA-384.
    PS384 = "PS384", Rsa;
    /// RSA PSS with SHA-512.
    PS512 = "PS512", Rsa;
    /// ECDSA on P-256 with SHA-256.
    ES256 = "ES256", P256;
    /// ECDSA on P-384 with SHA-384.
    ES384 = "ES384", P384;
    /// Ed25519.
    EdDSA = "EdDSA", Ed25519;
}

impl Kind {
    /// The algorithm that such a key is used with if the settings name none.
    pub const fn usual(self) -> Algorithm {
        match self {
            Kind::Secret => Algorithm::HS256,
            Kind::Rsa => Algorithm::RS256,
            Kind::P256 => Algorithm::ES256,
            Kind::P384 => Algorithm::ES384,
            Kind::Ed25519 => Algorithm::EdDSA,
        }
    }
}
