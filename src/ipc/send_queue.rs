//! What is still to be written: framed bytes in one buffer, the handles among them, and the rule
//! that after a handle nothing follows until the peer acknowledged it. Reading the
//! acknowledgements is left to `channel`.

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
use super::channel::ChannelEvent;
use super::transport::Transport;

/// Gathered bytes that are written without waiting for a flush.
const GATHER: usize = 64 * 1024;
/// How often Node sends a refused handle again.
const MAX_RETRANSMISSIONS: u8 = 3;
/// Memory for message ends that an empty queue keeps, in entries.
const KEEP_ENDS: usize = 16 * 1024;

/// Whether a message may wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// Write at once, together with what was gathered before.
    WriteNow,
    /// Leave it until the next flush, unless 64 KiB are gathered by then.
    Gather,
}

/// Where a message is after `send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of it is with the kernel.
    Written,
    /// It waits for a flush.
    Gathered,
    /// The kernel's buffer is full: flush when the socket is writable.
    Blocked,
    /// It waits for the peer to acknowledge an earlier handle.
    Held,
}

/// Who sent a message, and therefore learns what became of its handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The channel's owner.
    Client,
    /// A cluster's dispatcher, which sends connections on the same channel.
    Dispatcher,
}

/// What became of a sent message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendStatus {
    /// Where the message is.
    pub progress: Progress,
    /// Its number. The first message of a channel has number 1, and it is done once
    /// [`completed`](super::Channel::completed) has reached its number.
    pub sequence: u64,
    /// Unwritten bytes that wait for nothing but the kernel or a flush: what Node compares with
    /// 128 KiB for the result of `send()`.
    pub queued_bytes: usize,
    /// Messages that wait for an acknowledgement, this one included: Node's
    /// `_handleQueue.length`, so that `send()` returns `held_messages == 1` when held.
    pub held_messages: usize,
}

/// What a flush left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushState {
    /// Nothing.
    Empty,
    /// Nothing that could be written before the peer acknowledges a handle.
    AwaitingAck,
    /// The kernel's buffer is full: flush again when the socket is writable.
    Blocked,
    /// The peer is gone or the socket broken. What was queued is dropped.
    Failed(Errno),
}

/// What a send queue counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendCounts {
    pub messages: u64,
    pub bytes: u64,
    pub descriptors: u64,
    pub retransmissions: u64,
    pub not_received: u64,
    pub dropped: u64,
}

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
    last: u64,
    completed: u64,
    gathered_since: Option<Instant>,
    blocked: bool,
    broken: Option<Errno>,
    events: VecDeque<ChannelEvent>,
    dispatcher_events: VecDeque<ChannelEvent>,
    counts: SendCounts,
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
            last: 0,
            completed: 0,
            gathered_since: None,
            blocked: false,
            broken: None,
            events: VecDeque::new(),
            dispatcher_events: VecDeque::new(),
            counts: SendCounts::default(),
        }
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
        self.last += 1;
        let sequence = self.last;
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
        let due = mode == SendMode::WriteNow || self.queued_bytes() >= GATHER;
        if due && !self.blocked {
            self.flush(transport);
            self.check_sent(sequence, sender)?;
        } else if self.gathered_since.is_none() {
            self.gathered_since = Some(Instant::now());
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
        if !self.blocked {
            self.flush(transport);
        }
        self.broken.map_or(Ok(()), Err)
    }

    pub fn flush(&mut self, transport: &mut impl Transport) -> FlushState {
        self.reserved = 0;
        self.blocked = false;
        self.gathered_since = None;
        while let Some(step) = self.next_step() {
            match self.write(transport, step) {
                Ok(true) => {}
                // The rest of a partial write would only meet a full buffer.
                Ok(false) | Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.blocked = true;
                    break;
                }
                Err(errno) => self.fail(step, errno),
            }
        }
        self.state()
    }

    /// The peer acknowledged a handle. Returns whether that released something.
    pub fn acknowledge(&mut self) -> bool {
        let Some(handle) = self.pop_handle(HandleMessage::awaits_ack) else {
            return false;
        };
        let sequence = handle.sequence;
        self.events_of(handle.sender)
            .push_back(ChannelEvent::HandleAcknowledged { sequence });
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
            self.counts.retransmissions += 1;
            return true;
        }
        let (sequence, sender) = (handle.sequence, handle.sender);
        self.handles.pop_front();
        self.counts.not_received += 1;
        self.events_of(sender)
            .push_back(ChannelEvent::HandleNotReceived { sequence });
        true
    }

    pub fn state(&self) -> FlushState {
        match self.broken {
            Some(errno) => FlushState::Failed(errno),
            None if self.blocked => FlushState::Blocked,
            None if self.unwritten() > 0 => FlushState::AwaitingAck,
            None => FlushState::Empty,
        }
    }

    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// The number of the last message.
    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn unwritten(&self) -> u64 {
        if self.broken.is_some() {
            0
        } else {
            self.last - self.completed
        }
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
            .map_or(0, |handle| (self.last - handle.sequence) as usize)
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

    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub fn oldest_unsent(&self) -> Option<Instant> {
        let waits_for_flush = !self.blocked && self.next_step().is_some();
        self.gathered_since.filter(|_| waits_for_flush)
    }

    pub fn broken(&self) -> Option<Errno> {
        self.broken
    }

    pub fn next_event(&mut self, sender: Sender) -> Option<ChannelEvent> {
        self.events_of(sender).pop_front()
    }

    fn events_of(&mut self, sender: Sender) -> &mut VecDeque<ChannelEvent> {
        match sender {
            Sender::Client => &mut self.events,
            Sender::Dispatcher => &mut self.dispatcher_events,
        }
    }

    pub fn counts(&self) -> SendCounts {
        self.counts
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
            self.completed = sequence;
        }
        is_next
    }

    /// Counts as lost what is left when the process ends.
    pub fn give_up(&mut self) {
        self.counts.dropped += self.unwritten();
    }

    /// Completes the frame around the payload in the reserved room; returns its size.
    fn frame(&mut self, len: usize) -> Result<usize, Errno> {
        assert!(
            len <= self.reserved,
            "committed {len} bytes, reserved {}",
            self.reserved
        );
        self.reserved = 0;
        if let Some(errno) = self.broken {
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
        self.counts.bytes += written as u64;
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
        self.counts.descriptors += descriptors.len() as u64;
        handle.written += written;
        let first_time = handle.sequence > self.completed;
        if handle.awaits_ack() && first_time {
            self.completed = handle.sequence;
            self.counts.messages += 1;
        }
        Ok(written)
    }

    fn plain_written(&mut self, written: usize) {
        self.plain.consume(written);
        self.position += written as u64;
        while self.ends.front().is_some_and(|&end| end <= self.position) {
            self.ends.pop_front();
            self.completed += 1;
            self.counts.messages += 1;
        }
        if self.ends.is_empty() && self.ends.capacity() > KEEP_ENDS {
            self.ends = VecDeque::new();
        }
    }

    fn unqueued_written(&mut self, written: usize) {
        self.unqueued.consume(written);
        if self.unqueued.is_empty() {
            self.counts.messages += self.unqueued_messages;
            self.unqueued_messages = 0;
        }
    }

    /// An error that repeating the call would not mend.
    fn fail(&mut self, step: Step, errno: Errno) {
        let connection_lost = matches!(
            errno,
            Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN | Errno::EBADF | Errno::ENOTSOCK
        );
        if matches!(step, Step::Handle) && !connection_lost {
            // None of it was written: too many descriptors in flight, or one that cannot travel.
            if let Some(handle) = self.pop_handle(|handle| handle.written == 0) {
                self.skip(&handle, errno);
                return;
            }
        }
        self.break_off(errno);
    }

    /// Goes on without this handle message.
    fn skip(&mut self, handle: &HandleMessage, errno: Errno) {
        self.completed = self.completed.max(handle.sequence);
        self.counts.dropped += 1;
        let sequence = handle.sequence;
        self.events_of(handle.sender)
            .push_back(ChannelEvent::SendFailed { sequence, errno });
    }

    fn break_off(&mut self, errno: Errno) {
        self.counts.dropped += self.unwritten();
        self.broken = Some(errno);
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

    /// What `send` itself reports about a message that could not be written.
    fn check_sent(&mut self, sequence: u64, sender: Sender) -> Result<(), Errno> {
        if let Some(errno) = self.broken {
            return Err(errno);
        }
        let events = self.events_of(sender);
        match events.back() {
            Some(&ChannelEvent::SendFailed {
                sequence: failed,
                errno,
            }) if failed == sequence => {
                let failure = Err(errno);
                events.pop_back();
                failure
            }
            _ => Ok(()),
        }
    }

    fn status(&self, sequence: u64) -> SendStatus {
        let held = self
            .handles
            .front()
            .is_some_and(|handle| handle.sequence < sequence);
        let progress = if self.completed >= sequence {
            Progress::Written
        } else if held {
            Progress::Held
        } else if self.blocked {
            Progress::Blocked
        } else {
            Progress::Gathered
        };
        let queued_bytes = self.queued_bytes();
        SendStatus {
            progress,
            sequence,
            queued_bytes,
            held_messages: self.held_messages(),
        }
    }
}
