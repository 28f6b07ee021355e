//! `tidegate health`: ask a running server whether it serves, as a container's health check does.

use clap::Args;
use http::{Method, StatusCode};

use super::call::Server;

#[derive(Debug, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    server: Server,
}

/// Succeeds if the server serves, be it degraded; prints what it says.
pub fn health(args: &HealthArgs) -> Result<(), String> {
    match args.server.ask(Method::GET, "/healthz", false, String::new())? {
        (StatusCode::OK, body) => {
            println!("{}", body.trim_end());
            Ok(())
        }
        (status, body) => Err(format!("unhealthy ({}): {}", status.as_u16(), body.trim_end())),
    }
}
