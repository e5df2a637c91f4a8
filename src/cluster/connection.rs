//! An accepted connection on its way to a worker. The dispatcher's own descriptor of it stays open
//! until a worker has taken it, so that it can go to another one.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use crate::sys::listener;

/// A connection and where it came from.
#[derive(Debug)]
pub struct Connection {
    socket: Arc<OwnedFd>,
    client: Option<IpAddr>,
    listener: u32,
}

impl Connection {
    /// Accepts the next connection of a listening socket, whose number is `listener`.
    ///
    /// # Errors
    /// Those of accept(2); `EAGAIN` when there is none.
    pub fn accept(socket: BorrowedFd<'_>, listener: u32) -> Result<Connection, Errno> {
        let (socket, client) = listener::accept(socket)?;
        Ok(Connection {
            socket: Arc::new(socket),
            client,
            listener,
        })
    }

    /// The client's address; none for Unix sockets.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// The number of the listener that accepted it.
    pub fn listener(&self) -> u32 {
        self.listener
    }

    /// Its socket, for whoever sends it: a duplicate could fail when descriptors are short.
    pub fn socket(&self) -> Arc<OwnedFd> {
        self.socket.clone()
    }

    /// Whether it is certain that nobody has read from or written to it: only then may it go to
    /// another worker after the first has died. Never for Unix sockets, which do not tell.
    pub fn is_untouched(&self) -> bool {
        listener::is_untouched(self.socket.as_fd())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
