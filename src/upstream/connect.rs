//! Opens the exchange's connections: by resolved address, under one deadline, trying each address in turn.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Endpoints;

/// Connects to the first of `endpoints` that can be reached.
///
/// # Errors
/// `TimedOut` after `deadline`; else what the last address tried answered.
pub async fn connect(endpoints: &Endpoints, deadline: Duration) -> io::Result<TcpStream> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
    let stream = timeout(deadline, reach(endpoints)).await.map_err(late)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn reach(endpoints: &Endpoints) -> io::Result<TcpStream> {
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
