//! The dispatcher with workers that accept for themselves: who may accept how many connections, and
//! that none is lost or waits for somebody who does not come.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;

use super::lane::{FRAME, Frame};
use super::receiver::TurnEnd;
use super::scheduler::Policy;
use super::stage::{LaneWorker, RESTED_MS, STALLED_MS, Stage, names, ports, set};
use crate::sys::socket;

#[test]
fn each_worker_accepts_what_it_is_permitted_to() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut one, mut two) = (stage.accepting_lane(1), stage.accepting_lane(2));
    let clients = stage.clients(6);
    stage.turn();
    assert_eq!(stage.on_their_way(), 6);
    assert_eq!(stage.accepted(), 0);
    let (first, second) = (one.serve(), two.serve());
    assert_eq!((first.len(), second.len()), (3, 3));
    // In the order of their arrival, whoever comes first.
    assert_eq!([names(&first), names(&second)].concat(), ports(&clients));
    assert_eq!((stage.accepted(), stage.on_their_way()), (6, 0));
    stage.turn();
    assert_eq!((stage.accepted(), stage.on_their_way()), (6, 0));
}

#[test]
fn a_permit_left_alone_goes_to_another_and_is_worth_nothing_then() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut busy, mut idle) = (stage.accepting_lane(1), stage.accepting_lane(2));
    let clients = stage.clients(4);
    stage.turn();
    assert_eq!(busy.permits(), 2);
    let mut served = names(&idle.serve());
    stage.pass_ms(STALLED_MS);
    served.extend(names(&idle.serve()));
    assert_eq!(set(&served), set(&ports(&clients)));
    let _more = stage.clients(1);
    assert_eq!(
        busy.receiver.accept(stage.listener).unwrap_err(),
        Errno::EAGAIN
    );
    assert_eq!(busy.permits(), 0);
    stage.pass_ms(STALLED_MS);
    assert_eq!(busy.serve().len() + idle.serve().len(), 1);
}

#[test]
fn what_a_dead_worker_was_permitted_to_accept_others_accept() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (dying, mut alive) = (stage.accepting_lane(1), stage.accepting_lane(2));
    let clients = stage.clients(10);
    stage.turn();
    drop(dying);
    stage.turn();
    assert_eq!(set(&names(&alive.serve())), set(&ports(&clients)));
}

#[test]
fn clients_wait_in_the_kernel_while_every_worker_has_enough() {
    let (mut stage, mut worker, clients) = Stage::with_accepting(400);
    let permitted = stage.on_their_way();
    assert!((1..400).contains(&permitted), "{permitted}");
    assert_eq!(stage.waiting(), 0);
    let mut served = Vec::new();
    while served.len() < 400 {
        let some = worker.serve();
        assert!(!some.is_empty());
        served.extend(names(&some));
        stage.pass_ms(2);
    }
    assert_eq!(served, ports(&clients));
}

/// Permits the worker to accept what waits and takes that back again, so many times.
fn permit_and_take_back(stage: &mut Stage, worker: u32, times: usize) {
    for _ in 0..times {
        stage.turn();
        stage.dispatcher.set_worker(worker, 1, true);
        stage.turn();
        stage.dispatcher.set_worker(worker, 1, false);
    }
}

#[test]
fn a_worker_that_has_not_come_to_what_was_taken_back_is_looked_at_until_it_has() {
    let (mut stage, mut worker, clients) = Stage::with_accepting(1);
    permit_and_take_back(&mut stage, 1, 300);
    stage.turn();
    assert_eq!(stage.on_their_way(), 0);
    let look = stage.dispatcher.next_look(stage.now);
    while worker.receiver.receive().end != TurnEnd::Drained {}
    worker.receiver.settle();
    stage.now += look.expect("a look although nothing happens");
    stage.turn();
    assert_eq!(names(&worker.serve()), ports(&clients));
    stage.turn();
    assert_eq!(stage.dispatcher.next_look(stage.now), None);
}

#[test]
fn a_worker_declines_also_when_its_oldest_permit_has_been_taken_back() {
    let (mut stage, mut worker, _client) = Stage::with_accepting(1);
    permit_and_take_back(&mut stage, 1, 1);
    stage.turn();
    assert_eq!(worker.decline(), 2);
    stage.turn();
    let declined = stage.dispatcher.worker_stats().map(|one| one.handed_back);
    assert_eq!(declined.sum::<u64>(), 1);
    // It rests.
    assert_eq!(stage.on_their_way(), 0);
}

#[test]
fn a_permit_that_is_being_tried_does_not_count_as_a_connection() {
    let (mut stage, mut worker, _client) = Stage::with_accepting(1);
    assert_eq!(worker.permits(), 1);
    assert!(stage.dispatcher.lane(1).board().claim(1));
    let accepted = stage.dispatcher.worker_stats().map(|one| one.accepted);
    assert_eq!(accepted.sum::<u64>(), 0);
    assert_eq!(stage.on_their_way(), 1);
}

#[test]
fn what_one_declines_another_accepts() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut full, mut free) = (stage.accepting_lane(1), stage.accepting_lane(2));
    let clients = stage.clients(20);
    let served = stage.rounds(20, 1, || {
        full.decline();
        free.serve()
    });
    assert_eq!(set(&served), set(&ports(&clients)));
}

#[test]
fn a_lone_worker_that_declines_everything_is_asked_from_time_to_time() {
    let (mut stage, mut full, clients) = Stage::with_accepting(1);
    let asked = stage.decline_for_a_second(&mut full);
    assert!((10..=200).contains(&asked), "{asked}");
    stage.pass_ms(RESTED_MS);
    assert_eq!(names(&full.serve()), ports(&clients));
}

#[test]
fn a_permit_for_a_connection_that_somebody_else_has_accepted_is_taken_back() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut hog, mut other) = (stage.accepting_lane(1), stage.accepting_lane(2));
    let _clients = stage.clients(2);
    stage.turn();
    // It may do that: the socket is its own, too.
    assert_eq!(hog.permits(), 1);
    hog.receiver.accept(stage.listener).unwrap();
    let socket = hog.receiver.listener(stage.listener).unwrap();
    crate::sys::listener::accept(socket).unwrap();
    assert_eq!(other.serve().len(), 0);
    stage.pass_ms(5);
    assert_eq!((stage.accepted(), stage.on_their_way()), (1, 0));
    let clients = stage.clients(2);
    stage.turn();
    let served = [names(&hog.serve()), names(&other.serve())].concat();
    assert_eq!(set(&served), set(&ports(&clients)));
}

#[test]
fn a_client_that_has_gone_before_it_was_accepted_harms_nobody() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.accepting_lane(1);
    drop(stage.clients(3));
    let clients = stage.clients(1);
    stage.turn();
    let served = worker.serve();
    assert_eq!(served.len(), 4);
    assert_eq!(
        served
            .last()
            .map(|one| one.stream.peer_addr().unwrap().port()),
        Some(ports(&clients)[0])
    );
}

#[test]
fn policies_that_promise_more_than_numbers_hand_connections_over() {
    for policy in [Policy::StrictRoundRobin, Policy::Sticky] {
        let mut stage = Stage::new(policy);
        let mut worker = stage.accepting_lane(1);
        let clients = stage.clients(3);
        stage.turn();
        let turn = worker.receiver.receive();
        assert_eq!(turn.connections.len(), clients.len());
    }
}

#[test]
fn beside_a_worker_that_cannot_accept_all_are_handed_connections() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut accepting, mut other) = (stage.accepting_lane(1), stage.lane(2));
    let clients = stage.clients(4);
    stage.turn();
    let turn = accepting.receiver.receive();
    assert_eq!(turn.connections.len(), 2);
    assert_eq!(other.serve().len(), 2);
    drop(clients);
}

#[test]
fn a_policy_can_be_changed_while_permits_are_out() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut one, mut two) = (stage.accepting_lane(1), stage.accepting_lane(2));
    let mut clients = stage.clients(4);
    stage.turn();
    stage
        .dispatcher
        .set_policy(stage.listener, Policy::StrictRoundRobin);
    clients.extend(stage.clients(4));
    let served = stage.rounds(5, 2, || {
        let (mut first, second) = (one.serve(), two.serve());
        first.extend(second);
        first
    });
    assert_eq!(served.len(), 8);
    assert_eq!(set(&served), set(&ports(&clients)));
}

#[test]
fn a_socket_that_got_lost_on_the_way_is_sent_again() {
    let (mut stage, mut worker, clients) = Stage::with_accepting(1);
    assert_eq!(worker.permits(), 1);
    // As if there had been no descriptor left for it.
    worker.receiver.forget(stage.listener);
    worker.receiver.expect_listener(stage.listener);
    stage.pass_ms(10);
    assert_eq!(worker.serve().len(), 0);
    stage.pass_ms(RESTED_MS);
    assert_eq!(names(&worker.serve()), ports(&clients));
}

fn worker_that_has_the_socket(stage: &mut Stage) -> LaneWorker {
    let mut worker = stage.accepting_lane(1);
    let _client = stage.clients(1);
    stage.turn();
    assert_eq!(worker.serve().len(), 1);
    worker
}

#[test]
fn a_listener_is_closed_with_the_last_who_has_it() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = worker_that_has_the_socket(&mut stage);
    assert!(stage.can_connect());
    stage.dispatcher.close(stage.listener);
    assert!(stage.can_connect());
    worker.receiver.forget(stage.listener);
    assert!(!stage.can_connect());
}

#[test]
fn a_listener_of_the_clusters_own_is_closed_for_a_worker_that_has_not_let_go_of_it() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = worker_that_has_the_socket(&mut stage);
    let _client = stage.clients(1);
    stage.turn();
    stage.dispatcher.stop(stage.listener);
    assert!(!stage.can_connect());
    // The permit is taken back; one that had come to it first would have found no socket there.
    assert_eq!(worker.serve().len(), 0);
    stage.pass_ms(20);
    assert_eq!(stage.on_their_way(), 0);
}

#[test]
fn a_socket_that_comes_when_its_server_has_been_closed_is_not_kept() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.accepting_lane(1);
    let _clients = stage.clients(1);
    worker.receiver.forget(stage.listener);
    stage.turn();
    assert_eq!(worker.serve().len(), 0);
    stage.dispatcher.remove(stage.listener, 1);
    stage.dispatcher.close(stage.listener);
    assert!(!stage.can_connect());
}

/// A stage in a flood, and two workers that have permits ahead.
fn flood(policy: Policy) -> (Stage, LaneWorker, LaneWorker) {
    let mut stage = Stage::new(policy);
    let (mut one, mut two) = (stage.accepting_lane(1), stage.accepting_lane(2));
    stage.in_flood = true;
    for round in 0..120 {
        let _clients = stage.clients(40);
        stage.turn();
        let (first, second) = match round % 2 {
            0 => (&mut one, &mut two),
            _ => (&mut two, &mut one),
        };
        assert_eq!(first.serve().len() + second.serve().len(), 40);
        stage.pass_ms(1);
    }
    assert!(stage.on_their_way() >= 40);
    (stage, one, two)
}

/// Lets the flood end.
fn end_flood(stage: &mut Stage) {
    stage.in_flood = false;
    stage.pass_ms(2);
}

#[test]
fn in_a_flood_connections_do_not_wait_for_the_dispatcher() {
    let (stage, mut one, mut two) = flood(Policy::RoundRobin);
    let clients = stage.clients(10);
    let served = [names(&one.serve()), names(&two.serve())].concat();
    assert_eq!(set(&served), set(&ports(&clients)));
    // Nor does who has a permit and finds nothing lose it.
    let client = stage.clients(1);
    let served = [names(&one.serve()), names(&two.serve())].concat();
    assert_eq!(served, ports(&client));
}

#[test]
fn after_a_flood_nobody_holds_permits_and_the_dispatcher_sleeps() {
    let (mut stage, mut one, mut two) = flood(Policy::RoundRobin);
    end_flood(&mut stage);
    assert_eq!(stage.on_their_way(), 0);
    assert_eq!(stage.dispatcher.next_look(stage.now), None);
    // What they do not know yet they learn from the next client, which is neither's.
    let clients = stage.clients(2);
    assert_eq!(one.serve().len() + two.serve().len(), 0);
    assert_eq!((one.permits(), two.permits()), (0, 0));
    stage.turn();
    assert_eq!((one.serve().len(), two.serve().len()), (1, 1));
    drop(clients);
}

#[test]
fn a_listener_nobody_connects_to_has_no_permits_in_anothers_flood() {
    let (mut stage, _one, _two) = flood(Policy::RoundRobin);
    stage.pass(Duration::from_millis(200));
    assert_eq!(stage.on_their_way(), 0);
}

/// Serves `count` clients, each by the first of the workers in `order` that may; returns how many
/// each has served.
fn serve_in_order(
    stage: &mut Stage,
    workers: &mut [LaneWorker],
    count: usize,
    order: impl Fn(usize) -> [usize; 2],
) -> [usize; 2] {
    let mut served = [0; 2];
    for round in 0..count / 10 {
        let _clients: Vec<TcpStream> = stage.clients(10);
        let mut left = 10;
        while left > 0 {
            for index in order(round) {
                while left > 0 && workers[index].serve_one().is_some() {
                    served[index] += 1;
                    left -= 1;
                }
            }
            stage.now += Duration::from_micros(500);
            stage.turn();
        }
    }
    served
}

#[test]
fn in_a_flood_the_quicker_worker_does_not_take_it_all() {
    let (mut stage, one, two) = flood(Policy::RoundRobin);
    let served = serve_in_order(&mut stage, &mut [one, two], 4000, |_| [0, 1]);
    assert!(served.iter().all(|&one| one > 1800), "{served:?}");
}

#[test]
fn in_a_flood_weights_count() {
    let (mut stage, one, two) = flood(Policy::RoundRobin);
    stage.dispatcher.set_worker(2, 3, false);
    let served = serve_in_order(&mut stage, &mut [one, two], 4000, |_| [0, 1]);
    assert!((800..1250).contains(&served[0]), "{served:?}");
}

#[test]
fn a_blocked_worker_with_permits_loses_them_and_gets_no_more_until_it_moves() {
    let (mut stage, mut blocked, mut other) = flood(Policy::RoundRobin);
    // It has seen them all.
    assert_eq!(blocked.serve().len(), 0);
    assert!(blocked.receiver.permits(stage.listener) > 0);
    let mut served = 0;
    for _ in 0..100 {
        let _clients = stage.clients(3);
        stage.pass_ms(2);
        served += other.serve().len();
    }
    assert!(served >= 299, "{served}");
    let _clients = stage.clients(3);
    stage.pass_ms(2);
    assert_eq!(other.serve().len(), 3);
    // It comes to itself, finds that its permits are worth nothing, and has a part again.
    assert_eq!(blocked.serve().len(), 0);
    assert_eq!(blocked.permits(), 0);
    let _clients = stage.clients(4);
    stage.pass_ms(2);
    assert!(!blocked.serve().is_empty());
}

/// After `act` the first of two workers has no permits left, and the second serves.
fn takes_the_permits_of_the_first(act: impl Fn(&mut Stage)) {
    let (mut stage, mut one, mut two) = flood(Policy::RoundRobin);
    act(&mut stage);
    let clients = stage.clients(10);
    assert_eq!(one.serve().len(), 0);
    stage.turn();
    assert_eq!(names(&two.serve()), ports(&clients));
}

#[test]
fn a_worker_that_is_drained_has_no_permits_left() {
    takes_the_permits_of_the_first(|stage| stage.dispatcher.set_worker(1, 1, true));
}

#[test]
fn who_leaves_a_listener_has_no_permits_for_it_left() {
    takes_the_permits_of_the_first(|stage| stage.dispatcher.remove(stage.listener, 1));
}

#[test]
fn permits_are_taken_back_when_they_are_no_way_to_a_connection_any_more() {
    let ends: [fn(&mut Stage); 2] = [
        |stage| {
            let policy = Policy::StrictRoundRobin;
            stage.dispatcher.set_policy(stage.listener, policy);
        },
        |stage| stage.dispatcher.close(stage.listener),
    ];
    for end in ends {
        let (mut stage, mut one, mut two) = flood(Policy::RoundRobin);
        end(&mut stage);
        stage.turn();
        assert_eq!(stage.on_their_way(), 0);
        let _clients = stage.clients(2);
        assert_eq!(one.serve().len() + two.serve().len(), 0);
    }
}

#[test]
fn a_full_worker_is_asked_seldom_and_at_once_when_it_has_room_again() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut full = worker_that_has_the_socket(&mut stage);
    full.receiver.report(1, 0);
    let clients = stage.clients(1);
    let asked = stage.decline_for_a_second(&mut full);
    assert!((10..=25).contains(&asked), "{asked}");
    stage.pass_ms(RESTED_MS);
    full.decline();
    stage.turn();
    full.receiver.report(0, 0);
    stage.pass_ms(6);
    assert_eq!(names(&full.serve()), ports(&clients));
}

#[test]
fn who_has_declined_is_not_sent_the_socket_again() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut full = worker_that_has_the_socket(&mut stage);
    let _client = stage.clients(1);
    stage.turn();
    assert_eq!(full.decline(), 1);
    stage.pass_ms(RESTED_MS);
    let mut bytes = [0; FRAME];
    drop(socket::receive(full.receiver.as_fd(), &mut bytes).unwrap());
    let next = Frame::decode(&bytes);
    assert!(matches!(next, Ok(Frame::Permits { .. })), "{next:?}");
}
