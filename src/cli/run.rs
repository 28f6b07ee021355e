//! `tidegate run`: serve until a signal comes.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::RunArgs;
use crate::config::Config;
use crate::server::{self, Running};
use crate::state::Clock;

pub fn run(args: &RunArgs) -> Result<(), String> {
    let (config, warnings) = args.load().map_err(|e| e.to_string())?;
    let running = start(config, &warnings)?;
    eprintln!("tidegate: traffic on http://{}, admin on http://{}", running.traffic(), running.admin());
    running.wait();
    Ok(())
}

/// Starts a server with the program's own log on standard error, which begins with `warnings`.
pub fn start(config: Config, warnings: &[String]) -> Result<Running, String> {
    let settings = config.resolve(&Clock::system()).map_err(|e| e.to_string())?;
    let filter = EnvFilter::new(format!("off,tidegate={}", settings.level.name()));
    // Libraries are silent: Pingora prints raw request heads, keys included, when it can't parse them.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    // The default hook prints the panic's text, which may hold what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, "panic");
    }));
    server::start(settings, Clock::system()).map_err(|e| e.to_string())
}
