//! What follows a refusal: strikes and bans (L4), failed logins (S11), and a worse reputation (L5).

use std::net::IpAddr;

use http::{HeaderMap, StatusCode};
use pingora::protocols::http::ServerSession;
use smallvec::SmallVec;
use tracing::warn;

use super::Gate;
use super::client::{Client, canonical};
use super::context::Context;
use crate::guard::{Reason, Refusal, bans, reputation};
use crate::observe::{Carriage, SecurityEvent};
use crate::state::{Ban, Decision, Draw, Kind, LimitSpec, Store, Subject};

/// Failed logins that are nobody's business: a password mistyped.
const MISTYPED: u64 = 2;

/// Whom a request is held against.
struct Offender<'a> {
    address: IpAddr,
    client: Option<&'a Client>,
}

impl Offender<'_> {
    /// The address always, since anyone can invent a key.
    fn subjects(&self) -> SmallVec<[Subject; 2]> {
        let user = self.client.and_then(|client| client.user).map(Subject::user);
        [Some(Subject::address(self.address)), user].into_iter().flatten().collect()
    }
}

impl Gate {
    /// Refuses who is banned.
    pub(super) fn check_banned(&self, client: &Client) -> Result<(), Refusal> {
        let banned = self.store().bans();
        let user = client.user.and_then(|user| banned.in_force(Subject::user(user)));
        let ban = user.or_else(|| banned.in_force(Subject::address(client.address)));
        ban.map_or(Ok(()), |ban| Err(bans::refusal(&ban, self.clock.now())))
    }

    /// What each draw of a caller counts.
    pub(super) fn weight_of(&self, ctx: &Context, client: &Client) -> u64 {
        ctx.live.reputation.map_or(1, |policy| policy.weight(&self.reputations, client))
    }

    /// Draws the consequences of a request that is over.
    pub(super) async fn sanction(&self, session: &ServerSession, ctx: &Context) {
        let Some(fault) = fault_of(session, ctx) else { return };
        let Some(offender) = self.offender(session, ctx) else { return };
        if by_a_foreign_page(&session.req_header().headers) {
            return;
        }
        if let Some(policy) = &ctx.live.reputation {
            let points = reputation::Policy::points(fault);
            for subject in offender.subjects() {
                self.reputations.blame(subject, points, fault.code(), policy.half_life);
            }
        }
        let Some(policy) = ctx.live.bans.as_ref().filter(|policy| !policy.spares(offender.address)) else {
            return;
        };
        let counted = match fault {
            Reason::LoginFailed => Some(policy.logins()),
            reason => policy.strikes(reason),
        };
        let Some(limit) = counted else { return };
        for subject in offender.subjects() {
            let times = self.count(limit, subject).await;
            if fault == Reason::LoginFailed && subject.kind() != Kind::User && times > MISTYPED {
                let detail = "The app has refused a login again and again.";
                self.tell(ctx, &offender, Reason::LoginFailed, detail);
            }
            if times >= most(limit) {
                let last = self.store().bans().remembered(subject);
                let ban = policy.sentence(subject, fault, last.as_deref(), self.clock.now());
                self.place(ctx, &offender, ban, limit).await;
            }
        }
    }

    /// Who asked, as far as is known. Nobody, if all that is known is a proxy through which all come.
    fn offender<'a>(&self, session: &ServerSession, ctx: &'a Context) -> Option<Offender<'a>> {
        let client = ctx.routed.as_ref().map(|routed| &routed.client);
        let peer = || Some(canonical(session.client_addr()?.as_inet()?.ip()));
        let address = client.map(|client| client.address).or_else(peer)?;
        (!ctx.live.client.trusts(address)).then_some(Offender { address, client })
    }

    /// Counts one more; answers how many there are.
    async fn count(&self, limit: &LimitSpec, subject: Subject) -> u64 {
        let draws = [Draw::one(limit, subject)];
        let counted = match self.admissions.draw(&draws).await {
            Ok(Decision::Granted) => self.admissions.standings(&draws).await.map(|standings| {
                standings.first().map_or(0, |standing| standing.max.saturating_sub(standing.remaining))
            }),
            Ok(Decision::Denied(_)) => Ok(most(limit)),
            Err(error) => Err(error),
        };
        counted.unwrap_or_else(|error| {
            warn!(%error, "a strike could not be counted");
            0
        })
    }

    async fn place(&self, ctx: &Context, offender: &Offender<'_>, ban: Ban, limit: &LimitSpec) {
        let (store, subject) = (self.store(), ban.subject);
        if store.bans().in_force(subject).is_some() {
            return;
        }
        let minutes = ban.until.since(ban.since).as_secs().div_ceil(60);
        let detail = format!("The {} is banned for {minutes} min: {}.", subject.kind().name(), ban.reason);
        match store.ban(ban).await {
            Ok(true) => self.tell(ctx, offender, Reason::Banned, &detail),
            Ok(false) => warn!("there is no room for another ban"),
            Err(error) => warn!(%error, "a ban could not be placed"),
        }
        // It begins anew when the ban is over.
        if let Err(error) = store.reset(&[Draw::one(limit, subject)]).await {
            warn!(%error, "strikes could not be set back");
        }
    }

    fn tell(&self, ctx: &Context, offender: &Offender<'_>, reason: Reason, detail: &str) {
        let event = SecurityEvent::at_the_door(self.clock.now(), reason, detail, offender.address);
        self.observer.event(&SecurityEvent {
            user: offender.client.and_then(|client| client.user),
            session: offender.client.and_then(|client| client.session),
            device: offender.client.and_then(|client| client.device),
            route: ctx.routed.as_ref().map(|routed| &*routed.route.name),
            request_id: Some(ctx.request_id()),
            ..event
        });
    }
}

/// What the caller did wrong, if it did.
fn fault_of(session: &ServerSession, ctx: &Context) -> Option<Reason> {
    match &ctx.refusal {
        Some(refusal) => Some(refusal.reason).filter(|reason| reason.may_strike()),
        None => {
            let changes = ctx.carriage != Carriage::Gate && !session.req_header().method.is_safe();
            let status = session.response_written().map(|head| head.status);
            let failed = matches!(status, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN));
            (changes && failed).then_some(Reason::LoginFailed)
        }
    }
}

/// Whether a page of another site has made the browser send this: its visitor is not to blame.
fn by_a_foreign_page(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site")
}

fn most(limit: &LimitSpec) -> u64 {
    limit.windows().map(|window| window.max).min().unwrap_or(u64::MAX)
}
