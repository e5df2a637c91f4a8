//! The worker's end of a lane: reads what the dispatcher sends, a bounded piece at a time, and
//! keeps the scoreboard true about it. Waiting for the socket, and what becomes of a connection, is
//! left to the caller.
//!
//! A connection is claimed when it is received, and settled when JavaScript has been handed it:
//! should the process die in between, the primary may give it to another worker. Permits are kept
//! until there is something to accept, and each is claimed only while the caller accepts with it, so
//! that the primary can take it back at any other time.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::lane::{FRAME, Frame, FrameError};
use super::scoreboard::{Board, WINDOW};
use crate::sys::listener;
use crate::sys::socket::{self, Ancillary};

/// Once so many connections, or messages without any, have come in a turn, the rest waits for the
/// next, so that a flood cannot starve the loop. The last message may go beyond it.
const TURN: usize = 64;

/// How often accepting is tried again because a client's connection had failed before.
const TRIES: usize = 8;

/// A connection this worker has claimed.
#[derive(Debug)]
pub struct Connection {
    /// The listener it came to.
    pub listener: u32,
    /// What [`Receiver::decline`] knows it by.
    pub sequence: u32,
    /// Its socket.
    pub descriptor: OwnedFd,
}

/// What one turn has brought.
#[derive(Debug)]
pub struct Turn {
    /// In the order of their arrival. They are this worker's, whatever the end.
    pub connections: Vec<Connection>,
    /// Listeners of which more may be [accepted](Receiver::accept).
    pub permitted: Vec<u32>,
    /// Why there are not more.
    pub end: TurnEnd,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// Nothing is left in the socket.
    Drained,
    /// Enough for one turn.
    Bounded,
    /// The primary has closed the lane, or it has ended before.
    Closed,
    /// The lane has ended.
    Failed(LaneError),
}

/// Why a lane could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneError {
    /// What came is no message.
    Frame(FrameError),
    /// Another number of descriptors than announced.
    Descriptors {
        /// How many the message announced.
        announced: usize,
        /// How many came, although none was lost on the way.
        received: usize,
    },
    /// Connections before the scoreboard.
    NoBoard,
    /// A second scoreboard.
    SecondBoard,
    /// The scoreboard's descriptor was lost, for no number was left for it.
    BoardLost,
    /// The scoreboard cannot be opened.
    Board(Errno),
    /// The kernel refused to read.
    System(Errno),
}

/// A listening socket, once it has come, and sequence numbers of permits to accept from it, the
/// oldest first. The primary may have taken back any of them.
#[derive(Debug, Default)]
struct Listener {
    socket: Option<OwnedFd>,
    permits: VecDeque<u32>,
}

impl Listener {
    /// Lets go of the permits: one is declined, which says that they cannot be used now, and the
    /// others have no meaning.
    fn refuse(&mut self, board: &Board) {
        let mut permits = self.permits.drain(..);
        // One that has been taken back says nothing.
        if let Some(sequence) = permits.find(|&sequence| board.claim(sequence)) {
            board.decline(sequence);
        }
        permits.for_each(|sequence| board.void(sequence));
    }
}

/// The receiving end of a lane.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    board: Option<Board>,
    /// Sequence numbers of the claimed connections that are not settled.
    claimed: Vec<u32>,
    /// The listening sockets this worker has got, or expects.
    listeners: BTreeMap<u32, Listener>,
    /// The last sequence number come to, until the scoreboard says so.
    unseen: Option<u32>,
    ended: bool,
}

impl Receiver {
    /// Receives from `socket`, a Unix stream socket.
    pub fn new(socket: OwnedFd) -> Receiver {
        Receiver {
            socket,
            board: None,
            claimed: Vec::new(),
            listeners: BTreeMap::new(),
            unseen: None,
            ended: false,
        }
    }

    /// Reads what is there, up to a turn's worth, and claims it. Connections without a descriptor
    /// (this process has no number left) are declined, those revoked meanwhile closed. To be
    /// followed by [`Receiver::settle`] or [`Receiver::give_back`].
    pub fn receive(&mut self) -> Turn {
        let mut turn = Turn {
            connections: Vec::new(),
            permitted: Vec::new(),
            end: TurnEnd::Bounded,
        };
        let mut announced = 0;
        while announced < TURN {
            match self.receive_message(&mut turn) {
                Ok(count) => announced += count.max(1),
                Err(end) => {
                    turn.end = end;
                    break;
                }
            }
        }
        self.ended |= matches!(turn.end, TurnEnd::Closed | TurnEnd::Failed(_));
        turn
    }

    /// Accepts a connection with the oldest permit for it that has not been taken back.
    ///
    /// # Errors
    /// `EAGAIN` when there is no connection, and then the permits are kept, or no permit; those of
    /// accept(2) otherwise, and then the primary is to give the connection to another worker.
    pub fn accept(&mut self, listener: u32) -> Result<OwnedFd, Errno> {
        let (Some(board), Some(known)) = (&self.board, self.listeners.get_mut(&listener)) else {
            return Err(Errno::EAGAIN);
        };
        let Some(socket) = &known.socket else {
            return Err(Errno::EAGAIN);
        };
        while let Some(&sequence) = known.permits.front() {
            if !board.claim(sequence) {
                known.permits.pop_front();
                continue;
            }
            let accepted = accept_next(socket.as_fd());
            match &accepted {
                Ok(_) => {
                    // At once: whoever looks at the backlog next does not find it there.
                    board.take(sequence);
                    known.permits.pop_front();
                }
                Err(Errno::EAGAIN) => board.unclaim(sequence),
                // The next would fare no better.
                Err(_) => {
                    board.unclaim(sequence);
                    known.refuse(board);
                }
            }
            return accepted;
        }
        Err(Errno::EAGAIN)
    }

    /// Whether there are permits for a listener, which may have been taken back; its socket then
    /// tells when there is something to accept.
    pub fn socket_to_watch(&self, listener: u32) -> Option<BorrowedFd<'_>> {
        let known = self.listeners.get(&listener)?;
        let socket = known.socket.as_ref().map(AsFd::as_fd);
        socket.filter(|_| !known.permits.is_empty())
    }

    /// Lets go of all permits for a listener, and has the primary leave this worker alone for a
    /// while if there was one.
    pub fn refuse(&mut self, listener: u32) {
        if let (Some(board), Some(known)) = (&self.board, self.listeners.get_mut(&listener)) {
            known.refuse(board);
        }
    }

    /// A listening socket is kept when it comes. Others are not: one that comes when its server has
    /// been closed would keep the port from being free.
    pub fn expect_listener(&mut self, listener: u32) {
        self.listeners.entry(listener).or_default();
    }

    /// A listening socket it has got.
    #[cfg(test)]
    pub fn listener(&self, listener: u32) -> Option<BorrowedFd<'_>> {
        self.listeners
            .get(&listener)?
            .socket
            .as_ref()
            .map(AsFd::as_fd)
    }

    /// How many permits for a listener are kept.
    #[cfg(test)]
    pub fn permits(&self, listener: u32) -> usize {
        let known = self.listeners.get(&listener);
        known.map_or(0, |known| known.permits.len())
    }

    /// Closes a listening socket. Permits for it have no meaning any more.
    pub fn forget(&mut self, listener: u32) {
        if let (Some(board), Some(known)) = (&self.board, self.listeners.remove(&listener)) {
            known.permits.iter().for_each(|&one| board.void(one));
        }
    }

    /// Gives one connection of the turn back to the primary; says whether it was one. The caller
    /// closes its descriptor.
    pub fn decline(&mut self, sequence: u32) -> bool {
        let Some(index) = self.claimed.iter().position(|&one| one == sequence) else {
            return false;
        };
        self.claimed.swap_remove(index);
        if let Some(board) = &self.board {
            board.decline(sequence);
        }
        true
    }

    /// The turn's connections have been handed over: those not declined are kept for good.
    pub fn settle(&mut self) {
        self.conclude(Board::take);
    }

    /// The turn's connections could not be handed over: all of them go back.
    pub fn give_back(&mut self) {
        self.conclude(Board::decline);
    }

    /// Tells the primary how many connections are open here, and how busy the loop is, in
    /// thousandths. Forgotten before the scoreboard has come.
    pub fn report(&self, connections: u32, utilisation: u16) {
        if let Some(board) = &self.board {
            board.set_load(connections, utilisation);
            board.turn();
        }
    }

    fn conclude(&mut self, settle: impl Fn(&Board, u32)) {
        let Some(board) = &self.board else { return };
        for sequence in self.claimed.drain(..) {
            settle(board, sequence);
        }
        board.turn();
        if let Some(sequence) = self.unseen.take() {
            board.set_seen(sequence);
        }
    }

    /// One message; returns how many connections it announced.
    fn receive_message(&mut self, turn: &mut Turn) -> Result<usize, TurnEnd> {
        if self.ended {
            return Err(TurnEnd::Closed);
        }
        let mut bytes = [0; FRAME];
        let received = match socket::receive(self.socket.as_fd(), &mut bytes) {
            Ok(received) if received.bytes == 0 => return Err(TurnEnd::Closed),
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Err(TurnEnd::Drained),
            Err(Errno::ECONNRESET) => return Err(TurnEnd::Closed),
            Err(errno) => return Err(LaneError::System(errno).into()),
        };
        let frame = Frame::decode(&bytes[..received.bytes]).map_err(LaneError::Frame)?;
        let descriptors = descriptors_of(frame, received.ancillary)?;
        match frame {
            Frame::Board => self.open_board(descriptors)?,
            Frame::Listener { listener } => {
                // The one that is there may be watched. None comes if it was lost for want of a
                // number: its permits will say so.
                if let Some(known) = self.listeners.get_mut(&listener)
                    && known.socket.is_none()
                {
                    known.socket = { descriptors }.pop();
                }
            }
            Frame::Permits {
                listener,
                first,
                count,
            } => {
                let sequence = (0..count).map(|i| first.wrapping_add(i));
                if self.take_permits(listener, sequence)? && !turn.permitted.contains(&listener) {
                    turn.permitted.push(listener);
                }
                return Ok(count as usize);
            }
            Frame::Connections {
                listener,
                first,
                count,
            } => {
                let sequence = (0..count).map(|i| first.wrapping_add(i));
                self.claim(listener, sequence, descriptors, &mut turn.connections)?;
                return Ok(frame.descriptors());
            }
        }
        Ok(0)
    }

    /// Keeps permits, unless the listening socket is missing; says whether it has.
    fn take_permits(
        &mut self,
        listener: u32,
        sequence: impl Iterator<Item = u32>,
    ) -> Result<bool, LaneError> {
        let board = self.board.as_ref().ok_or(LaneError::NoBoard)?;
        let known = self.listeners.get_mut(&listener);
        let mut known = known.filter(|known| known.socket.is_some());
        for sequence in sequence {
            self.unseen = Some(sequence);
            let Some(known) = &mut known else {
                board.lack(sequence);
                continue;
            };
            // Its slot is another's by now.
            if known.permits.len() == WINDOW as usize {
                known.permits.pop_front();
            }
            known.permits.push_back(sequence);
        }
        Ok(known.is_some())
    }

    fn open_board(&mut self, mut descriptors: Vec<OwnedFd>) -> Result<(), LaneError> {
        if self.board.is_some() {
            return Err(LaneError::SecondBoard);
        }
        let memfd = descriptors.pop().ok_or(LaneError::BoardLost)?;
        self.board = Some(Board::open(memfd).map_err(LaneError::Board)?);
        Ok(())
    }

    fn claim(
        &mut self,
        listener: u32,
        sequence: impl Iterator<Item = u32>,
        descriptors: Vec<OwnedFd>,
        connections: &mut Vec<Connection>,
    ) -> Result<(), LaneError> {
        let board = self.board.as_ref().ok_or(LaneError::NoBoard)?;
        // The kernel installs descriptors in order: those that are missing are the last.
        let mut descriptors = descriptors.into_iter();
        for sequence in sequence {
            self.unseen = Some(sequence);
            let descriptor = descriptors.next();
            // Revoked, or sent twice by a primary that lies.
            if !board.claim(sequence) {
                continue;
            }
            match descriptor {
                None => board.decline(sequence),
                Some(descriptor) => {
                    self.claimed.push(sequence);
                    connections.push(Connection {
                        listener,
                        sequence,
                        descriptor,
                    });
                }
            }
        }
        Ok(())
    }
}

/// The next connection whose client is still there.
fn accept_next(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    for _ in 1..TRIES {
        match listener::accept(socket) {
            Ok((connection, _)) => return Ok(connection),
            Err(Errno::ECONNABORTED | Errno::EPROTO) => {}
            Err(errno) => return Err(errno),
        }
    }
    listener::accept(socket).map(|(connection, _)| connection)
}

/// The descriptors that came with `frame`: as many as it announces, or fewer if some were lost.
fn descriptors_of(frame: Frame, ancillary: Ancillary) -> Result<Vec<OwnedFd>, LaneError> {
    let (descriptors, lost) = match ancillary {
        Ancillary::None => (Vec::new(), false),
        Ancillary::Complete(descriptors) => (descriptors, false),
        Ancillary::Truncated(descriptors) => (descriptors, true),
    };
    let (announced, received) = (frame.descriptors(), descriptors.len());
    if received == announced && !lost || received < announced && lost {
        return Ok(descriptors);
    }
    Err(LaneError::Descriptors {
        announced,
        received,
    })
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<LaneError> for TurnEnd {
    fn from(error: LaneError) -> TurnEnd {
        TurnEnd::Failed(error)
    }
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "the primary sent {error}"),
            Self::Descriptors {
                announced,
                received,
            } => write!(
                f,
                "the primary sent {received} descriptors and announced {announced}"
            ),
            Self::NoBoard => write!(f, "the primary sent connections before the scoreboard"),
            Self::SecondBoard => write!(f, "the primary sent a second scoreboard"),
            Self::BoardLost => write!(f, "no descriptor was left for the scoreboard"),
            Self::Board(errno) => write!(f, "the scoreboard cannot be opened: {}", errno.desc()),
            Self::System(errno) => write!(f, "reading the lane failed: {}", errno.desc()),
        }
    }
}

impl Error for LaneError {}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, PipeReader, Read};
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::super::scoreboard::Slot;
    use super::*;

    /// The dispatcher's end, with a descriptor of each connection that must not stay open for good.
    struct Primary {
        socket: UnixStream,
        board: Board,
    }

    fn lane() -> (Primary, Receiver) {
        let (primary, mut receiver, memfd) = lane_without_board();
        primary.send(&Frame::Board.encode(), &[memfd.as_fd()]);
        assert_eq!(receiver.receive().end, TurnEnd::Drained);
        (primary, receiver)
    }

    fn lane_without_board() -> (Primary, Receiver, OwnedFd) {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let (board, memfd) = Board::create().unwrap();
        (
            Primary { socket, board },
            Receiver::new(theirs.into()),
            memfd,
        )
    }

    /// A connection's place is taken by the writing end of a pipe: its reader sees who has it open.
    struct Watch(PipeReader);

    fn descriptor() -> (Watch, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        (Watch(reader), writer.into())
    }

    impl Watch {
        fn is_closed_everywhere(&mut self) -> bool {
            self.0.read(&mut [0]).is_ok()
        }
    }

    impl Primary {
        fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
            let sent = socket::send(self.socket.as_fd(), &[IoSlice::new(bytes)], descriptors);
            assert_eq!(sent, Ok(bytes.len()));
        }

        /// Offers and sends `count` connections and keeps no duplicate of them.
        fn hand_over(&self, listener: u32, first: u32, count: u32) -> Vec<Watch> {
            (0..count).for_each(|i| self.board.offer(first.wrapping_add(i)));
            self.send_connections(listener, first, count)
        }

        fn send_connections(&self, listener: u32, first: u32, count: u32) -> Vec<Watch> {
            let (watches, descriptors): (Vec<_>, Vec<_>) = (0..count).map(|_| descriptor()).unzip();
            let frame = Frame::Connections {
                listener,
                first,
                count,
            };
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            self.send(&frame.encode(), &borrowed);
            watches
        }

        fn slots(&self, first: u32, count: u32) -> Vec<Slot> {
            (0..count)
                .map(|i| self.board.slot(first.wrapping_add(i)))
                .collect()
        }
    }

    fn names(turn: &Turn) -> Vec<(u32, u32)> {
        let connections = turn.connections.iter();
        connections
            .map(|one| (one.listener, one.sequence))
            .collect()
    }

    #[test]
    fn connections_are_claimed_when_received_and_taken_when_handed_over() {
        let (primary, mut receiver) = lane();
        let mut watches = primary.hand_over(7, u32::MAX - 1, 3);
        let turn = receiver.receive();
        assert_eq!(turn.end, TurnEnd::Drained);
        assert_eq!(names(&turn), [(7, u32::MAX - 1), (7, u32::MAX), (7, 0)]);
        assert_eq!(primary.slots(u32::MAX - 1, 3), [Slot::Claimed; 3]);
        assert_eq!(primary.board.seen(), 0);
        receiver.settle();
        assert_eq!(primary.slots(u32::MAX - 1, 3), [Slot::Taken; 3]);
        assert_eq!((primary.board.taken(), primary.board.seen()), (3, 0));
        assert!(!watches.iter_mut().any(Watch::is_closed_everywhere));
        drop(turn);
        assert!(watches.iter_mut().all(Watch::is_closed_everywhere));
    }

    #[test]
    fn each_descriptor_belongs_to_its_sequence_number() {
        let (primary, mut receiver) = lane();
        let mut watches = primary.hand_over(1, 0, 3);
        watches.extend(primary.hand_over(2, 3, 2));
        for (i, connection) in receiver.receive().connections.into_iter().enumerate() {
            assert_eq!(connection.sequence as usize, i);
            drop(connection);
            let closed = watches.iter_mut().map(Watch::is_closed_everywhere);
            assert_eq!(closed.filter(|&closed| closed).count(), i + 1);
            assert!(watches[i].is_closed_everywhere());
        }
    }

    #[test]
    fn what_is_declined_goes_back_and_the_rest_is_taken() {
        let (primary, mut receiver) = lane();
        primary.hand_over(1, 10, 4);
        let _turn = receiver.receive();
        assert!(receiver.decline(11));
        assert!(receiver.decline(13));
        assert_eq!(primary.board.slot(11), Slot::Declined);
        receiver.settle();
        let expected = [Slot::Taken, Slot::Declined, Slot::Taken, Slot::Declined];
        assert_eq!(primary.slots(10, 4), expected);
        assert_eq!(primary.board.handed_back(), 2);
        assert_eq!(primary.board.seen(), 13);
    }

    #[test]
    fn only_a_connection_of_the_turn_can_be_declined_and_only_once() {
        let (primary, mut receiver) = lane();
        assert!(!receiver.decline(0));
        primary.hand_over(1, 0, 1);
        let _turn = receiver.receive();
        assert!(!receiver.decline(1));
        assert!(receiver.decline(0));
        assert!(!receiver.decline(0));
        receiver.settle();
        primary.hand_over(1, 1, 1);
        let _turn = receiver.receive();
        receiver.settle();
        assert!(!receiver.decline(1), "too late");
        assert_eq!(primary.slots(0, 2), [Slot::Declined, Slot::Taken]);
    }

    #[test]
    fn what_cannot_be_handed_over_goes_back() {
        let (primary, mut receiver) = lane();
        let mut watches = primary.hand_over(1, 0, 3);
        drop(receiver.receive());
        receiver.give_back();
        assert_eq!(primary.slots(0, 3), [Slot::Declined; 3]);
        assert!(watches.iter_mut().all(Watch::is_closed_everywhere));
    }

    #[test]
    fn a_revoked_connection_is_closed_and_not_handed_over() {
        let (primary, mut receiver) = lane();
        let mut watches = primary.hand_over(1, 0, 3);
        assert!(primary.board.revoke(1));
        let turn = receiver.receive();
        assert_eq!(names(&turn), [(1, 0), (1, 2)]);
        assert!(watches[1].is_closed_everywhere());
        assert!(!watches[0].is_closed_everywhere() && !watches[2].is_closed_everywhere());
        receiver.settle();
        assert_eq!(
            primary.slots(0, 3),
            [Slot::Taken, Slot::Revoked, Slot::Taken]
        );
        assert_eq!(primary.board.seen(), 2);
    }

    #[test]
    fn a_connection_that_was_never_offered_is_closed() {
        let (primary, mut receiver) = lane();
        let mut watches = primary.send_connections(1, 5, 2);
        let turn = receiver.receive();
        assert!(turn.connections.is_empty());
        assert!(watches.iter_mut().all(Watch::is_closed_everywhere));
    }

    #[test]
    fn a_flood_is_handed_over_in_bounded_turns() {
        let (primary, mut receiver) = lane();
        let mut watches: Vec<_> = (0..5)
            .flat_map(|i| primary.hand_over(1, 50 * i, 50))
            .collect();
        for (connections, end) in [
            (100, TurnEnd::Bounded),
            (100, TurnEnd::Bounded),
            (50, TurnEnd::Drained),
        ] {
            let turn = receiver.receive();
            assert_eq!((turn.connections.len(), turn.end), (connections, end));
            receiver.settle();
        }
        assert!(watches.iter_mut().all(Watch::is_closed_everywhere));
        assert_eq!(primary.board.taken(), 250);
        // Also when every one of them was revoked.
        let mut watches: Vec<_> = (0..100)
            .flat_map(|i| primary.send_connections(1, i, 1))
            .collect();
        let turn = receiver.receive();
        assert_eq!((turn.connections.len(), turn.end), (0, TurnEnd::Bounded));
        let closed = watches.iter_mut().map(Watch::is_closed_everywhere);
        assert_eq!(closed.filter(|&closed| closed).count(), 64);
    }

    #[test]
    fn a_flood_of_listening_sockets_nobody_expects_is_closed_in_bounded_turns() {
        let (primary, mut receiver) = lane();
        let mut watches: Vec<_> = (0..100)
            .map(|listener| {
                let (watch, descriptor) = descriptor();
                primary.send(
                    &Frame::Listener { listener }.encode(),
                    &[descriptor.as_fd()],
                );
                watch
            })
            .collect();
        for (closed_by_now, end) in [(64, TurnEnd::Bounded), (100, TurnEnd::Drained)] {
            let turn = receiver.receive();
            assert_eq!((turn.connections.len(), turn.end), (0, end));
            let closed = watches.iter_mut().map(Watch::is_closed_everywhere);
            assert_eq!(closed.filter(|&closed| closed).count(), closed_by_now);
        }
    }

    #[test]
    fn the_load_is_written_to_the_board_once_there_is_one() {
        let (primary, mut receiver, memfd) = lane_without_board();
        receiver.report(9, 900);
        assert_eq!(primary.board.connections(), 0);
        primary.send(&Frame::Board.encode(), &[memfd.as_fd()]);
        let _ = receiver.receive();
        receiver.report(9, 900);
        assert_eq!(
            (primary.board.connections(), primary.board.utilisation()),
            (9, 900)
        );
    }

    #[test]
    fn the_end_of_the_primary_ends_the_lane_after_what_was_sent_before() {
        let (primary, mut receiver) = lane();
        primary.hand_over(1, 0, 2);
        let Primary { socket, board } = primary;
        drop(socket);
        let turn = receiver.receive();
        assert_eq!((turn.connections.len(), turn.end), (2, TurnEnd::Closed));
        receiver.settle();
        assert_eq!(board.slot(1), Slot::Taken);
        assert_eq!(receiver.receive().end, TurnEnd::Closed);
    }

    /// What the lane makes of one message, and whether the descriptors it came with were closed.
    fn fails(primary: &Primary, receiver: &mut Receiver, bytes: &[u8], count: usize) -> LaneError {
        let (mut watches, descriptors): (Vec<_>, Vec<_>) = (0..count).map(|_| descriptor()).unzip();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        primary.send(bytes, &borrowed);
        drop(descriptors);
        let turn = receiver.receive();
        assert!(turn.connections.is_empty());
        assert!(watches.iter_mut().all(Watch::is_closed_everywhere));
        assert_eq!(receiver.receive().end, TurnEnd::Closed, "it has ended");
        match turn.end {
            TurnEnd::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_primary_that_talks_nonsense_ends_the_lane() {
        let nonsense = |bytes: &[u8], descriptors| {
            let (primary, mut receiver) = lane();
            fails(&primary, &mut receiver, bytes, descriptors)
        };
        let short = LaneError::Frame(FrameError::Length(5));
        assert_eq!(nonsense(b"short", 1), short);
        let kind = LaneError::Frame(FrameError::Kind(0x2020_2020));
        assert_eq!(nonsense(&[b' '; FRAME], 1), kind);
        let mut too_many = Frame::Board.encode();
        (too_many[0], too_many[12]) = (2, 65);
        let count = LaneError::Frame(FrameError::Count(65));
        assert_eq!(nonsense(&too_many, 65), count);
    }

    #[test]
    fn another_number_of_descriptors_than_announced_ends_the_lane() {
        for received in [0, 1, 3, 200] {
            let (primary, mut receiver) = lane();
            let frame = Frame::Connections {
                listener: 1,
                first: 0,
                count: 2,
            };
            (0..2).for_each(|sequence| primary.board.offer(sequence));
            let error = LaneError::Descriptors {
                announced: 2,
                received,
            };
            assert_eq!(
                fails(&primary, &mut receiver, &frame.encode(), received),
                error
            );
            assert_eq!(primary.slots(0, 2), [Slot::Offered; 2]);
        }
    }

    #[test]
    fn the_board_comes_first_and_once_and_is_one() {
        let connections = Frame::Connections {
            listener: 1,
            first: 0,
            count: 1,
        };
        let (primary, mut receiver, _memfd) = lane_without_board();
        let error = fails(&primary, &mut receiver, &connections.encode(), 1);
        assert_eq!(error, LaneError::NoBoard);
        let (primary, mut receiver) = lane();
        let error = fails(&primary, &mut receiver, &Frame::Board.encode(), 1);
        assert_eq!(error, LaneError::SecondBoard);
        let (primary, mut receiver, _memfd) = lane_without_board();
        let error = fails(&primary, &mut receiver, &Frame::Board.encode(), 1);
        assert_eq!(error, LaneError::Board(Errno::EINVAL));
        let (primary, mut receiver, _memfd) = lane_without_board();
        let error = fails(&primary, &mut receiver, &Frame::Board.encode(), 0);
        let (announced, received) = (1, 0);
        assert_eq!(
            error,
            LaneError::Descriptors {
                announced,
                received
            }
        );
    }

    #[test]
    fn connections_received_before_the_nonsense_are_still_handed_over() {
        let (primary, mut receiver) = lane();
        primary.hand_over(1, 0, 2);
        primary.send(b"?", &[]);
        let turn = receiver.receive();
        assert_eq!(names(&turn), [(1, 0), (1, 1)]);
        let error = LaneError::Frame(FrameError::Length(1));
        assert_eq!(turn.end, TurnEnd::Failed(error));
        receiver.settle();
        assert_eq!(primary.slots(0, 2), [Slot::Taken; 2]);
    }
}
