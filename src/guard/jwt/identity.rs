//! Who a verified token says its bearer is.

use std::fmt;
use std::sync::Arc;

use crate::proxy::client::ClientClass;

/// A user that an issuer vouches for. What the issuer says of them is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name in the config of the token that says so.
    pub token: Arc<str>,
    /// The user, as the issuer calls them.
    pub subject: Box<str>,
    /// The issuer, if the token names one.
    pub issuer: Option<Box<str>>,
    /// Which class of caller they are.
    pub class: ClientClass,
    /// Their tier of service.
    pub tier: Option<Box<str>>,
    /// Their tenant.
    pub tenant: Option<Box<str>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("token", &self.token)
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}
