//! What callers are told of their own limits (L8).

use http::StatusCode;
use serde_json::{Value, json};

use super::Gate;
use super::reply::{Reply, seconds};
use crate::guard::limits::Draws;
use crate::guard::{Reason, Refusal};
use crate::proxy::client::Client;
use crate::state::Standing;

impl Gate {
    /// Every window that a request by this caller would draw from, as it stands; draws nothing.
    pub(super) async fn status(&self, draws: &Draws<'_>, client: &Client) -> Result<Reply, Refusal> {
        let standings = self.admissions.standings(draws.as_slice()).await;
        let standings =
            standings.map_err(|_| Refusal::new(Reason::StoreUnavailable, "The limits can't be read.", ""))?;
        let limits: Vec<_> = standings.iter().map(|standing| shown(draws, standing)).collect();
        let subject = client.user.map_or_else(|| client.address.to_string(), |user| user.to_string());
        let body = json!({"subject": subject, "limits": limits});
        Ok(Reply::json(StatusCode::OK, "application/json", body.to_string().into()))
    }
}

/// A window as it stands.
pub(super) fn shown(draws: &Draws<'_>, standing: &Standing) -> Value {
    json!({
        "name": draws.name(standing),
        "by": draws.kind(standing),
        "window_s": seconds(standing.window),
        "limit": standing.max,
        "remaining": standing.remaining,
        "reset_s": seconds(standing.reset),
    })
}
