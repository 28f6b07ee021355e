//! `tidegate run`: serve until a signal comes.

use std::io::IsTerminal;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::RunArgs;
use crate::config::{Config, Settings};
use crate::server::{Launch, Sockets, Source};
use crate::state::Clock;

#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub settings: RunArgs,
    /// Take the sockets over from the process that runs, which is to be sent SIGQUIT.
    #[arg(long)]
    upgrade: bool,
}

pub fn run(args: &ServeArgs) -> Result<(), String> {
    let sockets = Sockets::from_environment()?;
    let settings_args = args.settings.clone().listening_on(&sockets);
    let (config, warnings) = settings_args.load().map_err(|e| e.to_string())?;
    let settings = prepare(&config, &warnings)?;
    let read = move || {
        let (config, warnings) = settings_args.load()?;
        warn_of(&warnings);
        Ok(config)
    };
    let mut launch =
        Launch::new(settings, Clock::system()).on(sockets).reloading(Source { config, read: Box::new(read) });
    if args.upgrade {
        launch = launch.taking_over();
    }
    let running = launch.start().map_err(|e| e.to_string())?;
    eprintln!("tidegate: traffic on http://{}, admin on http://{}", running.traffic(), running.admin());
    running.wait();
    Ok(())
}

/// Builds the settings, and begins the program's own log on standard error with `warnings`.
pub fn prepare(config: &Config, warnings: &[String]) -> Result<Settings, String> {
    let settings = config.resolve(&Clock::system()).map_err(|e| e.to_string())?;
    let filter = EnvFilter::new(format!("off,tidegate={}", settings.level.name()));
    // Libraries are silent: Pingora prints raw request heads, keys included, when it can't parse them.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    warn_of(warnings);
    // The default hook prints the panic's text, which may hold what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, "panic");
    }));
    Ok(settings)
}

fn warn_of(warnings: &[String]) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}
