//! Opens the exchange's connections: by resolved address, under one deadline, trying each address in turn.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Endpoints;

/// Connects to the first of `endpoints` that can be reached; each has an equal share of `deadline`.
///
/// # Errors
/// What the last address tried answered, or `TimedOut`.
pub async fn connect(endpoints: &Endpoints, deadline: Duration) -> io::Result<TcpStream> {
    let addresses = endpoints.in_order();
    let share = deadline / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the upstream's name has no address yet");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                endpoints.prefer(address);
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"),
        }
        endpoints.avoid(address);
    }
    Err(last)
}
