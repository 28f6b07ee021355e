//! Takes one request the way that all take, without sockets and without the app (V8): the gate that does it is built as
//! the one that serves, and asked as that one is. Only the connection is memory, and the call to the app is noted instead
//! of made.

mod memory;

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, request};
use http_body_util::BodyExt as _;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::time::Instant;

use super::context::{Context, Routed};
use super::entry::{Read, read_head};
use super::exchange::Ended;
use super::request_id::X_REQUEST_ID;
use super::route::Route;
use super::status::shown;
use super::watch::Watch;
use super::{Gate, api::Api};
use crate::admin::AdminToken;
use crate::config::Settings;
use crate::guard::body::TextSeen;
use crate::guard::chain::Stage;
use crate::guard::limits::Drawer;
use crate::guard::trail::{Noted, Step};
use crate::guard::{Reason, Refusal, Traffic};
use crate::observe::redact::{redact, redact_keys, redact_query};
use crate::observe::{LogTarget, Observer, ObserverConfig};
use crate::proxy::client::{ClientClass, canonical};
use crate::server::door::Tenure;
use crate::server::{Alarm, GateIo, Stop};
use crate::state::Clock;
use crate::state::settle::SettleActor;
use crate::state::switches::Switches;
use crate::upstream::{RequestBody, Wait};
use memory::Memory;

/// Bytes on their way through memory.
const IN_MEMORY: usize = 64 * 1024;
/// Admissions that may be open: one request makes one.
const ADMISSIONS: usize = 16;
/// How long what was settled may take to be.
const PATIENCE: Duration = Duration::from_secs(1);
/// Port of the connection, which no setting asks for.
const PORT: u16 = 49_152;

/// What became of a request.
pub struct Explained {
    /// What was made of its head; `None` if nothing could be.
    pub understood: Option<Understood>,
    /// What was asked of it, in order.
    pub steps: Vec<Step>,
    /// The texts that were looked at.
    pub texts: Vec<TextSeen>,
    /// Windows that it drew from, as they stand then.
    pub limits: Vec<Value>,
    /// Why it was refused, if it was.
    pub refusal: Option<Refusal>,
    /// What the app would get.
    pub forwarded: Option<Forwarded>,
    /// What the client would get of the gate's own; empty if the app answers.
    pub answer: Vec<u8>,
}

/// A head as it was understood.
#[derive(Clone, Debug, Serialize)]
pub struct Understood {
    /// Path in its one form.
    pub path: String,
    /// Host asked for, lower case, without port.
    pub host: String,
    /// Name of the route.
    pub route: String,
    /// Its place among the routes.
    pub route_index: usize,
    /// Routes before it, and what of the request did not fit them.
    pub passed_over: Vec<(String, &'static str)>,
    /// API that its path or route tells.
    pub api: Option<Api>,
    /// What it counts as.
    pub traffic: Traffic,
    /// Address of the client.
    pub address: IpAddr,
    /// Whether the address is what a trusted proxy says, and not the connection's.
    pub forwarded_for: bool,
    /// Whether it came over TLS, at a trusted proxy.
    pub https: bool,
    /// Digest of the key presented.
    pub user: Option<String>,
    /// Digest of the session presented.
    pub session: Option<String>,
    /// Digest of the device presented.
    pub device: Option<String>,
    /// Class of caller.
    pub class: ClientClass,
    /// Name of the upstream.
    pub upstream: String,
    /// Whether it opens a WebSocket.
    pub websocket: bool,
}

/// A request as the app would get it.
#[derive(Clone, Debug, Serialize)]
pub struct Forwarded {
    /// Method.
    pub method: String,
    /// Path and query, secrets redacted.
    pub target: String,
    /// Header fields, secrets redacted.
    pub fields: Vec<(String, String)>,
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Whether its body is not the one that came.
    pub body_changed: bool,
    /// Name of the fallback's reason, if the fallback gets it.
    pub fallback: Option<&'static str>,
}

/// A request as it comes to the gate.
pub struct Asked<'a> {
    /// Head and body, as HTTP/1.1 writes them.
    pub bytes: &'a [u8],
    /// Bytes of them that are the body.
    pub body: usize,
    /// Who sends it.
    pub from: IpAddr,
    /// How often it is sent; the last is told of.
    pub times: u32,
}

/// Takes `asked` through a gate under `settings`, whose counters are empty. `goes_on`: what a guard refuses goes on, so
/// that the guards behind it are asked, too.
///
/// # Errors
/// The gate can't be built: a file in `state_dir` can't be read, or the system has no thread or randomness left.
pub fn explain(mut settings: Settings, asked: &Asked<'_>, goes_on: bool) -> Result<Explained, String> {
    let clock = Clock::system();
    settings.observe = ObserverConfig { access: LogTarget::Off, events: LogTarget::Off, ..settings.observe };
    let switches = Switches::open(settings.server.state_dir.as_deref()).map_err(|e| e.to_string())?;
    let observer = Observer::start(&settings.observe, clock.now()).map_err(|e| e.to_string())?;
    let observer = Arc::new(observer);
    let started = SettleActor::start(settings.store.clone(), ADMISSIONS);
    let (settler, settle) = started.map_err(|e| e.to_string())?;
    let stop = Arc::new(Stop::new(settings.server.drain));
    let token = AdminToken::nobodys().map_err(|e| e.to_string())?;
    let gate = Gate::new(settings, token, clock, observer.clone(), settler, stop, Arc::new(switches));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    for _ in 1..asked.times {
        runtime.block_on(gate.rehearse(asked, goes_on));
    }
    let explained = runtime.block_on(gate.rehearse(asked, goes_on));
    drop(gate);
    settle.shutdown(PATIENCE);
    observer.close(PATIENCE);
    Ok(explained)
}

impl Gate {
    async fn rehearse(&self, asked: &Asked<'_>, goes_on: bool) -> Explained {
        let (client, server) = duplex(IN_MEMORY);
        let from = SocketAddr::new(asked.from, PORT);
        let tenure = Tenure::of_nobody(self.observer.clone(), self.clock.clone(), asked.from);
        let stream = Box::new(Memory::new(server, from));
        let caps = &self.live().server.connections;
        let io = GateIo::new(stream, caps.head, caps.idle, tenure);
        let session = ServerSession::new_http1(Box::new(io));
        let (mut reader, mut writer) = split(client);
        let mut answer = Vec::new();
        // Refused early, the rest of it is not read: that is no failure.
        let (explained, _, _) = tokio::join!(
            self.pass_once(session, asked, goes_on),
            writer.write_all(asked.bytes),
            reader.read_to_end(&mut answer),
        );
        Explained { answer, ..explained }
    }

    /// As [`Entry`](super::Entry) has a request served, with a trail.
    async fn pass_once(&self, mut session: ServerSession, asked: &Asked<'_>, goes_on: bool) -> Explained {
        let mut explained = Explained {
            understood: None,
            steps: Vec::new(),
            texts: Vec::new(),
            limits: Vec::new(),
            refusal: None,
            forwarded: None,
            answer: Vec::new(),
        };
        match read_head(&mut session).await {
            Read::Whole => {}
            Read::Unreadable => {
                explained.refusal = self.refuse_unreadable(session).await;
                let refused = explained.refusal.iter().map(|why| Some((why.clone(), false)));
                let steps = refused.map(|refused| Step { stage: Stage::Hygiene, refused });
                explained.steps.extend(steps);
                return explained;
            }
            Read::Nothing => return explained,
        }
        let mut ctx = Box::new(self.begin(&mut session));
        ctx.noted = Noted::with_trail(goes_on);
        if let Ok(false) = self.serve(&mut session, &mut ctx).await {
            // From here on Pingora carries it.
            ctx.noted.at(Stage::Upstream);
        }
        explained.refusal = ctx.refusal.clone();
        if let Some(routed) = &ctx.routed {
            explained.understood = Some(understood(routed, &session, &ctx));
            explained.limits = self.holdings(&session, routed, &ctx).await;
        }
        if let Some(trail) = ctx.noted.take_trail(explained.refusal.as_ref()) {
            explained.forwarded = trail.forwarded.map(|(head, body)| forwarded(&head, &body, asked, &ctx));
            explained.steps = trail.steps;
            // Looked at while it streamed, by a guard that only observes.
            if let Some(late) = &ctx.noted_late {
                let late = late.lock().unwrap_or_else(PoisonError::into_inner);
                let refused = late.noted.iter().map(|refusal| Some((refusal.clone(), true)));
                explained.steps.extend(refused.map(|refused| Step { stage: Stage::Uploads, refused }));
            }
            explained.texts = trail.texts;
        }
        self.record(&session, None, &mut ctx);
        explained
    }

    /// Every window that the request drew from.
    async fn holdings(&self, session: &ServerSession, routed: &Routed, ctx: &Context) -> Vec<Value> {
        let (head, live) = (routed.head(session), &ctx.live);
        let status = live.is_status_path(head.path, head.method);
        let drawer = Drawer::of(&head, &live.client, &routed.route.name, status).naming(&ctx.named.counted);
        let limits = &routed.route.guards.limits;
        let mut holdings = Vec::new();
        for draws in [limits.head_draws(&drawer), limits.body_draws(&drawer)] {
            if let Ok(standings) = self.admissions.standings(draws.as_slice()).await {
                holdings.extend(standings.iter().map(|standing| shown(&draws, standing)));
            }
        }
        holdings
    }
}

fn understood(routed: &Routed, session: &ServerSession, ctx: &Context) -> Understood {
    let (client, route) = (&routed.client, &routed.route);
    let head = session.req_header();
    let path = routed.target.path();
    let misfit = |passed: &Route| passed.matcher.misfit(&client.tenant, path, &head.method);
    let passed_over = ctx.live.routes.iter().take(route.index);
    let passed_over = passed_over.filter_map(|passed| Some((passed.name.to_string(), misfit(passed)?)));
    Understood {
        path: path.to_owned(),
        host: client.tenant.to_string(),
        route: route.name.to_string(),
        route_index: route.index,
        passed_over: passed_over.collect(),
        api: routed.api,
        traffic: routed.traffic,
        address: client.address,
        forwarded_for: client.address != canonical(client.peer.ip()),
        https: client.https,
        user: client.user.map(|user| user.to_string()),
        session: client.session.map(|session| session.to_string()),
        device: client.device.map(|device| device.to_string()),
        class: client.class,
        upstream: routed.upstream.name.to_string(),
        websocket: routed.websocket,
    }
}

fn forwarded(head: &request::Parts, body: &Bytes, asked: &Asked<'_>, ctx: &Context) -> Forwarded {
    let rules = &ctx.live.client;
    let secret = |name: &HeaderName| {
        ["authorization", "proxy-authorization", "cookie"].contains(&name.as_str())
            || rules.key_headers.contains(name)
            || rules.session_headers.contains(name)
            || rules.device_header == *name
    };
    let value = |name: &HeaderName, value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes());
        match secret(name) {
            true => "[redacted]".to_owned(),
            // Random, and no secret.
            false if name == X_REQUEST_ID => redact_keys(&text).into_owned(),
            false => redact(&text).into_owned(),
        }
    };
    let fields = head.headers.iter().map(|(name, field)| (name.to_string(), value(name, field)));
    let target = match head.uri.query() {
        None => redact(head.uri.path()).into_owned(),
        Some(query) => format!("{}?{}", redact(head.uri.path()), redact_query(query, rules.key_names())),
    };
    let came = asked.bytes.len().checked_sub(asked.body).and_then(|start| asked.bytes.get(start..));
    Forwarded {
        method: head.method.to_string(),
        target,
        fields: fields.collect(),
        body_bytes: body.len(),
        body_changed: came != Some(body),
        fallback: ctx.diverted.map(Reason::code),
    }
}

/// Stands for the call to the app where a trail is kept: notes what it would get, as much as came of it.
pub(super) async fn show(
    session: &mut ServerSession,
    ctx: &mut Context,
    watch: &mut Watch,
    request: http::Request<RequestBody>,
) -> Ended {
    let (head, body) = request.into_parts();
    let allowed = ctx.timeouts().first_byte;
    let (wait, mut alarm) = (Wait::default(), Alarm::default());
    let collected = pin!(body.collect());
    let body = match watch.during(session, collected, (&wait, &mut alarm), Instant::now(), allowed).await {
        Ok(Some(Ok(body))) => body.to_bytes(),
        Ok(_) => Bytes::new(),
        Err(halted) => return halted.into(),
    };
    ctx.noted.at(Stage::Upstream);
    if let Some(trail) = ctx.noted.trail_mut() {
        trail.forwarded = Some((head, body));
    }
    Ended::Served
}
