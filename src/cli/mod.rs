//! The command line: one file a subcommand.

mod audit;
mod breaker;
mod call;
mod check;
mod demo;
mod explain;
mod health;
mod reload;
mod run;
mod sanction;
mod unread;

pub use unread::UNREAD;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, Overrides};
use crate::server::Sockets;

/// A reverse-proxy sidecar that guards an unmodified chat or AI upstream.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::ServeArgs,
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
    Run(run::ServeArgs),
    /// Serve an embedded chat app behind the gate, to see it work.
    ///
    /// The settings are the built-in defaults with the strict policy for pages, so that what it prints is true: no
    /// settings file and no environment variable is read.
    Demo(demo::DemoArgs),
    /// Test the settings.
    Check(check::CheckArgs),
    /// Tell what would become of one request, guard by guard; nothing is sent or called.
    Explain(explain::ExplainArgs),
    /// Switch the circuit breakers of a running gate by hand.
    Breaker(breaker::BreakerArgs),
    /// Close the app behind a running gate for maintenance.
    #[command(subcommand)]
    Maintenance(breaker::MaintenanceCommand),
    /// Ban an address or a user by hand, on a running gate.
    Ban(sanction::BanArgs),
    /// Lift a ban, and forget that it ever was.
    Unban(sanction::UnbanArgs),
    /// List bans, in force or remembered.
    Bans(sanction::ShowArgs),
    /// List the callers that ask most.
    Top(sanction::ShowArgs),
    /// See and change the limits of a running gate.
    #[command(subcommand)]
    Limits(sanction::LimitsCommand),
    /// Read what operators did, and verify that nothing is missing.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Look into the store of a running gate.
    #[command(subcommand)]
    State(sanction::StateCommand),
    /// Have a running server read its settings again.
    ///
    /// What is wrong with them is printed, and the old ones stay in force. SIGHUP does the same.
    Reload(reload::ReloadArgs),
    /// Ask a running server whether it serves.
    Health(health::HealthArgs),
}

/// Where settings come from.
#[derive(Clone, Debug, Default, Args)]
struct RunArgs {
    /// Settings file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The app to stand in front of, as http://host:port; several with commas between, or the name of an upstream.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    #[command(flatten)]
    addresses: Addresses,
}

/// Where to listen.
#[derive(Clone, Debug, Default, Args)]
struct Addresses {
    /// Address for traffic [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address for the admin endpoints [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

impl RunArgs {
    /// The same, but where no flag says so, sockets that were passed by name say where to listen.
    fn listening_on(mut self, sockets: &Sockets) -> Self {
        let Addresses { listen, admin } = &mut self.addresses;
        for (flag, name) in [(listen, "traffic"), (admin, "admin")] {
            let passed = || sockets.named(name).map(|address| address.to_string());
            *flag = flag.take().or_else(passed);
        }
        self
    }

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
        None if cli.test || cli.test_and_print => check::check(&cli.run.settings, cli.test_and_print),
        None => run::run(&cli.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Demo(args)) => demo::demo(&args),
        Some(Command::Check(args)) => args.check(),
        Some(Command::Explain(args)) => args.explain(),
        Some(Command::Breaker(args)) => args.switch(),
        Some(Command::Maintenance(command)) => command.switch(),
        Some(Command::Ban(args)) => args.ban(),
        Some(Command::Unban(args)) => args.unban(),
        Some(Command::Bans(args)) => args.bans(),
        Some(Command::Top(args)) => args.top(),
        Some(Command::Limits(command)) => command.obey(),
        Some(Command::Audit(command)) => command.obey(),
        Some(Command::State(command)) => command.obey(),
        Some(Command::Reload(args)) => reload::reload(&args),
        Some(Command::Health(args)) => health::health(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tidegate: {message}");
            ExitCode::FAILURE
        }
    }
}
