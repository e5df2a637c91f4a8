//! The dispatcher with workers that have lanes: who gets which connection, and what becomes of it
//! when something happens to the worker.

use std::collections::HashSet;
use std::io::{IoSlice, Read};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::connection::Connection;
use super::lane::{FRAME, Frame};
use super::lane_link::LaneLink;
use super::outcome::Outcome;
use super::receiver::Receiver;
use super::scheduler::Policy;
use super::stage::{
    LaneWorker, RESTED_MS, STALLED_MS, Served, Stage, is_closed, names, ports, say, set,
};
use crate::sys::shared_memory::SharedMemory;
use crate::sys::socket::{self, Ancillary};

#[test]
fn connections_that_are_there_together_travel_in_one_message() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let clients = stage.clients(5);
    let end = stage.dispatcher.open_lane(1, false).unwrap();
    stage.dispatcher.add(stage.listener, 1);
    stage.turn();
    let mut bytes = [0; FRAME];
    drop(socket::receive(end.as_fd(), &mut bytes).unwrap());
    assert_eq!(Frame::decode(&bytes), Ok(Frame::Board));
    let received = socket::receive(end.as_fd(), &mut bytes).unwrap();
    let expected = Frame::Connections {
        listener: stage.listener,
        first: 1,
        count: 5,
    };
    assert_eq!(Frame::decode(&bytes), Ok(expected));
    let Ancillary::Complete(descriptors) = received.ancillary else {
        panic!("{:?}", received.ancillary);
    };
    let peers = descriptors.into_iter().map(TcpStream::from);
    let peers: Vec<_> = peers.map(|s| s.peer_addr().unwrap().port()).collect();
    assert_eq!(peers, ports(&clients));
}

#[test]
fn a_worker_that_leaves_offers_alone_loses_them_and_gets_no_more_until_it_moves() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut busy, mut idle) = (stage.lane(1), stage.lane(2));
    let first = stage.clients(4);
    stage.turn();
    assert_eq!(idle.serve().len(), 2);
    stage.pass_ms(STALLED_MS);
    let moved = idle.serve();
    assert_eq!(moved.len(), 2);
    assert!(set(&names(&moved)).is_subset(&set(&ports(&first))));
    // For seconds on end.
    for _ in 0..50 {
        let clients = stage.clients(2);
        stage.turn();
        assert_eq!(names(&idle.serve()), ports(&clients));
        stage.pass_ms(STALLED_MS);
    }
    // It comes back, and finds nothing of what it has lost.
    assert_eq!(busy.serve().len(), 0);
    stage.pass_ms(STALLED_MS);
    let clients = stage.clients(4);
    stage.turn();
    assert_eq!(busy.serve().len(), 2);
    assert_eq!(idle.serve().len(), 2);
    drop(clients);
}

#[test]
fn clients_that_have_waited_for_a_stalled_worker_are_served_when_it_comes_back() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut busy, idle) = (stage.lane(1), stage.lane(2));
    let _taken_back = stage.clients(1);
    stage.turn();
    stage.pass_ms(STALLED_MS);
    // The one that had room is gone, with all it had been given.
    drop(idle);
    stage.turn();
    let _more = stage.clients(3);
    stage.pass_ms(STALLED_MS);
    assert_eq!(busy.serve().len(), 0);
    // Nothing but the clock tells the dispatcher.
    stage.pass_ms(STALLED_MS);
    assert_eq!(busy.serve().len(), 4);
}

/// A lane with a small socket, and the worker's end that nobody reads.
fn narrow_lane() -> (LaneLink, OwnedFd) {
    let (link, theirs) = LaneLink::open(false).unwrap();
    setsockopt(&link, sockopt::SndBuf, &1).unwrap();
    (link, theirs)
}

fn connection(listener: &TcpListener) -> (Connection, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Connection::accept(listener.as_fd(), 1).unwrap(), client)
}

#[test]
fn offers_that_do_not_even_fit_the_socket_are_taken_back_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut link, _theirs) = narrow_lane();
    let now = Instant::now();
    let mut outcome = Outcome::default();
    while link.has_room() {
        link.offer(connection(&listener).0, now);
        link.flush();
    }
    assert!(link.waiting_and_begun().0 < 30, "the socket is full first");
    link.take_back(|_| true, &mut outcome);
    link.offer(connection(&listener).0, now);
    link.flush();
    let later = now + Duration::from_millis(STALLED_MS);
    link.sweep(later, &mut outcome);
    assert!(link.is_stalled());
    assert!(link.next_look(later).is_some_and(|look| !look.is_zero()));
}

#[test]
fn a_worker_that_keeps_a_permit_is_stalled_when_its_loop_stands_still() {
    let (mut link, theirs) = LaneLink::open(true).unwrap();
    let mut receiver = Receiver::new(theirs);
    receiver.expect_listener(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut now = Instant::now();
    assert!(link.has_listener(1, listener.as_fd()));
    link.permit(1, now);
    link.flush();
    receiver.receive();
    receiver.settle();
    let look = |now, link: &mut LaneLink| {
        link.sweep(now, &mut Outcome::default());
        link.is_stalled()
    };
    for _ in 0..20 {
        receiver.report(0, 0);
        now += Duration::from_millis(20);
        assert!(!look(now, &mut link));
    }
    now += Duration::from_millis(STALLED_MS);
    assert!(look(now, &mut link));
    assert!(!link.has_room());
    assert_eq!(link.unused_permits(1), 1);
    receiver.report(0, 0);
    assert!(!look(now, &mut link));
    assert!(link.has_room());
    // Nor is it believed for ever that nothing has come.
    now += Duration::from_secs(1);
    receiver.report(0, 0);
    assert!(look(now, &mut link));
}

#[test]
fn a_lane_that_was_full_when_its_offers_were_taken_back_is_used_again() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.lane(1);
    setsockopt(stage.dispatcher.lane(1), sockopt::SndBuf, &1).unwrap();
    let mut clients = Vec::new();
    while stage.dispatcher.lane(1).has_room() {
        clients.extend(stage.clients(1));
        stage.turn();
    }
    assert!(clients.len() < 30, "the socket is full first");
    // Its server closes and listens anew before the dispatcher's thread comes to anything.
    stage.dispatcher.remove(stage.listener, 1);
    assert_eq!(worker.serve().len(), 0);
    stage.dispatcher.add(stage.listener, 1);
    stage.turn();
    assert_eq!(set(&names(&worker.serve())), set(&ports(&clients)));
}

#[test]
fn one_edge_is_enough_for_any_number_of_waiting_clients() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let clients = stage.clients(200);
    stage.turn();
    let mut workers: Vec<LaneWorker> = (1..=4).map(|id| stage.lane(id)).collect();
    let served = stage.rounds(10, 2, || {
        workers.iter_mut().flat_map(LaneWorker::serve).collect()
    });
    assert_eq!(served.len(), 200);
    assert_eq!(set(&served), set(&ports(&clients)));
}

#[test]
fn what_one_declines_another_gets() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut full, mut free) = (stage.lane(1), stage.lane(2));
    let clients = stage.clients(20);
    let served = stage.rounds(20, 1, || {
        full.decline();
        free.serve()
    });
    assert_eq!(served.len(), 20);
    assert_eq!(set(&served), set(&ports(&clients)));
}

#[test]
fn a_lone_worker_that_declines_everything_is_asked_from_time_to_time() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut full = stage.lane(1);
    let mut clients = stage.clients(1);
    let asked = stage.decline_for_a_second(&mut full);
    assert!(asked <= 200, "{asked}");
    assert!(!is_closed(&mut clients[0]));
    stage.pass_ms(RESTED_MS);
    assert_eq!(names(&full.serve()), ports(&clients));
}

#[test]
fn what_a_dead_worker_had_been_offered_goes_to_another_in_order() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let dying = stage.lane(1);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.extend(stage.clients(1));
        stage.turn();
    }
    let mut next = stage.lane(2);
    drop(dying);
    stage.turn();
    assert_eq!(names(&next.serve()), ports(&clients));
}

#[test]
fn of_what_a_dead_worker_had_claimed_another_gets_what_it_has_not_touched() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut dying = stage.lane(1);
    let mut clients = stage.clients(2);
    stage.turn();
    clients.iter_mut().for_each(|client| say(client, 1));
    let mut claimed = dying.claim();
    claimed[0].stream.read_exact(&mut [0]).unwrap();
    drop((claimed, dying));
    let mut next = stage.lane(2);
    stage.turn();
    let untouched = clients.split_off(1);
    assert_eq!(names(&next.serve()), ports(&untouched));
    stage.turn();
    assert!(is_closed(&mut clients[0]));
}

#[test]
fn strict_round_robin_waits_for_whoever_has_no_room() {
    let mut stage = Stage::new(Policy::StrictRoundRobin);
    let (mut slow, mut quick) = (stage.lane(1), stage.lane(2));
    let clients = stage.clients(100);
    let mut quick_ones = stage.rounds(20, STALLED_MS, || quick.serve()).len();
    // As many as the slow one has been offered.
    assert_eq!(quick_ones, 32);
    let mut slow_ones = 0;
    for _ in 0..20 {
        slow_ones += slow.serve().len();
        stage.pass_ms(2);
        quick_ones += quick.serve().len();
    }
    assert_eq!((slow_ones, quick_ones), (50, 50));
    drop(clients);
}

#[test]
fn nobody_waits_for_a_worker_whose_lane_has_ended_whatever_the_policy() {
    for policy in [Policy::StrictRoundRobin, Policy::Sticky] {
        let mut stage = Stage::new(policy);
        let mut lanes: Vec<_> = (1..=8).map(|id| stage.lane(id)).collect();
        let mut last = lanes.pop().unwrap();
        drop(lanes);
        stage.turn();
        // JavaScript has not heard of it.
        let clients: Vec<_> = (1..=20).map(|host| stage.client_from(host)).collect();
        stage.turn();
        assert_eq!(set(&names(&last.serve())), set(&ports(&clients)));
    }
}

/// Clients of which one sticks to the first worker, and the other to the second.
fn hosts_of(stage: &mut Stage, one: &mut LaneWorker, two: &mut LaneWorker) -> (u8, u8) {
    let (mut of_one, mut of_two) = (0, 0);
    for host in 1..=20 {
        let _client = stage.client_from(host);
        stage.turn();
        match one.serve().len() {
            0 => of_two = host,
            _ => of_one = host,
        }
        two.serve();
    }
    (of_one, of_two)
}

#[test]
fn a_client_that_sticks_to_a_busy_worker_keeps_no_other_from_being_served() {
    let mut stage = Stage::new(Policy::Sticky);
    let (mut one, mut two) = (stage.lane(1), stage.lane(2));
    let (of_one, of_two) = hosts_of(&mut stage, &mut one, &mut two);
    let stuck: Vec<_> = (0..100).map(|_| stage.client_from(of_one)).collect();
    stage.pass_ms(STALLED_MS);
    assert!(stage.waiting() > 0);
    let other = [stage.client_from(of_two)];
    stage.turn();
    assert_eq!(names(&two.serve()), ports(&other));
    // Nor is one of the first lost.
    let mut served = 0;
    for _ in 0..10 {
        served += one.serve().len();
        stage.pass_ms(STALLED_MS);
    }
    assert_eq!(served, stuck.len());
}

#[test]
fn nor_do_any_number_of_them_for_long_although_their_worker_takes_some_now_and_then() {
    for one_takes_some in [false, true] {
        let mut stage = Stage::new(Policy::Sticky);
        let (mut one, mut two) = (stage.lane(1), stage.lane(2));
        let (of_one, of_two) = hosts_of(&mut stage, &mut one, &mut two);
        let stuck: Vec<_> = (0..400).map(|_| stage.client_from(of_one)).collect();
        let others: Vec<_> = (0..10).map(|_| stage.client_from(of_two)).collect();
        let (mut by_one, mut by_two) = (0, HashSet::new());
        // Ports alone do not tell clients with different addresses apart.
        let addresses = |served: Vec<Served>| {
            let address = |one: Served| one.stream.peer_addr().unwrap();
            served.into_iter().map(address).collect::<Vec<_>>()
        };
        for round in 1..=150 {
            stage.pass_ms(10);
            by_two.extend(addresses(two.serve()));
            if one_takes_some && round % 50 == 0 {
                by_one += one.serve().len();
            }
        }
        let is_by_two = |client: &TcpStream| by_two.contains(&client.local_addr().unwrap());
        assert!(others.iter().all(is_by_two));
        // The second worker had only those that could not wait for their own.
        assert!(stage.waiting() >= 200, "{}", stage.waiting());
        while stage.waiting() + stage.on_their_way() > 0 {
            by_one += one.serve().len();
            stage.pass_ms(10);
        }
        assert_eq!(two.serve().len(), 0);
        assert_eq!(by_one + by_two.len(), stuck.len() + others.len());
        let client = [stage.client_from(of_one)];
        stage.turn();
        assert_eq!(names(&one.serve()), ports(&client));
    }
}

#[test]
fn what_is_on_its_way_when_a_listener_closes_is_the_workers_or_closed() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.lane(1);
    let mut clients = stage.clients(2);
    stage.turn();
    stage.dispatcher.close(stage.listener);
    let claimed = worker.claim();
    assert_eq!(names(&claimed), ports(&clients));
    worker.receiver.decline(claimed[0].sequence.unwrap());
    worker.receiver.settle();
    let kept = &claimed[1..];
    assert_eq!(names(kept), ports(&clients[1..]));
    drop(claimed);
    stage.pass_ms(20);
    assert!(clients.iter_mut().all(is_closed));
}

#[test]
fn a_worker_that_writes_anything_to_its_scoreboard_harms_nobody_else() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let end = stage.dispatcher.open_lane(1, false).unwrap();
    stage.dispatcher.add(stage.listener, 1);
    let mut bytes = [0; FRAME];
    let Ancillary::Complete(mut board) =
        socket::receive(end.as_fd(), &mut bytes).unwrap().ancillary
    else {
        panic!("no scoreboard");
    };
    let words = NonZeroUsize::new(1024).unwrap();
    let memory = SharedMemory::open(board.remove(0), words).unwrap();
    let mut honest = stage.lane(2);
    let mut value = 1u32;
    let mut served = 0;
    for round in 0..400 {
        let client = stage.clients(1);
        stage.turn();
        for word in memory.iter().skip(1) {
            value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Also what looks like an answer to a connection.
            let state = value >> 29;
            let forged = if round % 2 == 0 {
                value
            } else {
                (value & 0x7ff) << 3 | state
            };
            word.store(forged, Relaxed);
        }
        stage.pass_ms(7);
        served += honest.serve().len();
        drop(client);
    }
    assert!(served >= 200, "{served}");
    // A word that is no message ends it.
    let _ = socket::send(end.as_fd(), &[IoSlice::new(b"x")], &[]);
    let clients = stage.clients(10);
    stage.pass_ms(20);
    served = honest.serve().len();
    assert!(served >= clients.len(), "{served}");
}
