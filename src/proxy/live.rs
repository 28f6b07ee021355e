//! The settings as they run, with the metrics of their routes and upstreams: what a reload swaps at once.

use std::ops::Deref;
use std::sync::Arc;

use tracing::warn;

use super::outbound::Outbound;
use super::route::Route;
use crate::admin::AdminToken;
use crate::config::Settings;
use crate::observe::RouteSeries;
use crate::observe::metrics::Metrics;
use crate::state::switches::Positions;
use crate::upstream::Upstream;
use crate::upstream::breaker::Breakers;
use crate::upstream::retry::Retries;

/// Settings in force.
pub struct Live {
    settings: Settings,
    admin_token: Arc<AdminToken>,
    routes: Vec<RouteSeries>,
    outbound: Vec<Outbound>,
}

impl Live {
    /// Puts settings in force. Breakers that are known stay as they are; others begin as `positions` says.
    pub fn new(
        mut settings: Settings,
        admin_token: Arc<AdminToken>,
        metrics: &Metrics,
        breakers: &Breakers,
        positions: &Positions,
    ) -> Self {
        if !positions.limits.is_empty() {
            for route in &mut settings.routes {
                match Arc::get_mut(route) {
                    Some(route) => route.guards.limits.change(&positions.limits),
                    // Settings that nobody has run yet are nobody else's.
                    None => warn!(route = %route.name, "limits stay as the settings have them"),
                }
            }
        }
        let routes = settings.routes.iter().map(|route| metrics.route(&route.name)).collect();
        let outbound = settings.upstreams.iter().map(|upstream| Outbound {
            series: metrics.upstream(&upstream.name),
            breaker: breakers.of(
                &upstream.name,
                upstream.settings().failures.breaker.clone(),
                positions.mode(&upstream.name),
            ),
            retries: Retries::new(upstream.settings().failures.retries),
        });
        Self { outbound: outbound.collect(), settings, admin_token, routes }
    }

    /// The token of the admin port.
    pub fn admin_token(&self) -> &Arc<AdminToken> {
        &self.admin_token
    }

    /// Metrics of a route.
    pub fn route_series(&self, route: &Route) -> Option<&RouteSeries> {
        self.routes.get(route.index)
    }

    /// The ways to all upstreams.
    pub fn outbound(&self) -> &[Outbound] {
        &self.outbound
    }

    /// The way to an upstream.
    pub fn outbound_of(&self, upstream: &Arc<Upstream>) -> Option<&Outbound> {
        let place = self.settings.upstreams.iter().position(|known| Arc::ptr_eq(known, upstream))?;
        self.outbound.get(place)
    }
}

impl Deref for Live {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}
