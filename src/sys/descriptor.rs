//! Single descriptors: taking ownership of a number, duplicating, and what kind of socket it is.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage};
use nix::sys::socket::{getsockname, getsockopt, sockopt};

/// Takes ownership of a descriptor number that crossed a language boundary.
///
/// # Errors
/// `EBADF` when no such descriptor is open.
pub fn take(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: only borrowed for the length of the call, which fails for a closed number.
    let probe = unsafe { BorrowedFd::borrow_raw(fd.max(0)) };
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    fcntl(probe, FcntlArg::F_GETFD)?;
    // SAFETY: the descriptor is open and the caller hands its ownership over.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A close-on-exec duplicate of a descriptor number that stays the caller's.
///
/// # Errors
/// `EBADF` when it is not open, `EMFILE` when no number is left.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: only borrowed for the length of the call, which fails for a closed number.
    let source = unsafe { BorrowedFd::borrow_raw(fd) };
    let duplicate = fcntl(source, FcntlArg::F_DUPFD_CLOEXEC(0))?;
    // SAFETY: fcntl returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Makes reads, writes and accepts through this open file return at once.
///
/// # Errors
/// Of fcntl(2).
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// The kinds of socket Node has a native handle for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// A TCP socket, listening or connected.
    Tcp,
    /// A Unix stream socket.
    Pipe,
    /// A UDP socket.
    Udp,
}

/// What kind of socket `fd` is; `None` for everything else.
pub fn socket_kind(fd: RawFd) -> Option<SocketKind> {
    if fd < 0 {
        return None;
    }
    // SAFETY: only borrowed for the length of the calls, which fail for a closed number.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let kind = getsockopt(&socket, sockopt::SockType).ok()?;
    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd())
        .ok()?
        .family()?;
    match (family, kind) {
        (AddressFamily::Inet | AddressFamily::Inet6, SockType::Stream) => Some(SocketKind::Tcp),
        (AddressFamily::Inet | AddressFamily::Inet6, SockType::Datagram) => Some(SocketKind::Udp),
        (AddressFamily::Unix, SockType::Stream) => Some(SocketKind::Pipe),
        _ => None,
    }
}
