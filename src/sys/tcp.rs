//! What the kernel remembers about TCP sockets: whether anybody on our side has ever read from or
//! written to a connection, and how many connections wait at a listening socket. What follows from
//! that is said above.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// How often a look is repeated because bytes arrived in the middle of it.
const LOOKS: usize = 8;

/// Whether the connected TCP socket `fd` is as its peer left it: of what arrived nothing was read
/// on this side, nothing was written and nothing was shut down, through this descriptor or any
/// other of the same socket. Then another process can serve it from the start. A peer that has
/// sent its last byte leaves it untouched, one that has reset it does not.
///
/// False for everything that is no connected TCP socket, and on kernels that do not count bytes
/// sent (before Linux 4.19).
pub fn is_untouched(fd: BorrowedFd<'_>) -> bool {
    untouched(fd).unwrap_or(false)
}

fn untouched(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // Of Multipath TCP only one of its flows would be seen.
    let protocol = u32::from_ne_bytes(option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)?);
    if protocol != libc::IPPROTO_TCP as u32 {
        return Ok(false);
    }
    for _ in 0..LOOKS {
        let before = TcpInfo::of(fd)?;
        let unread = bytes_unread(fd)?;
        let after = TcpInfo::of(fd)?;
        if before == after {
            return Ok(before.is_untouched(unread));
        }
    }
    Ok(false)
}

/// The fields of the kernel's `struct tcp_info` (linux/tcp.h) that count here.
#[derive(Debug, PartialEq, Eq)]
struct TcpInfo {
    state: u8,
    /// In sequence, read or not; the end of the stream counts as one.
    bytes_received: u64,
    /// Written and not sent yet: corked, or more than the peer's window.
    bytes_unsent: u32,
    bytes_sent: u64,
}

/// Where they stand. The structure only ever grows; libc's version of it is older than they are.
const STATE: usize = 0;
const BYTES_RECEIVED: usize = 128;
const BYTES_UNSENT: usize = 144;
const BYTES_SENT: usize = 200;
const TCP_INFO_SIZE: usize = 208;

/// The states of a connection we have not shut down.
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE_WAIT: u8 = 8;

/// Of a listening socket this is what waits to be accepted (`tcp_get_info` of net/ipv4/tcp.c, since
/// Linux 2.6.25), for others another number.
const BACKLOG: usize = 24;
const BACKLOG_END: usize = 28;
const TCP_LISTEN: u8 = 10;

/// How many connections wait at the listening TCP socket `fd`. The kernel takes the number without
/// a lock: it may be behind by what happens at the moment.
///
/// # Errors
/// `EOPNOTSUPP` or `EINVAL` for sockets of other kinds, Multipath TCP among them.
pub fn backlog(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let info: [u8; BACKLOG_END] = option(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    if info[STATE] != TCP_LISTEN {
        return Err(Errno::EINVAL);
    }
    let waiting: [u8; 4] = std::array::from_fn(|i| info[BACKLOG + i]);
    Ok(u32::from_ne_bytes(waiting))
}

impl TcpInfo {
    /// Fails with `ENOTSUP` where the kernel does not fill all of it.
    fn of(fd: BorrowedFd<'_>) -> Result<TcpInfo, Errno> {
        let info: [u8; TCP_INFO_SIZE] = option(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
        Ok(TcpInfo {
            state: info[STATE],
            bytes_received: u64::from_ne_bytes(field(&info, BYTES_RECEIVED)),
            bytes_unsent: u32::from_ne_bytes(field(&info, BYTES_UNSENT)),
            bytes_sent: u64::from_ne_bytes(field(&info, BYTES_SENT)),
        })
    }

    fn is_untouched(&self, unread: u64) -> bool {
        // What FIONREAD counts does not include the end of the stream.
        let received = match self.state {
            TCP_ESTABLISHED => Some(self.bytes_received),
            TCP_CLOSE_WAIT => self.bytes_received.checked_sub(1),
            _ => None,
        };
        received == Some(unread) && self.bytes_sent == 0 && self.bytes_unsent == 0
    }
}

fn field<const N: usize>(info: &[u8; TCP_INFO_SIZE], offset: usize) -> [u8; N] {
    std::array::from_fn(|i| info[offset + i])
}

/// A socket option of `N` bytes; `ENOTSUP` when the kernel's is shorter.
fn option<const N: usize>(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<[u8; N], Errno> {
    let mut value = [0u8; N];
    let mut length = N as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the value.
    let result = unsafe {
        let room = value.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), level, name, room, &mut length)
    };
    Errno::result(result)?;
    if length as usize == N {
        Ok(value)
    } else {
        Err(Errno::ENOTSUP)
    }
}

/// Bytes that a read could have now.
fn bytes_unread(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut bytes: libc::c_int = 0;
    const { assert!(mem::size_of::<libc::c_int>() == 4) };
    // SAFETY: FIONREAD writes one int.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut bytes) })?;
    u64::try_from(bytes).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn connections_that_wait_are_counted_until_they_are_accepted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(backlog(listener.as_fd()), Ok(0));
            let _clients: Vec<_> = (1..=3)
                .map(|count| {
                    let client = TcpStream::connect(address).unwrap();
                    assert_eq!(backlog(listener.as_fd()), Ok(count));
                    client
                })
                .collect();
            let accepted = listener.accept().unwrap().0;
            assert_eq!(backlog(listener.as_fd()), Ok(2));
            assert_eq!(backlog(accepted.as_fd()), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn only_tcp_tells_how_many_wait() {
        let directory = std::env::temp_dir().join(format!("brood-backlog-{}", std::process::id()));
        let unix = std::os::unix::net::UnixListener::bind(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(backlog(unix.as_fd()).is_err());
        assert!(backlog(datagram.as_fd()).is_err());
    }

    /// The client's and the server's end of a connection for each family, and a descriptor of the
    /// server's that stays with somebody who only watches.
    fn connections() -> impl Iterator<Item = (TcpStream, TcpStream, TcpStream)> {
        ["127.0.0.1:0", "[::1]:0"].into_iter().map(|address| {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let watcher = server.try_clone().unwrap();
            (client, server, watcher)
        })
    }

    /// Waits until `bytes` of the client's have arrived, without reading them.
    fn arrived(server: &TcpStream, bytes: usize) {
        let mut buffer = vec![0; bytes];
        while server.peek(&mut buffer).unwrap() < bytes {}
    }

    /// Waits until the client's end of the stream has arrived.
    fn ended(watcher: &TcpStream) {
        while TcpInfo::of(watcher.as_fd()).unwrap().state == TCP_ESTABLISHED {
            std::thread::yield_now();
        }
    }

    /// Has the kernel hold back what does not fill a segment.
    fn cork(socket: &TcpStream) {
        let (on, size): (libc::c_int, _) = (1, mem::size_of::<libc::c_int>() as libc::socklen_t);
        let value = (&raw const on).cast();
        let fd = socket.as_raw_fd();
        // SAFETY: the value is an int that outlives the call.
        let result =
            unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CORK, value, size) };
        assert_eq!(result, 0);
    }

    fn assert_untouched(watcher: &TcpStream, expected: bool) {
        let info = TcpInfo::of(watcher.as_fd()).unwrap();
        let unread = bytes_unread(watcher.as_fd()).unwrap();
        let untouched = is_untouched(watcher.as_fd());
        assert_eq!(untouched, expected, "{info:?}, {unread} unread");
    }

    #[test]
    fn a_fresh_connection_is_untouched() {
        for (_client, _server, watcher) in connections() {
            assert_untouched(&watcher, true);
        }
    }

    #[test]
    fn unread_bytes_leave_it_untouched_also_when_the_peer_has_ended_or_closed() {
        for close in [false, true] {
            for (mut client, server, watcher) in connections() {
                client.write_all(&[b'x'; 100_000]).unwrap();
                arrived(&server, 100_000);
                assert_untouched(&watcher, true);
                client.shutdown(Shutdown::Write).unwrap();
                let client = (!close).then_some(client);
                ended(&watcher);
                assert_untouched(&watcher, true);
                drop(client);
            }
        }
    }

    #[test]
    fn a_peer_that_sends_nothing_and_ends_leaves_it_untouched() {
        for (client, _server, watcher) in connections() {
            client.shutdown(Shutdown::Write).unwrap();
            ended(&watcher);
            assert_untouched(&watcher, true);
        }
    }

    #[test]
    fn a_single_byte_read_touches_it() {
        for sent in [1, 2, 5000] {
            for (mut client, mut server, watcher) in connections() {
                client.write_all(&vec![b'x'; sent]).unwrap();
                arrived(&server, sent);
                server.read_exact(&mut [0]).unwrap();
                assert_untouched(&watcher, false);
                client.shutdown(Shutdown::Write).unwrap();
                ended(&watcher);
                assert_untouched(&watcher, false);
            }
        }
    }

    #[test]
    fn everything_read_touches_it_and_so_does_the_end_of_it() {
        for (mut client, mut server, watcher) in connections() {
            client.write_all(b"request").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            server.read_to_end(&mut Vec::new()).unwrap();
            assert_untouched(&watcher, false);
            drop(server);
            assert_untouched(&watcher, false);
        }
    }

    #[test]
    fn a_single_byte_written_touches_it() {
        for (mut client, mut server, watcher) in connections() {
            client.write_all(b"request").unwrap();
            arrived(&server, 7);
            server.write_all(b"x").unwrap();
            assert_untouched(&watcher, false);
            client.read_exact(&mut [0]).unwrap();
            assert_untouched(&watcher, false);
        }
    }

    #[test]
    fn bytes_written_that_the_kernel_holds_back_touch_it() {
        for (_client, mut server, watcher) in connections() {
            cork(&server);
            server.write_all(b"x").unwrap();
            let info = TcpInfo::of(watcher.as_fd()).unwrap();
            assert_eq!((info.bytes_unsent, info.bytes_sent), (1, 0));
            assert_untouched(&watcher, false);
        }
    }

    #[test]
    fn an_end_of_our_own_touches_it() {
        for (_client, server, watcher) in connections() {
            server.shutdown(Shutdown::Write).unwrap();
            assert_untouched(&watcher, false);
        }
    }

    #[test]
    fn closing_one_descriptor_of_several_does_not_touch_it() {
        for (_client, server, watcher) in connections() {
            drop(server);
            assert_untouched(&watcher, true);
        }
    }

    #[test]
    fn a_connection_the_peer_has_reset_is_not_worth_passing_on() {
        for (client, mut server, watcher) in connections() {
            server.write_all(b"unread").unwrap();
            client.peek(&mut [0]).unwrap();
            // Unread bytes make the close a reset.
            drop(client);
            ended(&watcher);
            assert_untouched(&watcher, false);
        }
    }

    #[test]
    fn what_is_no_connected_tcp_socket_is_not_untouched() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(udp.local_addr().unwrap()).unwrap();
        let (unix, _peer) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = File::open("/dev/null").unwrap();
        let (pipe, _writer) = std::io::pipe().unwrap();
        for fd in [
            udp.as_fd(),
            unix.as_fd(),
            listener.as_fd(),
            file.as_fd(),
            pipe.as_fd(),
        ] {
            assert!(!is_untouched(fd), "{fd:?}");
        }
    }

    #[test]
    fn a_shorter_answer_of_an_older_kernel_is_noticed() {
        let (unix, _peer) = UnixStream::pair().unwrap();
        let answer = option::<8>(unix.as_fd(), libc::SOL_SOCKET, libc::SO_PROTOCOL);
        assert_eq!(answer, Err(Errno::ENOTSUP));
    }

    #[test]
    fn bytes_that_keep_arriving_do_not_touch_it() {
        for (mut client, _server, watcher) in connections() {
            // Ends when the receiver's window is full, which nobody empties.
            client.set_nonblocking(true).unwrap();
            let flood = std::thread::spawn(move || {
                let block = vec![b'x'; 65_536];
                while client.write(&block).is_ok() {}
                client
            });
            while !flood.is_finished() {
                let _ = is_untouched(watcher.as_fd());
            }
            let _client = flood.join().unwrap();
            let mut previous = None;
            loop {
                let info = TcpInfo::of(watcher.as_fd()).unwrap();
                if previous.as_ref() == Some(&info) {
                    break;
                }
                previous = Some(info);
                std::thread::yield_now();
            }
            assert_untouched(&watcher, true);
        }
    }
}
