//! What is still to be written: framed bytes in one buffer, the handles among them, and the rule
//! that after a handle nothing follows until the peer acknowledged it. Reading the
//! acknowledgements is left to `channel`, the books of the messages are `ledger`'s.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::Framing;
use super::advanced;
use super::buffer::Buffer;
use super::ledger::{
    ChannelEvent, FlushState, Ledger, MAX_RETRANSMISSIONS, SendMode, SendStatus, Sender,
};
use super::transport::{Transport, is_lost, nothing_sent};

/// Memory for message ends that an empty queue keeps, in entries.
const KEEP_ENDS: usize = 16 * 1024;

/// A message with a handle. It keeps bytes and descriptor together until the acknowledgement, so
/// that a retransmission sends both.
#[derive(Debug)]
struct HandleMessage {
    sequence: u64,
    sender: Sender,
    /// Where it stands among the plain bytes: the position of the first one after it.
    position: u64,
    frame: Vec<u8>,
    /// Bytes of `frame` that are with the kernel.
    written: usize,
    /// Shared with whoever may need it should it not arrive.
    descriptor: Arc<OwnedFd>,
    retransmissions: u8,
}

impl HandleMessage {
    fn awaits_ack(&self) -> bool {
        self.written == self.frame.len()
    }

    fn is_half_written(&self) -> bool {
        self.written > 0 && !self.awaits_ack()
    }
}

/// The next thing that may be written.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// That many plain bytes.
    Plain(usize),
    /// The unqueued bytes.
    Unqueued,
    /// The rest of the first handle message.
    Handle,
}

/// The queue. Plain messages lie framed in one buffer; a handle message has its place between two
/// bytes of it and is the gate behind which everything waits.
#[derive(Debug)]
pub(crate) struct SendQueue {
    framing: Framing,
    plain: Buffer,
    /// Position of the first byte of `plain` in the stream of all plain bytes.
    position: u64,
    /// Ends of the unwritten plain messages, as positions.
    ends: VecDeque<u64>,
    handles: VecDeque<HandleMessage>,
    /// Whole frames that pass the gate, and the position at which they are written.
    unqueued: Buffer,
    unqueued_at: u64,
    unqueued_messages: u64,
    /// Bytes of room handed out and not committed.
    reserved: usize,
    ledger: Ledger,
}

impl SendQueue {
    pub fn new(framing: Framing) -> Self {
        SendQueue {
            framing,
            plain: Buffer::default(),
            position: 0,
            ends: VecDeque::new(),
            handles: VecDeque::new(),
            unqueued: Buffer::default(),
            unqueued_at: 0,
            unqueued_messages: 0,
            reserved: 0,
            ledger: Ledger::default(),
        }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.reserved = len;
        let payload = self.payload(len);
        &mut self.plain.room(payload.end + self.suffix())[payload]
    }

    pub fn commit(
        &mut self,
        transport: &mut impl Transport,
        len: usize,
        handle: Option<Arc<OwnedFd>>,
        mode: SendMode,
        sender: Sender,
    ) -> Result<SendStatus, Errno> {
        let frame = self.frame(len)?;
        let sequence = self.ledger.enter();
        match handle {
            None => {
                self.plain.fill(frame);
                self.ends.push_back(self.end());
            }
            Some(descriptor) => self.handles.push_back(HandleMessage {
                sequence,
                sender,
                position: self.end(),
                frame: self.plain.room(frame).to_vec(),
                written: 0,
                descriptor,
                retransmissions: 0,
            }),
        }
        if self.ledger.is_due(mode, self.queued_bytes()) {
            self.flush(transport);
            self.ledger.check_sent(sequence, sender)?;
        } else {
            self.ledger.gather();
        }
        Ok(self.status(sequence))
    }

    pub fn commit_unqueued(
        &mut self,
        transport: &mut impl Transport,
        len: usize,
    ) -> Result<(), Errno> {
        let frame = self.frame(len)?;
        if self.unqueued.is_empty() {
            // After what was sent before, as far as the gate lets it through.
            self.unqueued_at = self
                .handles
                .front()
                .map_or(self.end(), |handle| handle.position);
        }
        self.unqueued.append(self.plain.room(frame));
        self.unqueued_messages += 1;
        if !self.ledger.is_blocked() {
            self.flush(transport);
        }
        self.ledger.broken().map_or(Ok(()), Err)
    }

    pub fn flush(&mut self, transport: &mut impl Transport) -> FlushState {
        self.reserved = 0;
        self.ledger.begin_flush();
        while let Some(step) = self.next_step() {
            match self.write(transport, step).or_else(nothing_sent) {
                Ok(true) => {}
                // The rest of a partial write would only meet a full buffer.
                Ok(false) => {
                    self.ledger.block();
                    break;
                }
                Err(errno) => self.fail(step, errno),
            }
        }
        self.ledger.state()
    }

    /// The peer acknowledged a handle. Returns whether that released something.
    pub fn acknowledge(&mut self) -> bool {
        let Some(handle) = self.pop_handle(HandleMessage::awaits_ack) else {
            return false;
        };
        self.ledger.acknowledged(handle.sequence, handle.sender);
        true
    }

    /// The peer refused a handle. Returns whether there is something to write now.
    pub fn refuse(&mut self) -> bool {
        let Some(handle) = self.handles.front_mut() else {
            return false;
        };
        if !handle.awaits_ack() {
            return false;
        }
        if handle.retransmissions < MAX_RETRANSMISSIONS {
            handle.retransmissions += 1;
            handle.written = 0;
            self.ledger.counts.retransmissions += 1;
            return true;
        }
        let (sequence, sender) = (handle.sequence, handle.sender);
        self.handles.pop_front();
        self.ledger.not_received(sequence, sender);
        true
    }

    pub fn queued_bytes(&self) -> usize {
        let handle = self
            .handles
            .front()
            .map_or(0, |handle| handle.frame.len() - handle.written);
        self.plain_before_gate() + handle + self.unqueued.len()
    }

    pub fn unqueued_bytes(&self) -> usize {
        self.unqueued.len()
    }

    pub fn held_messages(&self) -> usize {
        self.handles
            .front()
            .map_or(0, |handle| (self.ledger.last() - handle.sequence) as usize)
    }

    pub fn holds_handle(&self) -> bool {
        !self.handles.is_empty()
    }

    pub fn awaits_ack(&self) -> bool {
        self.handles.front().is_some_and(HandleMessage::awaits_ack)
    }

    /// Whether what the peer is to acknowledge next is a handle of the dispatcher's.
    pub fn awaits_dispatchers_ack(&self) -> bool {
        self.handles
            .front()
            .is_some_and(|handle| handle.sender == Sender::Dispatcher && handle.awaits_ack())
    }

    pub fn oldest_unsent(&self) -> Option<Instant> {
        self.ledger
            .gathered_since()
            .filter(|_| self.next_step().is_some())
    }

    pub fn next_event(&mut self, sender: Sender) -> Option<ChannelEvent> {
        self.ledger.next_event(sender)
    }

    /// Takes back the dispatcher's handle with this number, if nothing of it is written and it is
    /// the next to be.
    pub fn withdraw(&mut self, sequence: u64) -> bool {
        let position = self.position;
        let is_next = self.handles.front().is_some_and(|handle| {
            handle.sequence == sequence && handle.position == position && handle.written == 0
        });
        if is_next {
            self.handles.pop_front();
            self.ledger.withdrawn(sequence);
        }
        is_next
    }

    /// See [`Ledger::give_up`].
    pub fn give_up(&mut self) {
        self.ledger.give_up();
    }

    /// Completes the frame around the payload in the reserved room; returns its size.
    fn frame(&mut self, len: usize) -> Result<usize, Errno> {
        assert!(
            len <= self.reserved,
            "committed {len} bytes, reserved {}",
            self.reserved
        );
        self.reserved = 0;
        if let Some(errno) = self.ledger.broken() {
            return Err(errno);
        }
        let payload = self.payload(len);
        let size = payload.end + self.suffix();
        let room = self.plain.room(size);
        match self.framing {
            Framing::JsonLines => room[len] = b'\n',
            Framing::Advanced if len > advanced::MAX_PAYLOAD => return Err(Errno::EMSGSIZE),
            Framing::Advanced => {
                room[..payload.start].copy_from_slice(&(len as u32).to_be_bytes());
            }
        }
        Ok(size)
    }

    /// Where a payload lies in its frame.
    fn payload(&self, len: usize) -> Range<usize> {
        let prefix = match self.framing {
            Framing::JsonLines => 0,
            Framing::Advanced => advanced::PREFIX,
        };
        prefix..prefix + len
    }

    fn suffix(&self) -> usize {
        match self.framing {
            Framing::JsonLines => 1,
            Framing::Advanced => 0,
        }
    }

    /// The position behind all plain bytes.
    fn end(&self) -> u64 {
        self.position + self.plain.len() as u64
    }

    fn plain_before_gate(&self) -> usize {
        let gate = self
            .handles
            .front()
            .map_or(self.end(), |handle| handle.position);
        (gate - self.position) as usize
    }

    fn next_step(&self) -> Option<Step> {
        let at_gate = self
            .handles
            .front()
            .filter(|handle| handle.position == self.position);
        if at_gate.is_some_and(HandleMessage::is_half_written) {
            return Some(Step::Handle);
        }
        let mut plain = self.plain_before_gate();
        if !self.unqueued.is_empty() {
            plain = (self.unqueued_at - self.position) as usize;
            if plain == 0 {
                return Some(Step::Unqueued);
            }
        }
        if plain > 0 {
            return Some(Step::Plain(plain));
        }
        at_gate
            .filter(|handle| !handle.awaits_ack())
            .map(|_| Step::Handle)
    }

    /// Writes as much as the kernel takes; tells whether that was all of the step.
    fn write(&mut self, transport: &mut impl Transport, step: Step) -> Result<bool, Errno> {
        let written = match step {
            Step::Plain(len) => {
                let written = transport.send(&[IoSlice::new(&self.plain.filled()[..len])], &[])?;
                self.plain_written(written);
                written
            }
            Step::Unqueued => {
                let written = transport.send(&[IoSlice::new(self.unqueued.filled())], &[])?;
                self.unqueued_written(written);
                written
            }
            Step::Handle => self.write_handle(transport)?,
        };
        self.ledger.counts.bytes += written as u64;
        Ok(match step {
            Step::Plain(len) => written == len,
            Step::Unqueued => self.unqueued.is_empty(),
            Step::Handle => self.awaits_ack(),
        })
    }

    /// The descriptor goes with the first byte, and with no other.
    fn write_handle(&mut self, transport: &mut impl Transport) -> Result<usize, Errno> {
        let Some(handle) = self.handles.front_mut() else {
            return Ok(0);
        };
        let bytes = [IoSlice::new(&handle.frame[handle.written..])];
        let descriptor = [handle.descriptor.as_fd()];
        let descriptors = if handle.written == 0 {
            &descriptor[..]
        } else {
            &[]
        };
        let written = transport.send(&bytes, descriptors)?;
        self.ledger.counts.descriptors += descriptors.len() as u64;
        handle.written += written;
        let first_time = handle.sequence > self.ledger.completed();
        if handle.awaits_ack() && first_time {
            self.ledger.written_up_to(handle.sequence);
        }
        Ok(written)
    }

    fn plain_written(&mut self, written: usize) {
        self.plain.consume(written);
        self.position += written as u64;
        let mut completed = self.ledger.completed();
        while self.ends.front().is_some_and(|&end| end <= self.position) {
            self.ends.pop_front();
            completed += 1;
        }
        self.ledger.written_up_to(completed);
        if self.ends.is_empty() && self.ends.capacity() > KEEP_ENDS {
            self.ends = VecDeque::new();
        }
    }

    fn unqueued_written(&mut self, written: usize) {
        self.unqueued.consume(written);
        if self.unqueued.is_empty() {
            self.ledger.counts.messages += self.unqueued_messages;
            self.unqueued_messages = 0;
        }
    }

    /// An error that repeating the call would not mend.
    fn fail(&mut self, step: Step, errno: Errno) {
        if matches!(step, Step::Handle) && !is_lost(errno) {
            // None of it was written: too many descriptors in flight, or one that cannot travel.
            if let Some(handle) = self.pop_handle(|handle| handle.written == 0) {
                self.ledger.failed(handle.sequence, handle.sender, errno);
                return;
            }
        }
        self.break_off(errno);
    }

    fn break_off(&mut self, errno: Errno) {
        self.ledger.break_off(errno);
        self.plain = Buffer::default();
        self.unqueued = Buffer::default();
        self.ends = VecDeque::new();
        self.handles = VecDeque::new();
    }

    fn pop_handle(&mut self, wanted: fn(&HandleMessage) -> bool) -> Option<HandleMessage> {
        if self.handles.front().is_some_and(wanted) {
            self.handles.pop_front()
        } else {
            None
        }
    }

    fn status(&self, sequence: u64) -> SendStatus {
        let held = self
            .handles
            .front()
            .is_some_and(|handle| handle.sequence < sequence);
        SendStatus {
            progress: self.ledger.progress(sequence, held),
            sequence,
            queued_bytes: self.queued_bytes(),
            held_messages: self.held_messages(),
        }
    }
}
