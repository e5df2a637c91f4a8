//! The primary's end of a lane: connections for a worker that runs brood. Many travel in one
//! message, and the worker acknowledges them in the scoreboard instead of answering, so that
//! neither side waits for the other.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::connection::Connection;
use super::lane::{Frame, MAX_CONNECTIONS};
use super::outcome::Outcome;
use super::scoreboard::{Board, Slot, WINDOW};
use crate::sys::socket;

/// Connections a worker may have been offered and not taken. Few enough that they do not wait long
/// behind one another, enough to keep a busy worker from running dry between two of its turns.
const BOUND: usize = 32;

/// A worker that has left an offer alone for this long is busy with something else.
const STALL: Duration = Duration::from_millis(50);

/// A connection the worker has not taken yet.
#[derive(Debug)]
struct Offer {
    sequence: u32,
    connection: Connection,
    since: Instant,
    sent: bool,
}

/// The lane to one worker.
#[derive(Debug)]
pub struct LaneLink {
    socket: OwnedFd,
    board: Board,
    next: u32,
    offers: VecDeque<Offer>,
    /// The socket would not take the last message.
    blocked: bool,
    stalled: bool,
    ended: bool,
}

impl LaneLink {
    /// Opens a lane; the second value is the worker's end, in which the scoreboard lies ready.
    ///
    /// # Errors
    /// Of socketpair(2), memfd_create(2), mmap(2): out of descriptors or memory.
    pub fn open() -> Result<(LaneLink, OwnedFd), Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        let (board, memory) = Board::create()?;
        let frame = Frame::Board.encode();
        socket::send(ours.as_fd(), &[IoSlice::new(&frame)], &[memory.as_fd()])?;
        let link = LaneLink {
            socket: ours,
            board,
            next: 1,
            offers: VecDeque::new(),
            blocked: false,
            stalled: false,
            ended: false,
        };
        Ok((link, theirs))
    }

    /// What the worker says of itself.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Connections offered that the worker has not begun with, and those that it has since the
    /// last [`sweep`](Self::sweep).
    pub fn waiting_and_begun(&self) -> (usize, usize) {
        let is_begun = |offer: &&Offer| {
            let slot = self.board.slot(offer.sequence);
            matches!(slot, Slot::Claimed | Slot::Taken)
        };
        let begun = self.offers.iter().filter(is_begun).count();
        (self.offers.len() - begun, begun)
    }

    /// Whether the worker should be offered another one.
    pub fn has_room(&self) -> bool {
        let unseen = self.next.wrapping_sub(self.board.seen());
        let closed = self.ended || self.blocked || self.stalled;
        !closed && self.offers.len() < BOUND && unseen <= WINDOW
    }

    /// Whether the worker has left an offer alone for so long that others should have it.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Offers a connection; it leaves with the next [`flush`](Self::flush).
    pub fn offer(&mut self, connection: Connection, now: Instant) {
        let sequence = self.next;
        self.next = sequence.wrapping_add(1);
        self.board.offer(sequence);
        self.offers.push_back(Offer {
            sequence,
            connection,
            since: now,
            sent: false,
        });
    }

    /// Sends what has been offered, as many in a message as belong together.
    pub fn flush(&mut self) {
        self.blocked = false;
        let mut from = self.offers.iter().take_while(|offer| offer.sent).count();
        while from < self.offers.len() && !self.ended {
            let count = self.run(from);
            match self.send(from, count) {
                Ok(()) => {}
                // The socket is full, or too many descriptors are on their way already.
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.blocked = true;
                    return;
                }
                Err(_) => self.ended = true,
            }
            from += count;
        }
    }

    /// How many offers from `from` on fit one message: of one listener, with consecutive numbers.
    fn run(&self, from: usize) -> usize {
        let first = &self.offers[from];
        let belongs = |(index, offer): &(usize, &Offer)| {
            offer.connection.listener() == first.connection.listener()
                && offer.sequence == first.sequence.wrapping_add(*index as u32)
        };
        let offers = self.offers.range(from..).take(MAX_CONNECTIONS);
        offers.enumerate().take_while(belongs).count()
    }

    fn send(&mut self, from: usize, count: usize) -> Result<(), Errno> {
        let first = &self.offers[from];
        let frame = Frame::Connections {
            listener: first.connection.listener(),
            first: first.sequence,
            count: count as u32,
        };
        let offers = self.offers.range(from..from + count);
        let descriptors: Vec<BorrowedFd<'_>> =
            offers.map(|offer| offer.connection.as_fd()).collect();
        let bytes = frame.encode();
        // A message this small is taken whole or not at all.
        socket::send(self.socket.as_fd(), &[IoSlice::new(&bytes)], &descriptors)?;
        for offer in self.offers.range_mut(from..from + count) {
            offer.sent = true;
        }
        Ok(())
    }

    /// Looks what has become of the offers.
    pub fn sweep(&mut self, now: Instant, outcome: &mut Outcome) {
        let board = &self.board;
        let mut kept = VecDeque::with_capacity(self.offers.len());
        for offer in self.offers.drain(..) {
            match board.slot(offer.sequence) {
                Slot::Offered | Slot::Claimed => kept.push_back(offer),
                Slot::Declined => outcome.decline(offer.connection),
                // Anything but an answer is a lie of the worker's about its own connection.
                Slot::Taken | Slot::Revoked | Slot::Stale => outcome.take(),
            }
        }
        self.offers = kept;
        self.stalled = self.offers.iter().any(|offer| {
            offer.sent
                && now.duration_since(offer.since) > STALL
                && board.slot(offer.sequence) == Slot::Offered
        });
    }

    /// Takes back the offers that `wanted` names and the worker has not begun with.
    pub fn take_back(
        &mut self,
        mut wanted: impl FnMut(&Connection) -> bool,
        outcome: &mut Outcome,
    ) {
        let board = &self.board;
        let mut kept = VecDeque::with_capacity(self.offers.len());
        for offer in self.offers.drain(..) {
            if wanted(&offer.connection) && board.revoke(offer.sequence) {
                outcome.returned.push(offer.connection);
            } else {
                kept.push_back(offer);
            }
        }
        self.offers = kept;
    }

    /// Reads what the worker has written, which is nothing: only that its end is closed, or that
    /// it does not keep to the protocol. Returns whether the lane is at its end.
    pub fn has_ended(&mut self) -> bool {
        if !self.ended {
            let received = socket::receive(self.socket.as_fd(), &mut [0; 16]);
            self.ended = !matches!(received, Err(Errno::EAGAIN));
        }
        self.ended
    }

    /// The worker is gone: what it has not begun with goes to others.
    pub fn end(mut self, outcome: &mut Outcome) {
        for offer in self.offers.drain(..) {
            if self.board.revoke(offer.sequence) {
                outcome.returned.push(offer.connection);
                continue;
            }
            match self.board.slot(offer.sequence) {
                Slot::Declined => outcome.decline(offer.connection),
                Slot::Claimed => outcome.orphan(offer.connection),
                Slot::Offered | Slot::Taken | Slot::Revoked | Slot::Stale => outcome.take(),
            }
        }
    }

    /// When [`sweep`](Self::sweep) should be called again, if nothing happens before: soon after
    /// an offer, for the worker answers in memory only; later where it takes its time.
    pub fn next_look(&self, now: Instant) -> Option<Duration> {
        let newest = self.offers.back()?;
        let age = now.duration_since(newest.since);
        let soon = Duration::from_millis(1);
        Some(if age < 20 * soon { soon } else { 10 * soon })
    }
}

impl AsFd for LaneLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
