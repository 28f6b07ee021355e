//! Active health checks: a plain GET now and then to each address of each server.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Upstream;
use super::body::RequestBody;
use super::endpoint::Endpoint;
use super::pool::Link;

/// How servers are checked, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked for.
    pub path: http::Uri,
    /// From the end of one check to the next.
    pub every: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Checks passed in a row that bring a server back.
    pub rise: u32,
    /// Checks failed in a row that take it out.
    pub fall: u32,
}

/// Checks all servers until the upstream is gone.
pub(super) async fn watch(upstream: Weak<Upstream>, check: Check) {
    while let Some(upstream) = upstream.upgrade() {
        let endpoints = upstream.fleet.endpoints.load_full();
        join_all(endpoints.iter().map(|endpoint| round(&upstream, endpoint, &check))).await;
        drop((upstream, endpoints));
        sleep(check.every).await;
    }
}

async fn round(upstream: &Upstream, endpoint: &Arc<Endpoint>, check: &Check) {
    let asked = timeout(check.timeout, ask(endpoint, check)).await;
    let outcome = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    if !endpoint.health.checked(outcome.is_ok(), check.rise, check.fall) {
        return;
    }
    let (server, address) = (&endpoint.server.server.name, &endpoint.address);
    match outcome {
        Ok(()) => info!(upstream = %upstream.name, %server, %address, "the server passes its health checks"),
        Err(why) => {
            warn!(upstream = %upstream.name, %server, %address, why, "the server fails its health checks")
        }
    }
}

/// Whether a GET is answered with 2xx or 3xx; else why not.
async fn ask(endpoint: &Endpoint, check: &Check) -> Result<(), String> {
    let mut link = Link::open(endpoint, check.timeout).await.map_err(|error| error.to_string())?;
    let mut request = Request::new(RequestBody::default());
    *request.uri_mut() = check.path.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, endpoint.server.server.host.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let status = link.ask(request).await.map_err(|(error, _)| error.to_string())?.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {status}")) }
}
