//! The dispatcher with workers that run Node's own cluster, on a real channel: answers, what else
//! comes on it, and what becomes of a connection when something happens to the worker.

use std::io::IoSlice;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{Shutdown as Ways, shutdown};

use super::relay::{Inbox, Relay};
use super::scheduler::Policy;
use super::stage::{Stage, is_closed, names, ports, set};
use crate::ipc::{Channel, Framing, SendMode, UnixTransport};
use crate::sys::socket;

#[test]
fn a_worker_gets_the_next_connection_with_its_acknowledgement_and_few_without_an_answer() {
    let (mut stage, mut worker, clients) = Stage::with_stock(6);
    let mut served = Vec::new();
    for _ in 0..4 {
        served.push(worker.receive().unwrap());
        assert!(worker.receive().is_none(), "one at a time");
        stage.turn();
    }
    assert!(worker.receive().is_none(), "enough without an answer");
    while served.len() < clients.len() {
        worker.answer(served[served.len() - 4].0, true);
        stage.turn();
        served.push(worker.receive().unwrap());
    }
    let peers = served.iter().map(|one| one.1.peer_addr().unwrap().port());
    assert_eq!(peers.collect::<Vec<_>>(), ports(&clients));
    assert_eq!(worker.relayed(), Vec::<String>::new());
}

#[test]
fn connections_that_come_while_no_worker_has_room_wake_nobody() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.stock(1);
    let mut clients = stage.clients(1);
    stage.turn();
    clients.extend(stage.clients(1));
    stage.turn();
    clients.extend(stage.clients(3));
    assert_eq!(stage.turn(), 1, "there is nothing to do");
    let mut served = Vec::new();
    while let Some(connection) = worker.receive() {
        worker.answer(connection.0, true);
        served.push(connection.1.peer_addr().unwrap().port());
        stage.turn();
    }
    assert_eq!(served, ports(&clients));
    clients.extend(stage.clients(1));
    stage.turn();
    assert!(worker.receive().is_some(), "the next one is told of");
}

#[test]
fn a_connection_that_is_declined_goes_elsewhere() {
    let (mut stage, mut stock, clients) = Stage::with_stock(1);
    let (number, _) = stock.receive().unwrap();
    let mut lane = stage.lane(2);
    stock.answer(number, false);
    stage.turn();
    assert_eq!(names(&lane.serve()), ports(&clients));
}

#[test]
fn a_worker_that_dies_with_a_connection_leaves_it_to_another() {
    let (mut stage, stock, clients) = Stage::with_stock(1);
    let mut lane = stage.lane(2);
    drop(stock);
    stage.turn();
    assert_eq!(names(&lane.serve()), ports(&clients));
}

#[test]
fn so_does_one_whose_end_is_known_before_its_channel_is_read() {
    let (mut stage, stock, clients) = Stage::with_stock(1);
    let mut lane = stage.lane(2);
    drop(stock);
    stage.dispatcher.bury(1);
    stage.turn();
    assert_eq!(names(&lane.serve()), ports(&clients));
}

#[test]
fn one_that_breaks_the_protocol_and_lives_on_shares_its_connection_with_nobody() {
    let (mut stage, mut stock, clients) = Stage::with_stock(1);
    let (_, served) = stock.receive().unwrap();
    let mut lane = stage.lane(2);
    let descriptors = [served.as_fd(); 200];
    let channel = stock.channel.transport().as_fd();
    socket::send(channel, &[IoSlice::new(b"1\n")], &descriptors).unwrap();
    stage.turn();
    assert_eq!(stage.on_their_way(), 0);
    assert_eq!(lane.serve().len(), 0);
    drop(clients);
}

#[test]
fn so_does_one_that_is_forgotten_and_lives_on() {
    let (mut stage, mut stock, clients) = Stage::with_stock(1);
    let (_, served) = stock.receive().unwrap();
    let mut lane = stage.lane(2);
    stage.dispatcher.forget(1);
    stage.turn();
    assert_eq!(lane.serve().len(), 0);
    assert!(!is_closed(&mut served.try_clone().unwrap()));
    drop(clients);
}

#[test]
fn an_answer_that_came_before_the_end_still_counts() {
    let (mut stage, mut stock, mut clients) = Stage::with_stock(1);
    let (number, stream) = stock.receive().unwrap();
    stock.answer(number, true);
    drop((stream, stock));
    stage.dispatcher.bury(1);
    let mut lane = stage.lane(2);
    stage.turn();
    assert_eq!(lane.serve().len(), 0);
    assert!(is_closed(&mut clients[0]));
}

#[test]
fn what_is_not_for_the_dispatcher_comes_in_order_and_forged_answers_change_nothing() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.stock(1);
    let _client = stage.clients(1);
    worker.say("1");
    stage.turn();
    worker.say("2");
    let (number, _first) = worker.receive().unwrap();
    for forged in [number - 1, number - 1000, i64::from(i32::MIN)] {
        worker.answer(forged, true);
    }
    worker.say("3");
    stage.turn();
    assert_eq!(stage.on_their_way(), 1);
    worker.answer(number, true);
    worker.say("4");
    let _another = stage.clients(1);
    stage.turn();
    let (next, _second) = worker.receive().unwrap();
    // The number of the first is of no use any more.
    worker.answer(number, false);
    stage.turn();
    assert_eq!(stage.on_their_way(), 1);
    worker.answer(next, true);
    stage.turn();
    assert_eq!(stage.on_their_way(), 0);
    assert_eq!(worker.relayed(), ["1", "2", "3", "4"]);
}

#[test]
fn the_end_of_a_worker_is_seen_however_much_it_has_left_behind() {
    let (mut stage, mut stock, clients) = Stage::with_stock(1);
    stock.flood(&mut stage);
    let mut lane = stage.lane(2);
    let inbox = stock.inbox.clone();
    stock.say("\"last\"");
    drop(stock);
    assert!(stage.turn() < 20, "nothing may keep the thread busy");
    assert_eq!(names(&lane.serve()), ports(&clients));
    let mut last = Vec::new();
    while let Some(popped) = inbox.pop() {
        if !popped.batch.is_empty() {
            last = popped.batch.message(popped.batch.len() - 1).to_vec();
        }
    }
    assert_eq!(last, b"\"last\"");
}

#[test]
fn whoever_goes_on_writing_for_a_dead_worker_is_not_read_for_ever() {
    const MOST: u64 = 20 << 20;
    let (mut stage, mut stock, _clients) = Stage::with_stock(1);
    let lines = b"\"a line of JSON\"\n".repeat(10_000);
    let (stop, stopped) = mpsc::channel::<()>();
    let (fill, filled) = mpsc::channel();
    let shared = stock.shared.clone();
    let heir = thread::spawn(move || {
        let mut written = 0;
        while written < 4 * MOST && stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            if stock.channel.unwritten_messages() > 0 {
                let _ = fill.send(());
                stock.channel.flush();
            } else {
                written += lines.len() as u64;
                let sent = stock.channel.send(&lines, None, SendMode::WriteNow);
                sent.unwrap();
            }
        }
    });
    filled.recv().unwrap();
    stage.dispatcher.bury(1);
    drop(stop);
    heir.join().unwrap();
    assert!(shared.lock().stats().bytes_received < MOST);
}

#[test]
fn what_is_queued_for_a_worker_is_written_although_its_own_messages_wait() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut stock = stage.stock(1);
    let payload = vec![b'1'; 1 << 20];
    let sent = stock.shared.lock().send(&payload, None, SendMode::WriteNow);
    sent.unwrap();
    stock.flood(&mut stage);
    while stock.shared.lock().unwritten_messages() > 0 {
        let batch = stock.channel.receive(1 << 20);
        stock.channel.recycle(batch);
        assert!(stage.turn() < 20, "nothing may keep the thread busy");
    }
}

#[test]
fn messages_that_wait_take_no_more_memory_than_they_need() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let mut worker = stage.stock(1);
    for _ in 0..1000 {
        worker.say("\"small\"");
        stage.turn();
    }
    let mut memory = 0;
    while let Some(popped) = worker.inbox.pop() {
        memory += popped.batch.memory();
    }
    assert!(memory < 1 << 20, "{memory}");
}

#[test]
fn handles_that_wait_are_few() {
    let mut stage = Stage::new(Policy::RoundRobin);
    let worker = stage.stock(1);
    let (socket, _other) = UnixStream::pair().unwrap();
    let line = br#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":1}"#;
    let mut sent = 0;
    while !worker.inbox.is_full() && sent < 1000 {
        // A peer that keeps to the protocol waits for the acknowledgement of each.
        let mut frame = line.to_vec();
        frame.push(b'\n');
        let slices = [IoSlice::new(&frame)];
        let channel = worker.channel.transport().as_fd();
        socket::send(channel, &slices, &[socket.as_fd()]).unwrap();
        stage.turn();
        sent += 1;
    }
    assert!((200..300).contains(&sent), "{sent}");
    assert_eq!(worker.relayed().len(), sent);
}

#[test]
fn a_worker_that_can_be_sent_nothing_is_not_waited_for() {
    for policy in [Policy::RoundRobin, Policy::StrictRoundRobin] {
        let mut stage = Stage::new(policy);
        let stock = stage.stock(1);
        let mut lane = stage.lane(2);
        // It goes on writing, so there is no end to see.
        let fd = stock.channel.transport().as_fd().as_raw_fd();
        shutdown(fd, Ways::Read).unwrap();
        let clients = stage.clients(10);
        let served = stage.rounds(10, 5, || lane.serve());
        assert_eq!(served.len(), clients.len());
        assert_eq!(set(&served), set(&ports(&clients)));
    }
}

#[test]
fn whoever_fills_an_inbox_is_told_when_there_is_room_again() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let relay = Relay::new().unwrap();
    let inbox = Inbox::new(1, relay);
    let (told, hears) = mpsc::channel();
    let batches = 600;
    let filling = inbox.clone();
    let filler = thread::spawn(move || fill(&theirs, &ours, &filling, batches, &hears));
    let mut left = batches;
    while left > 0 {
        let Some(popped) = inbox.pop() else {
            thread::yield_now();
            continue;
        };
        left -= popped.batch.len();
        if popped.has_room_again {
            told.send(()).unwrap();
        }
    }
    filler.join().unwrap();
}

/// Pushes batches; waits to be told whenever the inbox is full.
fn fill(
    from: &UnixStream,
    to: &UnixStream,
    inbox: &Arc<Inbox>,
    count: usize,
    room: &mpsc::Receiver<()>,
) {
    let transport = |stream: &UnixStream| UnixTransport::new(stream.try_clone().unwrap().into());
    let mut sender = Channel::new(transport(from), Framing::JsonLines);
    let mut receiver = Channel::new(transport(to), Framing::JsonLines);
    let line = vec![b'1'; 100_000];
    for _ in 0..count {
        while inbox.is_full() {
            room.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        sender.send(&line, None, SendMode::WriteNow).unwrap();
        let mut left = 1;
        while left > 0 {
            let batch = receiver.receive(1 << 20);
            left -= batch.len();
            inbox.push(batch);
        }
    }
    from.shutdown(Shutdown::Both).unwrap();
}
