//! The command line: one file a subcommand.

mod check;
mod demo;
mod run;
mod unread;

pub use unread::UNREAD;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, Overrides};

/// A reverse-proxy sidecar that guards an unmodified chat or AI upstream.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
    /// Test the settings and stop (as nginx -t).
    #[arg(short = 't', exclusive = false)]
    test: bool,
    /// Test the settings, print them, and stop (as nginx -T).
    #[arg(short = 'T')]
    test_and_print: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Run(RunArgs),
    /// Serve an embedded chat app behind the gate, to see it work.
    ///
    /// The settings are the built-in defaults with the strict policy for pages, so that what it prints is true: no
    /// settings file and no environment variable is read.
    Demo(demo::DemoArgs),
    /// Test the settings.
    Check(check::CheckArgs),
}

/// Where settings come from.
#[derive(Debug, Default, Args)]
struct RunArgs {
    /// Settings file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The app to stand in front of, as http://host:port.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    #[command(flatten)]
    addresses: Addresses,
}

/// Where to listen.
#[derive(Debug, Default, Args)]
struct Addresses {
    /// Address for traffic [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address for the admin endpoints [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

impl RunArgs {
    /// The settings, and what to warn of.
    fn load(&self) -> Result<(Config, Vec<String>), ConfigErrors> {
        let overrides = self.addresses.overrides(self.upstream.clone());
        let read = RefCell::new(BTreeSet::new());
        let config = Config::load(self.config.as_deref(), &overrides, &|name| {
            read.borrow_mut().insert(name.to_owned());
            environment(name)
        })?;
        Ok((config, unread::warnings(&environment, &read.into_inner())))
    }
}

impl Addresses {
    fn overrides(&self, upstream: Option<String>) -> Overrides {
        Overrides { upstream, listen: self.listen.clone(), admin: self.admin.clone() }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs the program; the exit code is 0 if all went well, 1 if the settings or the machine refuse, 2 for bad usage.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of clap's that succeed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match cli.command {
        None if cli.test || cli.test_and_print => check::check(&cli.run, cli.test_and_print),
        None => run::run(&cli.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Demo(args)) => demo::demo(&args),
        Some(Command::Check(args)) => args.check(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tidegate: {message}");
            ExitCode::FAILURE
        }
    }
}
