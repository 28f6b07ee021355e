//! `tidegate audit`: reads what operators did, and finds what was done to that. Needs no running gate.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::environment;
use crate::config::{Config, Overrides, Span};
use crate::observe::audit::{Row, read};
use crate::state::Clock;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List what operators did, oldest first.
    List {
        /// Print rows as they are, acts begun among them.
        #[arg(long)]
        json: bool,
        /// Only what is younger than this (24h, 30d), or than this point (2026-03-01T12:00:00Z).
        #[arg(long, value_name = "TIME")]
        since: Option<Since>,
        #[command(flatten)]
        place: Place,
    },
    /// Find out whether a row was changed, or is missing.
    Verify {
        #[command(flatten)]
        place: Place,
    },
}

/// Where the audit is.
#[derive(Debug, Args)]
pub struct Place {
    /// Settings file of the gate.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A point in time, in microseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Since(u64);

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let micros = |time: u128| Self(u64::try_from(time).unwrap_or(u64::MAX));
        if let Ok(span) = text.parse::<Span>() {
            let now = u128::from(Clock::system().now().as_micros());
            return Ok(micros(now.saturating_sub(span.duration().as_micros())));
        }
        let point: jiff::Timestamp =
            text.parse().map_err(|_| "a time such as 24h, 30d or 2026-03-01T12:00:00Z is wanted")?;
        Ok(micros(u128::try_from(point.as_microsecond()).unwrap_or(0)))
    }
}

impl Place {
    fn state_dir(&self) -> Result<PathBuf, String> {
        let config = Config::load(self.config.as_deref(), &Overrides::default(), &environment);
        let settings = config.and_then(|config| config.server_settings()).map_err(|why| why.to_string())?;
        settings.state_dir.ok_or_else(|| {
            "there is no audit without a state_dir: name the settings file (-c FILE), or set STATE_DIR".into()
        })
    }
}

impl AuditCommand {
    pub fn obey(&self) -> Result<(), String> {
        match self {
            Self::List { json, since, place } => {
                list(&place.state_dir()?, *json, since.map_or(0, |since| since.0))
            }
            Self::Verify { place } => verify(&place.state_dir()?),
        }
    }
}

fn list(state_dir: &Path, json: bool, since: u64) -> Result<(), String> {
    // Of an act whose outcome is known, only that is shown.
    let mut open: HashMap<u64, usize> = HashMap::new();
    let mut rows: Vec<Option<Row>> = Vec::new();
    let outcome = read(state_dir, |row| {
        if row.at().is_some_and(|at| at.as_micros() < since) {
            return;
        }
        if let Some(begun) = row.of.and_then(|of| open.remove(&of)).filter(|_| !json) {
            rows[begun] = None;
        }
        if row.outcome == "begun" {
            open.insert(row.row, rows.len());
        }
        rows.push(Some(row));
    });
    for row in rows.into_iter().flatten() {
        if json {
            println!("{}", row.as_written().map_err(|why| why.to_string())?);
        } else if !row.act.starts_with("audit.") {
            println!("{}", sentence(&row));
        }
    }
    outcome.map(drop).map_err(|why| format!("the audit is broken: {why}; what stands before that is listed"))
}

fn sentence(row: &Row) -> String {
    let mut line = format!("{:>6}  {}  {}", row.row, row.ts, row.act);
    if let Some(subject) = &row.subject {
        line += &format!(" {subject}");
    }
    line += &format!(": {}", if row.outcome == "begun" { "begun, outcome unknown" } else { &row.outcome });
    if !(row.before.is_null() && row.after.is_null()) {
        line += &format!(", {} -> {}", row.before, row.after);
    }
    if let Some(detail) = &row.detail {
        line += &format!(", {detail}");
    }
    let by = row.address.as_deref().unwrap_or("a signal");
    line += &format!("  (by {by}");
    if let Some(token) = &row.token {
        line += &format!(", token {token}");
    }
    line + ")"
}

fn verify(state_dir: &Path) -> Result<(), String> {
    let chain = read(state_dir, |_| ()).map_err(|why| format!("the audit is broken: {why}"))?;
    let Some(head) = chain.head else {
        println!("the audit is empty");
        return Ok(());
    };
    println!("{} rows, all in order; row {} is the last, with the hash {}", chain.rows, head.row, head.hash);
    if let Some(first) = chain.cut_at {
        println!("rows before {first} were cut off by age (audit.keep)");
    }
    if chain.torn {
        println!("a row was torn off while it was written; the gate drops it when it goes on");
    }
    Ok(())
}
