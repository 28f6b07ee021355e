//! Pingora with nothing on it: the least that a proxy built on it can cost, and what Tidegate is measured against.
//!
//! `bare_pingora LISTEN UPSTREAM [ACCESS_LOG]`, both addresses as `ip:port`. One worker thread, as every proxy in the
//! comparison has, and one buffered line a request in the access log if a file is named.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::RunArgs;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The pass-through: every request goes to one address.
struct Bare {
    upstream: SocketAddr,
    access: Option<AccessLog>,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _failure: Option<&pingora::Error>, _ctx: &mut ()) {
        if let Some(access) = &self.access {
            access.record(session);
        }
    }
}

/// Lines gathered in memory and written 64 KiB at a time, as nginx does with `buffer=64k`.
struct AccessLog {
    start: Instant,
    lines: Mutex<BufWriter<File>>,
}

impl AccessLog {
    fn create(path: &str) -> std::io::Result<Self> {
        let lines = BufWriter::with_capacity(64 << 10, File::create(path)?);
        Ok(Self { start: Instant::now(), lines: Mutex::new(lines) })
    }

    fn record(&self, session: &Session) {
        let request = session.req_header();
        let status = session.response_written().map_or(0, |answer| answer.status.as_u16());
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk costs the line, not the request.
        let _ = write!(lines, "{:.3} ", self.start.elapsed().as_secs_f64());
        let _ = match session.client_addr() {
            Some(client) => write!(lines, "{client}"),
            None => write!(lines, "-"),
        };
        let _ = writeln!(
            lines,
            " \"{} {} {:?}\" {status} {}",
            request.method,
            request.uri,
            request.version,
            session.body_bytes_sent()
        );
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, upstream, access) = match arguments.as_slice() {
        [listen, upstream] => (listen, upstream, None),
        [listen, upstream, access] => (listen, upstream, Some(AccessLog::create(access)?)),
        _ => return Err("usage: bare_pingora LISTEN UPSTREAM [ACCESS_LOG]".into()),
    };

    let mut server = Server::new_with_opt_and_conf(None, ServerConf { threads: 1, ..ServerConf::default() });
    server.bootstrap();
    let bare = Bare { upstream: upstream.parse()?, access };
    let mut service = http_proxy_service(&server.configuration, bare);
    service.add_tcp(listen);
    server.add_service(service);
    server.run(RunArgs::default());
    Ok(())
}
