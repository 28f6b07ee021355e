//! `tidegate demo`: the demo app on a free port, and the gate in front of it.

use std::io::Write;
use std::net::SocketAddr;

use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::{PACE, serve, what_to_try};
use crate::cli::{Addresses, run};
use crate::config::Config;
use crate::server::Launch;
use crate::state::Clock;

/// The built-in defaults, and the policy that fits the demo's page, which has no inline script or style.
const SETTINGS: &str = "security_headers: {csp: strict}";

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    addresses: Addresses,
}

/// Serves until a signal comes.
pub fn demo(args: &DemoArgs) -> Result<(), String> {
    let runtime =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|e| e.to_string())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let app = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, PACE, async {
            // The sender goes when the gate has stopped: either way, it is time.
            let _ = stopped.await;
        }));
        Ok::<SocketAddr, std::io::Error>(address)
    });
    let app = app.map_err(|e| format!("cannot start the demo app: {e}"))?;
    let overrides = args.addresses.overrides(Some(format!("http://{app}")));
    // What is printed below is true of these settings, so nothing from outside may change them.
    let config = Config::from_text(SETTINGS, "the demo", &overrides, &|_| None).map_err(|e| e.to_string())?;
    let settings = run::prepare(&config, &[])?;
    let running = Launch::new(settings, Clock::system()).start().map_err(|e| e.to_string())?;
    let mut out = std::io::stdout().lock();
    let text = what_to_try(running.traffic(), running.admin());
    // Nobody may be reading; the demo serves all the same.
    let _ = writeln!(out, "gate      http://{}\nadmin     http://{}", running.traffic(), running.admin());
    let _ = writeln!(out, "upstream  http://{app}\n\n{text}\nCtrl-C ends it. Each request is logged below.");
    let _ = out.flush();
    drop(out);
    running.wait();
    drop(stop);
    Ok(())
}
