//! Of a route: guards that are off, that only observe, or that let through what they are there for.

use super::super::Toggle;
use super::super::file::{RouteFile, RouteOwn};
use super::Findings;
use crate::guard::Traffic;
use crate::guard::limits::{self, By};
use crate::guard::mode::Mode;
use crate::guard::origin::SameSite;
use crate::guard::sanitize::{self, Action, Sink, Target};
use crate::proxy::route::Inspect;

pub(super) fn check(own: &RouteOwn, file: &RouteFile, found: &mut Findings) {
    if file.mode == Mode::Observe {
        found.must("mode", "is observe: guards refuse nothing", "write mode: enforce");
    } else if !file.observe.is_empty() {
        found.must("observe", "names guards that refuse nothing", "write observe: []");
    }
    if own.inspect == Some(Inspect::Off) {
        inspection(own, found);
    }
    reach(file, found);
    answers(file, found);
    match &file.sanitize {
        Toggle::Off => {
            found.must("sanitize", "is off: what runs in a page reaches the app as it is", "remove it");
        }
        Toggle::On(config) => sanitizing(config, found),
    }
    match &file.uploads {
        Toggle::Off => {
            found.must("uploads", "is off: files of any name and type reach the app", "remove it");
        }
        Toggle::On(config) if config.types.is_off() => {
            let message = "is off: files of any type that are what they say may be sent";
            found.look(
                "uploads.types",
                message,
                "list the types that the app wants, such as [png, jpeg, pdf]",
            );
        }
        Toggle::On(_) => {}
    }
    if file.duplicates.is_off() {
        let message = "is off: a message that its sender repeats is served and paid for again";
        found.look("duplicates", message, "remove it");
    }
    if file.text.chat.fields.is_empty() {
        let message = "is empty: texts that people type are neither measured nor sanitized";
        found.look("text.chat.fields", message, "remove it, or list the fields of your app");
    }
    for (name, limit) in file.limits.iter() {
        counting(name, limit, found);
    }
}

/// Bodies that nobody looks at are fine for one path that takes JSON files, and a hole anywhere else.
fn inspection(own: &RouteOwn, found: &mut Findings) {
    let call = own.api.is_some() || own.traffic == Some(Traffic::Ai);
    if call || own.matches.paths.is_empty() {
        let message = "is off: bodies reach the app without being looked at";
        found.must("inspect", message, "remove it; give it to a route for the one path that needs it");
    } else {
        let message = "is off: bodies of these paths reach the app without being looked at";
        found.look("inspect", message, "keep it only where the app takes bodies as mere files");
    }
}

/// Who may come, and from where.
fn reach(file: &RouteFile, found: &mut Findings) {
    let remedy = "list the names that people use, such as [chat.example.com]";
    if file.hosts.0.is_empty() {
        found.must("hosts", "is empty: any name leads here", remedy);
    } else if file.hosts.0.iter().any(|host| host == "*") {
        found.must("hosts", "serves any name", remedy);
    }
    match &file.origin {
        Toggle::Off => {
            let message = "is off: pages of other sites may act in a visitor's name";
            found.must("origin", message, "remove it, or list those sites in origin.trusted_origins");
        }
        Toggle::On(config) if config.same_site == SameSite::Allow => {
            let message = "is allow: a sister domain that is broken into acts in a visitor's name";
            found.look(
                "origin.same_site",
                message,
                "remove it, and list the sisters in origin.trusted_origins",
            );
        }
        Toggle::On(_) => {}
    }
    let cors = &file.cors;
    if cors.allowed_origins.iter().any(|origin| origin == "*") {
        let message = "lets the pages of any site read answers";
        found.must("cors.allowed_origins", message, "list the sites that may (ALLOWED_ORIGINS)");
    }
    if cors.allowed_origins.iter().any(|origin| origin == "null") {
        let message = "lists null, which is the origin of every sandboxed frame and local file";
        found.look("cors.allowed_origins", message, "list the sites that may (ALLOWED_ORIGINS)");
    }
    if cors.allowed_origins.iter().any(|origin| plain_text(origin)) {
        let message = "lists http://: whoever sits on the line can pose as that page";
        found.look("cors.allowed_origins", message, "list it with https:// (ALLOWED_ORIGINS)");
    }
    if file.cors.private_network {
        let message = "is on: public pages may call this gate inside of a private network";
        found.look("cors.private_network", message, "remove it");
    }
}

/// What every answer carries, and what it tells.
fn answers(file: &RouteFile, found: &mut Findings) {
    match &file.security_headers {
        Toggle::Off => {
            let remedy = "write security_headers: on, or unset SECURE_HEADERS";
            found.must("security_headers", "is off", remedy);
        }
        Toggle::On(config) => {
            for (name, _) in config.headers.iter().filter(|(_, value)| *value == "off") {
                let key = format!("security_headers.headers.{name}");
                found.look(key, "is off", "remove it, unless the app sets that field itself");
            }
        }
    }
    if file.leaks.is_off() {
        found.look(
            "leaks",
            "is off: answers tell what the app is made of",
            "remove it; `leaks.keep` spares single fields",
        );
    }
}

fn sanitizing(config: &sanitize::Config, found: &mut Findings) {
    let sanitize::Config { chat, model: _, speech, path, fields } = config;
    let mut look = |key: String, target: Target| {
        if target.action == Action::Observe || target.sink == Sink::Model {
            let message = "changes nothing: what runs in a page reaches the app as it is";
            found.must(key, message, "write a sink that is not model, and action: sanitize");
        } else if target.sink == Sink::Markdown {
            let message = "has the sink markdown: one backtick carries a payload past it into innerHTML";
            found.look(key, message, "write sink: html, unless the app renders Markdown and nothing else");
        }
    };
    look("sanitize.chat".into(), *chat);
    look("sanitize.speech".into(), *speech);
    look("sanitize.path".into(), *path);
    for (field, target) in fields.iter() {
        // Whoever writes `model` for a field says where it goes; to observe what goes into a page helps nobody.
        if target.sink != Sink::Model {
            look(format!("sanitize.fields[{field:?}]"), *target);
        }
    }
}

fn counting(name: &str, limit: &Toggle<limits::Config>, found: &mut Findings) {
    let key = format!("limits.{name}");
    let Some(limit) = limit.as_option().filter(|limit| limit.enabled) else {
        return found.must(key, "is off", "switch it on; a higher limit is better than none");
    };
    let optional = |by: &By| matches!(by, By::Session | By::Device | By::Header(_) | By::Field(_));
    // The shipped `session` limit stands beside others that nobody leaves out.
    if name != "session" && limit.by.iter().any(optional) {
        let message = "counts by what a request may leave out, and restrains nobody who does";
        found.look(format!("{key}.by"), message, "keep a limit by address or user beside it");
    }
}

/// An origin over plain HTTP that is not on this machine.
fn plain_text(origin: &str) -> bool {
    let Some(host) = origin.strip_prefix("http://") else { return false };
    !["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local))
}
