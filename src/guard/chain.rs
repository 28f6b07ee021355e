//! The order of the guards, with the reason for each place; and the one spot that measures them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use http::{HeaderValue, response};
use prometheus::Histogram;

use super::body::{BodyGuard, Findings, Syntax};
use super::caps::{BodyKind, Caps};
use super::cidr::Addresses;
use super::concurrency::Concurrency;
use super::cors::{Cors, Preflight};
use super::duplicates::{Claims, Duplicates, Sent};
use super::host::Hosts;
use super::leaks::Leaks;
use super::limits::{Draws, Limits};
use super::loops::Loops;
use super::mode::{Guard, Noted, Observed};
use super::origin::OriginGuard;
use super::security_headers::{Author, Circumstances, SecurityHeaders};
use super::target::TargetFindings;
use super::uploads::{FormTexts, Upload, Uploads};
use super::{Fault, Head, Refusal, Verdict};
use crate::config::file::RouteFile;
use crate::observe::metrics::Metrics;
use crate::proxy::Forwarding;
use crate::proxy::api::Api;
use crate::proxy::client::Client;

macro_rules! way {
    ($($stage:ident = $name:literal, $what:literal, $why:literal;)*) => {
        /// A stage on the way of a request, in the order in which it is passed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Stage { $(#[doc = $what] $stage,)* }

        impl Stage {
            /// The whole way.
            pub const WAY: &'static [Stage] = &[$(Stage::$stage,)*];

            /// What it is called.
            pub const fn name(self) -> &'static str {
                match self { $(Stage::$stage => $name,)* }
            }

            /// What it does.
            pub const fn what(self) -> &'static str {
                match self { $(Stage::$stage => $what,)* }
            }

            /// Why it stands where it stands; empty where that goes without saying.
            pub const fn why(self) -> &'static str {
                match self { $(Stage::$stage => $why,)* }
            }
        }
    };
}

// Stage, what it does, and why it stands where it stands: what `check --explain` prints, and `explain` of one request is
// held to.
way! {
    Connections = "connections", "caps on connections, deadline and size of the head", "before anything was read";
    Hygiene = "hygiene", "heads that two parsers could read differently",
        "on the raw bytes, before anything is made of them";
    Paths = "paths", "one form of the path", "before routing, so that no spelling chooses its own guards";
    Client = "client", "address, tenant, user, session, device",
        "once, from trusted proxies only; all later stages use it";
    Bans = "bans", "callers who were refused too often", "costs nothing, and ends whatever they would ask for";
    Hosts = "hosts", "hosts that are not served", "a wrong host makes every later answer wrong";
    Addresses = "addresses", "denied networks", "costs next to nothing, and refuses for good";
    Caps = "caps", "length of URI, header fields, body as declared", "before anything loops over them";
    Origin = "origin", "state-changing requests from foreign pages",
        "before they count against the victim's limits";
    Cors = "cors", "preflights", "answered here; they carry no credentials and change nothing";
    Concurrency = "concurrency", "requests in flight; streams apart, as soon as one is known as such",
        "local, and given back at the end: taken before what is not";
    AddressLimits = "limits of the address", "first transaction",
        "stands whatever follows, or refusals would be free probes";
    Maintenance = "maintenance", "an app that somebody closed",
        "status and preflights go on; nobody's body is waited for";
    Target = "path and query", "markup in any path, texts in the query of a call to a model or chat",
        "only if the head passed, before the body is waited for";
    Body = "body", "read once, under a cap and a deadline", "only where it is inspected, only if the head passed";
    Texts = "json, form, text, sanitize", "shape, lengths, what texts hold, in one walk",
        "before anything is drawn from what others share";
    Uploads = "uploads", "form of multipart bodies, names, types and sizes of files, texts beside them",
        "where there is no JSON: forms of usual size and else 64 KiB before the upstream hears of it, the rest as it streams";
    Breaker = "breaker", "an upstream that keeps failing",
        "local, and given back: a call that can't be made draws on no limit of a user";
    Limits = "duplicates, loops, all other limits", "second transaction",
        "all granted or nothing taken; the last thing before the upstream";
    Upstream = "upstream", "headers rewritten, request forwarded", "";
    Dress = "cors, leaks, security headers", "on every answer, the gate's own and the upstream's",
        "CORS first: it decides CORP";
    Settle = "settle, record", "exactly once, on every way out", "";
}

/// One request in this many is measured: reading the clock costs as much as some guards.
const SAMPLE: u32 = 64;

/// What the guards of a route are built from.
pub struct GuardParts {
    /// The route's settings as written.
    pub file: RouteFile,
    /// Body guard, built with settings that are not the route's alone.
    pub body: Arc<BodyGuard>,
    /// Forwarding.
    pub forwarding: Forwarding,
    /// Whether traffic is accepted on a loopback address only.
    pub loopback: bool,
}

/// The guards of a route.
pub struct Guards {
    hosts: Hosts,
    addresses: Addresses,
    origin: Option<OriginGuard>,
    cors: Cors,
    body: Arc<BodyGuard>,
    uploads: Option<Arc<Uploads>>,
    duplicates: Duplicates,
    loops: Option<Loops>,
    headers: Option<SecurityHeaders>,
    leaks: Option<Leaks>,
    /// Those that only observe.
    pub observed: Observed,
    /// Caps on heads and bodies.
    pub caps: Caps,
    /// Requests in flight.
    pub concurrency: Concurrency,
    /// Rate limits.
    pub limits: Limits,
    /// Header fields on their way through.
    pub forwarding: Forwarding,
}

/// Histograms of the guards' time, and whose turn it is to be measured.
pub struct Timers {
    turn: AtomicU32,
    hosts: Histogram,
    addresses: Histogram,
    caps: Histogram,
    origin: Histogram,
    cors: Histogram,
    body: Histogram,
}

impl Timers {
    /// Registers the histograms.
    pub fn new(metrics: &Metrics) -> Self {
        let guard = |name| metrics.guard(name);
        Self {
            turn: AtomicU32::new(0),
            hosts: guard("hosts"),
            addresses: guard("addresses"),
            caps: guard("caps"),
            origin: guard("origin"),
            cors: guard("cors"),
            body: guard("body"),
        }
    }

    fn sampled(&self) -> bool {
        self.turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE)
    }
}

fn timed<T>(sampled: bool, histogram: &Histogram, check: impl FnOnce() -> T) -> T {
    if !sampled {
        return check();
    }
    let started = Instant::now();
    let outcome = check();
    histogram.observe(started.elapsed().as_secs_f64());
    outcome
}

impl Guards {
    /// Builds the guards of a route. `owner` names the route that overrides a limit, if one does.
    pub fn build<'a>(parts: GuardParts, owner: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Fault> {
        let GuardParts { file, body, forwarding, loopback } = parts;
        let cors = Cors::build(&file.cors)?;
        let origin =
            file.origin.as_option().map(|config| OriginGuard::build(config, cors.origins())).transpose()?;
        Ok(Self {
            observed: Observed::new(file.mode, &file.observe),
            hosts: Hosts::build(&file.hosts, loopback)?,
            addresses: Addresses::build(&file.addresses)?,
            caps: Caps::build(&file.caps)?,
            origin,
            headers: file.security_headers.as_option().map(SecurityHeaders::build).transpose()?,
            uploads: file.uploads.as_option().map(Uploads::build).transpose()?.map(Arc::new),
            leaks: file.leaks.as_option().map(Leaks::build).transpose()?,
            duplicates: Duplicates::build(file.duplicates.as_option(), file.idempotency.as_option())?,
            loops: file.loops.as_option().map(Loops::build).transpose()?,
            limits: Limits::build(&file.limits, owner)?,
            concurrency: Concurrency::build(&file.concurrency)?,
            cors,
            body,
            forwarding,
        })
    }

    /// A name that is served.
    pub fn first_host(&self) -> Option<String> {
        self.hosts.first()
    }

    /// Everything that the head alone decides. What would be refused, but is only observed, is noted.
    pub fn check_head(&self, head: &Head<'_>, timers: &Timers, noted: &mut Noted) -> Verdict {
        let sampled = timers.sampled();
        let mut judge = |guard, verdict| self.observed.judge(guard, verdict, noted).map(drop);
        judge(Guard::Hosts, timed(sampled, &timers.hosts, || self.hosts.check(head)))?;
        judge(Guard::Addresses, timed(sampled, &timers.addresses, || self.addresses.check(head)))?;
        judge(Guard::Caps, timed(sampled, &timers.caps, || self.caps.check(head)))?;
        if let Some(origin) = &self.origin {
            judge(Guard::Origin, timed(sampled, &timers.origin, || origin.check(head)))?;
        }
        judge(Guard::Cors, timed(sampled, &timers.cors, || self.cors.check(head)))
    }

    /// The answer to a preflight, if this is one that the gate answers.
    pub fn preflight(&self, head: &Head<'_>) -> Option<Preflight> {
        self.cors.preflight(head)
    }

    /// Everything that the texts of path and query decide.
    pub fn check_target(
        &self,
        path: &str,
        query: Option<&str>,
        api: Option<Api>,
        noted: &mut Noted,
    ) -> Result<TargetFindings, Refusal> {
        if let Some(trail) = noted.trail_mut() {
            trail.texts.extend(self.body.path_text(path));
            let query = query.filter(|_| api.is_some());
            trail.texts.extend(query.into_iter().flat_map(|query| self.body.query_texts(query, api)));
        }
        self.body.check_target(path, query, api, noted)
    }

    /// Everything that a body decides.
    pub fn check_body(
        &self,
        body: &[u8],
        syntax: Syntax,
        api: Option<Api>,
        timers: &Timers,
        noted: &mut Noted,
    ) -> Result<Findings, Refusal> {
        if let Some(trail) = noted.trail_mut() {
            trail.texts.extend(self.body.texts(body, syntax, api));
        }
        timed(timers.sampled(), &timers.body, || self.body.check(body, syntax, api, noted))
    }

    /// What a request claims, and draws besides its limits.
    pub fn claims<'a>(
        &'a self,
        sent: &Sent<'_>,
        draws: &mut Draws<'a>,
        noted: &mut Noted,
    ) -> Result<Claims, Refusal> {
        if let Some(loops) = &self.loops {
            loops.draw(sent, draws);
        }
        let claims = self.observed.judge(Guard::Duplicates, self.duplicates.claims(sent), noted)?;
        Ok(claims.unwrap_or_default())
    }

    /// What is to look at a body which is no JSON, if anything is.
    pub fn begin_upload(&self, head: &Head<'_>, api: Option<Api>) -> Result<Option<Upload>, Refusal> {
        let Some(uploads) = &self.uploads else { return Ok(None) };
        let texts = FormTexts { guard: self.body.clone(), api, cap: self.caps.body(BodyKind::Json) };
        uploads.begin(head, texts).map(Some)
    }

    /// The response guards.
    pub fn dress(
        &self,
        head: &mut response::Parts,
        author: Author,
        client: &Client,
        origin: Option<&HeaderValue>,
    ) {
        // A foreign page that is only observed gets what the app allows it.
        let observed = self.observed.contains(Guard::Cors) && author == Author::Upstream;
        if !observed || self.cors.admits(origin) {
            self.cors.decorate(&mut head.headers, origin, author);
        }
        if let (Some(leaks), Author::Upstream) = (&self.leaks, author) {
            leaks.strip(&mut head.headers);
        }
        if let Some(headers) = &self.headers {
            headers.apply(head, Circumstances { author, https: client.https, cors: self.cors.speaks() });
        }
    }

    /// The response guards for an answer to a request whose client was not made out.
    pub fn dress_unknown(&self, head: &mut response::Parts) {
        if let Some(headers) = &self.headers {
            headers.apply(head, Circumstances { author: Author::Gate, https: false, cors: false });
        }
    }
}

/// The way of a request, one stage a line.
pub fn explain() -> String {
    let line = |stage: &Stage| match stage.why() {
        "" => format!("  {}: {}", stage.name(), stage.what()),
        why => format!("  {}: {} ({why})", stage.name(), stage.what()),
    };
    Stage::WAY.iter().map(line).collect::<Vec<_>>().join("\n")
}
