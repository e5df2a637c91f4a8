//! Listening sockets without an event loop: begin to listen, and take a connection with its
//! peer's address. Whose listeners they are, and who gets the connections, is said above.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

pub use super::tcp::{backlog, is_untouched};

/// Makes the bound socket `fd` listen; on one that listens already, only the backlog changes.
/// The kernel clamps `backlog` to `net.core.somaxconn`.
///
/// # Errors
/// `EADDRINUSE` when another socket listens on the address, `EOPNOTSUPP` for a datagram socket.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<(), Errno> {
    // SAFETY: no pointers; the result is checked.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// Ends the listening of a TCP socket for every process that has it: the address is free to listen
/// on again, and who waits in the backlog is reset. Best effort: there is nothing to be done about a
/// socket that does not listen.
pub fn stop(fd: BorrowedFd<'_>) {
    // SAFETY: no pointers; a failure changes nothing.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Takes the next connection, non-blocking and close-on-exec, with the peer's address (an IPv4
/// address also where IPv6 carries it; `None` for Unix sockets).
///
/// # Errors
/// `EAGAIN` when none waits and `fd` is non-blocking, `ECONNABORTED` when the peer has gone
/// before, `EMFILE` and `ENFILE` when no descriptor is left: then the connection stays in the
/// backlog.
pub fn accept(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Option<IpAddr>), Errno> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let number = loop {
        let mut length = mem::size_of_val(&address) as libc::socklen_t;
        let room = ptr::from_mut(&mut address).cast();
        // SAFETY: the kernel writes at most `length` bytes to the address.
        let result = unsafe { libc::accept4(fd.as_raw_fd(), room, &mut length, flags) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    // SAFETY: the kernel has just made this descriptor for us.
    let connection = unsafe { OwnedFd::from_raw_fd(number) };
    Ok((connection, ip_address(&address)))
}

fn ip_address(address: &libc::sockaddr_storage) -> Option<IpAddr> {
    let source = ptr::from_ref(address);
    match i32::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which address it is; the storage has room for any.
            let address = unsafe { source.cast::<libc::sockaddr_in>().read() };
            let bits = u32::from_be(address.sin_addr.s_addr);
            Some(Ipv4Addr::from_bits(bits).into())
        }
        libc::AF_INET6 => {
            // SAFETY: see above.
            let address = unsafe { source.cast::<libc::sockaddr_in6>().read() };
            let address = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some(IpAddr::from(address).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt};

    use super::*;

    /// The address a listener on `bound` sees of a client that connects to `target`.
    fn seen(bound: &str, target: &str) -> Option<IpAddr> {
        let listener = TcpListener::bind((bound, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect((target, port)).unwrap();
        accept(listener.as_fd()).unwrap().1
    }

    #[test]
    fn the_peers_address_comes_with_the_connection() {
        assert_eq!(
            seen("127.0.0.1", "127.0.0.1"),
            Some(Ipv4Addr::LOCALHOST.into())
        );
        assert_eq!(seen("::1", "::1"), Some(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_listener_has_its_ipv4_address() {
        assert_eq!(seen("::", "127.0.0.1"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(seen("::", "::1"), Some(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_client_of_a_unix_socket_has_no_address() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("brood-accept-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let (_connection, address) = accept(listener.as_fd()).unwrap();
        assert_eq!(address, None);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_connection_never_blocks_and_is_never_inherited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connection, _) = accept(listener.as_fd()).unwrap();
        let flags = fcntl(&connection, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & FdFlag::FD_CLOEXEC.bits(), FdFlag::FD_CLOEXEC.bits());
        let flags = fcntl(&connection, FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & OFlag::O_NONBLOCK.bits(), OFlag::O_NONBLOCK.bits());
    }

    #[test]
    fn without_a_connection_a_non_blocking_listener_says_eagain() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(accept(listener.as_fd()).unwrap_err(), Errno::EAGAIN);
    }

    fn unbound(family: AddressFamily, kind: SockType) -> OwnedFd {
        socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_socket_listens_and_may_be_told_again() {
        let socket = unbound(AddressFamily::Inet, SockType::Stream);
        for backlog in [1, 100_000, -1] {
            assert_eq!(listen(socket.as_fd(), backlog), Ok(()));
            assert_eq!(getsockopt(&socket, sockopt::AcceptConn), Ok(true));
        }
    }

    #[test]
    fn what_is_stopped_is_stopped_for_everybody_and_the_address_is_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = listener.try_clone().unwrap();
        stop(listener.as_fd());
        assert!(TcpStream::connect(address).is_err());
        assert_eq!(accept(other.as_fd()).unwrap_err(), Errno::EINVAL);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn what_cannot_listen_says_why() {
        let udp = unbound(AddressFamily::Inet, SockType::Datagram);
        assert_eq!(listen(udp.as_fd(), 1), Err(Errno::EOPNOTSUPP));
        let nameless = unbound(AddressFamily::Unix, SockType::Stream);
        assert_eq!(listen(nameless.as_fd(), 1), Err(Errno::EINVAL));
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert_eq!(listen(pipe.as_fd(), 1), Err(Errno::ENOTSOCK));
    }
}
