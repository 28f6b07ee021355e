//! `tidegate breaker` and `tidegate maintenance`: switch by hand what a running gate does.

use clap::{Args, Subcommand, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::call::Server;
use crate::config::Span;

#[derive(Debug, Args)]
pub struct BreakerArgs {
    /// open: no call goes through; close: every call does; auto: what the calls come to decides.
    #[arg(value_enum)]
    switch: Switch,
    /// Name of one upstream; without it, all.
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    Open,
    Close,
    Auto,
}

#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Answer every request with 503 and a message.
    On {
        /// What callers are told.
        #[arg(long, value_name = "TEXT")]
        message: String,
        /// When callers are told to come back.
        #[arg(long, value_name = "TIME", default_value = "5m")]
        retry_after: Span,
        #[command(flatten)]
        server: Server,
    },
    /// Serve again.
    Off {
        #[command(flatten)]
        server: Server,
    },
}

impl BreakerArgs {
    pub fn switch(&self) -> Result<(), String> {
        let switch = match self.switch {
            Switch::Open => "open",
            Switch::Close => "close",
            Switch::Auto => "auto",
        };
        let mut target = format!("/api/security/circuit-breaker/{switch}");
        if let Some(name) = &self.upstream {
            target += &format!("?upstream={}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        }
        let said = self.server.command(&target, String::new())?;
        for breaker in said["circuit_breakers"].as_array().into_iter().flatten() {
            let word = |key: &str| breaker[key].as_str().unwrap_or_default().to_owned();
            println!("breaker of {}: {}, mode {}", word("upstream"), word("state"), word("mode"));
        }
        warn_unless_kept(&said);
        Ok(())
    }
}

impl MaintenanceCommand {
    pub fn switch(&self) -> Result<(), String> {
        let said = match self {
            Self::On { message, retry_after, server } => {
                let seconds = retry_after.duration().as_secs();
                let body = json!({ "message": message, "retry_after_s": seconds });
                server.command("/api/security/maintenance/on", body.to_string())?
            }
            Self::Off { server } => server.command("/api/security/maintenance/off", String::new())?,
        };
        println!("maintenance: {}", if said["maintenance"].is_null() { "off" } else { "on" });
        warn_unless_kept(&said);
        Ok(())
    }
}

pub(super) fn warn_unless_kept(said: &Value) {
    if said["kept"] == json!(false) {
        eprintln!("tidegate: the gate has no state_dir: this holds until it is restarted");
    }
}
