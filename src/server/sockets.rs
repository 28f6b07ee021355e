//! Where listening sockets come from: bound here, passed by a service manager, or handed over by the process before.
//! All enter by the one door: Pingora's table of listening sockets.

use std::collections::HashSet;
use std::env;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use async_trait::async_trait;
use listenfd::ListenFd;
use pingora::apps::ServerApp;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::{Service, listening};
use tracing::warn;

use super::StartError;

/// Sockets that others made for this process.
#[derive(Default)]
pub struct Sockets {
    passed: Vec<Passed>,
    handed_over: Option<Fds>,
}

/// A socket passed by a service manager (systemd's LISTEN_FDS).
struct Passed {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

/// A socket to accept connections on.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    socket: Socket,
}

enum Socket {
    Owned(TcpListener),
    /// Received from the process before, and owned by nobody but Pingora's table.
    HandedOver(RawFd),
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed.iter().map(|passed| (&passed.name, passed.address));
        f.debug_list().entries(passed).finish()
    }
}

impl Sockets {
    /// Takes the sockets that the service manager passed to this process; none if it passed none.
    ///
    /// # Errors
    /// What was passed is no TCP socket; the text says what to do.
    pub fn from_environment() -> Result<Self, String> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut fds = ListenFd::from_env();
        let mut passed = Vec::new();
        for index in 0..fds.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let taken = fds.take_tcp_listener(index).and_then(|listener| {
                let Some(listener) = listener else { return Ok(None) };
                listener.set_nonblocking(true)?;
                Ok(Some((listener.local_addr()?, listener)))
            });
            match taken {
                Ok(Some((address, listener))) => passed.push(Passed { name, address, listener }),
                Ok(None) => {}
                Err(why) => {
                    return Err(format!(
                        "the socket {name:?} passed in LISTEN_FDS can't be used: {why}; pass ListenStream= sockets of addresses and ports"
                    ));
                }
            }
        }
        Ok(Self { passed, handed_over: None })
    }

    /// Adds the sockets of the process before.
    pub(super) fn hand_over(&mut self, fds: Fds) {
        self.handed_over = Some(fds);
    }

    /// The address of the socket that was passed under this name (FileDescriptorName=).
    pub fn named(&self, name: &str) -> Option<SocketAddr> {
        self.passed.iter().find(|passed| passed.name == name).map(|passed| passed.address)
    }

    /// The socket of an address that stands in the settings: one that was passed or handed over, else a new one.
    pub(super) fn take(&mut self, listen: &str) -> Result<Bound, StartError> {
        let wanted: Option<SocketAddr> = listen.parse().ok();
        let place = self.passed.iter().position(|passed| Some(passed.address) == wanted);
        if let Some(place) = place {
            let Passed { address, listener, .. } = self.passed.swap_remove(place);
            return Ok(Bound { address, socket: Socket::Owned(listener) });
        }
        let handed_over = self.handed_over.as_ref().zip(wanted);
        if let Some((fd, address)) = handed_over.and_then(|(fds, at)| Some((*fds.get(&at.to_string())?, at)))
        {
            return Ok(Bound { address, socket: Socket::HandedOver(fd) });
        }
        bind(listen).map_err(|cause| StartError::Bind { address: listen.into(), cause })
    }

    /// What is left after all were taken: a passed one that nobody accepts on would let its clients wait for ever.
    pub(super) fn finish(mut self, taken: &[&Bound]) -> Result<(), StartError> {
        if let Some(Passed { name, address, .. }) = self.passed.first() {
            return Err(StartError::Setup(format!(
                "the socket {name:?} on {address}, passed in LISTEN_FDS, belongs to nothing: name it traffic or admin \
                 (FileDescriptorName=), or set listen or admin.listen to its address"
            )));
        }
        if let Some(fds) = &mut self.handed_over {
            let keep: HashSet<String> = taken.iter().map(|bound| bound.address.to_string()).collect();
            for address in fds.close_unclaimed(&keep) {
                warn!(address, "the process before listened here; the settings no longer do");
            }
        }
        Ok(())
    }
}

fn bind(listen: &str) -> std::io::Result<Bound> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(Bound { address: listener.local_addr()?, socket: Socket::Owned(listener) })
}

impl Bound {
    /// The socket itself; stays with this value.
    pub(super) fn fd(&self) -> RawFd {
        match &self.socket {
            Socket::Owned(listener) => listener.as_raw_fd(),
            Socket::HandedOver(fd) => *fd,
        }
    }
}

/// A listening service whose socket was there before, so that start-up fails early and port 0 works.
pub(super) struct Inherited<A> {
    inner: listening::Service<A>,
    bound: Option<Bound>,
    closing: ShutdownWatch,
}

impl<A: ServerApp + Send + Sync + 'static> Inherited<A> {
    /// Accepts on `bound` until `closing` turns true; what was accepted is served on.
    pub(super) fn new(
        name: &str,
        app: A,
        bound: Bound,
        closing: ShutdownWatch,
        threads: Option<usize>,
    ) -> Self {
        let mut inner = listening::Service::new(name.into(), app);
        inner.threads = threads;
        // Requests are read, and answers are sent, in whole heads and pieces: a buffer between would only be a copy more.
        let unbuffered = L4BufferSettings::unbuffered();
        inner.add_listener(ListenerConfig::tcp(bound.address.to_string()).l4_buffer(unbuffered));
        Self { inner, bound: Some(bound), closing }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Inherited<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, tasks: usize) {
        if let (Some(fds), Some(Bound { address, socket })) = (&fds, self.bound.take()) {
            let fd = match socket {
                Socket::Owned(listener) => listener.into_raw_fd(),
                Socket::HandedOver(fd) => fd,
            };
            fds.lock().add(address.to_string(), fd);
        }
        self.inner.start_service(fds, self.closing.clone(), tasks).await;
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }
}
