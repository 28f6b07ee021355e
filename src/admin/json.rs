//! The JSON documents that clients of these apps already read, as pure functions of a snapshot.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::guard::limits::LimitView;
use crate::observe::{Ailment, BreakerView, Readiness, Snapshot, TopCaller, rfc3339};
use crate::state::reputation::Standing;
use crate::state::{Ban, MemoryStats, Subject};

/// Decimal places of seconds and percentages.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// `healthy`, or `degraded` with reasons: still serving either way.
pub fn status(snapshot: &Snapshot) -> &'static str {
    if snapshot.degraded.is_empty() { "healthy" } else { "degraded" }
}

/// `GET /healthz`.
pub fn health(snapshot: &Snapshot) -> Value {
    json!({
        "status": status(snapshot),
        "version": snapshot.version,
        "environment": &*snapshot.environment,
        "uptime_seconds": snapshot.uptime.as_secs(),
        "services": {
            "redis": snapshot.shared_store.map_or("not_configured", |store| {
                if store.is_away { "disconnected" } else { "connected" }
            }),
            "sse_connections": snapshot.connections.event_streams,
            "active_sessions": snapshot.sessions.active,
            "connections": snapshot.connections.active,
            "in_flight": snapshot.in_flight,
        },
        "reasons": snapshot.degraded.iter().map(ailment).collect::<Value>(),
    })
}

fn ailment(ailment: &Ailment) -> Value {
    json!({ "code": ailment.kind.code(), "detail": &*ailment.detail })
}

/// `GET /readyz`.
pub fn readiness(snapshot: &Snapshot) -> Value {
    let status = match snapshot.readiness {
        Readiness::Starting => "starting",
        Readiness::Ready => "ready",
        Readiness::Draining => "draining",
    };
    json!({ "status": status })
}

/// `GET /metrics.json`.
pub fn metrics(snapshot: &Snapshot) -> Value {
    json!({
        "connections": {
            "total": snapshot.connections.total,
            "active": snapshot.connections.active,
            "sessions": snapshot.sessions.active,
            "oldest_connection_age": rounded(snapshot.connections.oldest_age.as_secs_f64()),
        },
        "rate_limits": {
            "per_minute": snapshot.limits.per_minute,
            "per_hour": snapshot.limits.per_hour,
        },
        "requests": {
            "total": snapshot.requests,
            "in_flight": snapshot.in_flight,
            "panics": snapshot.panics,
            "refused": counts(snapshot.refusals.iter().map(|(name, count)| (name.as_str(), *count))),
        },
        "events": counts(snapshot.events.iter().copied()),
        "state": {
            "subjects": snapshot.state.subjects,
            "open_admissions": snapshot.state.open_admissions,
            "settlements": {
                "settled": snapshot.state.settled,
                "retries": snapshot.state.settle_retries,
                "queued": snapshot.state.settle_queued,
            },
        },
        "logs": { "dropped_lines": snapshot.log_dropped },
        "system": {
            "version": snapshot.version,
            "debug_mode": snapshot.debug,
            "environment": &*snapshot.environment,
            "uptime_seconds": snapshot.uptime.as_secs(),
            "cpu_seconds": rounded(snapshot.process.cpu.as_secs_f64()),
            "resident_memory_bytes": snapshot.process.resident_bytes,
            "open_fds": snapshot.process.open_fds,
        },
    })
}

/// `GET /api/security/stats`, and `GET /` for callers that are no browser.
///
/// No calls are priced in this build, so nothing is spent, and nothing limits spending (null).
pub fn security(snapshot: &Snapshot) -> Value {
    json!({
        "security": {
            "rate_limiter": {
                "total_users_tracked": snapshot.state.users,
                "blocked_users": snapshot.state.blocked,
                "subjects_tracked": snapshot.state.subjects,
                "ai_calls_per_minute_limit": snapshot.limits.ai_per_minute,
                "ai_calls_per_hour_limit": snapshot.limits.ai_per_hour,
                "requests_per_minute_limit": snapshot.limits.per_minute,
                "requests_per_hour_limit": snapshot.limits.per_hour,
            },
            "cost_tracker": {
                "daily_cost": 0.0,
                "remaining_cost": null,
                "daily_calls": 0,
                "daily_tokens": 0,
                "hourly_calls": 0,
                "utilization": { "cost_percent": 0.0, "calls_percent": 0.0, "tokens_percent": 0.0 },
            },
            "circuit_breaker": circuit_breaker(snapshot),
            "maintenance": snapshot.maintenance.as_deref(),
            "refusals": counts(snapshot.refusals.iter().map(|(name, count)| (name.as_str(), *count))),
            "events": counts(snapshot.events.iter().copied()),
        },
    })
}

/// One breaker for whoever reads one: the open one, else one that somebody switched, else the one with most failures; and
/// all of them.
fn circuit_breaker(snapshot: &Snapshot) -> Value {
    let worst =
        snapshot.breakers.iter().max_by_key(|view| (view.is_open, view.mode != "auto", view.failures));
    json!({
        "is_open": worst.is_some_and(|view| view.is_open),
        "failure_count": worst.map_or(0, |view| view.failures),
        "mode": worst.map_or("auto", |view| view.mode),
        "reason": worst.and_then(|view| view.reason),
        "upstreams": snapshot.breakers.iter().map(breaker).collect::<Vec<_>>(),
    })
}

/// A circuit breaker.
pub(super) fn breaker(view: &BreakerView) -> Value {
    json!({
        "upstream": &*view.upstream,
        "state": view.state,
        "is_open": view.is_open,
        "mode": view.mode,
        "reason": view.reason,
        "failure_count": view.failures,
        "call_count": view.calls,
    })
}

/// `GET /api/sessions/stats`.
pub fn sessions(snapshot: &Snapshot) -> Value {
    let sessions = &snapshot.sessions;
    let average = sessions.messages as f64 / sessions.active.max(1) as f64;
    json!({
        "sessions": {
            "active": sessions.active,
            "started": sessions.started,
            "oldest_age": rounded(sessions.oldest.as_secs_f64()),
            "routes": counts(sessions.routes.iter().map(|(name, count)| (&**name, *count))),
            "messages": { "average": rounded(average), "max": sessions.most_messages },
            "connections": snapshot.connections.active,
            "sse_connections": snapshot.connections.event_streams,
        },
    })
}

/// How many callers are asked for, by `limit=N`: 10 where it is left out, 100 at most.
pub(super) fn top_asked(query: Option<&str>) -> Option<usize> {
    let named = |pair: &str| pair.strip_prefix("limit=").map(str::to_owned);
    match query.and_then(|query| query.split('&').find_map(named)) {
        None => Some(10),
        Some(limit) => limit.parse().ok().filter(|limit| (1..=100).contains(limit)),
    }
}

/// `GET /api/security/top`.
pub fn top(callers: &[TopCaller]) -> Value {
    let caller = |caller: &TopCaller| {
        json!({
            "identifier": caller.identifier,
            "requests": caller.requests,
            "last_request": caller.last_request_text(),
        })
    };
    callers.iter().map(caller).collect()
}

/// What stands for a subject: its kind, and the address or digest.
pub(super) fn subject(subject: Subject) -> (&'static str, String) {
    let (kind, text) = (subject.kind().name(), subject.to_string());
    let id = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix(':')).unwrap_or(&text).to_owned();
    (kind, id)
}

/// A ban.
pub(super) fn ban(ban: &Ban, in_force: bool) -> Value {
    let (kind, id) = subject(ban.subject);
    json!({
        "kind": kind,
        "id": id,
        "in_force": in_force,
        "since": rfc3339(ban.since),
        "until": rfc3339(ban.until),
        "level": ban.level,
        "reason": &*ban.reason,
        "by_hand": ban.by_hand,
    })
}

/// `GET /api/security/bans`.
pub fn bans(bans: &[(Arc<Ban>, bool)]) -> Value {
    json!({ "bans": bans.iter().map(|(placed, in_force)| ban(placed, *in_force)).collect::<Value>() })
}

/// A limit.
pub(super) fn limit(view: &LimitView) -> Value {
    json!({
        "limit": view.limit,
        "windows": view.windows,
        "origin": if view.by_hand { "by hand" } else { "settings" },
        "settings": view.written,
        "routes": view.routes,
    })
}

/// `GET /api/security/limits`.
pub fn limits(limits: &[LimitView]) -> Value {
    json!({ "limits": limits.iter().map(limit).collect::<Value>() })
}

/// `GET /api/security/reputation`.
pub fn reputations(standings: &[Standing]) -> Value {
    let caller = |standing: &Standing| {
        let (kind, id) = subject(standing.subject);
        let faults = standing.faults.iter().map(|(code, times)| (*code, u64::from(*times)));
        json!({ "kind": kind, "id": id, "score": standing.score, "faults": counts(faults) })
    };
    json!({ "callers": standings.iter().map(caller).collect::<Value>() })
}

/// `GET /api/state/stats`.
pub fn state(stats: &MemoryStats) -> Value {
    json!({
        "counters": stats.counters,
        "counter_bytes": stats.bytes,
        "open_admissions": stats.open,
        "claims": stats.claims,
        "accounts": stats.accounts,
        "bans": stats.bans,
        "evicted": stats.evicted,
        "folded": stats.folded,
        "joined": stats.joined,
    })
}

fn counts<'a>(pairs: impl Iterator<Item = (&'a str, u64)>) -> Value {
    pairs.map(|(name, count)| (name.to_owned(), count.into())).collect::<serde_json::Map<_, _>>().into()
}
