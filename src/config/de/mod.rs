//! Typed settings from a tree, with errors that name the key, the line and the remedy.

mod access;
mod fault;
mod value;

use serde::de::DeserializeOwned;

use super::error::ConfigErrors;
use super::path::{Path, lies_within};
use super::tree::Node;
use value::{At, Pass};

/// After this many errors the rest can wait.
const ERRORS_MAX: usize = 20;

/// Reads settings from a tree. Unknown keys are errors in every struct, whether or not it denies them.
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, ConfigErrors> {
    from_node_at("", node)
}

/// Reads settings from a part of a config; `prefix` is its key path, such as `routes[2]`, for the errors.
pub fn from_node_at<T: DeserializeOwned>(prefix: &str, node: &Node) -> Result<T, ConfigErrors> {
    read(prefix, node).map(|(value, _)| value)
}

/// The key paths at which `T` holds a [`Secret`](super::Secret), for [`explain`](super::explain()).
///
/// Secrets inside untagged or flattened types are not seen; the config has none of either.
pub fn secret_paths<T: DeserializeOwned>(node: &Node) -> Result<Vec<String>, ConfigErrors> {
    read::<T>("", node).map(|(_, secrets)| secrets)
}

/// Serde stops at the first error. So that all are reported, what was wrong is left out and the tree is read again,
/// until nothing more is wrong, or only what follows from what was left out.
fn read<T: DeserializeOwned>(prefix: &str, node: &Node) -> Result<(T, Vec<String>), ConfigErrors> {
    let root = Path::Root(prefix);
    let mut pass = Pass::default();
    let mut errors = ConfigErrors::default();
    loop {
        let at = At::new(node, &root, &pass);
        let fault = match T::deserialize(at) {
            Ok(value) => return errors.in_order().into_result().map(|()| (value, pass.secrets.into_inner())),
            Err(fault) => fault.locate(&at),
        };
        let left_out = &pass.left_out;
        let consequence = match &fault.missing {
            Some(key) => left_out.contains(key),
            None => left_out.iter().any(|path| lies_within(path, &fault.culprit)),
        };
        if !consequence {
            errors.push(fault.error);
        }
        if fault.culprit == prefix || errors.len() >= ERRORS_MAX || left_out.contains(&fault.culprit) {
            return Err(errors.in_order());
        }
        pass.left_out.push(fault.culprit);
    }
}

#[cfg(test)]
mod tests;
