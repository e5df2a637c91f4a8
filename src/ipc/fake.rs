//! An in-process pair of sockets for tests, with the rules of Linux's Unix stream sockets: sends
//! are cut into buffers, descriptors sit on the first buffer of their send, a receive glues
//! buffers together and ends behind one that carried descriptors. What varies in the kernel
//! (sizes, room, losses) is scripted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Channel;
use super::transport::{Ancillary, Ready, Received, Transport};

#[derive(Debug)]
struct KernelBuffer {
    bytes: Vec<u8>,
    read: usize,
    descriptors: Vec<OwnedFd>,
}

/// One direction.
#[derive(Debug)]
struct Stream {
    buffers: VecDeque<KernelBuffer>,
    capacity: usize,
    /// Sizes of the buffers a send is cut into, in turn.
    cuts: VecDeque<usize>,
    lose_descriptors: usize,
    fail_send: Option<Errno>,
    writer_closed: bool,
    reader_closed: bool,
    reset: bool,
}

impl Stream {
    fn new() -> Self {
        Stream {
            buffers: VecDeque::new(),
            capacity: 200_000,
            cuts: VecDeque::from([32_768]),
            lose_descriptors: 0,
            fail_send: None,
            writer_closed: false,
            reader_closed: false,
            reset: false,
        }
    }

    fn used(&self) -> usize {
        self.buffers
            .iter()
            .map(|buffer| buffer.bytes.len() - buffer.read)
            .sum()
    }

    fn next_cut(&mut self) -> usize {
        self.cuts.rotate_left(1);
        self.cuts.back().copied().unwrap_or(1).max(1)
    }

    fn send(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<usize, Errno> {
        if self.reader_closed {
            return Err(Errno::EPIPE);
        }
        if let Some(errno) = self.fail_send.take() {
            return Err(errno);
        }
        let room = self.capacity.saturating_sub(self.used());
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = bytes.len().min(room);
        let (mut rest, mut descriptors) = (&bytes[..taken], Some(descriptors));
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.next_cut().min(rest.len()));
            let descriptors = descriptors.take().unwrap_or_default();
            let bytes = now.to_vec();
            self.buffers.push_back(KernelBuffer {
                bytes,
                read: 0,
                descriptors,
            });
            rest = later;
        }
        Ok(taken)
    }

    fn receive(&mut self, room: &mut [u8]) -> Result<Received, Errno> {
        let (mut bytes, mut ancillary) = (0, Ancillary::None);
        while let Some(buffer) = self.buffers.front_mut() {
            let unread = &buffer.bytes[buffer.read..];
            let count = unread.len().min(room.len() - bytes);
            room[bytes..bytes + count].copy_from_slice(&unread[..count]);
            bytes += count;
            buffer.read += count;
            let descriptors = std::mem::take(&mut buffer.descriptors);
            if buffer.read == buffer.bytes.len() {
                self.buffers.pop_front();
            }
            if !descriptors.is_empty() {
                ancillary = self.deliver(descriptors);
                break;
            }
            if bytes == room.len() {
                break;
            }
        }
        if bytes == 0 && std::mem::take(&mut self.reset) {
            return Err(Errno::ECONNRESET);
        }
        if bytes == 0 && !self.writer_closed {
            return Err(Errno::EAGAIN);
        }
        Ok(Received { bytes, ancillary })
    }

    fn deliver(&mut self, descriptors: Vec<OwnedFd>) -> Ancillary {
        if self.lose_descriptors == 0 {
            return Ancillary::Complete(descriptors);
        }
        self.lose_descriptors -= 1;
        Ancillary::Truncated(Vec::new())
    }
}

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct FakeSocket {
    incoming: Rc<RefCell<Stream>>,
    outgoing: Rc<RefCell<Stream>>,
}

pub(crate) fn pair() -> (FakeSocket, FakeSocket) {
    let one = Rc::new(RefCell::new(Stream::new()));
    let other = Rc::new(RefCell::new(Stream::new()));
    (
        FakeSocket {
            incoming: one.clone(),
            outgoing: other.clone(),
        },
        FakeSocket {
            incoming: other,
            outgoing: one,
        },
    )
}

impl FakeSocket {
    /// How much the peer may leave unread.
    pub fn set_capacity(&self, bytes: usize) {
        self.outgoing.borrow_mut().capacity = bytes;
    }

    /// Sizes of the kernel's buffers, used in turn.
    pub fn set_cuts(&self, cuts: &[usize]) {
        self.outgoing.borrow_mut().cuts = cuts.iter().copied().collect();
    }

    /// The next `times` sends with descriptors arrive without (`MSG_CTRUNC`).
    pub fn lose_descriptors(&self, times: usize) {
        self.outgoing.borrow_mut().lose_descriptors = times;
    }

    pub fn fail_next_send(&self, errno: Errno) {
        self.outgoing.borrow_mut().fail_send = Some(errno);
    }

    /// What a peer with unread data does when it closes.
    pub fn reset(&self) {
        self.outgoing.borrow_mut().reset = true;
    }

    /// Sends all bytes, as a peer that is no `Channel`.
    pub fn put(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        assert_eq!(
            self.send(&[IoSlice::new(bytes)], descriptors),
            Ok(bytes.len())
        );
    }

    /// Receives all bytes there are, as a peer that is no `Channel`.
    pub fn get(&mut self) -> (Vec<u8>, Vec<OwnedFd>) {
        let (mut bytes, mut descriptors, mut room) = (Vec::new(), Vec::new(), vec![0; 65_536]);
        while let Ok(received) = self.receive(&mut room)
            && received.bytes > 0
        {
            bytes.extend_from_slice(&room[..received.bytes]);
            if let Ancillary::Complete(more) = received.ancillary {
                descriptors.extend(more);
            }
        }
        (bytes, descriptors)
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        self.outgoing.borrow_mut().writer_closed = true;
        let mut incoming = self.incoming.borrow_mut();
        incoming.reader_closed = true;
        incoming.buffers.clear();
    }
}

impl Transport for FakeSocket {
    fn send(
        &mut self,
        bytes: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<usize, Errno> {
        let bytes: Vec<u8> = bytes
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let descriptors = descriptors
            .iter()
            .map(|fd| fd.try_clone_to_owned().unwrap())
            .collect();
        self.outgoing.borrow_mut().send(&bytes, descriptors)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Errno> {
        self.incoming.borrow_mut().receive(buffer)
    }

    /// Never waits: a test has nobody who could change something meanwhile.
    fn wait(&mut self, wanted: Ready, _timeout: Duration) -> Result<Ready, Errno> {
        let (incoming, outgoing) = (self.incoming.borrow(), self.outgoing.borrow());
        let readable = incoming.used() > 0 || incoming.writer_closed;
        let writable = outgoing.used() < outgoing.capacity || outgoing.reader_closed;
        Ok(Ready {
            readable: wanted.readable && readable,
            writable: wanted.writable && writable,
        })
    }
}

/// A descriptor to send, and the means to see that no copy of it is left open anywhere.
#[derive(Debug)]
pub(crate) struct Probe {
    reader: PipeReader,
    identity: u64,
}

impl Probe {
    pub fn new() -> (Self, OwnedFd) {
        let (reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let identity = identity(&writer);
        (Probe { reader, identity }, writer)
    }

    /// Whether this is a copy of the probe's descriptor.
    pub fn is(&self, descriptor: &OwnedFd) -> bool {
        identity(descriptor) == self.identity
    }

    pub fn identity(&self) -> u64 {
        self.identity
    }

    pub fn is_open_somewhere(&self) -> bool {
        self.hung_up(PollTimeout::ZERO).is_none()
    }

    /// Waits, as a process that another test starts may hold copies until it executes.
    #[track_caller]
    pub fn assert_closed_everywhere(&self) {
        assert!(
            self.hung_up(PollTimeout::from(10_000u16)).is_some(),
            "a copy is still open"
        );
    }

    fn hung_up(&self, timeout: PollTimeout) -> Option<()> {
        let mut entry = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut entry, timeout).unwrap();
        entry[0]
            .revents()
            .unwrap()
            .contains(PollFlags::POLLHUP)
            .then_some(())
    }
}

/// Drains a channel as the end of the process does; how many messages are lost.
pub(crate) fn drain_on_exit<T: Transport>(channel: &mut Channel<T>, deadline: Instant) -> u64 {
    let before = channel.stats().messages_dropped;
    channel.drain(deadline);
    channel.give_up();
    channel.stats().messages_dropped - before
}

/// The inode of an open file, which all copies of a descriptor share.
pub(crate) fn identity(descriptor: &OwnedFd) -> u64 {
    File::from(descriptor.try_clone().unwrap())
        .metadata()
        .unwrap()
        .ino()
}
