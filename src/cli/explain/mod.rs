//! `tidegate explain`: what would become of one request, guard by guard.

mod report;
mod request;
mod show;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};

use clap::Args;

use super::RunArgs;
use super::check::print;
use crate::config::Config;
use crate::observe::redact::KeyNames;
use crate::proxy::explain::{Asked, Explained, explain};
use crate::state::Clock;
use report::Report;
use request::Request;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Method [default: GET, with --data POST].
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<String>,
    /// A header field, as 'name: value'.
    #[arg(short = 'H', long = "header", value_name = "FIELD", allow_hyphen_values = true)]
    headers: Vec<OsString>,
    /// The body, or @FILE; @- reads standard input.
    #[arg(short, long, value_name = "BODY", allow_hyphen_values = true)]
    data: Option<OsString>,
    /// Address of whoever sends it: the client, or a proxy in front of the gate.
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// Sends it this often, and explains the last: what becomes of the sixth, say, where five are allowed.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    times: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Where it goes: http://host/path, or /path at the first of the hosts that are served.
    #[arg(value_name = "URL")]
    url: String,
}

impl ExplainArgs {
    pub fn explain(&self) -> Result<(), String> {
        let (config, warnings) = self.run.load().map_err(|e| e.to_string())?;
        warnings.iter().for_each(|warning| eprintln!("tidegate: {warning}"));
        let file = config.resolve(&Clock::system()).map_err(|e| e.to_string())?;
        let request = Request::build(self, &file)?;
        let key_parameters = file.client.key_parameters.clone();
        drop(file);
        let first = self.take(&config, &request, false)?;
        // Behind a guard that refuses, nothing more is asked: so once more, with refusals that go on.
        let all = first.refusal.is_some().then(|| self.take(&config, &request, true)).transpose()?;
        let report = Report::of(&config, self.from, (&request, KeyNames::of(&key_parameters)), first, all);
        if self.json {
            print(&serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?);
        } else {
            print(report.to_string().trim_end());
        }
        Ok(())
    }

    fn take(&self, config: &Config, request: &Request, goes_on: bool) -> Result<Explained, String> {
        let settings = config.resolve(&Clock::system()).map_err(|e| e.to_string())?;
        let asked = Asked { bytes: &request.bytes, body: request.body, from: self.from, times: self.times };
        explain(settings, &asked, goes_on)
    }
}
