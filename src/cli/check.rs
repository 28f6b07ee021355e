//! `tidegate check`: test the settings, and show them with their origin.

use std::io::Write;
use std::sync::Arc;

use clap::Args;

use super::RunArgs;
use crate::config::{Config, Production, Settings};
use crate::guard::chain;
use crate::guard::mode::Guard;
use crate::proxy::route::Route;
use crate::state::Clock;

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Print every value with its origin, and the order of the guards with the reason for each place.
    #[arg(long)]
    explain: bool,
    /// Also test whether the settings are good enough for strangers, and say what to change.
    #[arg(long)]
    production: bool,
    /// Print the JSON Schema of the settings file.
    #[arg(long)]
    schema: bool,
}

impl CheckArgs {
    pub fn check(&self) -> Result<(), String> {
        if self.schema {
            print(&Config::schema());
            return Ok(());
        }
        let config = test(&self.run, self.explain)?;
        if self.production {
            production(&config)?;
        }
        Ok(())
    }
}

/// Tests the settings as `run` would use them; nothing is bound or started.
pub fn check(args: &RunArgs, explain: bool) -> Result<(), String> {
    test(args, explain).map(drop)
}

fn test(args: &RunArgs, explain: bool) -> Result<Config, String> {
    let (config, warnings) = args.load().map_err(|e| e.to_string())?;
    let settings = config.resolve(&Clock::system()).map_err(|e| e.to_string())?;
    warnings.iter().for_each(|warning| eprintln!("tidegate: {warning}"));
    if explain {
        print(&config.explain());
        print(&format!("# The way of a request, in this order:\n{}", chain::explain()));
        print(&format!("# What only observes, by route:\n{}", observed(&settings)));
    }
    print(&format!("The settings are good{}.", describe(&config)));
    Ok(config)
}

/// Tells what is worth a look, and refuses what strangers may not meet.
fn production(config: &Config) -> Result<(), String> {
    let Production { errors, warnings } = config.check_production().map_err(|e| e.to_string())?;
    warnings.iter().for_each(|warning| eprintln!("tidegate: worth a look: {warning}"));
    if !errors.is_empty() {
        return Err(format!("{errors}\ntidegate: not ready for production: {} to change", errors.len()));
    }
    print("They are good enough for production, as far as settings can tell.");
    Ok(())
}

/// The guards of each route that refuse nothing.
fn observed(settings: &Settings) -> String {
    let line = |route: &Arc<Route>| {
        let names: Vec<_> = route.guards.observed.iter().map(Guard::name).collect();
        format!("  {}: {}", route.name, if names.is_empty() { "nothing".into() } else { names.join(", ") })
    };
    settings.routes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A reader that has seen enough, such as `head`, is no error.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn describe(config: &Config) -> String {
    config
        .file()
        .map_or_else(|| " (no file: built-in defaults)".into(), |file| format!(" ({})", file.display()))
}
