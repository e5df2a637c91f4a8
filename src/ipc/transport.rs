//! What a channel needs of the thing that carries its bytes, and the Unix socket that is it in
//! production. The system calls themselves are in `sys::socket`; tests bring their own transport.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::socket;
pub use crate::sys::socket::{Ancillary, Received};

/// What [`Transport::wait`] waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A receive would find bytes, end-of-file or an error.
    pub readable: bool,
    /// A send would accept bytes or report an error.
    pub writable: bool,
}

/// A connected, non-blocking byte stream that can carry descriptors, with the kernel's rules:
/// descriptors travel with the first byte of the send they were given to, in order, and a
/// receive ends after the bytes of one send's descriptors.
pub trait Transport {
    /// Sends as much as fits and returns how many bytes that was; `EAGAIN` when none. If any byte
    /// was sent, so were all descriptors; on an error, none.
    fn send(
        &mut self,
        bytes: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<usize, Errno>;

    /// Receives into `buffer`; zero bytes mean end-of-file, `EAGAIN` that nothing is there now.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Errno>;

    /// Blocks until the wanted readiness or the timeout (then both are false). Used at exit only.
    fn wait(&mut self, wanted: Ready, timeout: Duration) -> Result<Ready, Errno>;
}

/// What a send has come to that failed: nothing sent for want of room in the kernel, or an error.
pub(crate) fn nothing_sent(errno: Errno) -> Result<bool, Errno> {
    match errno {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => Ok(false),
        errno => Err(errno),
    }
}

/// Whether nothing can be sent any more after this error.
pub(crate) fn is_lost(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN | Errno::EBADF | Errno::ENOTSOCK
    )
}

/// A Unix stream socket.
#[derive(Debug)]
pub struct UnixTransport {
    socket: OwnedFd,
}

impl UnixTransport {
    /// Takes over a connected Unix stream socket. It need not be non-blocking: no call made here
    /// blocks either way.
    pub fn new(socket: OwnedFd) -> Self {
        UnixTransport { socket }
    }
}

impl AsFd for UnixTransport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UnixTransport {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl From<UnixTransport> for OwnedFd {
    fn from(transport: UnixTransport) -> Self {
        transport.socket
    }
}

impl Transport for UnixTransport {
    fn send(
        &mut self,
        bytes: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<usize, Errno> {
        socket::send(self.socket.as_fd(), bytes, descriptors)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Errno> {
        socket::receive(self.socket.as_fd(), buffer)
    }

    fn wait(&mut self, wanted: Ready, timeout: Duration) -> Result<Ready, Errno> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, wanted.readable);
        flags.set(PollFlags::POLLOUT, wanted.writable);
        // Rounded up: a rest below a millisecond must not become a busy loop.
        let millis = timeout.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut entry = [PollFd::new(self.socket.as_fd(), flags)];
        match poll(&mut entry, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Ready::default()),
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
        let got = entry[0].revents().unwrap_or(PollFlags::empty());
        let broken = got.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL);
        Ok(Ready {
            readable: wanted.readable && (broken || got.contains(PollFlags::POLLIN)),
            writable: wanted.writable && (broken || got.contains(PollFlags::POLLOUT)),
        })
    }
}
