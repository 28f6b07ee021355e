//! `tidegate reload`: have a running server read its settings again.

use clap::Args;

use super::call::Server;
use crate::admin::RELOAD;

#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    server: Server,
}

/// Succeeds once the settings are in force; else says what is wrong with them, with key and line.
pub fn reload(args: &ReloadArgs) -> Result<(), String> {
    args.server.command(RELOAD, String::new()).map(drop).map_err(|why| format!("not reloaded: {why}"))
}
