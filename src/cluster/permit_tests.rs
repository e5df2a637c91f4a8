//! The dispatcher with workers that accept for themselves: who may accept how many connections, and
//! that none is lost or waits for somebody who does not come.

use nix::errno::Errno;

use super::scheduler::Policy;
use super::stage::{LaneWorker, STALLED_MS, Stage, names, ports, set};

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
    let late = busy.permits();
    assert_eq!(late.len(), 2);
    let mut served = names(&idle.serve());
    stage.pass_ms(STALLED_MS);
    served.extend(names(&idle.serve()));
    assert_eq!(set(&served), set(&ports(&clients)));
    let _more = stage.clients(1);
    for sequence in late {
        assert_eq!(busy.receiver.accept(sequence).unwrap_err(), Errno::EAGAIN);
    }
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
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.accepting_lane(1);
    let clients = stage.clients(100);
    stage.turn();
    let permitted = stage.on_their_way();
    assert!((1..100).contains(&permitted), "{permitted}");
    assert_eq!(stage.waiting(), 0);
    let mut served = Vec::new();
    while served.len() < 100 {
        let some = worker.serve();
        assert!(!some.is_empty());
        served.extend(names(&some));
        stage.pass_ms(2);
    }
    assert_eq!(served, ports(&clients));
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
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut full = stage.accepting_lane(1);
    let clients = stage.clients(1);
    let asked = stage.decline_for_a_second(&mut full);
    assert!((10..=200).contains(&asked), "{asked}");
    stage.pass_ms(10);
    assert_eq!(names(&full.serve()), ports(&clients));
}

#[test]
fn a_permit_for_a_connection_that_somebody_else_has_accepted_is_void() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let (mut hog, mut other) = (stage.accepting_lane(1), stage.accepting_lane(2));
    let _clients = stage.clients(2);
    stage.turn();
    // It may do that: the socket is its own, too.
    let permits = hog.permits();
    hog.receiver.accept(permits[0]).unwrap();
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
        assert!(turn.connections.iter().all(|one| one.descriptor.is_some()));
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
    assert!(turn.connections.iter().all(|one| one.descriptor.is_some()));
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
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.accepting_lane(1);
    let clients = stage.clients(1);
    stage.turn();
    let permits = worker.permits();
    // As if there had been no descriptor left for it.
    worker.receiver.forget(stage.listener);
    worker.receiver.expect_listener(stage.listener);
    let refused = worker.receiver.accept(permits[0]);
    assert_eq!(refused.unwrap_err(), Errno::EBADF);
    worker.receiver.settle();
    stage.pass_ms(10);
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
    let permits = worker.permits();
    assert_eq!(
        worker.receiver.accept(permits[0]).unwrap_err(),
        Errno::EINVAL
    );
    worker.receiver.settle();
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
