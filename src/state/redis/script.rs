//! The scripts, and calls of them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::Cmd;

use super::keys::Key;

/// A script, which the server knows by its digest once it has run.
pub(super) struct Script {
    source: Cow<'static, str>,
    digest: String,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("scripts/", $file, ".lua"))));)*
    };
    ($($name:ident = $before:literal + $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            let before = include_str!(concat!("scripts/", $before, ".lua"));
            Script::new([before, include_str!(concat!("scripts/", $file, ".lua"))].concat())
        });)*
    };
}

scripts! {
    ADMIT = "account" + "admit";
    CHARGE = "account" + "charge";
}

scripts! {
    SETTLE = "settle";
    KEEP_ANSWER = "keep_answer";
    KEPT_ANSWER = "kept_answer";
    BAN = "ban";
    CHANGES = "changes";
    BEAT = "beat";
}

impl Script {
    fn new(source: impl Into<Cow<'static, str>>) -> Self {
        let source = source.into();
        let mut hex = String::with_capacity(40);
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes()).as_ref() {
            // Writing to a string can't fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Self { source, digest: hex }
    }

    #[cfg(test)]
    pub(super) fn for_test(source: &'static str) -> Self {
        Self::new(source)
    }

    /// Has the server know it without running it.
    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&*self.source);
        command
    }
}

/// A script with what it is to work on.
pub(super) struct Call<'a> {
    pub(super) script: &'a Script,
    pub(super) keys: &'a [Key],
    pub(super) args: &'a [&'a [u8]],
}

impl Call<'_> {
    /// By the script's digest.
    pub(super) fn by_digest(&self) -> Cmd {
        self.command("EVALSHA", &self.script.digest)
    }

    /// With the whole script, for a server that does not know it, and then will.
    pub(super) fn in_full(&self) -> Cmd {
        self.command("EVAL", &self.script.source)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let size = script.len()
            + self.keys.iter().map(Vec::len).sum::<usize>()
            + self.args.iter().map(|arg| arg.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(3 + self.keys.len() + self.args.len(), size + 16);
        command.arg(name).arg(script).arg(self.keys.len());
        self.keys.iter().for_each(|key| _ = command.arg(key.as_slice()));
        self.args.iter().for_each(|arg| _ = command.arg(*arg));
        command
    }
}
