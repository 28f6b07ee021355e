//! Secrets that can be guessed or read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::file::ServerFile;
use super::super::resolve::nearest;
use super::super::tree::{Source, Value};
use super::super::{Config, Secret};
use super::Findings;

/// Characters of a secret that nobody guesses: 128 bits in hex.
const LENGTH: usize = 32;
/// A random text of that length has more different characters than this.
const VARIETY: usize = 8;
/// What stands in secrets that were copied from an example.
const PLACEHOLDERS: [&str; 6] = ["change", "example", "password", "placeholder", "secret", "your"];

const TOKEN: &str = "admin.token";
const SECRET: &str = "client.secret";

pub(super) fn check(config: &Config, file: &ServerFile, found: &mut Findings) {
    let (token, secret) = (&file.admin.token, &file.client.secret);
    match secret.as_ref().map(weakness) {
        None => {
            let message = "is not set: digests of users and sessions change at each start";
            found.must(SECRET, message, "set SESSION_SECRET_KEY, such as from openssl rand -hex 32");
        }
        Some(Some(weak)) => found.must(SECRET, weak, "make one with openssl rand -hex 32"),
        Some(None) => {}
    }
    if let Some(weak) = token.as_ref().and_then(weakness) {
        let remedy = "make one with openssl rand -hex 32, or leave it out and one is made in state_dir";
        found.must(TOKEN, weak, remedy);
    }
    if let (Some(token), Some(secret)) = (token, secret)
        && token.expose() == secret.expose()
    {
        found.must(TOKEN, "is the same as client.secret", "use each secret for one thing");
    }
    for (key, remedy) in [
        (TOKEN, "set TIDEGATE_ADMIN_TOKEN or TIDEGATE_ADMIN_TOKEN_FILE instead, or chmod o-r the file"),
        (SECRET, "set SESSION_SECRET_KEY or SESSION_SECRET_KEY_FILE instead, or chmod o-r the file"),
    ] {
        if is_written(config, key) && anyone_reads(config) {
            found.look(key, "stands in a file that everyone on this machine can read", remedy);
        }
    }
}

/// Whether the value stands in the settings file, rather than in the environment or a file of its own.
fn is_written(config: &Config, key: &str) -> bool {
    let value = nearest(&config.server, key).map(|node| &node.value);
    matches!(value, Some(Value::Scalar(scalar)) if scalar.source == Source::Written)
}

fn anyone_reads(config: &Config) -> bool {
    let metadata = config.file().and_then(|file| fs::metadata(file).ok());
    metadata.is_some_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Why a secret can be guessed.
fn weakness(secret: &Secret) -> Option<&'static str> {
    let text = secret.expose();
    let lower = text.to_ascii_lowercase();
    if text.len() < LENGTH {
        Some("has fewer than 32 characters")
    } else if text.chars().collect::<BTreeSet<_>>().len() <= VARIETY {
        Some("is made of few different characters")
    } else if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        Some("looks like an example that was never replaced")
    } else {
        None
    }
}
