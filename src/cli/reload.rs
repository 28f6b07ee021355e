//! `tidegate reload`: have a running server read its settings again.

use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;

use super::call::Server;
use crate::admin::RELOAD;

#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    server: Server,
}

/// Succeeds once the settings are in force; else says what is wrong with them, with key and line.
pub fn reload(args: &ReloadArgs) -> Result<(), String> {
    match args.server.ask(Method::POST, RELOAD, true)? {
        (StatusCode::OK, _) => Ok(()),
        (status, body) => {
            let problem: Option<Value> = serde_json::from_str(&body).ok();
            let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
            Err(format!("not reloaded ({}): {}", status.as_u16(), detail.unwrap_or(&body)))
        }
    }
}
