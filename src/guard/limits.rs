//! Rate limits (L1, L3, L6): which counters a request draws from, and what it is told when one is empty.
//!
//! A request draws twice at most: limits of its address when its head is known, all others when its body is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use serde::Deserialize;
use smallvec::SmallVec;

use super::{Fault, Head, Quota, Reason, Refusal, Traffic};
use crate::config::{Named, Rate, Span, Toggle};
use crate::proxy::client::{Client, ClientClass, ClientRules};
use crate::proxy::reply::seconds;
use crate::state::{Draw, Kind, LimitSpec, Standing, Subject, Window};

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

/// What a limit counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// That it was made.
    #[default]
    Requests,
    /// Bytes of its body.
    BytesIn,
    /// Bytes of its answer's body.
    BytesOut,
    /// Both.
    Bytes,
}

/// Whose requests a limit counts together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^(address|user|session|device|tenant|route|header:.+|segment:[1-9][0-9]*|field:/.+)$"))]
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
    /// Segment of the path, counted from 1.
    Segment(u16),
    /// Value of a field of the body.
    Field(Box<str>),
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
                let named = other.split_once(':').and_then(|(kind, name)| match (kind, name.trim()) {
                    ("header", name) => name.parse().ok().map(By::Header),
                    ("segment", number) => number.parse().ok().filter(|n| *n > 0).map(By::Segment),
                    ("field", path) => path.starts_with('/').then(|| By::Field(path.into())),
                    _ => None,
                });
                named.ok_or(
                    "one of address, user, session, device, tenant, route, header:NAME, segment:NUMBER, \
                     field:/PATH is wanted",
                )?
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
    /// What it counts of each.
    #[serde(default)]
    pub measure: Measure,
    /// How many in which time; all have to be kept.
    pub windows: Vec<Rate>,
    /// Other windows for a class of callers.
    #[serde(default)]
    #[schemars(schema_with = "classes")]
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

/// The schema of `classes`; the derived one would take any name.
fn classes(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "propertyNames": generator.subschema_for::<ClassName>(),
        "additionalProperties": generator.subschema_for::<Vec<Rate>>(),
    })
}

fn yes() -> bool {
    true
}

/// A limit, as run.
#[derive(Clone, Debug)]
struct Limit {
    counts: Counts,
    measure: Measure,
    by: Box<[By]>,
    spec: Spec,
    anonymous: Option<Spec>,
    keyed: Option<Spec>,
    setting: Arc<str>,
}

/// The windows of a limit, for all callers or a class.
#[derive(Clone, Debug)]
struct Spec {
    run: Arc<LimitSpec>,
    /// As the settings have it, where somebody has changed it by hand.
    written: Option<Arc<LimitSpec>>,
}

/// A limit, for showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitView {
    /// Name of its counter.
    pub limit: String,
    /// How many in which time.
    pub windows: Vec<Rate>,
    /// The same, as the settings have it.
    pub written: Vec<Rate>,
    /// Whether somebody has changed it by hand.
    pub by_hand: bool,
    /// Routes that it counts for.
    pub routes: Vec<Box<str>>,
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
    draws: SmallVec<[Draw<'a>; 6]>,
    settings: SmallVec<[&'a str; 6]>,
}

impl<'a> Draws<'a> {
    /// The draws.
    pub fn as_slice(&self) -> &[Draw<'a>] {
        &self.draws
    }

    /// Adds a draw of 1 that is not one of the limits'.
    pub fn push(&mut self, limit: &'a LimitSpec, subject: Subject, setting: &'a str) {
        self.draws.push(Draw::one(limit, subject));
        self.settings.push(setting);
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
        let setting = self.settings.get(standing.draw).copied().unwrap_or("limits").to_owned();
        if self.draws.get(standing.draw).is_some_and(|draw| draw.subject.kind() == Kind::Call) {
            let detail = format!("The same call came {max} times in {window}; it is paused for {wait} s.");
            return Refusal::new(Reason::LoopDetected, detail, setting).after(quota.reset);
        }
        let detail = format!("The limit {} allows {max} in {window}; try again in {wait} s.", quota.limit);
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
    /// Its path.
    pub path: &'a str,
    /// Values in its body that limits count by, with their fields.
    pub values: &'a [(Box<str>, String)],
    /// What each of its draws counts.
    pub weight: u64,
}

impl<'a> Drawer<'a> {
    /// The one who sent `head`.
    pub fn of(head: &Head<'a>, rules: &'a ClientRules, route: &'a str, status: bool) -> Self {
        let Head { client, traffic, headers, path, .. } = *head;
        Self { client, rules, traffic, status, route, headers, path, values: &[], weight: 1 }
    }

    /// The same, whose every draw counts so much.
    #[must_use]
    pub fn weighing(self, weight: u64) -> Self {
        Self { weight, ..self }
    }

    /// The same, with what its body says.
    #[must_use]
    pub fn naming(self, values: &'a [(Box<str>, String)]) -> Self {
        Self { values, ..self }
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
            // What flows stands whatever follows.
            if own || config.measure != Measure::Requests {
                limits.head.push(limit)
            } else {
                limits.body.push(limit)
            }
        }
        Ok(limits)
    }

    /// Maximum of the limit `name` in its window of that length.
    pub fn max(&self, name: &str, window: Duration) -> Option<u64> {
        let limit = self.head.iter().chain(&self.body).find(|limit| limit.spec.run.name() == name)?;
        limit.spec.run.windows().find(|w| w.length == window).map(|w| w.max)
    }

    /// Gives limits the windows that somebody has set by hand.
    pub fn change(&mut self, by_hand: &BTreeMap<String, Vec<Rate>>) {
        for spec in self.head.iter_mut().chain(&mut self.body).flat_map(Limit::specs_mut) {
            let windows = by_hand
                .get(spec.run.name())
                .map(|rates| rates.iter().map(|rate| Window { length: rate.window, max: rate.max }));
            // What can't be counted was refused when it was set.
            if let Some(run) = windows.and_then(|windows| LimitSpec::new(spec.run.name(), windows).ok()) {
                spec.written = Some(std::mem::replace(&mut spec.run, run.into()));
            }
        }
    }

    /// All of them.
    pub fn views(&self) -> impl Iterator<Item = LimitView> {
        let rates = |spec: &LimitSpec| -> Vec<_> {
            spec.windows().map(|window| Rate { max: window.max, window: window.length }).collect()
        };
        self.head.iter().chain(&self.body).flat_map(Limit::specs).map(move |spec| LimitView {
            limit: spec.run.name().into(),
            windows: rates(&spec.run),
            written: rates(spec.written.as_ref().unwrap_or(&spec.run)),
            by_hand: spec.written.is_some(),
            routes: Vec::new(),
        })
    }

    /// Draws from all that is counted of `subject`, an address or a user, alone or on one route.
    pub fn draws_of(&self, subject: Subject, route: &str) -> Vec<Draw<'_>> {
        let is_user = subject.kind() == Kind::User;
        let part = |by: &By| match by {
            By::User => Some(subject),
            By::Address if !is_user => Some(subject),
            By::Route => Some(Subject::route(route)),
            _ => None,
        };
        let mut draws = Vec::new();
        for limit in self.head.iter().chain(&self.body) {
            let Some(parts) = limit.by.iter().map(part).collect::<Option<Vec<_>>>() else { continue };
            let counted = match &*parts {
                [one] => *one,
                parts => Subject::combined(parts),
            };
            if parts.contains(&subject) {
                draws.extend(limit.specs().map(|spec| Draw::one(&spec.run, counted)));
            }
        }
        draws
    }

    /// Draws that stand whatever follows, or refusals would be free probes.
    pub fn head_draws<'a>(&'a self, drawer: &Drawer<'_>) -> Draws<'a> {
        collect(&self.head, drawer)
    }

    /// Draws that are all granted, or nothing taken.
    pub fn body_draws<'a>(&'a self, drawer: &Drawer<'_>) -> Draws<'a> {
        collect(&self.body, drawer)
    }

    /// What a request draws that is over: the bytes that went in and out, but for the one that was drawn at its beginning.
    pub fn flown<'a>(&'a self, drawer: &Drawer<'_>, bytes_in: u64, bytes_out: u64) -> Draws<'a> {
        let mut draws = Draws::default();
        let counted = |limit: &&Limit| {
            limit.measure != Measure::Requests && limit.counts.includes(drawer.traffic, drawer.status)
        };
        for limit in self.head.iter().filter(counted) {
            let bytes = match limit.measure {
                Measure::Requests => 0,
                Measure::BytesIn => bytes_in,
                Measure::BytesOut => bytes_out,
                Measure::Bytes => bytes_in.saturating_add(bytes_out),
            };
            limit.draw(drawer, bytes.saturating_sub(1), &mut draws);
        }
        draws
    }

    /// Adds every draw that a request of any kind by this caller would make under these limits, but for counters that
    /// are there already. For showing.
    pub fn add_all<'a>(&'a self, drawer: &Drawer<'_>, draws: &mut Draws<'a>) {
        let shown = |limit: &Limit| limit.counts != Counts::Status;
        for limit in self.head.iter().chain(&self.body).filter(|limit| shown(limit)) {
            let counter = limit.spec_for(drawer.client.class).name();
            if !draws.draws.iter().any(|draw| draw.limit.name() == counter) {
                limit.draw(drawer, 1, draws);
            }
        }
    }
}

/// The fields of bodies that limits count by.
pub fn counted_fields(configs: &Named<Toggle<Config>>) -> Vec<String> {
    let limits = configs.iter().filter_map(|(_, config)| config.as_option());
    let fields = limits.flat_map(|config| &config.by).filter_map(|by| match by {
        By::Field(path) => Some(path.to_string()),
        _ => None,
    });
    let mut fields: Vec<_> = fields.collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

fn collect<'a>(limits: &'a [Limit], drawer: &Drawer<'_>) -> Draws<'a> {
    let mut draws = Draws::default();
    for limit in limits.iter().filter(|l| l.counts.includes(drawer.traffic, drawer.status)) {
        let weight = if limit.measure == Measure::Requests { drawer.weight } else { 1 };
        limit.draw(drawer, weight, &mut draws);
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
        let spec = |rates: &[Rate], class: &str| -> Result<Spec, String> {
            if rates.is_empty() {
                return Err("`windows` is empty; write for example [60/min], or `enabled: off`".into());
            }
            let windows = rates.iter().map(|rate| Window { length: rate.window, max: rate.max });
            let spec =
                LimitSpec::new(&format!("{counter}{class}"), windows).map_err(|why| why.to_string())?;
            Ok(Spec { run: Arc::new(spec), written: None })
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
            measure: config.measure,
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
        &own.as_ref().unwrap_or(&self.spec).run
    }

    fn specs(&self) -> impl Iterator<Item = &Spec> {
        [Some(&self.spec), self.anonymous.as_ref(), self.keyed.as_ref()].into_iter().flatten()
    }

    fn specs_mut(&mut self) -> impl Iterator<Item = &mut Spec> {
        [Some(&mut self.spec), self.anonymous.as_mut(), self.keyed.as_mut()].into_iter().flatten()
    }

    fn draw<'a>(&'a self, drawer: &Drawer<'_>, weight: u64, draws: &mut Draws<'a>) {
        let limit = self.spec_for(drawer.client.class);
        let mut push = |subject| {
            draws.draws.push(Draw { limit, subject, weight });
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
                let parts = |unkeyed: bool| {
                    let part = |by: &By| match by {
                        By::User if unkeyed => Some(address),
                        by => subject_of(by, drawer),
                    };
                    several.iter().map(part).collect::<Option<Vec<_>>>()
                };
                if several.contains(&By::User)
                    && drawer.client.user.is_some()
                    && let Some(parts) = parts(true)
                {
                    push(Subject::combined(&parts));
                }
                if let Some(parts) = parts(false) {
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
        By::Segment(number) => {
            let segment = drawer.path.split('/').nth(usize::from(*number)).filter(|s| !s.is_empty())?;
            Subject::resource("segment", segment.as_bytes())
        }
        By::Field(path) => {
            let (_, value) = drawer.values.iter().find(|(field, _)| field == path)?;
            Subject::resource(path, value.as_bytes())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{Request, rules};
    use crate::proxy::client::SubjectId;

    fn config(counts: Counts, by: &[By]) -> Config {
        let windows = vec![Rate { max: 5, window: Duration::from_secs(60) }];
        Config {
            enabled: true,
            counts,
            by: by.to_vec(),
            measure: Measure::Requests,
            windows,
            classes: BTreeMap::new(),
            environment: None,
        }
    }

    fn limits(all: &[(&str, Config)]) -> Limits {
        let named = all.iter().map(|(name, config)| ((*name).into(), Toggle::On(config.clone()))).collect();
        Limits::build(&Named(named), |_| None).expect("limits")
    }

    /// What a request draws from before its body is read, and after: names of limits and kinds of subjects.
    fn drawn(
        limits: &Limits,
        request: &Request,
        traffic: Traffic,
        status: bool,
    ) -> [Vec<(String, &'static str)>; 2] {
        let (rules, head) = (rules(), Head { traffic, ..request.head() });
        let drawer = Drawer::of(&head, &rules, "default", status);
        [limits.head_draws(&drawer), limits.body_draws(&drawer)].map(|draws| {
            let names = draws.as_slice().iter();
            names.map(|draw| (draw.limit.name().to_owned(), draw.subject.kind().name())).collect()
        })
    }

    /// A limit of the address must stand before the body is read, or refusals would be free probes.
    #[test]
    fn limits_of_the_address_are_drawn_first() {
        let limits = limits(&[
            ("pages", config(Counts::Page, &[By::Address])),
            ("api", config(Counts::Api, &[By::Address])),
            ("ai", config(Counts::Ai, &[By::User])),
            ("status", config(Counts::Status, &[By::Address])),
        ]);
        let request = Request::new(http::Method::POST);
        let own = |name: &str| vec![(name.to_owned(), "address")];
        assert_eq!(drawn(&limits, &request, Traffic::Page, false), [own("pages"), vec![]]);
        assert_eq!(drawn(&limits, &request, Traffic::Api, false), [own("api"), vec![]]);
        assert_eq!(drawn(&limits, &request, Traffic::Ai, false), [own("api"), own("ai")]);
        assert_eq!(drawn(&limits, &request, Traffic::Page, true), [own("status"), vec![]]);
    }

    /// Inventing keys must gain nothing: a key that nobody has verified draws from its address, too.
    #[test]
    fn keys_draw_beside_their_address() {
        let limits = limits(&[("ai", config(Counts::Ai, &[By::User]))]);
        let mut request = Request::new(http::Method::POST);
        request.client.user = Some(SubjectId(7));
        let [_, body] = drawn(&limits, &request, Traffic::Ai, false);
        assert_eq!(body, [("ai".to_owned(), "address"), ("ai".to_owned(), "user")]);
    }

    /// The same where the user is only part of who is counted.
    #[test]
    fn keys_draw_beside_their_address_in_combinations() {
        let limits = limits(&[("ai", config(Counts::Ai, &[By::User, By::Route]))]);
        let mut request = Request::new(http::Method::POST);
        let subject = |request: &Request| {
            let (rules, head) = (rules(), Head { traffic: Traffic::Ai, ..request.head() });
            let draws = limits.body_draws(&Drawer::of(&head, &rules, "default", false));
            draws.as_slice().iter().map(|draw| draw.subject).collect::<Vec<_>>()
        };
        let anonymous = subject(&request);
        request.client.user = Some(SubjectId(7));
        let keyed = subject(&request);
        assert_eq!((anonymous.len(), keyed.len()), (1, 2));
        assert_eq!(anonymous[0], keyed[0]);
    }

    /// What a request does not have can't be counted, and must not be counted together with what others don't have.
    #[test]
    fn absent_subjects_draw_nothing() {
        let by_both = config(Counts::All, &[By::Session, By::Device]);
        let limits = limits(&[("session", config(Counts::All, &[By::Session])), ("both", by_both)]);
        let mut request = Request::new(http::Method::POST);
        assert_eq!(drawn(&limits, &request, Traffic::Api, false), [vec![], vec![]]);
        request.client.session = Some(SubjectId(7));
        let [_, body] = drawn(&limits, &request, Traffic::Api, false);
        assert_eq!(body, [("session".to_owned(), "session")]);
        request.client.device = Some(SubjectId(8));
        let [_, body] = drawn(&limits, &request, Traffic::Api, false);
        assert_eq!(body[1..], [("both".to_owned(), "combination")]);
    }

    /// Classes have windows of their own; an overridden limit a counter of its own, and a name that tells whose it is.
    #[test]
    fn classes_and_routes_have_their_own_counters() {
        let mut ai = config(Counts::Ai, &[By::User]);
        ai.environment = Some("RATE_LIMIT_AI_PER_MINUTE".into());
        ai.classes.insert(ClassName::Keyed, vec![Rate { max: 50, window: Duration::from_secs(60) }]);
        let named = Named(vec![("ai".into(), Toggle::On(ai))]);
        let shared = Limits::build(&named, |_| None).expect("limits");
        let owned = Limits::build(&named, |_| Some("chat")).expect("limits");
        let mut request = Request::new(http::Method::POST);
        assert_eq!(drawn(&owned, &request, Traffic::Ai, false)[1][0].0, "chat/ai");
        request.client.class = ClientClass::Keyed;
        assert_eq!(drawn(&shared, &request, Traffic::Ai, false)[1][0].0, "ai.keyed");
        assert_eq!(&*shared.body[0].setting, "limits.ai (RATE_LIMIT_AI_PER_MINUTE)");
        assert_eq!(&*owned.body[0].setting, "limits.ai of the route chat");
    }

    /// A limit that can't be counted is told at start, by its key.
    #[test]
    fn bad_limits_are_named() {
        let no_subject = Named(vec![("ai".into(), Toggle::On(config(Counts::Ai, &[])))]);
        assert_eq!(Limits::build(&no_subject, |_| None).expect_err("nobody").key, "limits.ai");
        let off = Named(vec![("ai".into(), Toggle::Off)]);
        assert!(Limits::build(&off, |_| None).expect("off").body.is_empty());
        assert!(By::try_from("header:X-Org".to_owned()).is_ok());
        assert!(By::try_from("nobody".to_owned()).is_err());
    }
}
