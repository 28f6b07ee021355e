//! The bytes of a connection to a server, whatever carries them.
//!
//! A server may answer before it has read the request, and close. Then writing fails, although the answer is there: so
//! what a server no longer takes is dropped here, and whoever reads learns what it had to say, or that it broke off.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora::tls::ClientTlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection.
pub struct Stream {
    socket: Socket,
    /// Whether the server has closed its end to what is written.
    deaf: bool,
}

/// What carries it.
pub enum Socket {
    /// In plain text over TCP.
    Tcp(TcpStream),
    /// In plain text over a Unix domain socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<ClientTlsStream<TcpStream>>),
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        Self { socket, deaf: false }
    }
}

/// Calls a method of whichever socket it is.
macro_rules! either {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match &mut $self.socket {
            Socket::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

impl Stream {
    /// What becomes of a write of `bytes`: one that the server no longer takes is as good as done.
    fn written(&mut self, written: Poll<io::Result<usize>>, bytes: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.deaf = true;
                Poll::Ready(Ok(bytes))
            }
            written => written,
        }
    }
}

/// After these, a read ends at once, too: with what came before, then the end or an error.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        either!(this, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = either!(this, poll_write(cx, bytes));
        this.written(written, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let all = || pieces.iter().map(|piece| piece.len()).sum();
        if this.deaf {
            return Poll::Ready(Ok(all()));
        }
        let written = either!(this, poll_write_vectored(cx, pieces));
        this.written(written, all())
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(stream) => stream.is_write_vectored(),
            Socket::Unix(stream) => stream.is_write_vectored(),
            Socket::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Ready(Ok(()));
        }
        match either!(this, poll_flush(cx)) {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                this.deaf = true;
                Poll::Ready(Ok(()))
            }
            flushed => flushed,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        either!(this, poll_shutdown(cx))
    }
}
