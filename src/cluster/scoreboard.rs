//! The scoreboard of one worker: memory shared with the primary, in which each connection handed
//! over has a slot that says whose it is, and the worker its load. Moving connections, and what
//! is concluded from the load, is left to the two ends.
//!
//! A sequence number's slot is `sequence % 256`; its value is `(sequence << 3) | state` in 32 bits,
//! so the tag is the sequence number modulo 2^29. Sequence numbers wrap around at 2^32, a multiple
//! of both: neither slot nor tag jumps there. A tag left by an earlier connection is mistaken for
//! the right one only 2^29 connections later, by when its slot has been offered anew.
//!
//! The other side is another process, which may write anything at any time. What is read is a
//! hint, within its range and never an index; what a slot says concerns the connection in it and
//! no other.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use crate::sys::shared_memory::SharedMemory;

/// How many sequence numbers in a row have a slot of their own: the primary offers no connection
/// before the one so many earlier is settled.
pub const WINDOW: u32 = 256;

/// The layout below. A primary and a worker of different versions do not open a lane.
pub const LAYOUT_VERSION: u32 = 3;

const WORDS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The words of the header.
const VERSION: usize = 0;
const SEEN: usize = 1;
const CONNECTIONS: usize = 2;
const UTILISATION: usize = 3;
const HANDED_BACK: usize = 4;
const TAKEN: usize = 5;
const BEAT: usize = 6;
/// The first slot; what lies between is reserved.
const SLOTS: usize = 32;

const STATE_BITS: u32 = 3;
const STATE_MASK: u32 = (1 << STATE_BITS) - 1;

/// An event loop that is never idle.
const FULL_UTILISATION: u16 = 1000;

/// Whose a connection is, or what has become of a permit to accept one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It is on its way; the worker may claim it, the primary may revoke it.
    Offered,
    /// The worker is about to hand it to JavaScript.
    Claimed,
    /// The worker's for good.
    Taken,
    /// The worker will not have it: the primary's again.
    Declined,
    /// The primary has taken it back before the worker came to it.
    Revoked,
    /// The worker has no use for the permit.
    Void,
    /// The permit is for a listening socket that the worker has not got.
    Lacking,
    /// The slot tells of another sequence number, or nothing that has a meaning.
    Stale,
}

/// The states that are written.
#[derive(Clone, Copy)]
enum State {
    Offered = 1,
    Claimed = 2,
    Taken = 3,
    Declined = 4,
    Revoked = 5,
    Void = 6,
    Lacking = 7,
}

/// A word of a scoreboard: an [`AtomicU32`], or what a test explores in its place.
pub trait Word {
    /// As [`AtomicU32::load`].
    fn load(&self, order: Ordering) -> u32;
    /// As [`AtomicU32::store`].
    fn store(&self, value: u32, order: Ordering);
    /// As [`AtomicU32::fetch_add`].
    fn fetch_add(&self, value: u32, order: Ordering) -> u32;
    /// As [`AtomicU32::compare_exchange`].
    ///
    /// # Errors
    /// The word's value, when it is not `current`.
    fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32>;
}

/// One mapping of a scoreboard; both sides have one.
#[derive(Debug)]
pub struct Board<M = SharedMemory>(M);

impl Board {
    /// The primary's side of a new board, and the descriptor the worker opens.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`; `ENOSYS` where a seccomp filter forbids memfds.
    pub fn create() -> Result<(Board, OwnedFd), Errno> {
        let (memory, memfd) = SharedMemory::create("brood-scoreboard", WORDS)?;
        memory[VERSION].store(LAYOUT_VERSION, Relaxed);
        Ok((Board(memory), memfd))
    }

    /// The worker's side of the board behind `memfd`.
    ///
    /// # Errors
    /// `EINVAL` or `EPERM` when it is no memory of the right size that is sealed against resizing,
    /// `EPROTONOSUPPORT` when its layout is another version's, `ENOMEM`.
    pub fn open(memfd: OwnedFd) -> Result<Board, Errno> {
        let memory = SharedMemory::open(memfd, WORDS)?;
        if memory[VERSION].load(Relaxed) != LAYOUT_VERSION {
            return Err(Errno::EPROTONOSUPPORT);
        }
        Ok(Board(memory))
    }
}

impl<M: Deref<Target = [W]>, W: Word> Board<M> {
    /// Primary: opens the slot of a connection that is about to be sent.
    pub fn offer(&self, seq: u32) {
        self.place(seq).store(value(seq, State::Offered), Release);
    }

    /// Whose the connection is.
    pub fn slot(&self, seq: u32) -> Slot {
        let current = self.place(seq).load(Acquire);
        if current >> STATE_BITS != tag(seq) >> STATE_BITS {
            return Slot::Stale;
        }
        match current & STATE_MASK {
            1 => Slot::Offered,
            2 => Slot::Claimed,
            3 => Slot::Taken,
            4 => Slot::Declined,
            5 => Slot::Revoked,
            6 => Slot::Void,
            7 => Slot::Lacking,
            _ => Slot::Stale,
        }
    }

    /// Primary: takes back a connection the worker has not come to. Says whether that was so.
    pub fn revoke(&self, seq: u32) -> bool {
        self.change(seq, State::Offered, State::Revoked)
    }

    /// Worker: has this connection from now on, unless it was revoked. Says whether it has it.
    pub fn claim(&self, seq: u32) -> bool {
        self.change(seq, State::Offered, State::Claimed)
    }

    /// Worker: keeps a claimed connection for good.
    pub fn take(&self, seq: u32) {
        if self.change(seq, State::Claimed, State::Taken) {
            self.0[TAKEN].fetch_add(1, Relaxed);
        }
    }

    /// Worker: has found nothing to accept with a claimed permit and keeps it for what comes.
    pub fn unclaim(&self, seq: u32) {
        self.change(seq, State::Claimed, State::Offered);
    }

    /// Worker: lets go of a permit it will not need.
    pub fn void(&self, seq: u32) {
        self.change(seq, State::Offered, State::Void);
    }

    /// Worker: cannot use a permit for want of the listening socket.
    pub fn lack(&self, seq: u32) {
        self.change(seq, State::Offered, State::Lacking);
    }

    /// Worker: gives a connection back, offered or claimed.
    pub fn decline(&self, seq: u32) {
        if self.change(seq, State::Claimed, State::Declined)
            || self.change(seq, State::Offered, State::Declined)
        {
            self.0[HANDED_BACK].fetch_add(1, Relaxed);
        }
    }

    /// The last sequence number the worker says it has come to: a hint that there is something to
    /// look at.
    pub fn seen(&self) -> u32 {
        self.0[SEEN].load(Acquire)
    }

    /// Worker: has come to everything up to and including `seq`.
    pub fn set_seen(&self, seq: u32) {
        self.0[SEEN].store(seq, Release);
    }

    /// A number that changes when the worker's loop turns, if only now and then: one that has seen
    /// all its permits and keeps them has nothing else to show.
    pub fn beat(&self) -> u32 {
        self.0[BEAT].load(Relaxed)
    }

    /// Worker: its loop has turned.
    pub fn turn(&self) {
        self.0[BEAT].fetch_add(1, Relaxed);
    }

    /// The connections open in the worker, as it says.
    pub fn connections(&self) -> u32 {
        self.0[CONNECTIONS].load(Relaxed)
    }

    /// How busy the worker's event loop is, as it says, in thousandths up to 1000.
    pub fn utilisation(&self) -> u16 {
        clamp(self.0[UTILISATION].load(Relaxed))
    }

    /// Worker: its open connections and how busy its loop is, in thousandths.
    pub fn set_load(&self, connections: u32, utilisation: u16) {
        self.0[CONNECTIONS].store(connections, Relaxed);
        self.0[UTILISATION].store(clamp(utilisation.into()).into(), Relaxed);
    }

    /// How many connections the worker says it has given back, modulo 2^32.
    pub fn handed_back(&self) -> u32 {
        self.0[HANDED_BACK].load(Relaxed)
    }

    /// How many connections the worker says it has kept, modulo 2^32.
    pub fn taken(&self) -> u32 {
        self.0[TAKEN].load(Relaxed)
    }

    fn place(&self, seq: u32) -> &W {
        &self.0[SLOTS + (seq % WINDOW) as usize]
    }

    /// Moves the connection from one state to another, if that is where it is.
    fn change(&self, seq: u32, from: State, to: State) -> bool {
        let (from, to) = (value(seq, from), value(seq, to));
        let place = self.place(seq);
        place.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }
}

impl Word for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }

    fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        self.fetch_add(value, order)
    }

    fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.compare_exchange(current, new, success, failure)
    }
}

fn tag(seq: u32) -> u32 {
    seq << STATE_BITS
}

fn value(seq: u32, state: State) -> u32 {
    tag(seq) | state as u32
}

fn clamp(utilisation: u32) -> u16 {
    utilisation.min(FULL_UTILISATION.into()) as u16
}

#[cfg(all(test, not(miri)))]
mod loom_tests;

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[cfg(not(miri))]
    fn boards() -> (Board, Board) {
        let (primary, memfd) = Board::create().unwrap();
        (primary, Board::open(memfd).unwrap())
    }

    /// Miri knows no memory that is mapped twice.
    #[cfg(miri)]
    fn boards() -> (
        Board<std::sync::Arc<[AtomicU32]>>,
        Board<std::sync::Arc<[AtomicU32]>>,
    ) {
        let words: std::sync::Arc<[_]> = (0..WORDS.get()).map(|_| AtomicU32::new(0)).collect();
        (Board(words.clone()), Board(words))
    }

    #[test]
    fn a_connection_goes_from_offered_to_claimed_to_taken() {
        let (primary, worker) = boards();
        assert_eq!(primary.slot(5), Slot::Stale);
        primary.offer(5);
        assert_eq!(worker.slot(5), Slot::Offered);
        assert!(worker.claim(5));
        assert_eq!(primary.slot(5), Slot::Claimed);
        worker.take(5);
        assert_eq!(primary.slot(5), Slot::Taken);
        assert_eq!((primary.taken(), primary.handed_back()), (1, 0));
    }

    #[test]
    fn a_permit_that_has_found_nothing_is_on_offer_again() {
        let (primary, worker) = boards();
        primary.offer(5);
        for _ in 0..2 {
            assert!(worker.claim(5));
            assert!(!primary.revoke(5));
            worker.unclaim(5);
            assert_eq!(primary.slot(5), Slot::Offered);
        }
        assert!(primary.revoke(5));
        assert!(!worker.claim(5));
        worker.unclaim(5);
        assert_eq!(primary.slot(5), Slot::Revoked);
    }

    #[test]
    fn the_beat_changes_with_every_turn() {
        let (primary, worker) = boards();
        let before = primary.beat();
        worker.turn();
        assert_ne!(primary.beat(), before);
    }

    #[test]
    fn a_connection_can_be_declined_before_and_after_it_is_claimed() {
        let (primary, worker) = boards();
        for claimed in [false, true] {
            primary.offer(9);
            assert_eq!(worker.slot(9), Slot::Offered);
            assert!(!claimed || worker.claim(9));
            worker.decline(9);
            assert_eq!(primary.slot(9), Slot::Declined);
            assert!(!primary.revoke(9));
        }
        assert_eq!((primary.taken(), primary.handed_back()), (0, 2));
    }

    #[test]
    fn a_revoked_connection_can_neither_be_claimed_nor_taken_nor_declined() {
        let (primary, worker) = boards();
        primary.offer(0);
        assert!(primary.revoke(0));
        assert!(!worker.claim(0));
        worker.take(0);
        worker.decline(0);
        assert_eq!(worker.slot(0), Slot::Revoked);
        assert!(!primary.revoke(0));
        assert_eq!((primary.taken(), primary.handed_back()), (0, 0));
    }

    #[test]
    fn a_claimed_connection_cannot_be_revoked_and_a_settled_one_stays_as_it_is() {
        let (primary, worker) = boards();
        primary.offer(1);
        assert!(worker.claim(1));
        assert!(!primary.revoke(1));
        assert!(!worker.claim(1), "not twice");
        worker.take(1);
        worker.take(1);
        worker.decline(1);
        assert!(!primary.revoke(1));
        assert_eq!(primary.slot(1), Slot::Taken);
        assert_eq!((primary.taken(), primary.handed_back()), (1, 0));
    }

    #[test]
    fn every_sequence_number_of_a_window_has_its_own_slot_also_where_they_wrap_around() {
        let (primary, worker) = boards();
        let first = u32::MAX - 100;
        let window = || (0..WINDOW).map(move |i| first.wrapping_add(i));
        window().for_each(|seq| primary.offer(seq));
        for seq in window() {
            assert_eq!(primary.slot(seq), Slot::Offered);
            assert!(worker.claim(seq));
            worker.take(seq);
        }
        assert!(window().all(|seq| primary.slot(seq) == Slot::Taken));
        assert_eq!(primary.taken(), WINDOW);
    }

    #[test]
    fn the_slot_of_an_earlier_or_later_connection_is_stale_and_stays_untouched() {
        for seq in [0, 255, 1000, 1 << 29, u32::MAX] {
            let (primary, worker) = boards();
            primary.offer(seq);
            for distance in [WINDOW, 2 * WINDOW, 1 << 28] {
                for other in [seq.wrapping_add(distance), seq.wrapping_sub(distance)] {
                    assert_eq!(worker.slot(other), Slot::Stale);
                    assert!(!worker.claim(other));
                    assert!(!primary.revoke(other));
                    worker.take(other);
                    worker.decline(other);
                }
            }
            assert_eq!(primary.slot(seq), Slot::Offered);
            assert_eq!((primary.taken(), primary.handed_back()), (0, 0));
        }
    }

    #[test]
    fn of_a_claim_and_a_revocation_at_the_same_time_exactly_one_wins() {
        let (primary, worker) = boards();
        let start = Barrier::new(2);
        // Miri takes its time.
        let rounds = if cfg!(miri) { 2 } else { 200 };
        let rounds =
            (0..rounds).map(|round| (u32::MAX - 100 * WINDOW).wrapping_add(round * WINDOW));
        let window = |first: u32| (0..WINDOW).map(move |i| first.wrapping_add(i));
        thread::scope(|scope| {
            let (rounds, start) = (&rounds, &start);
            let claims = scope.spawn(move || {
                let claim_all = |first| {
                    start.wait();
                    let claimed: Vec<_> = window(first).map(|seq| worker.claim(seq)).collect();
                    start.wait();
                    claimed
                };
                rounds.clone().flat_map(claim_all).collect::<Vec<_>>()
            });
            let revoke_all = |first| {
                window(first).for_each(|seq| primary.offer(seq));
                start.wait();
                let revoked: Vec<_> = window(first).map(|seq| primary.revoke(seq)).collect();
                start.wait();
                for (seq, &revoked) in window(first).zip(&revoked) {
                    let expected = if revoked {
                        Slot::Revoked
                    } else {
                        Slot::Claimed
                    };
                    assert_eq!(primary.slot(seq), expected);
                }
                revoked
            };
            let revoked = rounds.clone().flat_map(revoke_all).collect::<Vec<_>>();
            let claimed = claims.join().unwrap();
            assert_eq!(claimed.len(), revoked.len());
            assert!(claimed.iter().zip(revoked).all(|(a, b)| *a != b));
        });
    }

    #[test]
    fn whatever_a_hostile_worker_writes_is_read_as_something_harmless() {
        let (primary, worker) = boards();
        worker.set_load(3, 70);
        assert_eq!((primary.connections(), primary.utilisation()), (3, 70));
        worker.set_load(u32::MAX, u16::MAX);
        assert_eq!(primary.utilisation(), 1000);
        worker.set_seen(77);
        assert_eq!(primary.seen(), 77);
        for value in [u32::MAX, 0, 0x8000_0000] {
            worker.0.iter().for_each(|word| word.store(value, Relaxed));
            assert!(primary.utilisation() <= 1000);
            assert_eq!(primary.slot(0), Slot::Stale);
            assert!(!primary.revoke(0));
        }
    }

    #[test]
    fn a_board_of_another_version_or_that_is_none_is_not_opened() {
        let (primary, memfd) = Board::create().unwrap();
        primary.0[VERSION].store(LAYOUT_VERSION + 1, Relaxed);
        assert_eq!(Board::open(memfd).unwrap_err(), Errno::EPROTONOSUPPORT);
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(Board::open(reader.into()).unwrap_err(), Errno::EINVAL);
        let words = NonZeroUsize::new(512).unwrap();
        let (_memory, memfd) = SharedMemory::create("test", words).unwrap();
        assert_eq!(Board::open(memfd).unwrap_err(), Errno::EINVAL);
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Offer,
        Revoke,
        Claim,
        Take,
        Unclaim,
        Void,
        Lack,
        Decline,
    }

    fn op() -> impl Strategy<Value = Op> {
        use Op::{Claim, Decline, Lack, Offer, Revoke, Take, Unclaim, Void};
        prop::sample::select(vec![
            Offer, Revoke, Claim, Take, Unclaim, Void, Lack, Decline,
        ])
    }

    proptest! {
        /// Against the obvious model: a map from a slot to its sequence number and state.
        #[test]
        fn slots_behave_as_the_table_of_states_says(
            start: u32,
            ops in prop::collection::vec((op(), 0u32..600), 1..200),
        ) {
            let (primary, worker) = boards();
            let mut model = std::collections::HashMap::<u32, (u32, Slot)>::new();
            for (op, offset) in ops {
                let seq = start.wrapping_add(offset);
                let before = match model.get(&(seq % WINDOW)) {
                    Some(&(owner, slot)) if owner == seq => slot,
                    _ => Slot::Stale,
                };
                let after = match (op, before) {
                    (Op::Offer, _) => Slot::Offered,
                    (Op::Revoke, Slot::Offered) => Slot::Revoked,
                    (Op::Claim, Slot::Offered) => Slot::Claimed,
                    (Op::Take, Slot::Claimed) => Slot::Taken,
                    (Op::Unclaim, Slot::Claimed) => Slot::Offered,
                    (Op::Void, Slot::Offered) => Slot::Void,
                    (Op::Lack, Slot::Offered) => Slot::Lacking,
                    (Op::Decline, Slot::Offered | Slot::Claimed) => Slot::Declined,
                    _ => before,
                };
                match op {
                    Op::Offer => primary.offer(seq),
                    Op::Revoke => prop_assert_eq!(primary.revoke(seq), before != after),
                    Op::Claim => prop_assert_eq!(worker.claim(seq), before != after),
                    Op::Take => worker.take(seq),
                    Op::Unclaim => worker.unclaim(seq),
                    Op::Void => worker.void(seq),
                    Op::Lack => worker.lack(seq),
                    Op::Decline => worker.decline(seq),
                }
                prop_assert_eq!(primary.slot(seq), after);
                if after != Slot::Stale {
                    model.insert(seq % WINDOW, (seq, after));
                }
            }
        }
    }
}
