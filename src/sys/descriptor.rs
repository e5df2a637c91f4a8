//! Single descriptors: taking ownership of a number, duplicating, and what a socket is: its kind,
//! its own address, whether it listens.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, UnixAddr};
use nix::sys::socket::{getsockname, getsockopt, sockopt};
use nix::sys::stat::{FileStat, fstat};

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

/// Keeps a descriptor number, which stays the caller's, from what is executed from now on.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn close_on_exec(fd: RawFd) -> Result<(), Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: only borrowed for the length of the call, which fails for a closed number.
    let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop)
}

/// How many other descriptors of this process stand for the same socket or file.
///
/// # Errors
/// `EBADF` when it is not open, and what looking through `/proc/self/fd` fails with.
pub fn duplicates(fd: RawFd) -> Result<usize, Errno> {
    let own = identity(fd)?;
    let open = std::fs::read_dir("/proc/self/fd").map_err(errno_of)?;
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others = numbers.filter(|&number: &RawFd| number != fd);
    Ok(others
        .filter(|&other| identity(other).is_ok_and(|other| other == own))
        .count())
}

fn identity(fd: RawFd) -> Result<(u64, u64), Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: only borrowed for the length of the call, which fails for a closed number.
    let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
    let FileStat { st_dev, st_ino, .. } = fstat(descriptor)?;
    Ok((st_dev, st_ino))
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// What a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketName {
    /// An IP address and a port.
    Ip {
        /// Both of them.
        address: SocketAddr,
        /// No IPv4 client can reach it. False for an IPv4 socket.
        ipv6_only: bool,
    },
    /// The path of a Unix socket; an abstract name begins with a NUL; empty when it has none.
    Path(Vec<u8>),
}

/// What the kernel says about a socket of a kind Node has a native handle for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    /// Which of them.
    pub kind: SocketKind,
    /// Its own address.
    pub name: SocketName,
    /// It accepts connections.
    pub is_listening: bool,
}

/// Describes the socket behind a descriptor number.
///
/// # Errors
/// `EBADF` when it is not open, `ENOTSOCK` when it is no socket, `EAFNOSUPPORT` for a kind of
/// socket that Node has no native handle for.
pub fn bound_socket(fd: RawFd) -> Result<BoundSocket, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: only borrowed for the length of the calls, which fail for a closed number.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let address = getsockname::<SockaddrStorage>(fd)?;
    let kind = socket_kind(fd).ok_or(Errno::EAFNOSUPPORT)?;
    Ok(BoundSocket {
        kind,
        name: socket_name(socket, &address)?,
        is_listening: getsockopt(&socket, sockopt::AcceptConn)?,
    })
}

fn socket_name(socket: BorrowedFd<'_>, address: &SockaddrStorage) -> Result<SocketName, Errno> {
    if let Some(address) = address.as_sockaddr_in() {
        return Ok(SocketName::Ip {
            address: SocketAddr::V4((*address).into()),
            ipv6_only: false,
        });
    }
    if let Some(address) = address.as_sockaddr_in6() {
        return Ok(SocketName::Ip {
            address: SocketAddr::V6((*address).into()),
            ipv6_only: getsockopt(&socket, sockopt::Ipv6V6Only)?,
        });
    }
    let path = address.as_unix_addr().map(unix_path);
    path.map(SocketName::Path).ok_or(Errno::EAFNOSUPPORT)
}

fn unix_path(address: &UnixAddr) -> Vec<u8> {
    if let Some(path) = address.path() {
        return path.as_os_str().as_bytes().to_vec();
    }
    match address.as_abstract() {
        Some(name) => [b"\0", name].concat(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener, UnixStream};

    use nix::sys::socket::{Backlog, SockFlag, bind, listen, setsockopt, socket};

    use super::*;

    fn described(socket: &impl AsRawFd) -> BoundSocket {
        bound_socket(socket.as_raw_fd()).unwrap()
    }

    #[test]
    fn a_listening_tcp_socket_is_described_with_its_address() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let expected = BoundSocket {
                kind: SocketKind::Tcp,
                name: SocketName::Ip {
                    address: listener.local_addr().unwrap(),
                    // The kernel makes every IPv6 address but the wildcard such a one.
                    ipv6_only: address.starts_with("[::1]"),
                },
                is_listening: true,
            };
            assert_eq!(described(&listener), expected);
        }
    }

    #[test]
    fn a_socket_that_excludes_ipv4_is_told_from_one_for_both() {
        let kind = SockType::Stream;
        let alone = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&alone, sockopt::Ipv6V6Only, &true).unwrap();
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        bind(alone.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        assert!(!described(&alone).is_listening);
        listen(&alone, Backlog::new(1).unwrap()).unwrap();
        let BoundSocket {
            name: SocketName::Ip { ipv6_only, .. },
            is_listening,
            ..
        } = described(&alone)
        else {
            panic!("it has an IP address");
        };
        assert!(ipv6_only && is_listening);
    }

    #[test]
    fn a_datagram_socket_does_not_listen() {
        let udp = described(&UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!((udp.kind, udp.is_listening), (SocketKind::Udp, false));
    }

    #[test]
    fn unix_sockets_have_a_path_an_abstract_name_or_nothing() {
        let directory = directory_for("described");
        let path = directory.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let expected = SocketName::Path(path.as_os_str().as_bytes().to_vec());
        assert_eq!(described(&listener).name, expected);
        std::fs::remove_dir_all(directory).unwrap();

        let name = format!("brood-{}", std::process::id());
        let address = UnixSocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let expected = SocketName::Path(format!("\0{name}").into_bytes());
        assert_eq!(described(&listener).name, expected);

        let (one, _other) = UnixStream::pair().unwrap();
        let unnamed = described(&one);
        assert_eq!(unnamed.name, SocketName::Path(Vec::new()));
        assert!(!unnamed.is_listening);
    }

    #[test]
    fn what_is_no_socket_has_no_address() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(bound_socket(file.as_raw_fd()), Err(Errno::ENOTSOCK));
        assert_eq!(bound_socket(-1), Err(Errno::EBADF));
        assert_eq!(bound_socket(1_000_000), Err(Errno::EBADF));
    }

    #[test]
    fn a_descriptor_can_be_kept_from_programs_that_are_executed() {
        let file = std::fs::File::open("/dev/null").unwrap();
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        close_on_exec(file.as_raw_fd()).unwrap();
        let flags = FdFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        assert_eq!(close_on_exec(1_000_000), Err(Errno::EBADF));
    }

    #[test]
    fn duplicates_of_a_socket_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _other = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        assert_eq!(duplicates(fd), Ok(0));
        let copies = [duplicate(fd).unwrap(), duplicate(fd).unwrap()];
        assert_eq!(duplicates(fd), Ok(2));
        drop(copies);
        assert_eq!(duplicates(fd), Ok(0));
        assert_eq!(duplicates(1_000_000), Err(Errno::EBADF));
    }

    fn directory_for(purpose: &str) -> std::path::PathBuf {
        let name = format!("brood-{purpose}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        directory
    }
}
