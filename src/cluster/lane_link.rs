//! The primary's end of a lane: connections for a worker that runs brood, or permits to accept them
//! itself. Many travel in one message, and the worker acknowledges them in the scoreboard instead of
//! answering, so that neither side waits for the other.

use std::collections::{BTreeSet, VecDeque};
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

/// Connections and permits: nothing waits behind a permit, for others may have more of them.
const MOST: usize = 160;

/// A worker that has left an offer alone for this long is busy with something else.
const STALL: Duration = Duration::from_millis(50);

/// A worker whose loop turns keeps a permit for at most so long while its listener has connections:
/// not having used it for longer, it does not look.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a worker is offered.
#[derive(Debug)]
enum Offered {
    Connection(Connection),
    /// That it accepts one of this listener's connections.
    Permit(u32),
}

impl Offered {
    fn listener(&self) -> u32 {
        match self {
            Offered::Connection(connection) => connection.listener(),
            Offered::Permit(listener) => *listener,
        }
    }

    fn is_permit(&self) -> bool {
        matches!(self, Offered::Permit(_))
    }
}

/// Something the worker has not taken yet.
#[derive(Debug)]
struct Offer {
    sequence: u32,
    what: Offered,
    since: Instant,
    sent: bool,
    /// A permit to be taken back that the worker was just trying.
    withdrawn: bool,
}

/// How far a worker had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    seen: u32,
    beat: u32,
}

/// The lane to one worker.
#[derive(Debug)]
pub struct LaneLink {
    socket: OwnedFd,
    board: Board,
    next: u32,
    /// The last sequence number that has left.
    sent: u32,
    offers: VecDeque<Offer>,
    /// How many of them are connections.
    connections: usize,
    /// The socket would not take the last message.
    blocked: bool,
    /// How far the worker has come, and when it was first found there.
    progress: (Progress, Instant),
    /// How far it had come when it had left an offer alone for too long: until it moves on, it is
    /// offered nothing.
    stalled_at: Option<Progress>,
    /// The listening sockets it has got, if it may have any.
    listeners: Option<BTreeSet<u32>>,
    ended: bool,
}

impl LaneLink {
    /// Opens a lane; the second value is the worker's end, in which the scoreboard lies ready.
    /// `may_accept`: the worker may have listening sockets, with which it can do as it likes.
    ///
    /// # Errors
    /// Of socketpair(2), memfd_create(2), mmap(2): out of descriptors or memory.
    pub fn open(may_accept: bool) -> Result<(LaneLink, OwnedFd), Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        let (board, memory) = Board::create()?;
        let frame = Frame::Board.encode();
        socket::send(ours.as_fd(), &[IoSlice::new(&frame)], &[memory.as_fd()])?;
        let link = LaneLink {
            socket: ours,
            board,
            next: 1,
            sent: 0,
            offers: VecDeque::new(),
            connections: 0,
            blocked: false,
            progress: (Progress { seen: 0, beat: 0 }, Instant::now()),
            stalled_at: None,
            listeners: may_accept.then(BTreeSet::new),
            ended: false,
        };
        Ok((link, theirs))
    }

    /// What the worker says of itself.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Connections and permits offered that the worker has not begun with, and those that it has
    /// since the last [`sweep`](Self::sweep).
    pub fn waiting_and_begun(&self) -> (usize, usize) {
        let is_begun = |offer: &&Offer| match self.board.slot(offer.sequence) {
            Slot::Taken => true,
            // With a permit it may find nothing.
            Slot::Claimed => !offer.what.is_permit(),
            _ => false,
        };
        let begun = self.offers.iter().filter(is_begun).count();
        (self.offers.len() - begun, begun)
    }

    /// How many connections and permits it had been offered and not begun with at the last
    /// [`sweep`](Self::sweep), and since.
    pub fn offered(&self) -> usize {
        self.offers.len()
    }

    /// Whether the worker should be offered another one.
    pub fn has_room(&self) -> bool {
        let closed = self.ended || self.blocked || self.is_stalled();
        let has_enough = self.offers.len() >= MOST || self.connections >= BOUND;
        !closed && !has_enough && !self.is_far_behind() && self.has_slot()
    }

    /// Whether so much has left that the worker has not come to, though it may have been taken back,
    /// that more would only fill the socket.
    fn is_far_behind(&self) -> bool {
        self.sent.wrapping_sub(self.board.seen()) >= WINDOW
    }

    /// Whether the next sequence number's slot is nobody's: permits may be kept for long.
    fn has_slot(&self) -> bool {
        let oldest = self.offers.front().map_or(self.next, |one| one.sequence);
        self.next.wrapping_sub(oldest) < WINDOW
    }

    /// Whether the worker has left an offer alone for so long that others should have it.
    pub fn is_stalled(&self) -> bool {
        self.stalled_at.is_some()
    }

    /// Whether the lane can be used at all.
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Offers a connection; it leaves with the next [`flush`](Self::flush).
    pub fn offer(&mut self, connection: Connection, now: Instant) {
        self.push(Offered::Connection(connection), now);
    }

    /// Permits the worker to accept one of a listener's connections, once it has
    /// [got](Self::has_listener) the socket.
    pub fn permit(&mut self, listener: u32, now: Instant) {
        self.push(Offered::Permit(listener), now);
    }

    /// Whether the worker may have listening sockets.
    pub fn may_accept(&self) -> bool {
        self.listeners.is_some()
    }

    /// Whether the worker has got the listening socket, which is sent to it if need be. Not when it
    /// may not have it, or the lane cannot take it now.
    pub fn has_listener(&mut self, listener: u32, socket: BorrowedFd<'_>) -> bool {
        let Some(known) = &mut self.listeners else {
            return false;
        };
        if known.contains(&listener) {
            return true;
        }
        let frame = Frame::Listener { listener }.encode();
        let sent = socket::send(self.socket.as_fd(), &[IoSlice::new(&frame)], &[socket]);
        sent.is_ok() && known.insert(listener)
    }

    /// The worker has closed its descriptor of the listening socket, or is about to.
    pub fn forget_listener(&mut self, listener: u32) {
        if let Some(known) = &mut self.listeners {
            known.remove(&listener);
        }
    }

    /// How many permits for a listener the worker has not come to.
    pub fn unused_permits(&self, listener: u32) -> usize {
        self.permits_that_are(Slot::Offered, listener)
    }

    /// How many connections of a listener the worker has accepted since the last
    /// [`sweep`](Self::sweep).
    pub fn accepted_since(&self, listener: u32) -> usize {
        self.permits_that_are(Slot::Taken, listener)
    }

    fn permits_that_are(&self, state: Slot, listener: u32) -> usize {
        let is_such = |offer: &&Offer| {
            offer.what.is_permit()
                && offer.what.listener() == listener
                && self.board.slot(offer.sequence) == state
        };
        self.offers.iter().filter(is_such).count()
    }

    fn push(&mut self, what: Offered, now: Instant) {
        let sequence = self.next;
        self.next = sequence.wrapping_add(1);
        self.board.offer(sequence);
        self.connections += usize::from(!what.is_permit());
        self.offers.push_back(Offer {
            sequence,
            what,
            since: now,
            sent: false,
            withdrawn: false,
        });
    }

    /// Sends what has been offered, as many in a message as belong together. Says whether there is
    /// room again where there was none.
    pub fn flush(&mut self) -> bool {
        let was_blocked = std::mem::take(&mut self.blocked);
        let mut from = self.offers.iter().take_while(|offer| offer.sent).count();
        while from < self.offers.len() && !self.ended {
            let count = self.run(from);
            match self.send(from, count) {
                Ok(()) => {}
                // The socket is full, or too many descriptors are on their way already.
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.blocked = true;
                    return false;
                }
                Err(_) => self.ended = true,
            }
            from += count;
        }
        was_blocked
    }

    /// How many offers from `from` on fit one message: of one kind and listener, with consecutive
    /// numbers.
    fn run(&self, from: usize) -> usize {
        let first = &self.offers[from];
        let belongs = |(index, offer): &(usize, &Offer)| {
            offer.what.listener() == first.what.listener()
                && offer.what.is_permit() == first.what.is_permit()
                && offer.sequence == first.sequence.wrapping_add(*index as u32)
        };
        let offers = self.offers.range(from..).take(MAX_CONNECTIONS);
        offers.enumerate().take_while(belongs).count()
    }

    fn send(&mut self, from: usize, count: usize) -> Result<(), Errno> {
        let Offer { what, sequence, .. } = &self.offers[from];
        let (listener, first, count) = (what.listener(), *sequence, count as u32);
        let frame = match what {
            Offered::Connection(_) => Frame::Connections {
                listener,
                first,
                count,
            },
            Offered::Permit(_) => Frame::Permits {
                listener,
                first,
                count,
            },
        };
        let count = count as usize;
        let offers = self.offers.range(from..from + count);
        let descriptors: Vec<BorrowedFd<'_>> = offers
            .filter_map(|offer| match &offer.what {
                Offered::Connection(connection) => Some(connection.as_fd()),
                Offered::Permit(_) => None,
            })
            .collect();
        let bytes = frame.encode();
        // A message this small is taken whole or not at all.
        socket::send(self.socket.as_fd(), &[IoSlice::new(&bytes)], &descriptors)?;
        for offer in self.offers.range_mut(from..from + count) {
            offer.sent = true;
            self.sent = offer.sequence;
        }
        Ok(())
    }

    /// Looks what has become of the offers.
    pub fn sweep(&mut self, now: Instant, outcome: &mut Outcome) {
        let board = &self.board;
        // Before the slots: a worker that comes to an offer meanwhile is seen to have moved on.
        let reached = Progress {
            seen: board.seen(),
            beat: board.beat(),
        };
        if reached != self.progress.0 {
            self.progress = (reached, now);
        }
        let mut kept = VecDeque::with_capacity(self.offers.len());
        for offer in self.offers.drain(..) {
            match board.slot(offer.sequence) {
                Slot::Offered if offer.withdrawn && board.revoke(offer.sequence) => {}
                Slot::Offered | Slot::Claimed => kept.push_back(offer),
                answer => {
                    // It can get lost when the worker has no descriptor left.
                    if let (Offered::Permit(listener), Slot::Lacking) = (&offer.what, answer)
                        && let Some(known) = &mut self.listeners
                    {
                        known.remove(listener);
                    }
                    conclude(offer.what, answer, outcome);
                }
            }
        }
        self.keep(kept);
        if self.leaves_an_offer_alone(now) {
            self.stalled_at = Some(reached);
        } else {
            let has_seen_all = reached.seen == self.sent;
            self.stalled_at = self.stalled_at.filter(|then| {
                then.seen == reached.seen && (then.beat == reached.beat || !has_seen_all)
            });
        }
    }

    /// Whether there is an offer the worker should have come to by now. It keeps a permit it has
    /// seen until it is needed, but then its loop turns.
    fn leaves_an_offer_alone(&self, now: Instant) -> bool {
        let (reached, since) = self.progress;
        let stands_still = now.duration_since(since) > STALL;
        let is_unseen = |offer: &Offer| offer.sequence.wrapping_sub(reached.seen) as i32 > 0;
        self.offers.iter().any(|offer| {
            let age = now.duration_since(offer.since);
            let may_be_kept = offer.what.is_permit() && !is_unseen(offer);
            age > STALL
                && (!may_be_kept || stands_still || age > PATIENCE)
                && self.board.slot(offer.sequence) == Slot::Offered
        })
    }

    /// Takes back the offers of those listeners that `wanted` names and the worker has not begun
    /// with.
    pub fn take_back(&mut self, mut wanted: impl FnMut(u32) -> bool, outcome: &mut Outcome) {
        let board = &self.board;
        let mut kept = VecDeque::with_capacity(self.offers.len());
        for mut offer in self.offers.drain(..) {
            let is_wanted = wanted(offer.what.listener());
            if !is_wanted || !board.revoke(offer.sequence) {
                offer.withdrawn |= is_wanted && offer.what.is_permit();
                kept.push_back(offer);
            } else if let Offered::Connection(connection) = offer.what {
                outcome.returned.push(connection);
            }
        }
        self.keep(kept);
    }

    fn keep(&mut self, offers: VecDeque<Offer>) {
        self.connections = offers.iter().filter(|one| !one.what.is_permit()).count();
        self.offers = offers;
    }

    /// Takes back the permits for those listeners that `wanted` names, but for the oldest `keep`.
    /// What the worker is just trying is taken back later, if it has no use for it.
    pub fn withdraw(&mut self, wanted: impl Fn(u32) -> bool, keep: usize) {
        let board = &self.board;
        let offers = self.offers.iter_mut();
        let permits =
            offers.filter(|offer| offer.what.is_permit() && wanted(offer.what.listener()));
        permits.skip(keep).for_each(|offer| offer.withdrawn = true);
        self.offers
            .retain(|offer| !(offer.withdrawn && board.revoke(offer.sequence)));
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
            let is_ours = self.board.revoke(offer.sequence);
            let answer = self.board.slot(offer.sequence);
            match offer.what {
                Offered::Connection(connection) if is_ours => outcome.returned.push(connection),
                Offered::Connection(connection) if answer == Slot::Claimed => {
                    outcome.orphan(connection);
                }
                // What it may have accepted has ended with it; the rest is in the backlog.
                Offered::Permit(_) if is_ours || answer == Slot::Claimed => {}
                what => conclude(what, answer, outcome),
            }
        }
    }

    /// When [`sweep`](Self::sweep) should be called again, if nothing happens before: soon after
    /// an offer, for the worker answers in memory only; later where it takes its time.
    pub fn next_look(&self, now: Instant) -> Option<Duration> {
        let Some(newest) = self.offers.back() else {
            // It does not tell when it moves on.
            let is_behind = self.is_stalled() || self.is_far_behind();
            return is_behind.then_some(STALL);
        };
        let age = now.duration_since(newest.since);
        let soon = Duration::from_millis(1);
        Some(if age < 20 * soon { soon } else { 10 * soon })
    }
}

/// What the worker has said of an offer. Anything but an answer is a lie about its own connection.
fn conclude(what: Offered, answer: Slot, outcome: &mut Outcome) {
    match (what, answer) {
        (Offered::Connection(connection), Slot::Declined) => outcome.decline(connection),
        (Offered::Connection(_), _) => outcome.take(),
        (Offered::Permit(_), Slot::Declined | Slot::Lacking) => outcome.decline_permit(),
        (Offered::Permit(listener), Slot::Taken) => outcome.accept(listener),
        (Offered::Permit(_), _) => {}
    }
}

impl AsFd for LaneLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
