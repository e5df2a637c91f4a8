//! A worker's end of a lane in a process without free descriptors.

#![allow(clippy::unwrap_used)]

mod shortage;

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use brood::cluster::lane::Frame;
use brood::cluster::receiver::{LaneError, Receiver, TurnEnd};
use brood::cluster::scoreboard::{Board, Slot};
use brood::sys::socket;
use shortage::{open_descriptors, with_room_for};

fn send(socket: &UnixStream, frame: Frame, descriptors: &[BorrowedFd<'_>]) {
    let bytes = frame.encode();
    let sent = socket::send(socket.as_fd(), &[IoSlice::new(&bytes)], descriptors);
    assert_eq!(sent, Ok(bytes.len()));
}

/// A lane with its board in the socket, unread.
fn lane() -> (UnixStream, Board, Receiver) {
    let (primary, worker) = UnixStream::pair().unwrap();
    let (board, memfd) = Board::create().unwrap();
    send(&primary, Frame::Board, &[memfd.as_fd()]);
    (primary, board, Receiver::new(worker.into()))
}

fn connections_for_which_no_number_is_left_are_declined() {
    for free in [0, 1, 3, 7] {
        let (primary, board, mut receiver) = lane();
        assert_eq!(receiver.receive().end, TurnEnd::Drained);
        let (connection, _peer) = UnixStream::pair().unwrap();
        let connection = OwnedFd::from(connection);
        for first in [0, 4] {
            (first..first + 4).for_each(|sequence| board.offer(sequence));
            let frame = Frame::Connections {
                listener: 1,
                first,
                count: 4,
            };
            send(&primary, frame, &[connection.as_fd(); 4]);
        }
        let before = open_descriptors();
        let turn = with_room_for(free, || receiver.receive());
        assert_eq!(turn.end, TurnEnd::Drained);
        assert_eq!(turn.connections.len(), free);
        assert_eq!(open_descriptors(), before + free);
        receiver.settle();
        for sequence in 0..8 {
            let handed_over = turn.connections.iter().any(|one| one.sequence == sequence);
            let expected = if handed_over {
                Slot::Taken
            } else {
                Slot::Declined
            };
            assert_eq!(board.slot(sequence), expected);
            assert_eq!(
                handed_over,
                (sequence as usize) < free,
                "the first have one"
            );
        }
        assert_eq!(board.handed_back() as usize, 8 - free);
        assert_eq!(board.seen(), 7);
        drop(turn);
        assert_eq!(open_descriptors(), before);
    }
}

fn a_number_sent_twice_does_not_decline_the_connection_that_has_come() {
    let (primary, board, mut receiver) = lane();
    assert_eq!(receiver.receive().end, TurnEnd::Drained);
    board.offer(5);
    let frame = Frame::Connections {
        listener: 1,
        first: 5,
        count: 1,
    };
    for _ in 0..2 {
        send(&primary, frame, &[primary.as_fd()]);
    }
    let turn = with_room_for(1, || receiver.receive());
    assert_eq!(turn.connections.len(), 1);
    assert_eq!(board.slot(5), Slot::Claimed);
    receiver.settle();
    assert_eq!(board.slot(5), Slot::Taken);
}

fn a_board_for_which_no_number_is_left_ends_the_lane() {
    let (_primary, _board, mut receiver) = lane();
    let turn = with_room_for(0, || receiver.receive());
    assert_eq!(turn.end, TurnEnd::Failed(LaneError::BoardLost));
}

/// One test, for tests run side by side.
#[test]
fn a_worker_without_free_descriptors_loses_no_connection() {
    let before = open_descriptors();
    connections_for_which_no_number_is_left_are_declined();
    a_number_sent_twice_does_not_decline_the_connection_that_has_come();
    a_board_for_which_no_number_is_left_ends_the_lane();
    assert_eq!(open_descriptors(), before);
}
