//! How the gate is: what is wrong with it, and what the watch has to tell.

use super::Gate;
use crate::guard::Reason;
use crate::guard::concurrency::Concurrency;
use crate::observe::{Ailment, AilmentKind, Totals};
use crate::state::Subject;

impl Gate {
    /// What is wrong now; nothing, if all is well.
    pub fn ailments(&self) -> Vec<Ailment> {
        let live = self.live();
        let totals = self.totals();
        let recent = self.watch.lock().recent(&totals);
        let mut found = Vec::new();
        if self.stop.draining() {
            found.push(Ailment::new(AilmentKind::Draining, "The gate is about to stop."));
        }
        for upstream in &live.upstreams {
            let kind = match upstream.is_located() {
                true => AilmentKind::UpstreamDegraded,
                false => AilmentKind::UpstreamUnresolved,
            };
            found.extend(upstream.ailment().map(|detail| Ailment::new(kind, detail)));
        }
        for ailment in live.issuers().filter_map(|issuer| issuer.ailment(self.clock.now())) {
            found.push(Ailment::new(AilmentKind::IssuerUnavailable, ailment));
        }
        for breaker in self.breakers().iter().filter(|breaker| breaker.is_open) {
            let detail = format!("The breaker of upstream {} is open.", breaker.upstream);
            found.push(Ailment::new(AilmentKind::BreakerOpen, detail));
        }
        if self.maintenance().is_some() {
            found.push(Ailment::new(AilmentKind::Maintenance, "The app is closed for maintenance."));
        }
        if let Some(store) = self.store().shared()
            && let Some(why) = store.link().away
        {
            let replicas = store.replicas();
            let detail = format!(
                "The shared store is away: {why}. Limits are counted here, this gate's share of {replicas}; budgets are closed."
            );
            found.push(Ailment::new(AilmentKind::StoreAway, detail));
        }
        let unreachable = recent.refusals.get(Reason::UpstreamUnreachable.code()).copied().unwrap_or(0);
        let counted = [
            (AilmentKind::UpstreamUnreachable, unreachable, "requests found no upstream to connect to"),
            (AilmentKind::LogDropping, recent.log_dropped, "log lines were lost"),
            (AilmentKind::StoreFailing, recent.store_failures, "settlements failed and are tried again"),
        ];
        for (kind, count, what) in counted.into_iter().filter(|(_, count, _)| *count > 0) {
            found.push(Ailment::new(kind, format!("In the last minute {count} {what}.")));
        }
        found.extend(self.store().ailment().map(|why| Ailment::new(AilmentKind::StoreFailing, why)));
        let of_all = |max: fn(&Concurrency) -> u32| {
            live.fallback().map_or(u64::MAX, |guards| max(&guards.concurrency).into())
        };
        let (in_flight, streams) = (of_all(Concurrency::total), of_all(Concurrency::streams_total));
        let (settling, settle_slots) = self.settler.slots();
        let near = [
            Ailment::near(
                AilmentKind::InFlightNearLimit,
                "requests in flight",
                self.stop.in_flight(),
                in_flight,
                "concurrency.total",
            ),
            Ailment::near(
                AilmentKind::StreamsNearLimit,
                "streams",
                self.streams.count(Subject::global()).into(),
                streams,
                "concurrency.streams.total",
            ),
            Ailment::near(
                AilmentKind::ConnectionsNearLimit,
                "connections",
                self.observer.metrics().open_connections(),
                live.server.connections.total.into(),
                "connections.max",
            ),
            Ailment::near(
                AilmentKind::BodyMemoryNearLimit,
                "bytes for bodies",
                self.bodies.held(),
                self.bodies.max(),
                "body_memory",
            ),
            Ailment::near(AilmentKind::SettleQueueNearLimit, "admissions", settling, settle_slots, ""),
        ];
        found.extend(near.into_iter().flatten());
        found
    }

    /// Writes what the watch has to tell, if it is time.
    pub fn watch(&self) {
        let now = self.clock.now();
        let mut watch = self.watch.lock();
        if watch.is_due(now) {
            let notices = watch.look(now, self.totals(), self.live().watch.as_ref());
            drop(watch);
            notices.iter().for_each(|notice| self.observer.notice(notice));
        }
    }

    fn totals(&self) -> Totals {
        Totals { store_failures: self.settler.stats().failures, ..self.observer.metrics().totals() }
    }
}
