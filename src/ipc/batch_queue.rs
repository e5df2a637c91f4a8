//! What is still to be written once a direction speaks brood's frames: messages gathered into
//! batches, descriptors that travel with the first byte of their frame, and many of them under way
//! at a time. Keeps what it sent with descriptors until that is acknowledged, and knows the areas
//! that large buffers are put into. Reading the acknowledgements is left to `channel`, the layout to
//! `layout`, the books of the messages to `ledger`.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Framing;
use super::advanced;
use super::areas::OwnAreas;
use super::gated_bytes::{Gate, GatedBytes, Used};
use super::layout::{
    Content, HEADER, Header, Kind, MAX_BATCH, MAX_DESCRIPTORS, MAX_PIECES, Piece, VALUE_PREFIX,
};
use super::ledger::{
    ChannelEvent, FlushState, Ledger, MAX_RETRANSMISSIONS, SendMode, SendStatus, Sender,
};
use super::transport::{Transport, is_lost, nothing_sent};
use crate::sys::area::Area;

/// Handles that may be unacknowledged at a time, with pipelining.
const WINDOW: usize = 128;
/// How many of them a piece of shared memory counts for: it is large, and the peer's to free.
const MEMORY_WEIGHT: usize = 8;

/// What a message has beside the stream: a large buffer, or a long text.
#[derive(Debug)]
pub enum Beside {
    /// Sealed memory of its own.
    File(OwnedFd),
    /// The first `length` bytes of an area that was taken from the channel.
    Area {
        /// Its number.
        number: u32,
        /// How many bytes are the message's.
        length: u32,
        /// What they are.
        content: Content,
    },
}

/// The end of a frame with messages, and the number of its last message.
#[derive(Clone, Copy, Debug)]
struct FrameEnd {
    position: u64,
    last: u64,
}

/// A frame that was sent with descriptors and is not acknowledged yet.
#[derive(Debug)]
struct Sent {
    number: u32,
    /// Its messages.
    first: u64,
    last: u64,
    descriptors: Arc<Vec<OwnedFd>>,
    areas: Vec<Used>,
    weight: usize,
    retransmissions: u8,
}

/// The last frame of the queue, while more messages may join it.
#[derive(Clone, Copy, Debug)]
struct OpenBatch {
    start: u64,
    header: Header,
}

/// Room handed out for one payload.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    encoding: Framing,
    len: usize,
    joins: bool,
}

/// The next thing that may be written.
#[derive(Clone, Copy, Debug)]
enum Step {
    Messages(usize),
    Control,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct BatchQueue {
    messages: GatedBytes,
    /// Frames that pass everything else, at the next end of a frame.
    control: GatedBytes,
    ends: VecDeque<FrameEnd>,
    /// Where the last frame that is wholly written ends.
    boundary: u64,
    open: Option<OpenBatch>,
    reserved: Option<Reserved>,
    next_number: u32,
    unacknowledged: VecDeque<Sent>,
    window: usize,
    areas: OwnAreas,
    ledger: Ledger,
}

impl BatchQueue {
    /// A queue whose first message gets the number after `last`.
    pub fn new(last: u64, pipelined: bool) -> Self {
        BatchQueue {
            messages: GatedBytes::default(),
            control: GatedBytes::default(),
            ends: VecDeque::new(),
            boundary: 0,
            open: None,
            reserved: None,
            next_number: 0,
            unacknowledged: VecDeque::new(),
            window: if pipelined { WINDOW } else { 1 },
            areas: OwnAreas::default(),
            ledger: Ledger::after(last),
        }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn reserve(&mut self, len: usize, encoding: Framing) -> &mut [u8] {
        let framing = prefix(encoding) + suffix(encoding);
        let joins = self.open.is_some_and(|open| {
            open.header.kind == Kind::Messages(encoding)
                && open.header.length as usize + len + framing <= MAX_BATCH
        });
        self.reserved = Some(Reserved {
            encoding,
            len,
            joins,
        });
        let start = prefix(encoding) + if joins { 0 } else { HEADER };
        let room = self.messages.bytes.room(start + len + suffix(encoding));
        &mut room[start..start + len]
    }

    /// Queues the first `len` bytes of the reserved room as a message. Writes only if there is a
    /// `transport`.
    pub fn commit<T: Transport>(
        &mut self,
        transport: Option<&mut T>,
        len: usize,
        handle: Option<OwnedFd>,
        mode: SendMode,
    ) -> Result<SendStatus, Errno> {
        let reserved = self.take_reserved(len)?;
        if prefix(reserved.encoding) > 0 && len > advanced::MAX_PAYLOAD {
            return Err(Errno::EMSGSIZE);
        }
        match handle {
            None => self.push(reserved, len),
            Some(handle) => {
                let payload = self.payload(reserved, len);
                self.push_handle(reserved.encoding, &payload, handle);
            }
        }
        self.sent(transport, mode)
    }

    /// Queues a serialized value whose large buffers lie in `beside` (1 to [`MAX_PIECES`]), and writes
    /// it at once: what gathering would save is nothing to such a message, and many of them are to
    /// be noticed before they have taken much memory.
    pub fn commit_beside<T: Transport>(
        &mut self,
        transport: Option<&mut T>,
        len: usize,
        beside: Vec<Beside>,
    ) -> Result<SendStatus, Errno> {
        let reserved = self.take_reserved(len)?;
        if beside.is_empty() || beside.len() > MAX_PIECES.min(MAX_DESCRIPTORS) {
            return Err(Errno::EINVAL);
        }
        if len > advanced::MAX_PAYLOAD {
            return Err(Errno::EMSGSIZE);
        }
        let payload = self.payload(reserved, len);
        let mut contents = Contents::default();
        for piece in beside {
            if let Err(errno) = self.place(piece, &mut contents) {
                self.take_back(&contents.areas);
                return Err(errno);
            }
        }
        self.push_frame(contents.kind(), Framing::Advanced, &payload, contents);
        self.open = None;
        self.sent(transport, SendMode::WriteNow)
    }

    /// Enters one thing that lies beside the stream into what a frame has.
    fn place(&mut self, piece: Beside, contents: &mut Contents) -> Result<(), Errno> {
        let piece = match piece {
            Beside::File(file) => {
                contents.descriptors.push(file);
                Piece::File
            }
            Beside::Area {
                number,
                length,
                content,
            } => {
                let file = self.areas.send(number, length as usize)?;
                let is_new = file.is_some();
                contents.areas.push((number, is_new));
                contents.descriptors.extend(file);
                Piece::Area {
                    number,
                    length,
                    content,
                    is_new,
                }
            }
        };
        contents.table.extend_from_slice(&piece.encode());
        Ok(())
    }

    /// See [`OwnAreas::take`]. Areas dropped for it are named to the peer by the next flush.
    pub fn take_area(&mut self, len: usize) -> Result<Option<(u32, Arc<Area>)>, Errno> {
        let mut dropped = Vec::new();
        let taken = self.areas.take(len, &mut dropped);
        self.say_dropped(&dropped);
        taken
    }

    /// See [`OwnAreas::hold`].
    pub fn hold_area(&self, number: u32) -> Option<Arc<Area>> {
        self.areas.hold(number)
    }

    /// See [`OwnAreas::expire`]; says whether there are areas left.
    pub fn expire_areas(&mut self, age: Duration) -> bool {
        let dropped = self.areas.expire(age);
        self.say_dropped(&dropped);
        !self.areas.is_empty()
    }

    fn say_dropped(&mut self, areas: &[u32]) {
        for &number in areas {
            self.say(Kind::Drop, number);
        }
    }

    /// The peer has copied what was in this area. Returns whether there was something, as far as
    /// is known: with a broken direction the areas are gone, and what the peer said before is true.
    pub fn release_area(&mut self, number: u32) -> bool {
        self.ledger.broken().is_some() || self.areas.release(number)
    }

    /// Queues a frame that says something about frame `number`; it is written by the next flush,
    /// ahead of all messages.
    pub fn say(&mut self, kind: Kind, number: u32) {
        if self.ledger.broken().is_none() {
            let header = Header::control(kind, number, 0);
            self.control.bytes.append(&header.encode());
        }
    }

    pub fn flush(&mut self, transport: &mut impl Transport) -> FlushState {
        self.reserved = None;
        self.open = None;
        self.ledger.begin_flush();
        while let Some(step) = self.next_step() {
            match self.write(transport, step).or_else(nothing_sent) {
                Ok(true) => {}
                // The rest of a partial write would only meet a full buffer.
                Ok(false) => {
                    self.ledger.block();
                    break;
                }
                // The kernel's own limit of descriptors under way: acknowledgements make room, but
                // what is sent again is waited for itself.
                Err(Errno::ETOOMANYREFS)
                    if matches!(step, Step::Messages(_)) && !self.unacknowledged.is_empty() =>
                {
                    break;
                }
                Err(errno) => self.fail(step, errno),
            }
        }
        self.ledger.state()
    }

    /// The peer has everything with descriptors up to frame `number`. Returns whether that
    /// released something.
    pub fn acknowledge(&mut self, number: u32) -> bool {
        let mut released = false;
        while let Some(sent) = self.unacknowledged.front()
            && is_at_or_before(sent.number, number)
        {
            for sequence in sent.first..=sent.last {
                self.ledger.acknowledged(sequence, Sender::Client);
            }
            self.unacknowledged.pop_front();
            released = true;
        }
        released
    }

    /// The peer misses the descriptors of frame `number`. Returns whether there is something to
    /// write now.
    pub fn refuse(&mut self, number: u32) -> bool {
        let Some(at) = self.sent_at(number) else {
            return false;
        };
        let sent = &mut self.unacknowledged[at];
        if sent.retransmissions == MAX_RETRANSMISSIONS {
            self.say(Kind::GiveUp, number);
            self.give_up_frame(at);
            return true;
        }
        sent.retransmissions += 1;
        self.ledger.counts.retransmissions += sent.descriptors.len() as u64;
        let descriptors = sent.descriptors.clone();
        let header = Header::control(Kind::Again, number, descriptors.len() as u16);
        self.control.gates.push_back(Gate {
            position: self.control.end(),
            number,
            descriptors,
            areas: Vec::new(),
            weight: 0,
        });
        self.control.bytes.append(&header.encode());
        true
    }

    /// The peer does not wait for the descriptors of frame `number` any longer.
    pub fn abandon(&mut self, number: u32) {
        if let Some(at) = self.sent_at(number) {
            self.give_up_frame(at);
        }
    }

    pub fn queued_bytes(&self) -> usize {
        self.messages.bytes.len() + self.control.bytes.len()
    }

    /// Bytes about frames that wait for the peer to read them.
    pub fn control_bytes(&self) -> usize {
        self.control.bytes.len()
    }

    pub fn held_messages(&self) -> usize {
        if self.is_held() {
            self.ledger.unwritten() as usize
        } else {
            0
        }
    }

    pub fn holds_handle(&self) -> bool {
        !self.unacknowledged.is_empty() || !self.messages.gates.is_empty()
    }

    pub fn awaits_ack(&self) -> bool {
        !self.unacknowledged.is_empty()
    }

    pub fn oldest_unsent(&self) -> Option<Instant> {
        self.ledger
            .gathered_since()
            .filter(|_| self.next_step().is_some())
    }

    pub fn next_event(&mut self) -> Option<ChannelEvent> {
        self.ledger.next_event(Sender::Client)
    }

    /// See [`Ledger::give_up`].
    pub fn give_up(&mut self) {
        self.ledger.give_up();
    }

    /// The direction is broken: nothing more will be written.
    pub fn break_off(&mut self, errno: Errno) {
        self.ledger.break_off(errno);
        self.messages = GatedBytes::default();
        self.control = GatedBytes::default();
        self.ends = VecDeque::new();
        self.unacknowledged = VecDeque::new();
        self.areas.clear();
        self.open = None;
    }

    fn take_reserved(&mut self, len: usize) -> Result<Reserved, Errno> {
        let reserved = self.reserved.take();
        if let Some(errno) = self.ledger.broken() {
            return Err(errno);
        }
        let reserved = reserved.ok_or(Errno::EINVAL)?;
        assert!(
            len <= reserved.len,
            "committed {len} bytes, reserved {}",
            reserved.len
        );
        Ok(reserved)
    }

    /// Completes the message in the reserved room.
    fn push(&mut self, reserved: Reserved, len: usize) {
        let Reserved {
            encoding, joins, ..
        } = reserved;
        let size = prefix(encoding) + len + suffix(encoding);
        let open = match self.open.filter(|_| joins) {
            Some(mut open) => {
                frame_payload(self.messages.bytes.room(size), encoding, len);
                self.messages.bytes.fill(size);
                open.header.length += size as u32;
                open.header.messages += 1;
                open
            }
            None => {
                let start = self.messages.end();
                let room = self.messages.bytes.room(HEADER + size);
                frame_payload(&mut room[HEADER..], encoding, len);
                self.messages.bytes.fill(HEADER + size);
                let header = Header {
                    kind: Kind::Messages(encoding),
                    descriptors: 0,
                    length: size as u32,
                    messages: 1,
                    number: self.take_number(),
                };
                OpenBatch { start, header }
            }
        };
        self.enter(open);
    }

    fn push_handle(&mut self, encoding: Framing, payload: &[u8], handle: OwnedFd) {
        let kind = Kind::Handles(encoding);
        let size = prefix(encoding) + payload.len() + suffix(encoding);
        let limit = self.window.min(MAX_DESCRIPTORS);
        let joined = self.open.filter(|open| {
            open.header.kind == kind
                && open.header.length as usize + size <= MAX_BATCH
                && usize::from(open.header.descriptors) < limit
        });
        let descriptors = self
            .messages
            .gates
            .back_mut()
            .and_then(|gate| Arc::get_mut(&mut gate.descriptors));
        let (Some(mut open), Some(descriptors)) = (joined, descriptors) else {
            let contents = Contents {
                descriptors: vec![handle],
                ..Contents::default()
            };
            return self.push_frame(kind, encoding, payload, contents);
        };
        descriptors.push(handle);
        self.append_payload(encoding, payload);
        open.header.length += size as u32;
        open.header.messages += 1;
        open.header.descriptors += 1;
        self.enter(open);
    }

    /// Queues a frame of one message.
    fn push_frame(&mut self, kind: Kind, encoding: Framing, payload: &[u8], contents: Contents) {
        let Contents {
            descriptors,
            areas,
            table,
        } = contents;
        let table: &[u8] = match kind {
            Kind::Placed => &table,
            _ => &[],
        };
        let (start, number) = (self.messages.end(), self.take_number());
        let header = Header {
            kind,
            descriptors: descriptors.len() as u16,
            length: (prefix(encoding) + payload.len() + suffix(encoding) + table.len()) as u32,
            messages: 1,
            number,
        };
        if !descriptors.is_empty() {
            self.messages.gates.push_back(Gate {
                position: start,
                number,
                descriptors: Arc::new(descriptors),
                areas,
                weight: match kind {
                    Kind::Shared | Kind::Placed => MEMORY_WEIGHT,
                    _ => 1,
                },
            });
        }
        self.messages.bytes.append(&header.encode());
        self.append_payload(encoding, payload);
        self.messages.bytes.append(table);
        self.enter(OpenBatch { start, header });
    }

    fn append_payload(&mut self, encoding: Framing, payload: &[u8]) {
        let start = prefix(encoding);
        let size = start + payload.len() + suffix(encoding);
        let room = self.messages.bytes.room(size);
        room[start..start + payload.len()].copy_from_slice(payload);
        frame_payload(room, encoding, payload.len());
        self.messages.bytes.fill(size);
    }

    /// Makes the message that was just appended known: in the header of its frame, and as the
    /// frame's last.
    fn enter(&mut self, open: OpenBatch) {
        let at = (open.start - self.messages.position) as usize;
        self.messages.bytes.filled_mut()[at..at + HEADER].copy_from_slice(&open.header.encode());
        self.open = Some(open);
        let end = FrameEnd {
            position: self.messages.end(),
            last: self.ledger.enter(),
        };
        match self.ends.back_mut() {
            Some(back) if back.position > open.start => *back = end,
            _ => self.ends.push_back(end),
        }
    }

    /// The payload in the reserved room, which was meant for another place.
    fn payload(&mut self, reserved: Reserved, len: usize) -> Vec<u8> {
        let start = prefix(reserved.encoding) + if reserved.joins { 0 } else { HEADER };
        self.messages.bytes.room(start + len)[start..].to_vec()
    }

    fn take_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        number
    }

    fn sent<T: Transport>(
        &mut self,
        transport: Option<&mut T>,
        mode: SendMode,
    ) -> Result<SendStatus, Errno> {
        let sequence = self.ledger.last();
        match transport {
            Some(transport) if self.ledger.is_due(mode, self.queued_bytes()) => {
                self.flush(transport);
                self.ledger.check_sent(sequence, Sender::Client)?;
            }
            _ => self.ledger.gather(),
        }
        Ok(self.status(sequence))
    }

    fn next_step(&self) -> Option<Step> {
        let at_boundary = self.messages.position == self.boundary;
        let has_control = !self.control.bytes.is_empty();
        if has_control && at_boundary {
            return Some(Step::Control);
        }
        if self.is_window_closed() {
            return None;
        }
        let mut len = self.messages.run();
        if has_control && let Some(end) = self.ends.front() {
            len = len.min((end.position - self.messages.position) as usize);
        }
        (len > 0).then_some(Step::Messages(len))
    }

    /// Whether the next frame has descriptors for which too many others are under way.
    fn is_window_closed(&self) -> bool {
        let Some(gate) = self.messages.gate() else {
            return false;
        };
        let under_way: usize = self
            .unacknowledged
            .iter()
            .map(|sent| sent.descriptors.len() * sent.weight)
            .sum();
        under_way > 0 && under_way + gate.descriptors.len() * gate.weight > self.window
    }

    fn is_held(&self) -> bool {
        !self.ledger.is_blocked() && self.is_window_closed()
    }

    /// Writes as much as the kernel takes; tells whether that was all of the step.
    fn write(&mut self, transport: &mut impl Transport, step: Step) -> Result<bool, Errno> {
        let (queue, len) = match step {
            Step::Messages(len) => (&mut self.messages, len),
            Step::Control => {
                let len = self.control.run();
                (&mut self.control, len)
            }
        };
        let (written, passed) = queue.write(transport, len)?;
        self.ledger.counts.bytes += written as u64;
        if let Some(gate) = passed {
            self.ledger.counts.descriptors += gate.descriptors.len() as u64;
            if matches!(step, Step::Messages(_)) {
                self.remember(gate);
            }
        }
        if matches!(step, Step::Messages(_)) {
            self.messages_written();
        }
        Ok(written == len)
    }

    /// Keeps the descriptors of the frame that begins at the gate until they are acknowledged.
    fn remember(&mut self, gate: Gate) {
        let completed = self.ledger.completed();
        let last = self.ends.front().map_or(completed, |end| end.last);
        self.unacknowledged.push_back(Sent {
            number: gate.number,
            first: completed + 1,
            last,
            descriptors: gate.descriptors,
            areas: gate.areas,
            weight: gate.weight,
            retransmissions: 0,
        });
    }

    fn messages_written(&mut self) {
        while let Some(end) = self.ends.front()
            && end.position <= self.messages.position
        {
            self.ledger.written_up_to(end.last);
            self.boundary = end.position;
            self.ends.pop_front();
        }
    }

    fn sent_at(&self, number: u32) -> Option<usize> {
        self.unacknowledged
            .iter()
            .position(|sent| sent.number == number)
    }

    fn give_up_frame(&mut self, at: usize) {
        let Some(sent) = self.unacknowledged.remove(at) else {
            return;
        };
        self.take_back(&sent.areas);
        for sequence in sent.first..=sent.last {
            self.ledger.not_received(sequence, Sender::Client);
        }
    }

    /// What a frame that will not be read has put into areas.
    fn take_back(&mut self, areas: &[Used]) {
        for &(number, is_new) in areas {
            self.areas.take_back(number, is_new);
        }
    }

    /// An error that repeating the call would not mend.
    fn fail(&mut self, step: Step, errno: Errno) {
        if is_lost(errno) {
            return self.break_off(errno);
        }
        match step {
            Step::Messages(_) if self.messages.gate().is_some() => self.skip_frame(errno),
            // What cannot be sent again is given up.
            Step::Control if self.control.gate().is_some() => {
                if let Some(gate) = self.control.gates.pop_front() {
                    let header = Header::control(Kind::GiveUp, gate.number, 0).encode();
                    self.control.bytes.filled_mut()[..HEADER].copy_from_slice(&header);
                    self.abandon(gate.number);
                }
            }
            _ => self.break_off(errno),
        }
    }

    /// Goes on without the frame at the front, of which nothing is written.
    fn skip_frame(&mut self, errno: Errno) {
        let (Some(gate), Some(end)) = (self.messages.gates.pop_front(), self.ends.pop_front())
        else {
            return;
        };
        self.take_back(&gate.areas);
        let len = end.position - self.messages.position;
        self.messages.skip(len as usize);
        self.boundary = end.position;
        for sequence in self.ledger.completed() + 1..=end.last {
            self.ledger.failed(sequence, Sender::Client, errno);
        }
    }

    fn status(&self, sequence: u64) -> SendStatus {
        SendStatus {
            progress: self.ledger.progress(sequence, self.is_held()),
            sequence,
            queued_bytes: self.queued_bytes(),
            held_messages: self.held_messages(),
        }
    }
}

/// What a frame has besides its message.
#[derive(Debug, Default)]
struct Contents {
    descriptors: Vec<OwnedFd>,
    areas: Vec<Used>,
    /// Where all of it lies, in the order of the message.
    table: Vec<u8>,
}

impl Contents {
    /// Peers that know no areas are never sent a table.
    fn kind(&self) -> Kind {
        match self.areas.is_empty() {
            true => Kind::Shared,
            false => Kind::Placed,
        }
    }
}

/// Bytes before and after a payload within its frame.
fn prefix(encoding: Framing) -> usize {
    match encoding {
        Framing::JsonLines => 0,
        Framing::Advanced => VALUE_PREFIX,
    }
}

fn suffix(encoding: Framing) -> usize {
    match encoding {
        Framing::JsonLines => 1,
        Framing::Advanced => 0,
    }
}

/// Writes what tells a payload of `len` bytes, already in its place in `room`, from the next.
fn frame_payload(room: &mut [u8], encoding: Framing, len: usize) {
    match encoding {
        Framing::JsonLines => room[len] = b'\n',
        Framing::Advanced => {
            room[..VALUE_PREFIX].copy_from_slice(&(len as u32).to_le_bytes());
        }
    }
}

/// Whether frame `a` was sent before `b`, or is it; numbers wrap around.
fn is_at_or_before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}
