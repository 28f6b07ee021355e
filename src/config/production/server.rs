//! Of the server itself: who reaches it and how, what it keeps, and whether anybody sees what it does.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipnet::IpNet;

use super::super::file::{Level, ServerFile};
use super::{Findings, NO_BREAKER};
use crate::guard::hygiene::GetBody;
use crate::observe::LogTarget;

/// Networks shorter than these are half the world, and no proxy's.
const WIDEST: (u8, u8) = (8, 16);

pub(super) fn check(file: &ServerFile, found: &mut Findings) {
    if file.debug {
        found.must("debug", "is on", "write debug: false, or unset DEBUG");
    }
    proxies(&file.client.trusted_proxies, found);
    admin(file, found);
    state(file.state_dir.as_deref(), found);
    seeing(file, found);
    if file.breaker.is_off() {
        found.must("breaker", NO_BREAKER, "remove it");
    }
    if file.hygiene.get_body == GetBody::Allow {
        let message = "is allow: an app that leaves such a body unread takes it for the next request";
        found.look("hygiene.get_body", message, "remove it, unless the app wants bodies on GET");
    }
    if file.upstream_defaults.max_fails == 0 {
        let message = "is 0: a server that fails goes on getting its share of requests";
        found.look("upstream_defaults.max_fails", message, "remove it");
    }
}

fn proxies(trusted: &[String], found: &mut Findings) {
    const KEY: &str = "client.trusted_proxies";
    if trusted.is_empty() {
        let remedy = "put a proxy that ends TLS in front, and list its address, such as 127.0.0.1";
        found.must(KEY, "is empty, so no TLS stands in front of the gate", remedy);
    }
    let everyone = |text: &String| match text.parse::<IpNet>() {
        Ok(IpNet::V4(net)) => net.prefix_len() < WIDEST.0,
        Ok(IpNet::V6(net)) => net.prefix_len() < WIDEST.1,
        Err(_) => false,
    };
    if trusted.iter().any(everyone) {
        let message = "trusts everyone: any stranger may choose the address that limits count";
        found.must(KEY, message, "list the proxy's own address, such as 127.0.0.1");
    }
}

fn admin(file: &ServerFile, found: &mut Findings) {
    const KEY: &str = "admin.listen";
    let local = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    if file.admin.listen.parse().is_ok_and(local) {
        return;
    }
    if file.admin.token.is_none() && file.state_dir.is_none() {
        let message = "can be reached from other machines, and there is no token";
        found.must(KEY, message, "write 127.0.0.1:9464, or set TIDEGATE_ADMIN_TOKEN or STATE_DIR");
    } else {
        let message = "can be reached from other machines: the token crosses the network in plain text";
        found.look(KEY, message, "write 127.0.0.1:9464, or let only whoever scrapes it reach that port");
    }
}

fn state(directory: Option<&Path>, found: &mut Findings) {
    // One that is not there yet is made with the right permissions.
    let open = |directory: &Path| {
        fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    };
    match directory {
        None => {
            let message =
                "is not set: neither the admin token nor what is switched by hand outlives a restart";
            found.must("state_dir", message, "set STATE_DIR, such as /var/lib/tidegate");
        }
        Some(directory) if open(directory) => {
            found.must("state_dir", "can be entered by others than its owner", "chmod 700 the directory");
        }
        Some(_) => {}
    }
}

fn seeing(file: &ServerFile, found: &mut Findings) {
    if file.log.events.to == LogTarget::Off {
        let message = "is off: nobody hears of attacks";
        found.must("log.events.to", message, "write stderr, or a file");
    }
    if file.log.access.to == LogTarget::Off {
        let message = "is off: what was asked before an incident can't be found out";
        found.look("log.access.to", message, "write stdout, or a file");
    }
    if file.log.level == Level::Debug {
        let message = "is debug: what matters drowns in it";
        found.look("log.level", message, "write info, or unset LOG_LEVEL");
    }
    if file.watch.is_off() {
        let message = "is off: floods of refusals, errors or failed logins raise no alert";
        found.look("watch", message, "remove it");
    }
}
