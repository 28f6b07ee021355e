//! The status page for a browser: plain HTML, no script.

use std::fmt::{self, Write};

use crate::observe::Snapshot;

use super::json;

/// The page's only style; the policy names it by its hash, so that no other style runs.
pub(super) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%}caption{text-align:left;font-weight:600;margin-top:1.5rem}\
td{border-top:1px solid #8884;padding:.2rem 0}td+td{text-align:right;font-variant-numeric:tabular-nums}";
/// Content-Security-Policy of the page.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-SGK3PLzoJbkUfjpMD3gCu4GJeyyCegjkiZwoN4XHII0='; \
frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Renders the page.
pub(super) fn render(snapshot: &Snapshot) -> String {
    let mut page = String::with_capacity(4096);
    // Writing to a string can't fail.
    let _ = write(&mut page, snapshot);
    page
}

fn write(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Tidegate</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"refresh\" content=\"5\"><style>{STYLE}</style></head>\n<body>\n<h1>Tidegate is {}</h1>\n",
        json::status(snapshot)
    )?;
    if !snapshot.degraded.is_empty() {
        page.push_str("<ul>\n");
        for reason in &snapshot.degraded {
            writeln!(page, "<li>{}</li>", Text(&reason.detail))?;
        }
        page.push_str("</ul>\n");
    }
    let limit = |value: Option<u64>| value.map_or_else(|| "none".into(), |value| value.to_string());
    table(
        page,
        "Gate",
        [
            ("Version", snapshot.version.into()),
            ("Environment", snapshot.environment.to_string()),
            ("Up for (s)", snapshot.uptime.as_secs().to_string()),
            ("Connections", snapshot.connections.active.to_string()),
            ("Requests in flight", snapshot.in_flight.to_string()),
            ("Requests served", snapshot.requests.to_string()),
            ("Log lines lost", snapshot.log_dropped.to_string()),
        ],
    )?;
    table(
        page,
        "Limits",
        [
            ("Requests a minute", limit(snapshot.limits.per_minute)),
            ("Requests an hour", limit(snapshot.limits.per_hour)),
            ("AI calls a minute", limit(snapshot.limits.ai_per_minute)),
            ("AI calls an hour", limit(snapshot.limits.ai_per_hour)),
            ("Subjects tracked", snapshot.state.subjects.to_string()),
            ("Blocked now", snapshot.state.blocked.to_string()),
        ],
    )?;
    table(
        page,
        "Refused, by reason",
        snapshot.refusals.iter().map(|(name, count)| (name.as_str(), count.to_string())),
    )?;
    table(page, "Security events", snapshot.events.iter().map(|(name, count)| (*name, count.to_string())))?;
    page.push_str(
        "<p><a href=\"/metrics\">metrics</a> · <a href=\"/metrics.json\">metrics as JSON</a> · \
         <a href=\"/api/security/stats\">security</a> · <a href=\"/api/sessions/stats\">sessions</a> · \
         <a href=\"/healthz\">health</a></p>\n</body>\n</html>\n",
    );
    Ok(())
}

fn table<'a>(
    page: &mut String,
    caption: &str,
    rows: impl IntoIterator<Item = (&'a str, String)>,
) -> fmt::Result {
    writeln!(page, "<table><caption>{caption}</caption>")?;
    for (name, value) in rows {
        writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", Text(name), Text(&value))?;
    }
    page.push_str("</table>\n");
    Ok(())
}

/// Text in HTML.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for symbol in self.0.chars() {
            match symbol {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(symbol)?,
            }
        }
        Ok(())
    }
}
