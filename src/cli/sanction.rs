//! `tidegate ban`, `unban`, `bans`, `top`, `limits` and `state`: what an operator does about callers, and sees of them.

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::breaker::warn_unless_kept;
use super::call::Server;
use crate::config::{Rate, Span};

const BANS: &str = "/api/security/bans";
const LIMITS: &str = "/api/security/limits";

#[derive(Debug, Args)]
pub struct BanArgs {
    /// An address (of IPv6 its /64 is meant), or the 16 digits by which logs show a user.
    #[arg(value_name = "ADDRESS|USER")]
    whom: String,
    /// How long; without it, as long as a first ban of the settings.
    #[arg(long = "for", value_name = "TIME")]
    time: Option<Span>,
    /// Why, for whoever reads the list or the audit.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub struct UnbanArgs {
    /// An address, or the 16 digits of a user.
    #[arg(value_name = "ADDRESS|USER")]
    whom: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Print the server's answer as it is.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Subcommand)]
pub enum LimitsCommand {
    /// List the limits, and which were changed by hand.
    Show(ShowArgs),
    /// Let a caller begin anew: all limits, strikes, and what is held against it.
    Reset {
        /// An address, or the 16 digits of a user.
        #[arg(value_name = "ADDRESS|USER")]
        whom: String,
        #[command(flatten)]
        server: Server,
    },
    /// Give a limit other windows, until `auto`.
    Set {
        /// Name of the limit.
        name: String,
        /// How many in which time, such as 10/min.
        #[arg(required = true, value_name = "WINDOW")]
        windows: Vec<Rate>,
        #[command(flatten)]
        server: Server,
    },
    /// Give a limit the windows of the settings again.
    Auto {
        /// Name of the limit.
        name: String,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Tell what the store of a running gate holds.
    Stats(ShowArgs),
}

/// The member that names somebody.
fn naming(whom: &str) -> (&'static str, &str) {
    let digits = whom.strip_prefix("user:").unwrap_or(whom);
    let is_user = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_user { ("user", digits) } else { ("address", whom) }
}

fn body_about(whom: &str) -> Map<String, Value> {
    let (member, id) = naming(whom);
    Map::from_iter([(member.to_owned(), id.into())])
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

impl BanArgs {
    pub fn ban(&self) -> Result<(), String> {
        let mut body = body_about(&self.whom);
        if let Some(time) = self.time {
            body.insert("for".into(), json!(time));
        }
        if let Some(reason) = &self.reason {
            body.insert("reason".into(), json!(reason));
        }
        let said = self.server.command(BANS, Value::from(body).to_string())?;
        let ban = &said["ban"];
        println!("{} {} is banned until {}", word(ban, "kind"), word(ban, "id"), word(ban, "until"));
        Ok(())
    }
}

impl UnbanArgs {
    pub fn unban(&self) -> Result<(), String> {
        let (member, id) = naming(&self.whom);
        let said =
            self.server.delete(&format!("{BANS}?{member}={}", utf8_percent_encode(id, NON_ALPHANUMERIC)))?;
        let ban = &said["lifted"];
        println!("{} {} is not banned any more", word(ban, "kind"), word(ban, "id"));
        Ok(())
    }
}

impl ShowArgs {
    /// Asks for `target`; prints the answer, or line by line what `lines` makes of it.
    fn show(&self, target: &str, lines: impl FnOnce(&Value) -> Vec<String>) -> Result<(), String> {
        let said = self.server.read(target)?;
        if self.json {
            println!("{said}");
        } else {
            lines(&said).iter().for_each(|line| println!("{line}"));
        }
        Ok(())
    }

    pub fn bans(&self) -> Result<(), String> {
        self.show(BANS, |said| {
            let bans = said["bans"].as_array().into_iter().flatten();
            bans.map(|ban| {
                let since = if ban["in_force"] == json!(true) { "until" } else { "was banned until" };
                let (kind, id, until) = (word(ban, "kind"), word(ban, "id"), word(ban, "until"));
                let by = if ban["by_hand"] == json!(true) { ", by hand" } else { "" };
                format!("{kind} {id} {since} {until}: {}{by}", word(ban, "reason"))
            })
            .collect()
        })
    }

    pub fn top(&self) -> Result<(), String> {
        self.show("/api/security/top?limit=20", |said| {
            let callers = said.as_array().into_iter().flatten();
            callers
                .map(|caller| {
                    let (who, last) = (word(caller, "identifier"), word(caller, "last_request"));
                    format!("{:>10}  {who}  last at {last}", caller["requests"])
                })
                .collect()
        })
    }

    fn limits(&self) -> Result<(), String> {
        self.show(LIMITS, |said| {
            let limits = said["limits"].as_array().into_iter().flatten();
            limits.map(limit_line).collect()
        })
    }
}

fn limit_line(limit: &Value) -> String {
    let rates = |key: &str| {
        let rates = limit[key].as_array().into_iter().flatten();
        rates.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let line = format!("{}: {}", word(limit, "limit"), rates("windows"));
    match word(limit, "origin") {
        "by hand" => format!("{line} by hand; the settings have {}", rates("settings")),
        _ => line,
    }
}

impl LimitsCommand {
    pub fn obey(&self) -> Result<(), String> {
        let set = |server: &Server, name: &str, windows: Value| {
            let said = server.command(LIMITS, json!({ "limit": name, "windows": windows }).to_string())?;
            println!("{}", limit_line(&said["limit"]));
            warn_unless_kept(&said);
            Ok(())
        };
        match self {
            Self::Show(args) => args.limits(),
            Self::Reset { whom, server } => {
                let body = Value::from(body_about(whom)).to_string();
                let said = server.command("/api/security/limits/reset", body)?;
                let reset = &said["reset"];
                println!("{} {} begins anew with all limits", word(reset, "kind"), word(reset, "id"));
                Ok(())
            }
            Self::Set { name, windows, server } => set(server, name, json!(windows)),
            Self::Auto { name, server } => set(server, name, "auto".into()),
        }
    }
}

impl StateCommand {
    pub fn obey(&self) -> Result<(), String> {
        let Self::Stats(args) = self;
        args.show("/api/state/stats", |said| {
            let members = said.as_object().into_iter().flatten();
            members.map(|(name, value)| format!("{name}: {value}")).collect()
        })
    }
}
