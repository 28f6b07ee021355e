//! Rate limits (L1, L3, L6): which counters a request draws from, and what it is told when one is empty.
//!
//! A request draws twice at most: limits of its address when its head is known, all others when its body is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use serde::Deserialize;

use super::{Fault, Head, Quota, Reason, Refusal, Traffic};
use crate::config::{Named, Rate, Span, Toggle};
use crate::proxy::client::{Client, ClientClass, ClientRules};
use crate::proxy::reply::seconds;
use crate::state::{Draw, LimitSpec, Standing, Subject, Window};

/// Which requests a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Counts {
    /// Safe methods outside APIs.
    Page,
    /// State-changing or inspected requests, calls to models among them.
    Api,
    /// Calls to models and chats.
    Ai,
    /// Every request.
    All,
    /// Questions for the caller's own limits.
    Status,
}

/// Whose requests a limit counts together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum By {
    /// Client address (IPv6: its /64).
    Address,
    /// User: the key presented. Without one, and beside one that nobody has verified, the address.
    User,
    /// Session, bound to its user or address.
    Session,
    /// Device id presented.
    Device,
    /// Host asked for.
    Tenant,
    /// Route.
    Route,
    /// Value of a header field.
    Header(HeaderName),
}

impl TryFrom<String> for By {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "address" => By::Address,
            "user" => By::User,
            "session" => By::Session,
            "device" => By::Device,
            "tenant" => By::Tenant,
            "route" => By::Route,
            other => {
                let header = other.strip_prefix("header:").and_then(|h| h.trim().parse().ok());
                By::Header(
                    header.ok_or(
                        "one of address, user, session, device, tenant, route, header:NAME is wanted",
                    )?,
                )
            }
        })
    }
}

/// A limit, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether it counts at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Which requests it counts.
    pub counts: Counts,
    /// Whose requests it counts together; several are combined into one subject.
    pub by: Vec<By>,
    /// How many in which time; all have to be kept.
    pub windows: Vec<Rate>,
    /// Other windows for a class of callers.
    #[serde(default)]
    pub classes: BTreeMap<ClassName, Vec<Rate>>,
    /// Name under which the environment sets it, for the refusal to say.
    #[serde(default)]
    pub environment: Option<String>,
}

/// A class of callers, as a key of `classes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClassName {
    /// No key presented.
    Anonymous,
    /// A key presented.
    Keyed,
}

fn yes() -> bool {
    true
}

/// A limit, as run.
#[derive(Clone, Debug)]
struct Limit {
    counts: Counts,
    by: Box<[By]>,
    spec: Arc<LimitSpec>,
    anonymous: Option<Arc<LimitSpec>>,
    keyed: Option<Arc<LimitSpec>>,
    setting: Arc<str>,
}

/// The limits of a route.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    head: Vec<Limit>,
    body: Vec<Limit>,
}

/// The draws of one transaction, and for each the setting that a refusal names.
#[derive(Default)]
pub struct Draws<'a> {
    draws: Vec<Draw<'a>>,
    settings: Vec<&'a str>,
}

impl<'a> Draws<'a> {
    /// The draws.
    pub fn as_slice(&self) -> &[Draw<'a>] {
        &self.draws
    }

    /// The refusal of the window that `standing` tells of, which lasts for `wait`.
    pub fn refusal(&self, standing: &Standing, wait: Duration) -> Refusal {
        let quota = Quota {
            limit: self.name(standing).into(),
            max: standing.max,
            remaining: 0,
            window: standing.window,
            reset: wait,
        };
        let (max, window, wait) = (quota.max, Span(quota.window), seconds(wait));
        let detail = format!("The limit {} allows {max} in {window}; try again in {wait} s.", quota.limit);
        let setting = self.settings.get(standing.draw).copied().unwrap_or("limits").to_owned();
        Refusal { quota: Some(Box::new(quota)), ..Refusal::new(Reason::RateLimited, detail, setting) }
    }

    /// Name of the limit that `standing` tells of.
    pub fn name(&self, standing: &Standing) -> &str {
        self.draws.get(standing.draw).map_or("limit", |draw| draw.limit.name())
    }

    /// Whose draws `standing` counts.
    pub fn kind(&self, standing: &Standing) -> &'static str {
        self.draws.get(standing.draw).map_or("", |draw| draw.subject.kind().name())
    }
}

/// Who draws, and for what.
pub struct Drawer<'a> {
    /// Who is asking.
    pub client: &'a Client,
    /// Makes the digests of what is not a digest yet.
    pub rules: &'a ClientRules,
    /// What the request counts as.
    pub traffic: Traffic,
    /// Whether it asks for its own limits, and so draws only from the limit on that.
    pub status: bool,
    /// Name of its route.
    pub route: &'a str,
    /// Header fields.
    pub headers: &'a http::HeaderMap,
}

impl<'a> Drawer<'a> {
    /// The one who sent `head`.
    pub fn of(head: &Head<'a>, rules: &'a ClientRules, route: &'a str, status: bool) -> Self {
        Self { client: head.client, rules, traffic: head.traffic, status, route, headers: head.headers }
    }
}

impl Limits {
    /// Builds the limits of a route. `owner` names the route that overrides a limit, if one does: such a limit has a
    /// counter of its own, all others share theirs over all routes.
    pub fn build<'a>(
        configs: &Named<Toggle<Config>>,
        owner: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, Fault> {
        let mut limits = Self::default();
        let on = configs.iter().filter_map(|(name, config)| Some((name, config.as_option()?)));
        for (name, config) in on.filter(|(_, config)| config.enabled) {
            let limit = Limit::build(name, owner(name), config);
            let limit = limit.map_err(|why| Fault::new(format!("limits.{name}"), why))?;
            let own = config.by == [By::Address] && config.counts != Counts::Ai;
            if own { limits.head.push(limit) } else { limits.body.push(limit) }
        }
        Ok(limits)
    }

    /// Maximum of the limit `name` in its window of that length.
    pub fn max(&self, name: &str, window: Duration) -> Option<u64> {
        let limit = self.head.iter().chain(&self.body).find(|limit| limit.spec.name() == name)?;
        limit.spec.windows().find(|w| w.length == window).map(|w| w.max)
    }

    /// Draws that stand whatever follows, or refusals would be free probes.
    pub fn head_draws<'a>(&'a self, drawer: &Drawer<'_>) -> Draws<'a> {
        collect(&self.head, drawer)
    }

    /// Draws that are all granted, or nothing taken.
    pub fn body_draws<'a>(&'a self, drawer: &Drawer<'_>) -> Draws<'a> {
        collect(&self.body, drawer)
    }

    /// Every draw that a request of any kind by this caller would make, for showing.
    pub fn all_draws<'a>(&'a self, drawer: &Drawer<'_>) -> Draws<'a> {
        let mut draws = Draws::default();
        for limit in self.head.iter().chain(&self.body).filter(|l| l.counts != Counts::Status) {
            limit.draw(drawer, &mut draws);
        }
        draws
    }
}

fn collect<'a>(limits: &'a [Limit], drawer: &Drawer<'_>) -> Draws<'a> {
    let mut draws = Draws::default();
    for limit in limits.iter().filter(|l| l.counts.includes(drawer.traffic, drawer.status)) {
        limit.draw(drawer, &mut draws);
    }
    draws
}

impl Counts {
    fn includes(self, traffic: Traffic, status: bool) -> bool {
        match self {
            Counts::Status => status,
            _ if status => false,
            Counts::All => true,
            Counts::Page => traffic == Traffic::Page,
            Counts::Api => traffic != Traffic::Page,
            Counts::Ai => traffic == Traffic::Ai,
        }
    }
}

impl Limit {
    fn build(name: &str, owner: Option<&str>, config: &Config) -> Result<Self, String> {
        let counter = owner.map_or_else(|| name.to_owned(), |route| format!("{route}/{name}"));
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !name.chars().all(sound) || name.is_empty() {
            return Err("a limit's name is made of letters, digits, - and _".into());
        }
        if config.by.is_empty() {
            return Err("`by` names nobody; write for example [address]".into());
        }
        let spec = |rates: &[Rate], class: &str| -> Result<Arc<LimitSpec>, String> {
            if rates.is_empty() {
                return Err("`windows` is empty; write for example [60/min], or `enabled: off`".into());
            }
            let windows = rates.iter().map(|rate| Window { length: rate.window, max: rate.max });
            let spec =
                LimitSpec::new(&format!("{counter}{class}"), windows).map_err(|why| why.to_string())?;
            Ok(Arc::new(spec))
        };
        let of_class =
            |class, suffix| config.classes.get(&class).map(|rates| spec(rates, suffix)).transpose();
        let setting = match (owner, &config.environment) {
            (Some(route), _) => format!("limits.{name} of the route {route}"),
            (None, Some(variables)) => format!("limits.{name} ({variables})"),
            (None, None) => format!("limits.{name}"),
        };
        Ok(Self {
            counts: config.counts,
            by: config.by.clone().into(),
            spec: spec(&config.windows, "")?,
            anonymous: of_class(ClassName::Anonymous, ".anonymous")?,
            keyed: of_class(ClassName::Keyed, ".keyed")?,
            setting: setting.into(),
        })
    }

    fn spec_for(&self, class: ClientClass) -> &LimitSpec {
        let own = match class {
            ClientClass::Anonymous => &self.anonymous,
            ClientClass::Keyed => &self.keyed,
        };
        own.as_deref().unwrap_or(&self.spec)
    }

    fn draw<'a>(&'a self, drawer: &Drawer<'_>, draws: &mut Draws<'a>) {
        let limit = self.spec_for(drawer.client.class);
        let mut push = |subject| {
            draws.draws.push(Draw { limit, subject, weight: 1 });
            draws.settings.push(&self.setting);
        };
        let address = Subject::address(drawer.client.address);
        match &*self.by {
            [By::User] => {
                // Anyone can invent a key, so one that is not verified gains its bearer nothing.
                push(address);
                if let Some(user) = drawer.client.user {
                    push(Subject::user(user));
                }
            }
            [one] => {
                if let Some(subject) = subject_of(one, drawer) {
                    push(subject);
                }
            }
            several => {
                let parts = several.iter().map(|by| subject_of(by, drawer));
                if let Some(parts) = parts.collect::<Option<Vec<_>>>() {
                    push(Subject::combined(&parts));
                }
            }
        }
    }
}

/// `None`: the request has no such thing, so the limit does not concern it.
fn subject_of(by: &By, drawer: &Drawer<'_>) -> Option<Subject> {
    let client = drawer.client;
    Some(match by {
        By::Address => Subject::address(client.address),
        By::User => match client.user {
            Some(user) => Subject::user(user),
            None => Subject::address(client.address),
        },
        By::Session => Subject::session(client.session?),
        By::Device => Subject::device(client.device?),
        By::Tenant => Subject::tenant(drawer.rules.tenant_id(&client.tenant)),
        By::Route => Subject::route(drawer.route),
        By::Header(name) => Subject::header(name.as_str(), drawer.headers.get(name)?.as_bytes()),
    })
}
