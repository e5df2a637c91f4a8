//! The scoreboard under loom, which runs a model in every order that the processor's memory may
//! show its steps in: the dispatcher's thread against the worker's.

use std::sync::Arc;

use loom::sync::atomic::AtomicU32;
use loom::thread::{self, JoinHandle};

use super::*;

type Board = super::Board<Arc<[AtomicU32]>>;

const FIRST: u32 = 1;
/// Has the same slot.
const SECOND: u32 = FIRST + WINDOW;

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

/// A board up to that slot: loom pays for every word.
fn board() -> Board {
    let words = (0..=SLOTS + FIRST as usize).map(|_| AtomicU32::new(0));
    super::Board(words.collect())
}

/// Runs `worker` as the worker's thread on the board of the primary.
fn start<R: 'static>(primary: &Board, worker: impl FnOnce(Board) -> R + 'static) -> JoinHandle<R> {
    let board = super::Board(Arc::clone(&primary.0));
    thread::spawn(move || worker(board))
}

/// What a worker does with a connection or permit.
#[derive(Clone, Copy)]
enum Deed {
    Take,
    Decline,
    /// The server has closed.
    Void,
    /// The listening socket is missing.
    Lack,
    /// For want of a descriptor.
    DeclineUnclaimed,
}

const DEEDS: [(Deed, Slot); 5] = [
    (Deed::Take, Slot::Taken),
    (Deed::Decline, Slot::Declined),
    (Deed::Void, Slot::Void),
    (Deed::Lack, Slot::Lacking),
    (Deed::DeclineUnclaimed, Slot::Declined),
];

/// Comes to a sequence number as the receiver does; says whether it was the worker's.
fn come_to(board: &Board, sequence: u32, deed: Deed) -> Option<bool> {
    let claimed = match deed {
        Deed::DeclineUnclaimed | Deed::Void | Deed::Lack => None,
        Deed::Take | Deed::Decline => Some(board.claim(sequence)),
    };
    if claimed != Some(false) {
        match deed {
            Deed::Take => board.take(sequence),
            Deed::Void => board.void(sequence),
            Deed::Lack => board.lack(sequence),
            Deed::Decline | Deed::DeclineUnclaimed => board.decline(sequence),
        }
    }
    board.set_seen(sequence);
    claimed
}

fn count(condition: bool) -> u32 {
    condition.into()
}

#[test]
fn of_a_claim_and_a_revocation_exactly_one_wins_and_the_slot_says_which() {
    for (deed, answer) in DEEDS {
        loom::model(move || {
            let primary = board();
            primary.offer(FIRST);
            let worker = start(&primary, move |board| come_to(&board, FIRST, deed));
            let revoked = primary.revoke(FIRST);
            let claimed = worker.join().unwrap();
            assert!(claimed.is_none_or(|claimed| claimed != revoked));
            let expected = if revoked { Slot::Revoked } else { answer };
            assert_eq!(primary.slot(FIRST), expected);
            let taken = count(expected == Slot::Taken);
            let declined = count(expected == Slot::Declined);
            assert_eq!((primary.taken(), primary.handed_back()), (taken, declined));
        });
    }
}

#[test]
fn whoever_sees_that_the_worker_has_come_to_a_connection_sees_what_became_of_it() {
    for (deed, answer) in DEEDS {
        loom::model(move || {
            let primary = board();
            primary.offer(FIRST);
            let worker = start(&primary, move |board| come_to(&board, FIRST, deed));
            // As a sweep does: first how far it has come, then the slot.
            let seen = primary.seen() == FIRST;
            let slot = primary.slot(FIRST);
            assert!(!seen || slot == answer);
            assert!([Slot::Offered, Slot::Claimed, answer].contains(&slot));
            worker.join().unwrap();
        });
    }
}

#[test]
fn a_permit_that_has_found_nothing_is_the_primarys_to_take_back_and_the_workers_to_use() {
    loom::model(|| {
        let primary = board();
        primary.offer(FIRST);
        let worker = start(&primary, |board| {
            if board.claim(FIRST) {
                board.unclaim(FIRST);
            }
            // Something has come.
            let claimed = board.claim(FIRST);
            board.take(FIRST);
            claimed
        });
        let revoked = primary.revoke(FIRST) || primary.revoke(FIRST);
        assert_ne!(worker.join().unwrap(), revoked);
        let expected = if revoked { Slot::Revoked } else { Slot::Taken };
        assert_eq!(primary.slot(FIRST), expected);
        assert_eq!(primary.taken(), count(!revoked));
    });
}

#[test]
fn what_is_taken_stays_so_whatever_the_primary_tries() {
    loom::model(|| {
        let primary = board();
        primary.offer(FIRST);
        let worker = start(&primary, |board| come_to(&board, FIRST, Deed::Take));
        let before = primary.slot(FIRST);
        let revoked = primary.revoke(FIRST);
        assert!(!(revoked && before != Slot::Offered));
        if primary.slot(FIRST) == Slot::Taken {
            assert!(!primary.revoke(FIRST));
            assert_eq!(primary.slot(FIRST), Slot::Taken);
        }
        worker.join().unwrap();
    });
}

#[test]
fn a_slot_offered_anew_is_never_mistaken_for_the_one_taken_back_before() {
    for (deed, answer) in DEEDS {
        loom::model(move || {
            let primary = board();
            primary.offer(FIRST);
            // The message with the first number lies in the socket, and is come to at any time.
            let worker = start(&primary, move |board| come_to(&board, FIRST, deed));
            let revoked = primary.revoke(FIRST);
            if revoked {
                primary.offer(SECOND);
            }
            assert_ne!(worker.join().unwrap(), Some(revoked));
            if revoked {
                assert_eq!(primary.slot(SECOND), Slot::Offered);
                assert_eq!(primary.slot(FIRST), Slot::Stale);
                assert_eq!((primary.taken(), primary.handed_back()), (0, 0));
            } else {
                assert_eq!(primary.slot(FIRST), answer);
            }
        });
    }
}

#[test]
fn a_slot_is_offered_anew_once_the_worker_has_come_to_it_and_nothing_is_lost() {
    for (deed, answer) in DEEDS {
        loom::model(move || {
            let primary = board();
            primary.offer(FIRST);
            let worker = start(&primary, move |board| {
                come_to(&board, FIRST, deed);
                // The second may have come behind it, or not yet.
                board.slot(SECOND) == Slot::Offered && board.claim(SECOND)
            });
            let offered = primary.seen() == FIRST;
            if offered {
                assert_eq!(primary.slot(FIRST), answer);
                primary.offer(SECOND);
            }
            let revoked = offered && primary.revoke(SECOND);
            let claimed = worker.join().unwrap();
            assert_eq!(offered && !claimed, revoked);
            let expected = match (claimed, revoked) {
                (true, _) => Slot::Claimed,
                (_, true) => Slot::Revoked,
                _ => Slot::Stale,
            };
            assert_eq!(primary.slot(SECOND), expected);
        });
    }
}
