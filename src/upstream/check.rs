//! Active health checks: a plain GET now and then to each address of each server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::body::RequestBody;
use super::endpoint::Endpoint;
use super::fleet::Fleet;
use super::pool::Link;
use super::tender::Tender;

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

/// Checks all servers for as long as `tender` is in office.
pub(super) async fn watch(tender: Tender, check: Check) {
    while let Some(fleet) = tender.fleet() {
        let endpoints = fleet.endpoints.load_full();
        join_all(endpoints.iter().map(|endpoint| round(&tender, &fleet, endpoint, &check))).await;
        drop((fleet, endpoints));
        sleep(check.every).await;
    }
}

async fn round(tender: &Tender, fleet: &Fleet, endpoint: &Arc<Endpoint>, check: &Check) {
    let asked = timeout(check.timeout, ask(endpoint, check)).await;
    let outcome = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    let news = tender.judge(fleet, || endpoint.health.checked(outcome.is_ok(), check.rise, check.fall));
    if news != Some(true) {
        return;
    }
    let (upstream, server, address) = (&tender.upstream, &endpoint.server.server.name, &endpoint.address);
    match outcome {
        Ok(()) => info!(%upstream, %server, %address, "the server passes its health checks"),
        Err(why) => warn!(%upstream, %server, %address, why, "the server fails its health checks"),
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
