//! A connection that is none: memory, with the address of whoever is said to be at its other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// No descriptor: nothing is asked of the system, since the address is known.
const NO_DESCRIPTOR: i32 = -1;

/// The gate's end.
#[derive(Debug)]
pub(super) struct Memory {
    io: DuplexStream,
    digest: Arc<SocketDigest>,
}

impl Memory {
    pub(super) fn new(io: DuplexStream, from: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(NO_DESCRIPTOR);
        // Fresh cells, so nothing was set before.
        let _ = digest.peer_addr.set(Some(from.into()));
        let _ = digest.local_addr.set(None);
        let _ = digest.original_dst.set(None);
        Self { io, digest: digest.into() }
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Memory {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Memory {
    async fn shutdown(&mut self) {}
}

impl UniqueID for Memory {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Memory {}

impl GetTimingDigest for Memory {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Memory {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Memory {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

impl Peek for Memory {}
