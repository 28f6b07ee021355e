//! The settings as they run, with the metrics of their routes and upstreams: what a reload swaps at once.

use std::ops::Deref;
use std::sync::Arc;

use super::route::Route;
use crate::admin::AdminToken;
use crate::config::Settings;
use crate::observe::metrics::Metrics;
use crate::observe::{RouteSeries, UpstreamSeries};

/// Settings in force.
pub struct Live {
    settings: Settings,
    admin_token: Arc<AdminToken>,
    routes: Vec<RouteSeries>,
    upstreams: Vec<UpstreamSeries>,
}

impl Live {
    /// Puts settings in force.
    pub fn new(settings: Settings, admin_token: Arc<AdminToken>, metrics: &Metrics) -> Self {
        let routes = settings.routes.iter().map(|route| metrics.route(&route.name)).collect();
        let upstreams = settings.upstreams.iter().map(|upstream| metrics.upstream(&upstream.name)).collect();
        Self { settings, admin_token, routes, upstreams }
    }

    /// The token of the admin port.
    pub fn admin_token(&self) -> &Arc<AdminToken> {
        &self.admin_token
    }

    /// Metrics of a route.
    pub fn route_series(&self, route: &Route) -> Option<&RouteSeries> {
        self.routes.get(route.index)
    }

    /// Metrics of the upstream of a route.
    pub fn upstream_series(&self, route: &Route) -> Option<&UpstreamSeries> {
        let place =
            self.settings.upstreams.iter().position(|upstream| Arc::ptr_eq(upstream, &route.upstream))?;
        self.upstreams.get(place)
    }
}

impl Deref for Live {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}
