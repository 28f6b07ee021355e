//! What the admin port changes. Who may, is decided before; every act is audited.

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::json as documents;
use super::order::{Bad, Order};
use super::{AdminRequest, AdminToken, RELOAD, Sources, document, problem};
use crate::config::Rate;
use crate::guard::limits::LimitView;
use crate::observe::BreakerView;
use crate::observe::audit::{Act, Actor, AuditError, Began, Outcome};
use crate::proxy::{NotDone, NotSwitched, Whom};
use crate::state::switches::{Maintenance, Unchanged};
use crate::state::{Ban, Subject};
use crate::upstream::breaker::Mode;

/// What can be changed by hand; `by` is the address of whoever does.
pub trait Controls {
    /// Switches the breaker of one upstream, or all; answers how they stand then.
    fn switch_breakers(
        &self,
        mode: Mode,
        upstream: Option<&str>,
        by: IpAddr,
    ) -> Result<Vec<BreakerView>, NotSwitched>;

    /// Closes the app, or opens it again.
    fn maintain(&self, wanted: Option<Maintenance>, by: IpAddr) -> Result<(), NotSwitched>;

    /// Whether what is switched stays so over a restart.
    fn keeps_switches(&self) -> bool;

    /// Bans somebody; answers the ban in force before, if there was one, and the new one.
    fn ban(&self, whom: &Whom, time: Option<Duration>, reason: &str) -> Result<(Option<Ban>, Ban), NotDone>;

    /// Lifts a ban, and answers it.
    fn unban(&self, whom: &Whom) -> Result<Ban, NotDone>;

    /// Sets back what is counted of somebody; answers who that is, the score before, and how many counters there are.
    fn reset_counters(&self, whom: &Whom) -> Result<(Subject, u8, usize), NotDone>;

    /// Gives a limit other windows, or those of the settings; answers how it was, and is now.
    fn set_limit(&self, name: &str, windows: Option<&[Rate]>) -> Result<(LimitView, LimitView), NotDone>;

    /// Writes down that something is about to be done, or answers why it must not be.
    fn begin(&self, act: &Act) -> Result<Began, AuditError>;

    /// Writes down what became of it.
    fn end(&self, act: &Act, began: Began, outcome: &Outcome);
}

/// An endpoint that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Reload,
    Breaker(Mode),
    Maintenance(bool),
    Ban,
    Unban,
    ResetLimits,
    SetLimit,
}

/// What was done: how it was, how it is now, and the members of the answer.
type Done = (Value, Value, Value);

impl Control {
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        Some(match (method, path) {
            (&Method::POST, RELOAD) => Self::Reload,
            (&Method::POST, "/api/security/circuit-breaker/open") => Self::Breaker(Mode::Open),
            (&Method::POST, "/api/security/circuit-breaker/close") => Self::Breaker(Mode::Closed),
            (&Method::POST, "/api/security/circuit-breaker/auto") => Self::Breaker(Mode::Auto),
            (&Method::POST, "/api/security/maintenance/on") => Self::Maintenance(true),
            (&Method::POST, "/api/security/maintenance/off") => Self::Maintenance(false),
            (&Method::POST, "/api/security/bans") => Self::Ban,
            (&Method::DELETE, "/api/security/bans") => Self::Unban,
            (&Method::POST, "/api/security/limits/reset") => Self::ResetLimits,
            (&Method::POST, "/api/security/limits") => Self::SetLimit,
            _ => return None,
        })
    }

    /// The methods that a path takes, besides those to read it.
    pub(super) fn methods(path: &str) -> Vec<&'static str> {
        let takes = |method: &Method| Self::of(method, path).is_some();
        [(Method::POST, "POST"), (Method::DELETE, "DELETE")]
            .into_iter()
            .filter_map(|(method, name)| takes(&method).then_some(name))
            .collect()
    }

    /// Does it, and says how things stand then.
    pub(super) fn act(
        self,
        request: &AdminRequest<'_>,
        token: &AdminToken,
        gate: &(impl Sources + Controls),
    ) -> Response<Vec<u8>> {
        let order = match Order::read(self, request.query, request.body) {
            Ok(order) => order,
            Err(Bad(detail)) => return problem(StatusCode::BAD_REQUEST, &detail),
        };
        let by = Actor { address: Some(request.remote), token: Some(token.mark()) };
        let act = Act { by, act: order.word(), subject: order.subject(), asked: order.asked() };
        let began = match gate.begin(&act) {
            Ok(began) => began,
            Err(why) => {
                return problem(StatusCode::SERVICE_UNAVAILABLE, &format!("Nothing was done, since {why}."));
            }
        };
        let (outcome, answer) = match order.obeyed(request.remote, gate) {
            Ok((before, after, answer)) => (Outcome::Done(before, after), document(StatusCode::OK, &answer)),
            Err((status, why)) => {
                let answer = problem(status, &why);
                let failed = status.is_server_error();
                (if failed { Outcome::Failed(why) } else { Outcome::Refused(why) }, answer)
            }
        };
        gate.end(&act, began, &outcome);
        answer
    }
}

impl Order {
    fn obeyed(self, by: IpAddr, gate: &(impl Sources + Controls)) -> Result<Done, (StatusCode, String)> {
        let kept = |name: &str, stands: &Value| json!({ name: stands, "kept": gate.keeps_switches() });
        let not_done = |why: NotDone| (why.status(), why.to_string());
        match self {
            Self::Reload => match gate.reload(by) {
                Ok(()) => Ok((Value::Null, Value::Null, json!({ "status": "reloaded" }))),
                Err(why) => Err((StatusCode::UNPROCESSABLE_ENTITY, why)),
            },
            Self::Breaker { mode, upstream } => {
                let modes = |views: &[BreakerView]| -> Value {
                    let named =
                        |view: &&BreakerView| upstream.as_deref().is_none_or(|name| *view.upstream == *name);
                    views
                        .iter()
                        .filter(named)
                        .map(|view| (view.upstream.to_string(), view.mode.into()))
                        .collect::<serde_json::Map<_, _>>()
                        .into()
                };
                let before = modes(&gate.snapshot().breakers);
                let views = gate.switch_breakers(mode, upstream.as_deref(), by).map_err(not_switched)?;
                let stands = views.iter().map(documents::breaker).collect();
                Ok((before, modes(&views), kept("circuit_breakers", &stands)))
            }
            Self::Maintenance(wanted) => {
                let before = json!(gate.snapshot().maintenance.as_deref());
                let stands = json!(wanted);
                gate.maintain(wanted, by).map_err(not_switched)?;
                Ok((before, stands.clone(), kept("maintenance", &stands)))
            }
            Self::Ban { whom, time, reason } => {
                let (before, ban) = gate.ban(&whom, time, &reason).map_err(not_done)?;
                let after = documents::ban(&ban, true);
                Ok((
                    before.map_or(Value::Null, |ban| documents::ban(&ban, true)),
                    after.clone(),
                    json!({ "ban": after }),
                ))
            }
            Self::Unban(whom) => {
                let lifted = documents::ban(&gate.unban(&whom).map_err(not_done)?, false);
                Ok((lifted.clone(), Value::Null, json!({ "lifted": lifted })))
            }
            Self::ResetLimits(whom) => {
                let (subject, score, counters) = gate.reset_counters(&whom).map_err(not_done)?;
                let (kind, id) = documents::subject(subject);
                let after = json!({ "kind": kind, "id": id, "counters": counters, "score_before": score });
                Ok((json!({ "score": score }), json!({ "counters": counters }), json!({ "reset": after })))
            }
            Self::SetLimit { limit, windows } => {
                let (before, after) = gate.set_limit(&limit, windows.as_deref()).map_err(not_done)?;
                let (before, after) = (documents::limit(&before), documents::limit(&after));
                let stands = |view: &Value| json!({ "windows": view["windows"], "origin": view["origin"] });
                Ok((stands(&before), stands(&after), kept("limit", &after)))
            }
        }
    }
}

fn not_switched(why: NotSwitched) -> (StatusCode, String) {
    let status = match why {
        NotSwitched::NoSuchUpstream(_) => StatusCode::NOT_FOUND,
        NotSwitched::Unchanged(Unchanged::HandedOver) => StatusCode::SERVICE_UNAVAILABLE,
        NotSwitched::Unchanged(Unchanged::NotKept(_)) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, why.to_string())
}
