//! Commands to a gate that runs: through its admin port, with its token.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::environment;
use crate::admin::AdminToken;
use crate::config::{Config, Overrides};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which gate is meant: its address and token are taken from where it takes them itself.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Settings file of the gate.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of its admin endpoints [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

impl AdminArgs {
    /// Sends `POST target` with `body`; answers what the gate says.
    pub fn post(&self, target: &str, body: String) -> Result<Value, String> {
        let overrides = Overrides { admin: self.admin.clone(), ..Overrides::default() };
        let config = Config::load(self.config.as_deref(), &overrides, &environment);
        let (listen, token, state_dir) =
            config.and_then(|config| config.admin()).map_err(|e| e.to_string())?;
        let token = match (token, state_dir) {
            (Some(token), _) => SecretString::from(token.expose()),
            (None, Some(directory)) => AdminToken::read(&directory).map_err(|e| e.to_string())?,
            (None, None) => {
                return Err(
                    "no admin token is known: set TIDEGATE_ADMIN_TOKEN, or STATE_DIR to the directory in \
                            which the gate keeps it"
                        .into(),
                );
            }
        };
        let address: SocketAddr =
            listen.parse().map_err(|_| format!("admin.listen: {listen:?} is not an address"))?;
        let address = SocketAddr::new(reachable(address.ip()), address.port());
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let asked = runtime.block_on(async { timeout(PATIENCE, ask(address, target, &token, body)).await });
        let (status, text) = asked
            .map_err(|_| "it does not answer".to_owned())
            .flatten()
            .map_err(|why| format!("the gate at {address} can't be asked: {why}"))?;
        let said: Value = serde_json::from_slice(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(said);
        }
        let detail = said["detail"].as_str().unwrap_or("no reason given");
        Err(format!("the gate refused ({}): {detail}", status.as_u16()))
    }
}

/// Where a wildcard address can be reached from this machine.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

async fn ask(
    address: SocketAddr,
    target: &str,
    token: &SecretString,
    body: String,
) -> Result<(http::StatusCode, Vec<u8>), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|e| text(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let request = Request::post(target)
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
        .header(CONTENT_LENGTH, body.len())
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| text(&e))?;
    // What goes wrong with it goes wrong with the request, too.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| text(&e))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| text(&e))?;
    Ok((status, body.to_bytes().to_vec()))
}
