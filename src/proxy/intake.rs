//! Understands a request's head: path, client, route, API, kind of traffic. Everything later uses what is decided here.

use std::time::Instant;

use http::header::{
    ACCEPT, CONNECTION, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method};
use pingora::protocols::http::ServerSession;

use super::Gate;
use super::api::{self, Api, ErrorShape};
use super::body::declared_length;
use super::client::Claims;
use super::context::{Context, Routed, Target};
use super::path::{NormalPath, clean_query, split_target};
use super::respond::DRAIN_TIME;
use super::route::Route;
use crate::guard::mode::Noted;
use crate::guard::sanitize::Sightings;
use crate::guard::text::Values;
use crate::guard::{Head, Reason, Refusal, Traffic, hygiene};
use crate::observe::Carriage;
use crate::observe::line::lossy;
use crate::server::Alarm;
use crate::server::door::client_stream;

static ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

impl Gate {
    /// A request of which nothing is known yet.
    pub(super) fn context(&self) -> Box<Context> {
        Box::new(Context {
            live: self.live(),
            started: Instant::now(),
            began: self.clock.now(),
            request_id: HeaderValue::from_static("-"),
            routed: None,
            declared: None,
            shape: ErrorShape::Problem,
            head_passed: false,
            carriage: Carriage::Gate,
            refusal: None,
            noted: Noted::new(),
            noted_late: None,
            seen: Sightings::default(),
            named: Values::default(),
            kept: None,
            keep: None,
            upstream_first_byte: None,
            upstream_called: None,
            rotation: None,
            turn: None,
            retries: 0,
            arriving: false,
            stream_asked: false,
            permit: None,
            diverted: None,
            fallback: None,
            admission: None,
            held: None,
            places: None,
            alarm: Alarm::default(),
            in_flight: None,
        })
    }

    /// The head is complete: disarms its deadline, and looks at its bytes before anything is made of them.
    pub(super) fn begin(&self, session: &mut ServerSession) -> Box<Context> {
        let mut ctx = self.context();
        ctx.in_flight = Some(self.stop.enter());
        ctx.request_id = self.ids.of(&session.req_header().headers);
        let rules = &ctx.live.hygiene;
        ctx.declared = declared_length(&session.req_header().headers);
        let declared = ctx.declared.unwrap_or(0);
        let chunked = session.req_header().headers.contains_key(TRANSFER_ENCODING);
        let mut pipelined = false;
        let raw = client_stream(session).map(|io| {
            ctx.alarm = io.lend_alarm();
            io.head_done(|raw| {
                // What came behind the head belongs to the body.
                let length = hygiene::check_raw_head(raw, rules)?;
                pipelined = !chunked && (raw.len() - length) as u64 > declared;
                Ok(())
            })
        });
        let verdict = raw.unwrap_or_else(|| {
            let has_body = !session.is_body_empty();
            hygiene::check_h2_head(session.req_header(), has_body, rules)
        });
        ctx.refusal = verdict.err();
        if pipelined {
            // The request behind this one is not served: its bytes were read, and are lost.
            session.set_keepalive(None);
        }
        self.govern(session, &ctx);
        ctx
    }

    /// Sets what bounds the connection while this request lasts, and after.
    pub(super) fn govern(&self, session: &mut ServerSession, ctx: &Context) {
        // How long it may idle, the stream itself sees to.
        if self.stop.draining() {
            session.set_keepalive(None);
        }
        session.set_write_timeout(Some(ctx.timeouts().write));
        session.set_total_drain_timeout(Some(DRAIN_TIME));
    }

    /// Finds out who asks for what, and under which route.
    pub(super) fn understand(&self, session: &ServerSession, ctx: &mut Context) -> Result<(), Refusal> {
        let Context { live, shape, routed, .. } = ctx;
        let head = session.req_header();
        let (raw_path, raw_query) = split_target(head.raw_path());
        let anthropic = head.headers.contains_key(&ANTHROPIC_VERSION);
        // Shaped early, so that a refusal of the path itself is understood by the client that sent it.
        *shape = api::error_shape_of(&lossy(raw_path), anthropic);
        let path = match raw_path {
            b"*" if head.method == Method::OPTIONS => NormalPath::ASTERISK,
            path => NormalPath::parse(path, &live.paths)?,
        };
        let query = raw_query.map(clean_query).transpose()?;
        let peer = session.client_addr().and_then(|a| a.as_inet()).copied();
        let peer = peer.unwrap_or_else(|| std::net::SocketAddr::from(([0, 0, 0, 0], 0)));
        let authority = authority_of(session);
        let claims = Claims { peer, tls: false, authority, query: query.as_deref(), headers: &head.headers };
        let client = live.client.decide(&claims);
        let path = path.as_str();
        // The last route takes everything, so there always is one.
        let route = live
            .route(&client.tenant, path, &head.method)
            .ok_or_else(|| Refusal::new(Reason::InternalError, "No route takes this request.", "routes"))?;
        let accepts_events = accepts_events(&head.headers);
        let api = route.api.filter(|_| accepts_events || !head.method.is_safe());
        let api = api.or_else(|| api::recognise(&head.method, path, accepts_events));
        *shape = match api {
            Some(Api::Chat) | None => api::error_shape_of(path, anthropic),
            Some(api) => api.error_shape(),
        };
        *routed = Some(Routed {
            traffic: traffic_of(&route, api, &head.method),
            websocket: head.method == Method::GET && is_websocket(&head.headers),
            origin: head.headers.get(ORIGIN).cloned(),
            target: Target::new(path, query.as_deref()),
            authority: authority.map(Into::into),
            client,
            accepts_events,
            api,
            upstream: route.upstream.clone(),
            route,
        });
        Ok(())
    }
}

impl Routed {
    /// The view that guards get.
    pub(super) fn head<'a>(&'a self, session: &'a ServerSession) -> Head<'a> {
        let head = session.req_header();
        Head {
            method: &head.method,
            version: head.version,
            path: self.target.path(),
            query: self.query(),
            headers: &head.headers,
            authority: self.authority.as_deref(),
            client: &self.client,
            traffic: self.traffic,
            upgrade: head.headers.contains_key(UPGRADE),
        }
    }
}

/// `:authority` in HTTP/2 (an absolute-form target's in HTTP/1, which was checked against `Host`), else `Host`.
fn authority_of(session: &ServerSession) -> Option<&str> {
    let head = session.req_header();
    let host = || head.headers.get(HOST)?.to_str().ok();
    head.uri.authority().map(|authority| authority.as_str()).or_else(host)
}

fn traffic_of(route: &Route, api: Option<Api>, method: &Method) -> Traffic {
    match (route.traffic, api) {
        (Some(traffic), _) => traffic,
        (None, Some(_)) => Traffic::Ai,
        (None, None) if method.is_safe() => Traffic::Page,
        (None, None) => Traffic::Api,
    }
}

/// Whether the client says that it takes events: a browser's `EventSource` can ask with GET only.
pub(super) fn accepts_events(headers: &HeaderMap) -> bool {
    const EVENTS: &str = "text/event-stream";
    let long_enough = headers.get_all(ACCEPT).iter().filter(|value| value.len() >= EVENTS.len());
    long_enough
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(EVENTS))
}

/// RFC 6455 §4.1: anything less is not a WebSocket, and its Upgrade field is dropped.
fn is_websocket(headers: &HeaderMap) -> bool {
    let names = |name: &HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    headers.contains_key(SEC_WEBSOCKET_KEY) && names(&UPGRADE, "websocket") && names(&CONNECTION, "upgrade")
}
