//! A whole channel fed by a hostile peer: arbitrary bytes, pieces, descriptors and losses while it
//! sends messages and handles of its own. It must not panic, must pair every handle it reports
//! with a message that has one, and must leave no descriptor open.

#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use brood::ipc::{
    Ancillary, Channel, FlushState, Framing, Limits, ReadEnd, Ready, Received, SendMode, Transport,
};
use libfuzzer_sys::fuzz_target;
use nix::errno::Errno;

#[derive(Arbitrary, Debug)]
enum Step {
    /// The peer sends bytes, with so many descriptors, of which some are lost.
    Bytes {
        bytes: Vec<u8>,
        descriptors: u8,
        lost: bool,
    },
    /// The same, with what a real peer says.
    Line {
        which: u8,
        descriptor: bool,
        lost: bool,
    },
    ReadFails(u8),
    Close,
    Receive {
        budget: u16,
    },
    Send {
        size: u16,
        handle: bool,
        gather: bool,
    },
    SendUnqueued {
        size: u8,
    },
    Reply {
        accept: bool,
    },
    Flush,
    /// How much the kernel takes next.
    Room(u16),
    SendFails(u8),
    Adopt(Vec<u8>),
    Drain,
}

#[derive(Arbitrary, Debug)]
struct Input {
    advanced: bool,
    max_message: u16,
    max_descriptors: u8,
    steps: Vec<Step>,
}

#[derive(Default)]
struct Wire {
    incoming: VecDeque<(VecDeque<u8>, Vec<OwnedFd>, bool)>,
    read_error: Option<Errno>,
    send_error: Option<Errno>,
    closed: bool,
    room: usize,
}

struct Hostile(Rc<RefCell<Wire>>);

impl Transport for Hostile {
    fn send(&mut self, bytes: &[IoSlice<'_>], _: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut wire = self.0.borrow_mut();
        if let Some(errno) = wire.send_error.take() {
            return Err(errno);
        }
        let taken = bytes
            .iter()
            .map(|slice| slice.len())
            .sum::<usize>()
            .min(wire.room);
        wire.room -= taken;
        if taken == 0 {
            Err(Errno::EAGAIN)
        } else {
            Ok(taken)
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Errno> {
        let mut wire = self.0.borrow_mut();
        if let Some(errno) = wire.read_error.take() {
            return Err(errno);
        }
        let closed = wire.closed;
        let Some((bytes, descriptors, lost)) = wire.incoming.front_mut() else {
            let end = Received {
                bytes: 0,
                ancillary: Ancillary::None,
            };
            return if closed { Ok(end) } else { Err(Errno::EAGAIN) };
        };
        let count = bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(bytes.drain(..count)) {
            *to = from;
        }
        let descriptors = std::mem::take(descriptors);
        let ancillary = match std::mem::take(lost) {
            true => Ancillary::Truncated(descriptors),
            false if descriptors.is_empty() => Ancillary::None,
            false => Ancillary::Complete(descriptors),
        };
        if bytes.is_empty() {
            wire.incoming.pop_front();
        }
        Ok(Received {
            bytes: count,
            ancillary,
        })
    }

    fn wait(&mut self, wanted: Ready, _: Duration) -> Result<Ready, Errno> {
        let wire = self.0.borrow();
        let readable = wire.closed || !wire.incoming.is_empty();
        if !(wanted.readable && readable || wanted.writable && wire.room > 0) {
            return Err(Errno::ETIMEDOUT);
        }
        Ok(Ready {
            readable: wanted.readable && readable,
            writable: wanted.writable,
        })
    }
}

const LINES: [&[u8]; 5] = [
    b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":1}\n",
    b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n",
    b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n",
    b"{\"cmd\":\"NODE\\u005fHANDLE\"}\n",
    b"1\n",
];
const VALUES: [&[u8]; 5] = [
    b"\0\0\0\x15\xff\x0fo\"\x03cmd\"\x0bNODE_HANDLE{\x01",
    b"\0\0\0\x1b\xff\x0fo\"\x03cmd\"\x0fNODE_HANDLE_ACK{\x01",
    b"\0\0\0\x1c\xff\x0fo\"\x03cmd\"\x10NODE_HANDLE_NACK{\x01",
    b"\0\0\0\x15\xff\x0eo\"\x03cmdS\x0bNODE_HANDLE{\x01",
    b"\0\0\0\x04\xff\x0fI\x02",
];

fn errno(code: u8) -> Errno {
    const ERRORS: [Errno; 8] = [
        Errno::EAGAIN,
        Errno::ECONNRESET,
        Errno::EPIPE,
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::ETOOMANYREFS,
        Errno::EIO,
        Errno::EBADF,
    ];
    ERRORS[usize::from(code) % ERRORS.len()]
}

fuzz_target!(|input: Input| {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let writer = OwnedFd::from(writer);
    let copy = || writer.try_clone().expect("a descriptor");
    let wire = Rc::new(RefCell::new(Wire {
        room: 1000,
        ..Wire::default()
    }));
    let framing = if input.advanced {
        Framing::Advanced
    } else {
        Framing::JsonLines
    };
    let limits = Limits {
        max_message: usize::from(input.max_message),
        max_unpaired_descriptors: usize::from(input.max_descriptors),
    };
    let mut channel = Channel::with_limits(Hostile(Rc::clone(&wire)), framing, limits);
    let known = if input.advanced { VALUES } else { LINES };
    let mut sequence = 0;
    let mut adoptable = true;

    for step in input.steps.into_iter().take(200) {
        match step {
            Step::Bytes {
                bytes,
                descriptors,
                lost,
            } if !bytes.is_empty() => {
                let descriptors = (0..descriptors % 8).map(|_| copy()).collect();
                wire.borrow_mut()
                    .incoming
                    .push_back((bytes.into(), descriptors, lost));
            }
            Step::Bytes { .. } => {}
            Step::Line {
                which,
                descriptor,
                lost,
            } => {
                let bytes = known[usize::from(which) % known.len()]
                    .iter()
                    .copied()
                    .collect();
                let descriptors = descriptor.then(copy).into_iter().collect();
                wire.borrow_mut()
                    .incoming
                    .push_back((bytes, descriptors, lost));
            }
            Step::ReadFails(code) => wire.borrow_mut().read_error = Some(errno(code)),
            Step::Close => wire.borrow_mut().closed = true,
            Step::Receive { budget } => {
                adoptable = false;
                let ended = channel.has_ended();
                let batch = channel.receive(usize::from(budget));
                let mut previous = None;
                for (index, _) in batch.handles() {
                    assert!(previous < Some(*index), "in order, one a message");
                    previous = Some(*index);
                    assert!(batch.message(*index).len() >= 11);
                }
                assert!(batch.is_empty() || !ended);
                assert!(batch.end() == ReadEnd::Closed || !ended);
                // Sometimes the memory is not given back.
                if batch.len().is_multiple_of(2) {
                    channel.recycle(batch);
                }
            }
            Step::Send {
                size,
                handle,
                gather,
            } => {
                let mode = if gather {
                    SendMode::Gather
                } else {
                    SendMode::WriteNow
                };
                let broken = channel.broken();
                let handle = handle.then(copy);
                match channel.send(&vec![b'1'; usize::from(size)], handle, mode) {
                    Ok(status) => {
                        sequence += 1;
                        assert_eq!(status.sequence, sequence);
                    }
                    Err(_) if channel.broken().is_none() => sequence += 1,
                    Err(_) => sequence += u64::from(broken.is_none()),
                }
            }
            Step::SendUnqueued { size } => {
                let _ = channel.send_unqueued(&vec![b'2'; usize::from(size)]);
            }
            Step::Reply { accept: true } => drop(channel.acknowledge_handle()),
            Step::Reply { accept: false } => drop(channel.refuse_handle()),
            Step::Flush => {
                let state = channel.flush();
                assert_eq!(state == FlushState::Blocked, channel.wants_writable());
            }
            Step::Room(bytes) => wire.borrow_mut().room = usize::from(bytes),
            Step::SendFails(code) => wire.borrow_mut().send_error = Some(errno(code)),
            Step::Adopt(bytes) if adoptable => channel.adopt_unread(&bytes),
            Step::Adopt(_) => {}
            Step::Drain => {
                channel.drain(Instant::now() + Duration::from_millis(5));
                channel.give_up();
            }
        }
        while channel.next_event().is_some() {}
        assert!(channel.completed() <= sequence);
        assert!(channel.unwritten_messages() as u64 <= sequence - channel.completed());
        let _ = (
            channel.oldest_unsent(),
            channel.queued_bytes(),
            channel.held_messages(),
        );
    }

    drop(channel);
    drop(wire);
    drop(writer);
    // End-of-file at once, or a descriptor was leaked and this blocks until the fuzzer's timeout.
    assert_eq!(reader.read(&mut [0]).expect("a read"), 0);
});
