//! Two channels against a simple model: whatever the kernel does with sizes, room and
//! descriptors, messages arrive complete, in order and with their own handles. And one channel
//! against a model of the stock receiver, which has a single place for a handle.

use std::os::fd::OwnedFd;
use std::time::Duration;

use proptest::prelude::*;

use super::fake::{FakeSocket, Probe, identity, pair};
use super::upgrade::{OLDEST, Offer, Terms, VERSION};
use super::*;

const HANDLE_HEAD: &[u8] = b"\xff\x0fo\"\x03cmd\"\x0bNODE_HANDLE";
const PLAIN_HEAD: &[u8] = b"\xff\x0fo\"\x03cmd\"\x01x";

/// What a test message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    id: u64,
    with_handle: bool,
}

fn encode(framing: Framing, content: Content, padding: usize) -> Vec<u8> {
    let Content { id, with_handle } = content;
    if framing == Framing::Advanced {
        let head = if with_handle { HANDLE_HEAD } else { PLAIN_HEAD };
        return [head, &id.to_be_bytes(), &vec![b'p'; padding]].concat();
    }
    let padding = "p".repeat(padding);
    let message = format!(r#"{{"id":{id},"padding":"{padding}"}}"#);
    match with_handle {
        true => format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{message}}}"#).into(),
        false => message.into(),
    }
}

/// `None` for replies to handles.
fn decode(framing: Framing, payload: &[u8]) -> Option<Content> {
    if framing == Framing::Advanced {
        let with_handle = !payload.starts_with(PLAIN_HEAD);
        let head = if with_handle { HANDLE_HEAD } else { PLAIN_HEAD };
        let id = payload.strip_prefix(head)?.first_chunk()?;
        return Some(Content {
            id: u64::from_be_bytes(*id),
            with_handle,
        });
    }
    let value: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let with_handle = value["cmd"] == "NODE_HANDLE";
    let message = if with_handle { &value["msg"] } else { &value };
    Some(Content {
        id: message["id"].as_u64()?,
        with_handle,
    })
}

#[derive(Clone, Debug)]
enum Op {
    Send {
        padding: usize,
        with_handle: bool,
        mode: SendMode,
    },
    SendUnqueued,
    Flush,
    Receive {
        budget: usize,
    },
    LoseDescriptors(usize),
    Capacity(usize),
    Cuts(Vec<usize>),
    /// The second side takes up the first's offer, in this version.
    Accept(u32),
    /// Free areas are dropped.
    Expire,
}

fn op() -> impl Strategy<Value = Op> {
    let mode = prop_oneof![Just(SendMode::WriteNow), Just(SendMode::Gather)];
    let padding = prop_oneof![8 => 0usize..100, 1 => 0usize..40_000];
    prop_oneof![
        8 => (padding, prop::bool::weighted(0.3), mode)
            .prop_map(|(padding, with_handle, mode)| Op::Send { padding, with_handle, mode }),
        1 => Just(Op::SendUnqueued),
        3 => Just(Op::Flush),
        6 => (1usize..20_000).prop_map(|budget| Op::Receive { budget }),
        1 => (1usize..6).prop_map(Op::LoseDescriptors),
        1 => (20usize..5000).prop_map(Op::Capacity),
        1 => prop::collection::vec(1usize..3000, 1..4).prop_map(Op::Cuts),
        1 => (OLDEST..=VERSION).prop_map(Op::Accept),
        1 => Just(Op::Expire),
    ]
}

/// One direction, as the model sees it.
#[derive(Default)]
struct Direction {
    /// What was sent, with the identity of the handle, and the bytes in areas.
    sent: Vec<(Content, Option<u64>)>,
    in_areas: Vec<Vec<Vec<u8>>>,
    probes: Vec<Probe>,
    /// The channel's numbers of what was sent.
    sequences: Vec<u64>,
    /// Indices in `sent` that were given up.
    given_up: Vec<usize>,
    /// How many of `sent` the receiver has seen or will never see.
    arrived: usize,
    unqueued_sent: u64,
    unqueued_arrived: u64,
}

impl Direction {
    /// What came in areas with the message that arrived last.
    fn arrive_in_areas(&self, bytes: Vec<Vec<u8>>) {
        assert_eq!(bytes, self.in_areas[self.arrived - 1]);
    }

    fn arrive(&mut self, content: Content, identity: Option<u64>) {
        if content.id >= UNQUEUED {
            assert_eq!(content.id, UNQUEUED + self.unqueued_arrived);
            self.unqueued_arrived += 1;
            return;
        }
        self.skip_given_up();
        assert_eq!((content, identity), self.sent[self.arrived]);
        self.arrived += 1;
    }

    fn index_of(&self, sequence: u64) -> usize {
        self.sequences.iter().position(|&s| s == sequence).unwrap()
    }

    fn skip_given_up(&mut self) {
        while self.given_up.contains(&self.arrived) {
            self.arrived += 1;
        }
    }
}

/// Ids from here on are those of unqueued messages.
const UNQUEUED: u64 = 1 << 32;

struct World {
    framing: Framing,
    channels: [Channel<FakeSocket>; 2],
    /// By sender.
    directions: [Direction; 2],
    /// Made to the second side and not taken up yet.
    offer: Option<Offer>,
}

impl World {
    fn new(framing: Framing) -> Self {
        let (one, other) = pair();
        World {
            framing,
            channels: [Channel::new(one, framing), Channel::new(other, framing)],
            directions: Default::default(),
            offer: None,
        }
    }

    /// A world whose first side has made the second an offer.
    fn upgradable(framing: Framing, version: u32) -> Self {
        let mut world = World::new(framing);
        let offer = Offer::new(Terms::of(version), 1, "0123456789abcdef");
        world.channels[0].offer_upgrade(&offer);
        world.offer = Some(offer);
        world
    }

    fn apply(&mut self, side: usize, op: Op) {
        let channel = &mut self.channels[side];
        match op {
            Op::Send {
                padding,
                with_handle,
                mode,
            } => self.send(side, padding, with_handle, mode),
            // Frames know nothing of the kind.
            Op::SendUnqueued if channel.upgraded().is_some() => {}
            Op::Accept(version) => {
                if let Some(offer) = self.offer.take() {
                    let channel = &mut self.channels[1];
                    assert!(channel.accept_upgrade(&offer, Terms::of(version)).unwrap());
                }
            }
            Op::SendUnqueued => {
                let direction = &mut self.directions[side];
                let id = UNQUEUED + direction.unqueued_sent;
                direction.unqueued_sent += 1;
                let payload = encode(
                    self.framing,
                    Content {
                        id,
                        with_handle: false,
                    },
                    0,
                );
                channel.send_unqueued(&payload).unwrap();
            }
            Op::Flush => drop(channel.flush()),
            Op::Expire => drop(channel.expire_areas(Duration::ZERO)),
            Op::Receive { budget } => drop(self.receive(side, budget)),
            Op::LoseDescriptors(times) => channel.transport().lose_descriptors(times),
            Op::Capacity(bytes) => channel.transport().set_capacity(bytes),
            Op::Cuts(sizes) => channel.transport().set_cuts(&sizes),
        }
        self.check(side);
    }

    fn send(&mut self, side: usize, padding: usize, with_handle: bool, mode: SendMode) {
        let (direction, channel) = (&mut self.directions[side], &mut self.channels[side]);
        // Frames can mix the encodings, and carry memory beside a message that has no handle.
        let in_frames = channel.upgraded().is_some();
        let encoding = match self.framing {
            Framing::Advanced if in_frames && padding % 2 == 1 => Framing::JsonLines,
            framing => framing,
        };
        let is_value = in_frames && encoding == Framing::Advanced;
        let (shared, placed) = (is_value && padding % 3 == 1, is_value && padding % 5 < 3);
        let content = Content {
            id: direction.sent.len() as u64,
            with_handle: with_handle && !shared && !placed,
        };
        let payload = encode(encoding, content, padding);
        let (mut handle, mut identity) = (None, None);
        if content.with_handle || shared {
            let (probe, descriptor) = Probe::new();
            (handle, identity) = (Some(descriptor), Some(probe.identity()));
            direction.probes.push(probe);
        }
        direction.sent.push((content, identity));
        let (mut beside, mut in_areas) = (Vec::new(), Vec::new());
        for piece in 0..if placed { padding % 5 + 1 } else { 0 } {
            let bytes = vec![content.id as u8 ^ piece as u8; 1 + padding * (piece + 1)];
            if let Some((number, area)) = channel.take_area(bytes.len()).unwrap() {
                area.fill(&bytes);
                let (length, content) = (bytes.len() as u32, super::Content::Bytes);
                beside.push((
                    Beside::Area {
                        number,
                        length,
                        content,
                    },
                    area,
                ));
                in_areas.push(bytes);
            }
        }
        direction.in_areas.push(in_areas);
        let mut beside: Vec<_> = beside.into_iter().map(|(piece, _)| piece).collect();
        if shared {
            beside.extend(handle.take().map(Beside::File));
        }
        let len = payload.len();
        channel.reserve_as(len, encoding).copy_from_slice(&payload);
        let status = match beside.is_empty() {
            false => channel.commit_beside(len, beside),
            true => channel.commit(len, handle, mode),
        };
        let status = status.unwrap();
        direction.sequences.push(status.sequence);
        let written = status.progress == Progress::Written;
        assert_eq!(written, channel.completed() == status.sequence);
    }

    /// Receives at one side and answers handles as Node does.
    fn receive(&mut self, side: usize, budget: usize) -> usize {
        let mut batch = self.channels[side].receive(budget);
        assert!(matches!(
            batch.end(),
            ReadEnd::Drained | ReadEnd::ShortRead | ReadEnd::Budget | ReadEnd::Switched
        ));
        let mut handles = batch.take_handles().into_iter().peekable();
        let mut beside = batch.take_beside().into_iter().peekable();
        for run in batch.runs() {
            for index in run.messages {
                let Some(content) = decode(run.encoding, batch.message(index)) else {
                    continue;
                };
                let direction = &mut self.directions[1 - side];
                if let Some((_, pieces)) = beside.next_if(|(at, _)| *at == index) {
                    let (mut bytes, mut file) = (Vec::new(), None);
                    for piece in pieces {
                        match piece {
                            Arrived::Copied(copied, _) => bytes.push(copied.bytes().to_vec()),
                            Arrived::File(descriptor) => file = Some(identity(&descriptor)),
                        }
                    }
                    direction.arrive(content, file);
                    direction.arrive_in_areas(bytes);
                    continue;
                }
                assert_eq!(
                    content.with_handle,
                    handles.peek().is_some_and(|(at, _)| *at == index)
                );
                if !content.with_handle {
                    direction.arrive(content, None);
                    continue;
                }
                match handles.next().unwrap().1 {
                    HandleSlot::Received(descriptor) => {
                        direction.arrive(content, Some(identity(&descriptor)));
                        self.channels[side].acknowledge_handle().unwrap();
                    }
                    HandleSlot::Missing => self.channels[side].refuse_handle().unwrap(),
                }
            }
        }
        let received = batch.len();
        self.channels[side].recycle(batch);
        received
    }

    /// Takes note of given up handles, and compares what the queue says of itself.
    fn check(&mut self, side: usize) {
        let (channel, direction) = (&mut self.channels[side], &mut self.directions[side]);
        while let Some(event) = channel.next_event() {
            match event {
                ChannelEvent::HandleNotReceived { sequence } => {
                    direction.given_up.push(direction.index_of(sequence));
                }
                ChannelEvent::HandleAcknowledged { sequence } => {
                    assert!(direction.arrived > direction.index_of(sequence));
                }
                ChannelEvent::SendFailed { .. } => panic!("{event:?}"),
            }
        }
        // Announcements are messages, too.
        let sent = direction.sent.len() as u64;
        let known = channel.completed() + channel.unwritten_messages() as u64;
        assert!((sent..=sent + 2).contains(&known), "{known} of {sent}");
        assert!(direction.arrived as u64 <= channel.completed());
        let stats = channel.stats();
        let areas: usize = direction.in_areas.iter().map(Vec::len).sum();
        let most = (direction.probes.len() + areas) as u64;
        assert!(stats.descriptors_sent <= most + stats.retransmissions);
    }

    /// Lets both sides work until nothing moves.
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            let before: Vec<_> = self.channels.iter().map(Channel::stats).collect();
            for side in [0, 1] {
                self.channels[side].flush();
                self.receive(side, 1 << 20);
                self.check(side);
            }
            let after: Vec<_> = self.channels.iter().map(Channel::stats).collect();
            idle = if before == after { idle + 1 } else { 0 };
        }
    }
}

impl World {
    /// Everything has arrived, and nothing is left anywhere.
    fn assert_finished(&mut self) {
        for (direction, channel) in self.directions.iter_mut().zip(&self.channels) {
            direction.skip_given_up();
            assert_eq!(direction.arrived, direction.sent.len());
            assert_eq!(direction.unqueued_arrived, direction.unqueued_sent);
            assert_eq!(channel.unwritten_messages(), 0);
            assert!(!channel.awaits_ack() && !channel.wants_writable() && !channel.is_buffering());
            for probe in &direction.probes {
                probe.assert_closed_everywhere();
            }
        }
    }
}

fn framing(advanced: bool) -> Framing {
    match advanced {
        true => Framing::Advanced,
        false => Framing::JsonLines,
    }
}

proptest! {
    #[test]
    fn messages_and_handles_arrive_in_order_and_together(
        ops in prop::collection::vec((0usize..2, op()), 1..60),
        advanced: bool,
    ) {
        let mut world = World::new(framing(advanced));
        for (side, op) in ops {
            world.apply(side, op);
        }
        world.settle();
        world.assert_finished();
    }

    #[test]
    fn an_upgrade_at_any_moment_changes_nothing_of_that(
        before in prop::collection::vec((0usize..2, op()), 0..30),
        offered in OLDEST..=VERSION,
        accepted in OLDEST..=VERSION,
        after in prop::collection::vec((0usize..2, op()), 1..90),
        advanced: bool,
    ) {
        let mut world = World::upgradable(framing(advanced), offered);
        for (side, op) in before {
            world.apply(side, op);
        }
        world.apply(1, Op::Accept(accepted));
        for (side, op) in after {
            world.apply(side, op);
        }
        world.settle();
        world.assert_finished();
        for channel in &world.channels {
            let version = channel.upgraded().map(|terms| terms.version);
            prop_assert!(version.is_some_and(|version| version <= offered));
        }
    }

    #[test]
    fn a_pinned_channel_stays_with_nodes_protocol(
        ops in prop::collection::vec((0usize..2, op()), 1..60),
        advanced: bool,
    ) {
        let mut world = World::upgradable(framing(advanced), VERSION);
        prop_assert!(world.channels[0].pin());
        world.apply(1, Op::Accept(VERSION));
        for (side, op) in ops {
            world.apply(side, op);
        }
        world.settle();
        world.assert_finished();
        prop_assert!(world.channels.iter().all(|channel| channel.upgraded().is_none()));
    }

    #[test]
    fn channels_dropped_at_any_moment_leave_nothing_open(
        ops in prop::collection::vec((0usize..2, op()), 1..40),
    ) {
        let mut world = World::upgradable(Framing::JsonLines, VERSION);
        for (side, op) in ops {
            world.apply(side, op);
        }
        let World { channels, directions, .. } = world;
        drop(channels);
        for probe in directions.iter().flat_map(|direction| &direction.probes) {
            probe.assert_closed_everywhere();
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stock_receiver_never_mixes_up_handles(
        sends in prop::collection::vec((0usize..70_000, prop::bool::weighted(0.6)), 1..12),
        cuts in prop::collection::vec(1000usize..40_000, 1..4),
    ) {
        let (ours, theirs) = pair();
        ours.set_cuts(&cuts);
        let mut channel = Channel::new(ours, Framing::JsonLines);
        let mut stock = StockReceiver::new(theirs);
        let (mut expected, mut probes) = (Vec::new(), Vec::new());
        for (id, (padding, with_handle)) in sends.into_iter().enumerate() {
            let content = Content { id: id as u64, with_handle };
            let (probe, descriptor) = Probe::new();
            expected.push((content, with_handle.then(|| probe.identity())));
            let handle = with_handle.then_some(descriptor);
            let payload = encode(Framing::JsonLines, content, padding);
            channel.send(&payload, handle, SendMode::Gather).unwrap();
            probes.push(probe);
        }
        while stock.seen.len() < expected.len() {
            channel.flush();
            stock.read();
            let batch = channel.receive(1 << 20);
            channel.recycle(batch);
        }
        assert_eq!(stock.seen, expected);
        assert_eq!(channel.stats().retransmissions, 0);
    }
}

/// What Node's `channel.onread` does with reads and handles: one place for a handle, filled by a
/// read and emptied by the next `NODE_HANDLE` line.
struct StockReceiver {
    socket: FakeSocket,
    pending: Option<OwnedFd>,
    buffer: Vec<u8>,
    seen: Vec<(Content, Option<u64>)>,
}

impl StockReceiver {
    fn new(socket: FakeSocket) -> Self {
        StockReceiver {
            socket,
            pending: None,
            buffer: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn read(&mut self) {
        let mut room = vec![0; 65_536];
        while let Ok(received) = self.socket.receive(&mut room) {
            if let Ancillary::Complete(mut descriptors) = received.ancillary {
                self.pending = descriptors.pop();
            }
            self.buffer.extend_from_slice(&room[..received.bytes]);
            while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.handle(&line[..end]);
            }
        }
    }

    fn handle(&mut self, line: &[u8]) {
        let content = decode(Framing::JsonLines, line).unwrap();
        if !content.with_handle {
            self.seen.push((content, None));
            return;
        }
        match self.pending.take() {
            Some(descriptor) => {
                self.seen.push((content, Some(identity(&descriptor))));
                self.socket.put(b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n", &[]);
            }
            None => self.socket.put(b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n", &[]),
        }
    }
}
