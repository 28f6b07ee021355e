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

const MAKE: &str = "make one with openssl rand -hex 32";
const ONE_EACH: &str = "use each secret for one thing";

const TOKEN: &str = "admin.token";
const SECRET: &str = "client.secret";

pub(super) fn check(config: &Config, file: &ServerFile, found: &mut Findings) {
    let (token, secret) = (&file.admin.token, &file.client.secret);
    match secret.as_ref().map(weakness) {
        None if file.state_dir.is_none() => {
            let message = "is not set, nor is state_dir: digests of users and sessions change at each start";
            found.must(SECRET, message, "set SESSION_SECRET_KEY, such as from openssl rand -hex 32");
        }
        Some(Some(weak)) => found.must(SECRET, weak, MAKE),
        None | Some(None) => {}
    }
    if let Some(weak) = token.as_ref().and_then(weakness) {
        let remedy = "make one with openssl rand -hex 32, or leave it out and one is made in state_dir";
        found.must(TOKEN, weak, remedy);
    }
    if let (Some(token), Some(secret)) = (token, secret)
        && token.expose() == secret.expose()
    {
        found.must(TOKEN, "is the same as client.secret", ONE_EACH);
    }
    let signing = signing(file);
    strong(file, &signing, found);
    published(file, found);
    let of_tokens = signing.iter().map(|(key, _)| {
        (key.as_str(), "write ${NAME}, and set NAME or NAME_FILE instead, or chmod o-r the file")
    });
    let own = [
        (TOKEN, "set TIDEGATE_ADMIN_TOKEN or TIDEGATE_ADMIN_TOKEN_FILE instead, or chmod o-r the file"),
        (SECRET, "set SESSION_SECRET_KEY or SESSION_SECRET_KEY_FILE instead, or chmod o-r the file"),
    ];
    for (key, remedy) in own.into_iter().chain(of_tokens) {
        if is_written(config, key) && anyone_reads(config) {
            found.look(key, "stands in a file that everyone on this machine can read", remedy);
        }
    }
}

/// The secrets that tokens are signed with, and their keys.
fn signing(file: &ServerFile) -> Vec<(String, &Secret)> {
    let kinds = file.jwt.tokens.iter();
    let secrets =
        kinds.filter_map(|(name, token)| Some((format!("jwt.tokens.{name}.secret"), token.secret.as_ref()?)));
    let mint = file.jwt.mint.secret.as_ref().map(|secret| ("jwt.mint.secret".to_owned(), secret));
    secrets.chain(mint).collect()
}

/// Whoever guesses or knows one makes tokens.
fn strong(file: &ServerFile, signing: &[(String, &Secret)], found: &mut Findings) {
    let others = [(TOKEN, &file.admin.token), (SECRET, &file.client.secret)];
    for (at, (key, secret)) in signing.iter().enumerate() {
        if let Some(weak) = weakness(secret) {
            found.must(key.clone(), weak, MAKE);
        }
        let same = |other: &Secret| other.expose() == secret.expose();
        let twin = others.iter().find(|(_, other)| other.as_ref().is_some_and(same)).map(|(key, _)| *key);
        let before = signing.iter().take(at).find(|(_, other)| same(other)).map(|(key, _)| key.as_str());
        if let Some(twin) = twin.or(before) {
            found.must(key.clone(), format!("is the same as {twin}"), ONE_EACH);
        }
    }
}

/// Tokens whose keys others could put in, or that were made for others.
fn published(file: &ServerFile, found: &mut Findings) {
    for (name, token) in file.jwt.tokens.iter().filter(|(_, token)| !token.jwks.url.is_off()) {
        let key = |below: &str| format!("jwt.tokens.{name}.{below}");
        if token.issuers.is_empty() && token.audiences.is_empty() {
            let message =
                "is empty, as is audiences: tokens that the issuer made for other apps are good here";
            found.must(key("issuers"), message, "name the issuer and, in audiences, this app");
        }
        if !token.jwks.verify {
            let message = "is false: anyone may pose as the issuer";
            found.must(key("jwks.verify"), message, "remove it, or name a CA in ca");
        }
        if token.jwks.plain_http {
            let message = "lets keys come in plain text";
            found.must(key("jwks.plain_http"), message, "write https:// in url and remove it");
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
