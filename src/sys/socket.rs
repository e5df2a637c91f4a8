//! `sendmsg` and `recvmsg` with descriptors, for connected Unix stream sockets. Never blocks,
//! never raises SIGPIPE, and every received descriptor is born close-on-exec and owned. What the
//! bytes mean is left to `ipc`.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr, slice};

use nix::errno::Errno;

/// Most descriptors Linux lets travel with one message (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;

/// The result of one [`receive`].
#[derive(Debug)]
#[must_use = "dropping it closes the descriptors that came along"]
pub struct Received {
    /// Bytes written to the buffer; zero is end-of-file.
    pub bytes: usize,
    /// The descriptors that came with them.
    pub ancillary: Ancillary,
}

/// The descriptors of one [`receive`]. An enum, so that whoever wants them has to say what
/// happens when the kernel dropped some.
#[derive(Debug)]
pub enum Ancillary {
    /// None were sent.
    None,
    /// All that were sent with these bytes.
    Complete(Vec<OwnedFd>),
    /// `MSG_CTRUNC`: at least one more was sent and is lost, usually because the descriptor
    /// table is full.
    Truncated(Vec<OwnedFd>),
}

/// Sends the slices as one message with the descriptors, which travel with the first byte.
/// Returns how many bytes were taken; if any, then all descriptors too.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    todo!()
}

/// Receives bytes into `buffer` and whatever descriptors came with them.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    todo!()
}
