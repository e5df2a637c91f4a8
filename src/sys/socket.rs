//! `sendmsg` and `recvmsg` with descriptors, for connected Unix stream sockets. Never blocks,
//! never raises SIGPIPE, and every received descriptor is born close-on-exec and owned. What the
//! bytes mean is left to `ipc`.

use std::io::IoSlice;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

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

/// Most slices one call takes (`IOV_MAX`); the rest is left for the next.
const MAX_SLICES: usize = 1024;

const CONTROL_SPACE: usize = {
    // SAFETY: pure arithmetic.
    unsafe { libc::CMSG_SPACE((MAX_DESCRIPTORS * mem::size_of::<RawFd>()) as u32) as usize }
};

/// The ancillary buffer, on the stack and aligned as the kernel's headers demand. A union only
/// for that alignment.
#[repr(C)]
union Control {
    bytes: [MaybeUninit<u8>; CONTROL_SPACE],
    _align: libc::cmsghdr,
}

impl Control {
    const fn new() -> Self {
        Control {
            bytes: [MaybeUninit::uninit(); CONTROL_SPACE],
        }
    }
}

/// Sends the slices as one message with the descriptors, which travel with the first byte.
/// Returns how many bytes were taken; if any, then all descriptors too.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    // Without a byte to travel with, the kernel would drop the descriptors and report success.
    let unaccompanied = !descriptors.is_empty() && bytes.iter().all(|slice| slice.is_empty());
    if descriptors.len() > MAX_DESCRIPTORS || unaccompanied {
        return Err(Errno::EINVAL);
    }
    let mut control = Control::new();
    let mut header = empty_header();
    // The kernel does not write through it; IoSlice has the layout of iovec by its documentation.
    header.msg_iov = bytes.as_ptr().cast_mut().cast();
    header.msg_iovlen = bytes.len().min(MAX_SLICES) as _;
    if !descriptors.is_empty() {
        attach(&mut header, &mut control, descriptors);
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    retry(|| {
        // SAFETY: the header points to slices, a control buffer and descriptors that all outlive
        // the call.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &header, flags) }
    })
}

/// Receives bytes into `buffer` and whatever descriptors came with them.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    // A result of zero bytes has to mean end-of-file.
    if buffer.is_empty() {
        return Err(Errno::EINVAL);
    }
    let mut slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = Control::new();
    let mut header = empty_header();
    header.msg_iov = &mut slice;
    header.msg_iovlen = 1;
    header.msg_control = ptr::from_mut(&mut control).cast();
    header.msg_controllen = CONTROL_SPACE as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    let bytes = retry(|| {
        // SAFETY: the header points to `buffer`, borrowed mutably, and to the control buffer.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) }
    })?;
    // SAFETY: a successful recvmsg filled the control buffer up to msg_controllen.
    let descriptors = unsafe { take_descriptors(&header) };
    let ancillary = if header.msg_flags & libc::MSG_CTRUNC != 0 {
        Ancillary::Truncated(descriptors)
    } else if descriptors.is_empty() {
        Ancillary::None
    } else {
        Ancillary::Complete(descriptors)
    };
    Ok(Received { bytes, ancillary })
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: null pointers with lengths of zero.
    unsafe { mem::zeroed() }
}

/// Puts one SCM_RIGHTS header with the descriptors (1 to `MAX_DESCRIPTORS`) into `control` and
/// points `header` at it.
fn attach(header: &mut libc::msghdr, control: &mut Control, descriptors: &[BorrowedFd<'_>]) {
    let size = mem::size_of_val(descriptors);
    const { assert!(mem::size_of::<BorrowedFd<'_>>() == mem::size_of::<RawFd>()) };
    header.msg_control = ptr::from_mut(control).cast();
    // SAFETY: pure arithmetic.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size as u32) } as _;
    // SAFETY: the control buffer is aligned for a cmsghdr and has room for one with
    // MAX_DESCRIPTORS descriptors, so the first header exists and its data fits; a BorrowedFd is
    // a RawFd in memory.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(size as u32) as _;
        ptr::copy_nonoverlapping(descriptors.as_ptr().cast(), libc::CMSG_DATA(message), size);
    }
}

/// Takes ownership of every descriptor a recvmsg delivered.
///
/// # Safety
/// `header` must be as a successful recvmsg left it, and this be the only time it is read.
unsafe fn take_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: see above.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers inside the control buffer.
        let head = unsafe { &*message };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic.
            let size = head.cmsg_len as usize - unsafe { libc::CMSG_LEN(0) } as usize;
            let count = size / mem::size_of::<RawFd>();
            // SAFETY: the data of this header are `count` descriptors that the kernel just
            // opened for us, at an alignment that is not promised.
            descriptors.extend((0..count).map(|i| unsafe {
                let number = libc::CMSG_DATA(message)
                    .cast::<RawFd>()
                    .add(i)
                    .read_unaligned();
                OwnedFd::from_raw_fd(number)
            }));
        }
        // SAFETY: see above.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    descriptors
}

fn retry(mut call: impl FnMut() -> libc::ssize_t) -> Result<usize, Errno> {
    loop {
        match Errno::result(call()) {
            Err(Errno::EINTR) => {}
            other => return other.map(|n| n as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::signal::{SigSet, Signal};

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    fn complete(received: Received) -> Vec<OwnedFd> {
        match received.ancillary {
            Ancillary::Complete(descriptors) => descriptors,
            other => panic!("{other:?}"),
        }
    }

    fn send_bytes(socket: &UnixStream, bytes: &[u8]) -> Result<usize, Errno> {
        send(socket.as_fd(), &[IoSlice::new(bytes)], &[])
    }

    #[test]
    fn slices_go_out_as_one_run_of_bytes() {
        let (ours, theirs) = pair();
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")];
        assert_eq!(send(ours.as_fd(), &slices, &[]), Ok(4));
        let mut buffer = [0; 10];
        let received = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert!(matches!(
            received,
            Received {
                bytes: 4,
                ancillary: Ancillary::None
            }
        ));
        assert_eq!(&buffer[..4], b"abcd");
    }

    #[test]
    fn an_empty_socket_and_a_full_one_report_eagain_even_in_blocking_mode() {
        let (ours, theirs) = pair();
        let mut buffer = [0; 10];
        assert_eq!(
            receive(theirs.as_fd(), &mut buffer).unwrap_err(),
            Errno::EAGAIN
        );
        let block = vec![0; 1 << 20];
        while send_bytes(&ours, &block).is_ok() {}
        assert_eq!(send_bytes(&ours, &block), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_closed_peer_is_end_of_file_and_epipe_without_a_signal() {
        let (ours, theirs) = pair();
        drop(theirs);
        assert_eq!(receive(ours.as_fd(), &mut [0; 10]).unwrap().bytes, 0);
        // A blocked signal stays pending, even one that the process ignores.
        SigSet::from(Signal::SIGPIPE).thread_block().unwrap();
        assert_eq!(send_bytes(&ours, b"x"), Err(Errno::EPIPE));
        // SAFETY: the set is filled in by the call.
        let pending = unsafe {
            let mut set = mem::zeroed();
            libc::sigpending(&mut set);
            SigSet::from_sigset_t_unchecked(set)
        };
        assert!(!pending.contains(Signal::SIGPIPE));
    }

    #[test]
    fn a_peer_that_closes_with_unread_data_resets_once() {
        let (ours, theirs) = pair();
        send_bytes(&ours, b"never read").unwrap();
        send_bytes(&theirs, b"last words").unwrap();
        drop(theirs);
        let mut buffer = [0; 100];
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap().bytes, 10);
        assert_eq!(
            receive(ours.as_fd(), &mut buffer).unwrap_err(),
            Errno::ECONNRESET
        );
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap().bytes, 0);
    }

    #[test]
    fn two_hundred_and_fifty_three_descriptors_fit_one_message_and_no_more() {
        let (ours, theirs) = pair();
        let one = ours.as_fd();
        let too_many = vec![one; MAX_DESCRIPTORS + 1];
        let byte = [IoSlice::new(b"x")];
        assert_eq!(send(one, &byte, &too_many), Err(Errno::EINVAL));
        assert_eq!(send(one, &byte, &too_many[1..]), Ok(1));
        let descriptors = complete(receive(theirs.as_fd(), &mut [0; 10]).unwrap());
        assert_eq!(descriptors.len(), MAX_DESCRIPTORS);
    }

    #[test]
    fn received_descriptors_are_closed_on_exec() {
        let (ours, theirs) = pair();
        send(ours.as_fd(), &[IoSlice::new(b"x")], &[ours.as_fd()]).unwrap();
        let descriptors = complete(receive(theirs.as_fd(), &mut [0; 10]).unwrap());
        let flags = fcntl(&descriptors[0], FcntlArg::F_GETFD).unwrap();
        assert_eq!(FdFlag::from_bits_retain(flags), FdFlag::FD_CLOEXEC);
    }

    #[test]
    fn descriptors_without_a_byte_to_travel_with_are_refused() {
        let (ours, _theirs) = pair();
        let one = ours.as_fd();
        assert_eq!(send(one, &[], &[one]), Err(Errno::EINVAL));
        assert_eq!(send(one, &[IoSlice::new(b"")], &[one]), Err(Errno::EINVAL));
    }

    #[test]
    fn a_read_into_nothing_is_not_mistaken_for_end_of_file() {
        let (ours, theirs) = pair();
        send_bytes(&ours, b"x").unwrap();
        assert_eq!(receive(theirs.as_fd(), &mut []).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn more_slices_than_the_system_takes_are_sent_in_part() {
        let (ours, _theirs) = pair();
        let slices = vec![IoSlice::new(b"x"); MAX_SLICES + 1];
        assert_eq!(send(ours.as_fd(), &slices, &[]), Ok(MAX_SLICES));
    }

    /// The trap for which a receiver needs a queue of descriptors.
    #[test]
    fn the_tail_of_a_large_message_is_read_together_with_the_next_descriptor() {
        let (ours, theirs) = pair();
        let first = vec![b'1'; 50_000];
        assert_eq!(
            send(ours.as_fd(), &[IoSlice::new(&first)], &[ours.as_fd()]),
            Ok(50_000)
        );
        assert_eq!(
            send(ours.as_fd(), &[IoSlice::new(b"2")], &[ours.as_fd()]),
            Ok(1)
        );
        let mut buffer = vec![0; 200_000];
        let one = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert!(
            one.bytes < first.len(),
            "it ends behind the first kernel buffer"
        );
        let head = one.bytes;
        assert_eq!(complete(one).len(), 1);
        let rest = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!(rest.bytes, first.len() + 1 - head);
        assert_eq!(complete(rest).len(), 1);
    }
}
