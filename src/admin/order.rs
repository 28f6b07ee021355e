//! What a request to the admin port wants changed, read from its query and body.

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::control::Control;
use crate::config::{Rate, Span};
use crate::proxy::Whom;
use crate::state::switches::Maintenance;
use crate::upstream::breaker::Mode;

/// Characters of a text that an operator writes, at most.
const TEXT_CHARS: usize = 500;

/// The longest ban.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why a request can't be obeyed: names the field.
pub(super) struct Bad(pub(super) String);

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Reload,
    Breaker { mode: Mode, upstream: Option<String> },
    Maintenance(Option<Maintenance>),
    Ban { whom: Whom, time: Option<Duration>, reason: String },
    Unban(Whom),
    ResetLimits(Whom),
    SetLimit { limit: String, windows: Option<Vec<Rate>> },
}

/// The body of a request to close the app.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Closing {
    message: String,
    retry_after_s: u32,
}

impl Default for Closing {
    fn default() -> Self {
        Self { message: "The app is closed for maintenance.".into(), retry_after_s: 300 }
    }
}

/// The body of a request to ban somebody, or to set back what is counted of them.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Naming {
    address: Option<String>,
    user: Option<String>,
    #[serde(rename = "for")]
    time: Option<String>,
    reason: Option<String>,
}

/// The body of a request to change a limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    limit: String,
    windows: Windows,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Windows {
    Word(String),
    List(Vec<String>),
}

impl Order {
    pub(super) fn read(control: Control, query: Option<&str>, body: &[u8]) -> Result<Self, Bad> {
        Ok(match control {
            Control::Reload => Self::Reload,
            Control::Breaker(mode) => Self::Breaker { mode, upstream: upstream_of(query)? },
            Control::Maintenance(on) => Self::Maintenance(on.then(|| closing(body)).transpose()?),
            Control::Ban => ban(body)?,
            Control::Unban => {
                let naming = named_in(query.unwrap_or_default())?;
                Self::Unban(whom(naming.address.as_deref(), naming.user.as_deref())?)
            }
            Control::ResetLimits => {
                let naming: Naming = json_body(body, r#"{"address":"198.51.100.7"}"#)?;
                for (name, given) in [("for", &naming.time), ("reason", &naming.reason)] {
                    if given.is_some() {
                        return Err(Bad(format!("{name} is not known here; name an address or a user.")));
                    }
                }
                Self::ResetLimits(whom(naming.address.as_deref(), naming.user.as_deref())?)
            }
            Control::SetLimit => set_limit(body)?,
        })
    }

    /// The stable word for it.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Breaker { .. } => "breaker",
            Self::Maintenance(_) => "maintenance",
            Self::Ban { .. } => "ban",
            Self::Unban(_) => "unban",
            Self::ResetLimits(_) => "limits_reset",
            Self::SetLimit { .. } => "limit",
        }
    }

    /// Whom or what it concerns.
    pub(super) fn subject(&self) -> Option<String> {
        let named = |whom: &Whom| match whom {
            Whom::Address(address) => address.to_string(),
            Whom::User(user) => format!("user:{user}"),
        };
        match self {
            Self::Reload | Self::Maintenance(_) => None,
            Self::Breaker { upstream, .. } => upstream.clone(),
            Self::Ban { whom, .. } | Self::Unban(whom) | Self::ResetLimits(whom) => Some(named(whom)),
            Self::SetLimit { limit, .. } => Some(limit.clone()),
        }
    }

    /// What is asked for, as the audit shows it.
    pub(super) fn asked(&self) -> Value {
        match self {
            Self::Reload | Self::Unban(_) | Self::ResetLimits(_) => Value::Null,
            Self::Breaker { mode, .. } => json!({ "mode": mode.name() }),
            Self::Maintenance(wanted) => json!({ "maintenance": wanted }),
            Self::Ban { time, reason, .. } => {
                json!({ "for": time.map(|time| Span(time).to_string()), "reason": reason })
            }
            Self::SetLimit { windows: None, .. } => json!({ "windows": "auto" }),
            Self::SetLimit { windows, .. } => json!({ "windows": windows }),
        }
    }
}

fn ban(body: &[u8]) -> Result<Order, Bad> {
    let Naming { address, user, time, reason } =
        json_body(body, r#"{"address":"198.51.100.7","for":"15m","reason":"abuse"}"#)?;
    let time = time.map(|text| {
        let span: Span = text.parse().map_err(|why| Bad(format!("for: {why}.")))?;
        match span.duration() {
            time if time < Duration::from_secs(1) || time > LONGEST => {
                Err(Bad("for: a ban lasts from 1s to 366d.".into()))
            }
            time => Ok(time),
        }
    });
    let reason = reason.unwrap_or_else(|| "by hand".into());
    text_of("reason", &reason)?;
    let whom = whom(address.as_deref(), user.as_deref())?;
    Ok(Order::Ban { whom, time: time.transpose()?, reason })
}

fn set_limit(body: &[u8]) -> Result<Order, Bad> {
    let Setting { limit, windows } = json_body(body, r#"{"limit":"ai","windows":["10/min"]}"#)?;
    let rate = |text: String| {
        text.parse::<Rate>().map_err(|why| Bad(format!("windows: {:?}: {why}.", shown(&text))))
    };
    let windows = match windows {
        Windows::Word(word) if word == "auto" => None,
        Windows::Word(_) => {
            return Err(Bad("windows: a list such as [\"10/min\"] is wanted, or \"auto\".".into()));
        }
        Windows::List(rates) if rates.is_empty() || rates.len() > 8 => {
            return Err(Bad("windows: 1 to 8 rates such as \"10/min\" are wanted.".into()));
        }
        Windows::List(rates) => Some(rates.into_iter().map(rate).collect::<Result<_, _>>()?),
    };
    Ok(Order::SetLimit { limit, windows })
}

fn whom(address: Option<&str>, user: Option<&str>) -> Result<Whom, Bad> {
    match (address, user) {
        (Some(address), None) => {
            // As lists show networks of IPv6.
            let single =
                address.strip_suffix("/64").filter(|address| address.contains(':')).unwrap_or(address);
            let parsed = single.parse::<IpAddr>().map(|address| address.to_canonical());
            parsed.map(Whom::Address).map_err(|_| {
                Bad(format!(
                    "address: {:?} is no address; write it like 198.51.100.7 or 2001:db8::7.",
                    shown(address)
                ))
            })
        }
        (None, Some(user)) => {
            let digits = user.strip_prefix("user:").unwrap_or(user);
            let sound = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            sound
                .then(|| Whom::User(digits.to_ascii_lowercase()))
                .ok_or_else(|| Bad("user: the 16 hex digits are wanted by which logs show a user.".into()))
        }
        _ => Err(Bad("Name either an address or a user.".into())),
    }
}

fn named_in(query: &str) -> Result<Naming, Bad> {
    let mut naming = Naming::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| Bad(format!("{}: no UTF-8.", shown(name))))?;
        let place = match name {
            "address" => &mut naming.address,
            "user" => &mut naming.user,
            _ => {
                return Err(Bad(format!(
                    "{:?} is not known; the query is ?address=… or ?user=….",
                    shown(name)
                )));
            }
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(Bad(format!("{name} stands there twice.")));
        }
    }
    Ok(naming)
}

/// The upstream that a query names; a query of anything else is more likely a slip than meant for all upstreams.
fn upstream_of(query: Option<&str>) -> Result<Option<String>, Bad> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let name = query.strip_prefix("upstream=").filter(|name| !name.is_empty() && !name.contains('&'));
    let name = name.and_then(|name| percent_decode_str(name).decode_utf8().ok());
    let wanted = || Bad("The query names one upstream: ?upstream=NAME; without one, all are meant.".into());
    name.map(|name| Some(name.into_owned())).ok_or_else(wanted)
}

fn closing(body: &[u8]) -> Result<Maintenance, Bad> {
    let Closing { message, retry_after_s } = match body {
        b"" => Closing::default(),
        body => json_body(body, r#"{"message":"Back at noon.","retry_after_s":600}"#)?,
    };
    text_of("message", &message)?;
    Ok(Maintenance { message, retry_after_s })
}

fn text_of(name: &str, text: &str) -> Result<(), Bad> {
    if text.trim().is_empty() || text.chars().count() > TEXT_CHARS {
        return Err(Bad(format!("{name} has 1 to {TEXT_CHARS} characters.")));
    }
    Ok(())
}

fn json_body<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, Bad> {
    serde_json::from_slice(body).map_err(|why| Bad(format!("The body is JSON such as {example}: {why}.")))
}

/// As much of a value as an error shows.
fn shown(text: &str) -> &str {
    text.get(..text.floor_char_boundary(40)).unwrap_or(text)
}
