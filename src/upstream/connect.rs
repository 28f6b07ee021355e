//! Opens the exchange's connections: by resolved address, under one deadline, trying each address in turn.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::Endpoints;

/// Connector of one upstream. The URI that hyper hands it only names the pool.
#[derive(Clone)]
pub struct Connect {
    endpoints: Arc<Endpoints>,
    deadline: Duration,
}

impl Connect {
    pub(super) fn new(endpoints: Arc<Endpoints>, deadline: Duration) -> Self {
        Self { endpoints, deadline }
    }
}

impl Service<Uri> for Connect {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { endpoints, deadline } = self.clone();
        Box::pin(async move {
            let stream = timeout(deadline, connect(&endpoints)).await.map_err(|_| timed_out())??;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")
}

async fn connect(endpoints: &Endpoints) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the upstream's name has no address yet");
    for address in endpoints.in_order() {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                endpoints.prefer(address);
                return Ok(stream);
            }
            Err(error) => {
                endpoints.avoid(address);
                last = error;
            }
        }
    }
    Err(last)
}
