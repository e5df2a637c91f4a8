//! A dispatcher in a process without free descriptors.

#![allow(clippy::unwrap_used)]

mod shortage;

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use brood::cluster::relay::{Inbox, Relay};
use brood::cluster::scheduler::Policy;
use brood::cluster::thread::DispatcherThread;
use brood::ipc::shared::SharedChannel;
use brood::ipc::{Channel, Framing, HandleSlot, SendMode, UnixTransport};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use shortage::{open_descriptors, with_room_for};

const WORKER: u32 = 1;

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(1));
    }
}

/// A worker with Node's own cluster, played by the test.
struct Worker(Channel<UnixTransport>);

impl Worker {
    fn receive(&mut self) -> Option<TcpStream> {
        let mut batch = self.0.receive(1 << 20);
        let (index, slot) = batch.take_handles().pop()?;
        let text = std::str::from_utf8(batch.message(index)).unwrap();
        let number = text.split_once("\"seq\":").unwrap().1.trim_end_matches('}');
        let answer = format!(r#"{{"cmd":"NODE_CLUSTER","ack":{number},"accepted":true,"seq":1}}"#);
        let HandleSlot::Received(connection) = slot else {
            panic!("the handle is missing");
        };
        self.0.acknowledge_handle().unwrap();
        self.0
            .send(answer.as_bytes(), None, SendMode::WriteNow)
            .unwrap();
        Some(connection.into())
    }
}

fn waiting(dispatcher: &DispatcherThread) -> (usize, usize) {
    dispatcher.read(|dispatcher| {
        let with_worker = dispatcher.worker_stats().map(|worker| worker.waiting).sum();
        let with_nobody = dispatcher.listener_stats().map(|listener| listener.waiting);
        (with_worker, with_nobody.sum())
    })
}

/// What all threads of this process have used so far.
fn processor_time() -> Duration {
    let now = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = |time: TimeVal| time.num_microseconds() as u64;
    Duration::from_micros(micros(now.user_time()) + micros(now.system_time()))
}

#[test]
fn one_descriptor_is_enough_to_serve_and_clients_wait_in_the_backlog_for_the_rest() {
    let before = open_descriptors();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let dispatcher = DispatcherThread::start([7; 16]).unwrap();
    let listener = dispatcher
        .with(|dispatcher| dispatcher.listen(socket.into(), "key".into(), Policy::RoundRobin))
        .unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let channel =
        |socket: UnixStream| Channel::new(UnixTransport::new(socket.into()), Framing::JsonLines);
    let mut worker = Worker(channel(theirs));
    let shared = SharedChannel::new(channel(ours));
    let inbox = Inbox::new(1, Relay::new().unwrap());
    dispatcher
        .with(|dispatcher| dispatcher.open_stock(WORKER, shared, inbox))
        .unwrap();
    let clients: Vec<_> = (0..5)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    with_room_for(1, || {
        dispatcher.with(|dispatcher| dispatcher.add(listener, WORKER));
        wait_until(|| waiting(&dispatcher) == (1, 0));
    });
    dispatcher.with(|dispatcher| dispatcher.remove(listener, WORKER));
    let first = worker.receive().unwrap();
    wait_until(|| waiting(&dispatcher) == (0, 0));
    // With nothing left at all, and room in the worker, it neither gives up nor spins.
    with_room_for(0, || {
        dispatcher.with(|dispatcher| dispatcher.add(listener, WORKER));
        let before = processor_time();
        thread::sleep(Duration::from_millis(400));
        assert!(processor_time() - before < Duration::from_millis(100));
        assert_eq!(waiting(&dispatcher), (0, 0));
    });
    let mut served = vec![first];
    wait_until(|| {
        served.extend(worker.receive());
        served.len() == clients.len()
    });
    let peers = served.iter().map(|one| one.peer_addr().unwrap());
    let locals = clients.iter().map(|one| one.local_addr().unwrap());
    assert!(peers.eq(locals), "in order");
    drop((dispatcher, worker, clients, served));
    assert_eq!(open_descriptors(), before);
}
