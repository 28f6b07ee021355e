//! Typed settings from a tree, with errors that name the key, the line and the remedy.

mod access;
mod fault;
mod value;

use serde::de::DeserializeOwned;

use super::error::ConfigErrors;
use super::path::{Path, lies_within};
use super::tree::Node;
use value::At;

/// After this many errors the rest can wait.
const ERRORS_MAX: usize = 20;

/// Reads settings from a tree. Unknown keys are errors in every struct, whether or not it denies them.
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, ConfigErrors> {
    from_node_at("", node)
}

/// Reads settings from a part of a config; `prefix` is its key path, such as `routes[2]`, for the errors.
///
/// Serde stops at the first error. So that all are reported, what was wrong is left out and the tree is read again,
/// until nothing more is wrong, or only what follows from what was left out.
pub fn from_node_at<T: DeserializeOwned>(prefix: &str, node: &Node) -> Result<T, ConfigErrors> {
    let root = Path::Root(prefix);
    let mut errors = ConfigErrors::default();
    let mut left_out: Vec<String> = Vec::new();
    loop {
        let at = At::new(node, &root, &left_out);
        let fault = match T::deserialize(at) {
            Ok(value) => return errors.into_result().map(|()| value),
            Err(fault) => fault.locate(&at),
        };
        let consequence = match &fault.missing {
            Some(key) => left_out.contains(key),
            None => left_out.iter().any(|path| lies_within(path, &fault.culprit)),
        };
        let culprit = fault.culprit.clone();
        if !consequence {
            errors.push(fault.error);
        }
        if culprit == prefix || errors.len() >= ERRORS_MAX || left_out.contains(&culprit) {
            return Err(errors);
        }
        left_out.push(culprit);
    }
}
