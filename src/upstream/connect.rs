//! Opens connections to endpoints, for the exchange and for health checks.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::endpoint::{Address, Endpoint};
use super::stream::{Socket, Stream};

/// Connects within `deadline`, the TLS handshake included.
///
/// # Errors
/// What the system or the handshake says, or `TimedOut`.
pub(super) async fn connect(endpoint: &Endpoint, deadline: Duration) -> io::Result<Stream> {
    let connected = timeout(deadline, async {
        let socket = match &endpoint.address {
            Address::Unix(path) => return UnixStream::connect(path).await.map(Socket::Unix),
            Address::Inet(address) => TcpStream::connect(address).await?,
        };
        socket.set_nodelay(true)?;
        match &endpoint.server.tls {
            None => Ok(Socket::Tcp(socket)),
            Some(tls) => tls.connect(socket).await.map(|stream| Socket::Tls(Box::new(stream))),
        }
    });
    let slow = || io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
    connected.await.map_err(|_| slow())?.map(Stream::from)
}
