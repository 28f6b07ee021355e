//! Asks the admin port of a running server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::environment;
use crate::admin::AdminToken;
use crate::config::{Config, Overrides, ServerSettings};

/// How long an answer may take: a reload looks names up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which server is asked: the one that runs under these settings.
#[derive(Debug, Args)]
pub struct Server {
    /// Settings file of the running server.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of its admin endpoints [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

impl Server {
    /// Sends a command, with the admin token; answers what the server says to it, or why it refuses.
    pub fn command(&self, target: &str, body: String) -> Result<Value, String> {
        told(self.ask(Method::POST, target, true, body)?)
    }

    /// As `command`, with DELETE.
    pub fn delete(&self, target: &str) -> Result<Value, String> {
        told(self.ask(Method::DELETE, target, true, String::new())?)
    }

    /// Reads something: without the token where that will do.
    pub fn read(&self, target: &str) -> Result<Value, String> {
        match self.ask(Method::GET, target, false, String::new())? {
            (StatusCode::UNAUTHORIZED, _) => told(self.ask(Method::GET, target, true, String::new())?),
            answer => told(answer),
        }
    }

    /// Sends a request; answers its status and body. With `token`, the admin token goes with it.
    pub fn ask(
        &self,
        method: Method,
        target: &str,
        token: bool,
        body: String,
    ) -> Result<(StatusCode, String), String> {
        let overrides = Overrides { admin: self.admin.clone(), ..Overrides::default() };
        let config = Config::load(self.config.as_deref(), &overrides, &environment);
        let settings = config.and_then(|config| config.server_settings()).map_err(|why| why.to_string())?;
        let address = reachable(&settings.admin_listen)?;
        let length = HeaderValue::from(body.len());
        let mut request = Request::builder()
            .method(method)
            .header(CONTENT_LENGTH, length)
            .uri(target)
            .header(HOST, address.to_string());
        if token {
            request = request.header(AUTHORIZATION, bearer(&settings)?);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|why| why.to_string())?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|why| why.to_string())?;
        let answer = runtime.block_on(async { timeout(PATIENCE, send(address, request)).await });
        let told = |why: String| format!("no answer from the admin port at {address}: {why}");
        answer
            .map_err(|_| told(format!("nothing for {} s", PATIENCE.as_secs())))?
            .map_err(|why| told(why.to_string()))
    }
}

/// What the server says, or why it refuses.
fn told((status, said): (StatusCode, String)) -> Result<Value, String> {
    let said: Value = serde_json::from_str(&said).unwrap_or(Value::String(said));
    if status.is_success() {
        return Ok(said);
    }
    let detail = said["detail"].as_str().or(said.as_str()).unwrap_or("no reason given");
    Err(format!("refused ({}): {detail}", status.as_u16()))
}

/// A server that listens on all addresses is asked on this machine's own.
fn reachable(listen: &str) -> Result<SocketAddr, String> {
    let mut address: SocketAddr =
        listen.parse().map_err(|_| format!("{listen:?} is not an address; write it like 127.0.0.1:9464"))?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

fn bearer(settings: &ServerSettings) -> Result<HeaderValue, String> {
    let token = match (&settings.admin_token, &settings.state_dir) {
        (Some(token), _) => SecretString::from(token.expose()),
        (None, Some(directory)) => AdminToken::text(directory).map_err(|why| why.to_string())?,
        (None, None) => {
            return Err(
                "this needs the admin token: set TIDEGATE_ADMIN_TOKEN, or STATE_DIR where it is kept".into(),
            );
        }
    };
    let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
    let mut value = value.map_err(|_| "the admin token holds what no header can carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::select! {
        biased;
        answer = asking => answer,
        Err(broken) = connection => Err(broken.into()),
    }
}
