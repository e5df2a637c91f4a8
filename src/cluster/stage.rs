//! What the dispatcher's tests play on: a real dispatcher with a TCP listener, whose thread is the
//! test itself and whose clock the test moves, and both kinds of workers, played by the test.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use serde_json::Value;

use super::dispatcher::Dispatcher;
use super::receiver::{Receiver, TurnEnd};
use super::relay::{Inbox, Relay};
use super::scheduler::Policy;
use super::watch::Watch;
use crate::ipc::shared::SharedChannel;
use crate::ipc::{Channel, Framing, HandleSlot, SendMode, UnixTransport};
use crate::sys::listener;

/// After that long a worker that does not come to what it was offered loses it.
pub const STALLED_MS: u64 = 80;

/// After so long one that has declined is asked again.
pub const RESTED_MS: u64 = 60;

/// A dispatcher with one listener.
pub struct Stage {
    pub dispatcher: Dispatcher,
    watch: Arc<Watch>,
    pub listener: u32,
    pub now: Instant,
    /// Whether what the dispatcher does it does in a flood.
    pub in_flood: bool,
    address: SocketAddr,
}

impl Stage {
    pub fn new(policy: Policy) -> Stage {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        // The standard library's backlog is short.
        listener::listen(socket.as_fd(), 511).unwrap();
        let address = socket.local_addr().unwrap();
        let watch = Arc::new(Watch::new().unwrap());
        let mut dispatcher = Dispatcher::new(watch.clone(), [7; 16]);
        let listener = dispatcher
            .listen(socket.into(), "key".into(), policy)
            .unwrap();
        Stage {
            dispatcher,
            watch,
            listener,
            now: Instant::now(),
            in_flood: false,
            address,
        }
    }

    /// A stage with so many clients that have come while there was nobody but a stock worker.
    pub fn with_stock(clients: usize) -> (Stage, StockWorker, Vec<TcpStream>) {
        let mut stage = Stage::new(Policy::RoundRobin);
        let worker = stage.stock(1);
        let clients = stage.clients(clients);
        stage.turn();
        (stage, worker, clients)
    }

    /// The same with nobody but a worker that accepts itself.
    pub fn with_accepting(clients: usize) -> (Stage, LaneWorker, Vec<TcpStream>) {
        let mut stage = Stage::new(Policy::RoundRobin);
        let worker = stage.accepting_lane(1);
        let clients = stage.clients(clients);
        stage.turn();
        (stage, worker, clients)
    }

    /// Lets the dispatcher do all it can do now; returns how many rounds that took.
    pub fn turn(&mut self) -> usize {
        for round in 1.. {
            let events = self.watch.wait(Some(Duration::ZERO));
            let is_quiet = events.is_empty();
            for event in events {
                self.dispatcher.on_ready(event, self.now);
            }
            self.dispatcher.turn(self.now, self.in_flood);
            let rests = self.dispatcher.next_look(self.now) != Some(Duration::ZERO);
            if is_quiet && rests || round == 1000 {
                return round;
            }
        }
        unreachable!()
    }

    /// Lets time pass, and the dispatcher look as often as it wants to meanwhile.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.turn();
            let look = self.dispatcher.next_look(self.now).unwrap_or(time);
            self.now = (self.now + look.max(Duration::from_micros(100))).min(until);
        }
        self.turn();
    }

    pub fn pass_ms(&mut self, millis: u64) {
        self.pass(Duration::from_millis(millis));
    }

    /// Lets time pass so many times, each time with what workers do then; returns the names of the
    /// connections they have served.
    pub fn rounds(
        &mut self,
        count: usize,
        millis: u64,
        mut serve: impl FnMut() -> Vec<Served>,
    ) -> Vec<u16> {
        let mut all = Vec::new();
        for _ in 0..count {
            self.pass_ms(millis);
            all.extend(names(&serve()));
        }
        all
    }

    /// New clients, the dispatcher not yet being told.
    pub fn clients(&self, count: usize) -> Vec<TcpStream> {
        (0..count)
            .map(|_| TcpStream::connect(self.address).unwrap())
            .collect()
    }

    /// Lets a second pass in which `worker` declines whatever it is offered; returns how often it was
    /// asked.
    pub fn decline_for_a_second(&mut self, worker: &mut LaneWorker) -> usize {
        let (mut looks, mut asked) = (0, 0);
        let end = self.now + Duration::from_secs(1);
        while self.now < end {
            self.turn();
            asked += worker.decline();
            let look = self.dispatcher.next_look(self.now).unwrap();
            assert!(look >= Duration::from_micros(500), "{look:?}");
            self.now += look;
            looks += 1;
        }
        assert!(looks <= 1000, "{looks}");
        asked
    }

    /// Whether anybody listens still.
    pub fn can_connect(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    /// A client with the address 127.0.0.`host`.
    pub fn client_from(&self, host: u8) -> TcpStream {
        let (family, kind) = (AddressFamily::Inet, SockType::Stream);
        let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let from = SockaddrIn::new(127, 0, 0, host, 0);
        bind(fd.as_raw_fd(), &from).unwrap();
        let to = SockaddrIn::new(127, 0, 0, 1, self.address.port());
        connect(fd.as_raw_fd(), &to).unwrap();
        TcpStream::from(fd)
    }

    /// A worker with a lane that is handed the listener's connections.
    pub fn lane(&mut self, id: u32) -> LaneWorker {
        self.open_lane(id, false)
    }

    /// A worker with a lane that accepts the listener's connections itself.
    pub fn accepting_lane(&mut self, id: u32) -> LaneWorker {
        let mut worker = self.open_lane(id, true);
        worker.receiver.expect_listener(self.listener);
        worker
    }

    fn open_lane(&mut self, id: u32, may_accept: bool) -> LaneWorker {
        let end = self.dispatcher.open_lane(id, may_accept).unwrap();
        let mut receiver = Receiver::new(end);
        // The scoreboard.
        assert_eq!(receiver.receive().end, TurnEnd::Drained);
        self.dispatcher.add(self.listener, id);
        let listener = self.listener;
        LaneWorker { receiver, listener }
    }

    /// A worker with Node's own cluster that may have the listener's connections.
    pub fn stock(&mut self, id: u32) -> StockWorker {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let channel = Channel::new(UnixTransport::new(ours.into()), Framing::JsonLines);
        let shared = SharedChannel::new(channel);
        let inbox = Inbox::new(1, Relay::new().unwrap());
        self.dispatcher
            .open_stock(id, shared.clone(), inbox.clone())
            .unwrap();
        self.dispatcher.add(self.listener, id);
        let transport = UnixTransport::new(theirs.into());
        StockWorker {
            channel: Channel::new(transport, Framing::JsonLines),
            shared,
            inbox,
        }
    }

    /// Connections handed over that no worker has taken.
    pub fn on_their_way(&self) -> usize {
        let stats = self.dispatcher.worker_stats();
        stats.map(|worker| worker.waiting).sum()
    }

    /// Connections accepted by the dispatcher or, as far as it knows, a worker.
    pub fn accepted(&self) -> u64 {
        let mut stats = self.dispatcher.listener_stats();
        stats.next().map_or(0, |listener| listener.accepted)
    }

    /// Connections accepted that wait for a worker.
    pub fn waiting(&self) -> usize {
        let mut stats = self.dispatcher.listener_stats();
        stats.next().map_or(0, |listener| listener.waiting)
    }
}

/// A worker with brood in it.
pub struct LaneWorker {
    pub receiver: Receiver,
    listener: u32,
}

/// A connection that a worker has, with its number if it has been handed it.
#[derive(Debug)]
pub struct Served {
    pub sequence: Option<u32>,
    pub stream: TcpStream,
}

impl LaneWorker {
    /// How many it has been permitted to accept; it does not say that it has seen them.
    pub fn permits(&mut self) -> usize {
        assert!(self.receiver.receive().connections.is_empty());
        self.receiver.permits(self.listener)
    }

    /// Claims what has come, and accepts what it may, without a further step.
    pub fn claim(&mut self) -> Vec<Served> {
        let mut all = Vec::new();
        loop {
            let turn = self.receiver.receive();
            all.extend(turn.connections.into_iter().map(|one| Served {
                sequence: Some(one.sequence),
                stream: TcpStream::from(one.descriptor),
            }));
            if turn.end != TurnEnd::Bounded {
                break;
            }
        }
        while let Ok(descriptor) = self.receiver.accept(self.listener) {
            all.push(Served {
                sequence: None,
                stream: TcpStream::from(descriptor),
            });
        }
        all
    }

    /// Accepts one connection, if it may and there is one.
    pub fn serve_one(&mut self) -> Option<TcpStream> {
        self.receiver.receive();
        let accepted = self.receiver.accept(self.listener);
        self.receiver.settle();
        accepted.ok().map(TcpStream::from)
    }

    /// Takes what has come.
    pub fn serve(&mut self) -> Vec<Served> {
        let served = self.claim();
        self.receiver.settle();
        served
    }

    /// Gives back what has come; says how many.
    pub fn decline(&mut self) -> usize {
        let count = self.receiver.receive().connections.len();
        let permits = self.receiver.permits(self.listener);
        self.receiver.refuse(self.listener);
        self.receiver.give_back();
        count + permits
    }
}

/// A worker without brood.
pub struct StockWorker {
    pub channel: Channel<UnixTransport>,
    pub shared: Arc<SharedChannel>,
    pub inbox: Arc<Inbox>,
}

impl StockWorker {
    /// The connection that has come, acknowledged and not answered, with its number.
    pub fn receive(&mut self) -> Option<(i64, TcpStream)> {
        let mut batch = self.channel.receive(1 << 20);
        let (index, slot) = batch.take_handles().pop()?;
        let message: Value = serde_json::from_slice(batch.message(index)).unwrap();
        let HandleSlot::Received(fd) = slot else {
            panic!("the handle is missing");
        };
        self.channel.acknowledge_handle().unwrap();
        let number = message["msg"]["seq"].as_i64().unwrap();
        Some((number, TcpStream::from(fd)))
    }

    pub fn answer(&mut self, number: i64, accepted: bool) {
        self.say(&format!(
            r#"{{"cmd":"NODE_CLUSTER","ack":{number},"accepted":{accepted},"seq":1}}"#
        ));
    }

    pub fn say(&mut self, line: &str) {
        self.channel
            .send(line.as_bytes(), None, SendMode::WriteNow)
            .unwrap();
    }

    /// What has come for the primary's JavaScript.
    pub fn relayed(&self) -> Vec<String> {
        let batches = std::iter::from_fn(|| self.inbox.pop());
        let lines = batches.flat_map(|popped| {
            let line = |i| String::from_utf8_lossy(popped.batch.message(i)).into_owned();
            (0..popped.batch.len()).map(line).collect::<Vec<_>>()
        });
        lines.collect()
    }

    /// Fills the inbox until the dispatcher reads no more.
    pub fn flood(&mut self, stage: &mut Stage) {
        let line = format!("\"{}\"", "x".repeat(50_000));
        while !self.inbox.is_full() {
            self.say(&line);
            stage.turn();
        }
    }
}

/// The ports of the other ends, which name connections without touching them.
pub fn names(served: &[Served]) -> Vec<u16> {
    let peer = |one: &Served| one.stream.peer_addr().unwrap().port();
    served.iter().map(peer).collect()
}

pub fn ports(clients: &[TcpStream]) -> Vec<u16> {
    let local = |client: &TcpStream| client.local_addr().unwrap().port();
    clients.iter().map(local).collect()
}

pub fn set(names: &[u16]) -> HashSet<u16> {
    names.iter().copied().collect()
}

/// Whether the client has been hung up on.
pub fn is_closed(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    match client.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.raw_os_error() != Some(Errno::EAGAIN as i32),
    }
}

pub fn say(client: &mut TcpStream, byte: u8) {
    client.write_all(&[byte]).unwrap();
}
