//! A lane between two that may both lie: a primary that sends arbitrary messages and descriptors
//! and scribbles on the scoreboard, and a worker that scribbles too. Neither may panic or read a
//! value out of its range; an honest pair must agree on every connection and permit; nothing may be
//! accepted without one, or of a listener that is not expected; no more permits may be kept than have
//! a slot; and no descriptor may stay open, whatever is lost on the way.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use brood::cluster::lane::{FRAME, Frame, MAX_CONNECTIONS};
use brood::cluster::receiver::{Receiver, Turn, TurnEnd};
use brood::cluster::scoreboard::{Board, Slot};
use brood::sys::shared_memory::SharedMemory;
use brood::sys::{listener, socket};
use libfuzzer_sys::fuzz_target;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind};

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
    /// The primary sends the listening socket, or something else for it.
    Listener {
        listener: u8,
        genuine: bool,
    },
    /// The primary permits the worker to accept (or has not opened the slots).
    Permits {
        offered: bool,
        listener: u8,
        first: u32,
        count: u8,
    },
    /// A client comes to the listening socket.
    Connect,
    /// The worker begins to listen, or ends it.
    Expect(u8),
    Forget(u8),
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
    /// The worker tries to accept, with room for so many descriptors.
    Accept {
        listener: u8,
        room: Option<u8>,
    },
    /// The worker is full.
    Refuse(u8),
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

    /// Opens the slots of so many, or does not; returns how many that makes in a message.
    fn offer(&self, offered: bool, first: u32, count: u8) -> u32 {
        let count = u32::from(count) % MAX_CONNECTIONS as u32 + 1;
        if offered {
            (0..count).for_each(|i| self.board.offer(first.wrapping_add(i)));
        }
        count
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

/// A listening socket, and those who connect to it.
struct Service {
    socket: UnixListener,
    address: SocketAddr,
    clients: Vec<UnixStream>,
    accepted: Vec<OwnedFd>,
}

impl Service {
    fn new() -> Service {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None);
        let socket = socket.expect("a socket");
        bind(socket.as_raw_fd(), &UnixAddr::new_unnamed()).expect("a name of the kernel's choice");
        listener::listen(socket.as_fd(), 200).expect("a listening socket");
        let socket = UnixListener::from(socket);
        Service {
            address: socket.local_addr().expect("its name"),
            socket,
            clients: Vec::new(),
            accepted: Vec::new(),
        }
    }

    fn connect(&mut self) {
        let client = UnixStream::connect_addr(&self.address).expect("room in the backlog");
        client.set_nonblocking(true).expect("a socket that can");
        self.clients.push(client);
    }

    /// Nobody has the listening socket any more, nor what was accepted or waits in the backlog.
    fn end(self) {
        drop((self.socket, self.accepted));
        let again = UnixStream::connect_addr(&self.address).expect_err("nobody listens");
        assert_eq!(again.kind(), ErrorKind::ConnectionRefused);
        for mut client in self.clients {
            let read = client.read(&mut [0]).map_err(|error| error.kind());
            assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)));
        }
    }
}

/// The worker: its end of the lane, and what it may be expected to have.
struct Worker {
    receiver: Receiver,
    listeners: BTreeSet<u32>,
    ended: bool,
}

impl Worker {
    fn receive(&mut self, room: Option<u8>) -> Turn {
        let turn = with_room_for(room, || self.receiver.receive());
        assert!(turn.connections.len() < 2 * MAX_CONNECTIONS);
        assert!(!self.ended || turn.end == TurnEnd::Closed && turn.connections.is_empty());
        self.ended |= matches!(turn.end, TurnEnd::Closed | TurnEnd::Failed(_));
        turn
    }

    /// Accepts one of a listener's connections; says whether it has.
    fn accept(&mut self, listener: u32, room: Option<u8>, service: &mut Service) -> bool {
        let waiting = service.clients.len() > service.accepted.len();
        match with_room_for(room, || self.receiver.accept(listener)) {
            Ok(connection) => {
                assert!(self.listeners.contains(&listener) && waiting);
                service.accepted.push(connection);
                true
            }
            Err(Errno::EAGAIN) => false,
            Err(_) => {
                assert!(self.listeners.contains(&listener));
                // It has given all of them back.
                assert!(self.receiver.socket_to_watch(listener).is_none());
                false
            }
        }
    }
}

/// What the numbers on offer say, for those that are open.
fn slots(primary: &Primary, permits: &BTreeMap<u32, u32>) -> Vec<Slot> {
    let slot = |sequence: &u32| primary.board.slot(*sequence);
    permits.keys().map(slot).collect()
}

fuzz_target!(|steps: Vec<Step>| {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let (board, memfd) = Board::create().expect("a scoreboard");
    let scribbled_on = SharedMemory::open(&memfd, WORDS).expect("the same memory");
    let mut service = Service::new();
    let mut primary = Primary {
        socket: Some(ours),
        board,
        descriptor: writer.into(),
    };
    let mut worker = Worker {
        receiver: Receiver::new(theirs.into()),
        listeners: BTreeSet::new(),
        ended: false,
    };
    let mut honest = true;
    // Permits the primary has offered: what a worker accepts it accepts with one of them.
    let mut permits: BTreeMap<u32, u32> = BTreeMap::new();

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
                let count = primary.offer(offered, first, count);
                let frame = Frame::Connections {
                    listener,
                    first,
                    count,
                };
                let descriptors = (count as usize).saturating_sub(missing.into());
                primary.send_connections(&frame.encode(), descriptors);
            }
            Step::Listener { listener, genuine } => {
                let listener = listener.into();
                let socket = match genuine {
                    true => service.socket.as_fd(),
                    false => primary.descriptor.as_fd(),
                };
                primary.send(&Frame::Listener { listener }.encode(), &[socket]);
            }
            Step::Permits {
                offered,
                listener,
                first,
                count,
            } => {
                let count = primary.offer(offered, first, count);
                let frame = Frame::Permits {
                    listener: listener.into(),
                    first,
                    count,
                };
                primary.send(&frame.encode(), &[]);
                let numbers = (0..count).map(|i| first.wrapping_add(i));
                permits.extend(numbers.map(|sequence| (sequence, listener.into())));
            }
            Step::Connect => service.connect(),
            Step::Expect(listener) => {
                worker.receiver.expect_listener(listener.into());
                worker.listeners.insert(listener.into());
            }
            Step::Forget(listener) => {
                worker.receiver.forget(listener.into());
                assert!(worker.receiver.socket_to_watch(listener.into()).is_none());
                worker.listeners.remove(&listener.into());
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
                let turn = worker.receive(room);
                let connections = turn.connections.iter().map(|one| one.sequence);
                let connections: BTreeSet<_> = connections.collect();
                // A lie may make a permit's number a connection's, too, or one that is told apart
                // from it by what does not stand in the slot: then only that nothing breaks counts.
                let tags: BTreeSet<_> = permits.keys().map(|sequence| sequence << 3).collect();
                let mut tagged = connections.iter().map(|sequence| sequence << 3);
                let honest = honest && !tagged.any(|tag| tags.contains(&tag));
                let mut open = connections.clone();
                for index in declined {
                    let at = usize::from(index) % open.len().max(1);
                    let Some(&sequence) = open.iter().nth(at) else {
                        continue;
                    };
                    let before = primary.board.slot(sequence);
                    assert!(worker.receiver.decline(sequence));
                    let expected = match before {
                        Slot::Offered | Slot::Claimed => Slot::Declined,
                        settled => settled,
                    };
                    assert!(!honest || primary.board.slot(sequence) == expected);
                    open.remove(&sequence);
                }
                let expected = match handed_over {
                    true => Slot::Taken,
                    false => Slot::Declined,
                };
                match handed_over {
                    true => worker.receiver.settle(),
                    false => worker.receiver.give_back(),
                }
                for sequence in open {
                    assert!(!worker.receiver.decline(sequence), "it is settled");
                    assert!(!honest || primary.board.slot(sequence) == expected);
                }
            }
            Step::Accept { listener, room } => {
                let listener = listener.into();
                let before = slots(&primary, &permits);
                let accepted = worker.accept(listener, room, &mut service);
                let after = slots(&primary, &permits);
                let changes = before.iter().zip(&after).filter(|(a, b)| a != b);
                let taken = changes.clone().filter(|change| *change.1 == Slot::Taken);
                let taken = taken.count();
                // One number may have been a permit for several listeners, and then the last counts.
                assert!(!honest || !accepted || taken == 1);
                assert!(!honest || accepted || taken == 0);
                let mut unused = changes.filter(|change| *change.1 != Slot::Taken);
                assert!(!honest || unused.all(|change| *change.0 == Slot::Offered));
                assert!(
                    !honest || !after.contains(&Slot::Claimed) || before.contains(&Slot::Claimed)
                );
            }
            Step::Refuse(listener) => {
                worker.receiver.refuse(listener.into());
                let left = worker.receiver.accept(listener.into());
                assert_eq!(left.expect_err("it has none"), Errno::EAGAIN);
            }
            Step::Report {
                connections,
                utilisation,
            } => worker.receiver.report(connections, utilisation),
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

    drop((primary, worker));
    service.end();
    // End-of-file at once, or a descriptor was leaked and this blocks until the fuzzer's timeout.
    assert_eq!(reader.read(&mut [0]).expect("a read"), 0);
});
