//! A lane between two that may both lie: a primary that sends arbitrary messages and descriptors
//! and scribbles on the scoreboard, and a worker that scribbles too. Neither may panic or read a
//! value out of its range; an honest pair must agree on every connection; and no descriptor may
//! stay open, whatever is lost on the way.

#![no_main]

use std::io::{self, IoSlice, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use brood::cluster::lane::{FRAME, Frame, MAX_CONNECTIONS};
use brood::cluster::receiver::{Receiver, TurnEnd};
use brood::cluster::scoreboard::{Board, Slot};
use brood::sys::shared_memory::SharedMemory;
use brood::sys::socket;
use libfuzzer_sys::fuzz_target;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const WORDS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

#[derive(Arbitrary, Debug)]
enum Step {
    /// The primary sends the true scoreboard, or something else for it.
    Board {
        genuine: bool,
    },
    /// The primary offers connections (or not) and sends them with so many descriptors.
    Connections {
        offered: bool,
        listener: u32,
        first: u32,
        count: u8,
        missing: u8,
    },
    /// The primary sends whatever it likes.
    Bytes {
        bytes: [u8; 40],
        length: u8,
        descriptors: u8,
    },
    Revoke(u32),
    /// Somebody writes into the shared memory.
    Scribble {
        word: u16,
        value: u32,
    },
    /// The worker's turn, with room for so many descriptors.
    Receive {
        room: Option<u8>,
        declined: Vec<u8>,
        handed_over: bool,
    },
    Report {
        connections: u32,
        utilisation: u16,
    },
    Close,
}

struct Primary {
    socket: Option<UnixStream>,
    board: Board,
    /// What is sent in place of connections: open as long as anybody has it.
    descriptor: OwnedFd,
}

impl Primary {
    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        if let Some(socket) = &self.socket
            && !bytes.is_empty()
        {
            // The socket may be full or its other end closed.
            let _ = socket::send(socket.as_fd(), &[IoSlice::new(bytes)], descriptors);
        }
    }

    fn send_connections(&self, bytes: &[u8], count: usize) {
        self.send(bytes, &vec![self.descriptor.as_fd(); count]);
    }
}

/// Runs `work` with at most `room` numbers for new descriptors.
fn with_room_for<R>(room: Option<u8>, work: impl FnOnce() -> R) -> R {
    let Some(room) = room else { return work() };
    let lowest = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .expect("a descriptor")
        .as_raw_fd() as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, lowest + u64::from(room), hard).expect("a lower limit");
    let result = work();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the limit of before");
    result
}

fuzz_target!(|steps: Vec<Step>| {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let (board, memfd) = Board::create().expect("a scoreboard");
    let scribbled_on = SharedMemory::open(&memfd, WORDS).expect("the same memory");
    let mut primary = Primary {
        socket: Some(ours),
        board,
        descriptor: writer.into(),
    };
    let mut receiver = Receiver::new(theirs.into());
    let (mut honest, mut ended) = (true, false);

    for step in steps.into_iter().take(100) {
        match step {
            Step::Board { genuine } => {
                let fd = if genuine { &memfd } else { &primary.descriptor };
                primary.send(&Frame::Board.encode(), &[fd.as_fd()]);
            }
            Step::Connections {
                offered,
                listener,
                first,
                count,
                missing,
            } => {
                let count = u32::from(count) % MAX_CONNECTIONS as u32 + 1;
                if offered {
                    (0..count).for_each(|i| primary.board.offer(first.wrapping_add(i)));
                }
                let frame = Frame::Connections {
                    listener,
                    first,
                    count,
                };
                let descriptors = (count as usize).saturating_sub(missing.into());
                primary.send_connections(&frame.encode(), descriptors);
            }
            Step::Bytes {
                bytes,
                length,
                descriptors,
            } => {
                let bytes = &bytes[..usize::from(length) % (bytes.len() + 1)];
                if let Ok(frame) = Frame::decode(bytes) {
                    assert_eq!(&frame.encode()[..], bytes);
                    assert_eq!(bytes.len(), FRAME);
                }
                primary.send_connections(bytes, usize::from(descriptors) % 254);
            }
            Step::Revoke(sequence) => {
                let offered = primary.board.slot(sequence) == Slot::Offered;
                assert_eq!(primary.board.revoke(sequence), offered);
            }
            Step::Scribble { word, value } => {
                let word = usize::from(word) % WORDS.get();
                scribbled_on[word].store(value, Ordering::Relaxed);
                honest = false;
            }
            Step::Receive {
                room,
                declined,
                handed_over,
            } => {
                let turn = with_room_for(room, || receiver.receive());
                assert!(turn.connections.len() < 2 * MAX_CONNECTIONS);
                assert!(!ended || turn.end == TurnEnd::Closed && turn.connections.is_empty());
                ended |= matches!(turn.end, TurnEnd::Closed | TurnEnd::Failed(_));
                let mut taken: Vec<_> = turn.connections.iter().map(|one| one.sequence).collect();
                for index in declined {
                    if !taken.is_empty() {
                        let sequence = taken.swap_remove(usize::from(index) % taken.len());
                        assert!(receiver.decline(sequence));
                        let slot = primary.board.slot(sequence);
                        assert!(!honest || slot == Slot::Declined);
                    }
                }
                if handed_over {
                    receiver.settle();
                } else {
                    receiver.give_back();
                }
                let expected = if handed_over {
                    Slot::Taken
                } else {
                    Slot::Declined
                };
                for sequence in taken {
                    assert!(!receiver.decline(sequence), "it is settled");
                    assert!(!honest || primary.board.slot(sequence) == expected);
                }
            }
            Step::Report {
                connections,
                utilisation,
            } => receiver.report(connections, utilisation),
            Step::Close => primary.socket = None,
        }
        assert!(primary.board.utilisation() <= 1000);
        let _ = (
            primary.board.connections(),
            primary.board.seen(),
            primary.board.taken(),
            primary.board.handed_back(),
        );
    }

    drop((primary, receiver));
    // End-of-file at once, or a descriptor was leaked and this blocks until the fuzzer's timeout.
    assert_eq!(reader.read(&mut [0]).expect("a read"), 0);
});
