//! The books of one direction of a channel: which messages were queued, written and dropped, what
//! became of their handles, and whether anything can be written at all. Where the bytes of a message
//! lie, and what they wait for, is for the queue that keeps them to say: `send_queue`, `batch_queue`.

use std::collections::VecDeque;
use std::ops::Add;
use std::time::Instant;

use nix::errno::Errno;

/// Gathered bytes that are written without waiting for a flush.
const GATHER: usize = 64 * 1024;
/// How often a refused handle is sent again, as by Node.
pub(crate) const MAX_RETRANSMISSIONS: u8 = 3;

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

impl FlushState {
    /// The state of what has so many messages left to write.
    pub(crate) fn of(broken: Option<Errno>, is_blocked: bool, unwritten: u64) -> FlushState {
        match broken {
            Some(errno) => FlushState::Failed(errno),
            None if is_blocked => FlushState::Blocked,
            None if unwritten > 0 => FlushState::AwaitingAck,
            None => FlushState::Empty,
        }
    }
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

impl Add for SendCounts {
    type Output = SendCounts;

    fn add(self, other: SendCounts) -> SendCounts {
        SendCounts {
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
            descriptors: self.descriptors + other.descriptors,
            retransmissions: self.retransmissions + other.retransmissions,
            not_received: self.not_received + other.not_received,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// Something that happened to a handle after `send` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The peer acknowledged the handle of this message.
    HandleAcknowledged {
        /// The message's number.
        sequence: u64,
    },
    /// The peer refused the handle of this message for the fourth time; it is given up (Node's
    /// `SentHandleNotReceivedWarning`).
    HandleNotReceived {
        /// The message's number.
        sequence: u64,
    },
    /// The kernel refused to send the handle of this message; message and handle are dropped,
    /// the channel goes on.
    SendFailed {
        /// The message's number.
        sequence: u64,
        /// Why.
        errno: Errno,
    },
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// What has gone over the transport; the messages among it are counted here.
    pub counts: SendCounts,
    last: u64,
    completed: u64,
    gathered_since: Option<Instant>,
    blocked: bool,
    broken: Option<Errno>,
    events: VecDeque<ChannelEvent>,
    dispatcher_events: VecDeque<ChannelEvent>,
}

impl Ledger {
    /// The books of a queue whose first message gets the number after `last`.
    pub fn after(last: u64) -> Self {
        Ledger {
            last,
            completed: last,
            ..Ledger::default()
        }
    }

    /// One more message is queued; returns its number.
    pub fn enter(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The number of the last message.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number of the last message that is off the books, as are all before it.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    pub fn unwritten(&self) -> u64 {
        match self.broken {
            Some(_) => 0,
            None => self.last - self.completed,
        }
    }

    pub fn broken(&self) -> Option<Errno> {
        self.broken
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub fn state(&self) -> FlushState {
        FlushState::of(self.broken, self.blocked, self.unwritten())
    }

    /// Since when something waits for a flush.
    pub fn gathered_since(&self) -> Option<Instant> {
        self.gathered_since.filter(|_| !self.blocked)
    }

    /// Whether a message that has been queued is to be written now, with what was gathered before.
    pub fn is_due(&self, mode: SendMode, queued_bytes: usize) -> bool {
        !self.blocked && (mode == SendMode::WriteNow || queued_bytes >= GATHER)
    }

    /// What has been queued waits for a flush.
    pub fn gather(&mut self) {
        if self.gathered_since.is_none() {
            self.gathered_since = Some(Instant::now());
        }
    }

    /// A flush begins.
    pub fn begin_flush(&mut self) {
        self.blocked = false;
        self.gathered_since = None;
    }

    /// The kernel takes no more.
    pub fn block(&mut self) {
        self.blocked = true;
    }

    /// All messages up to this one are with the kernel.
    pub fn written_up_to(&mut self, sequence: u64) {
        self.counts.messages += sequence - self.completed;
        self.completed = sequence;
    }

    /// The next message, which is this one, was taken back.
    pub fn withdrawn(&mut self, sequence: u64) {
        self.completed = sequence;
    }

    /// This message could not be sent; the direction goes on without it.
    pub fn failed(&mut self, sequence: u64, sender: Sender, errno: Errno) {
        self.completed = self.completed.max(sequence);
        self.counts.dropped += 1;
        self.events_of(sender)
            .push_back(ChannelEvent::SendFailed { sequence, errno });
    }

    /// The peer has the handle of this message.
    pub fn acknowledged(&mut self, sequence: u64, sender: Sender) {
        self.events_of(sender)
            .push_back(ChannelEvent::HandleAcknowledged { sequence });
    }

    /// The peer will never have the handle of this message.
    pub fn not_received(&mut self, sequence: u64, sender: Sender) {
        self.counts.not_received += 1;
        self.events_of(sender)
            .push_back(ChannelEvent::HandleNotReceived { sequence });
    }

    /// Counts as lost what is left when the process ends.
    pub fn give_up(&mut self) {
        self.counts.dropped += self.unwritten();
    }

    /// The direction is broken: nothing more will be written.
    pub fn break_off(&mut self, errno: Errno) {
        self.give_up();
        self.broken = Some(errno);
    }

    pub fn next_event(&mut self, sender: Sender) -> Option<ChannelEvent> {
        self.events_of(sender).pop_front()
    }

    /// What `send` itself reports about a message that could not be written.
    pub fn check_sent(&mut self, sequence: u64, sender: Sender) -> Result<(), Errno> {
        if let Some(errno) = self.broken {
            return Err(errno);
        }
        let events = self.events_of(sender);
        match events.back() {
            Some(&ChannelEvent::SendFailed {
                sequence: failed,
                errno,
            }) if failed == sequence => {
                events.pop_back();
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    /// Where a message is that waits for an acknowledgement if it `is_held`.
    pub fn progress(&self, sequence: u64, is_held: bool) -> Progress {
        if self.completed >= sequence {
            Progress::Written
        } else if is_held {
            Progress::Held
        } else if self.blocked {
            Progress::Blocked
        } else {
            Progress::Gathered
        }
    }

    fn events_of(&mut self, sender: Sender) -> &mut VecDeque<ChannelEvent> {
        match sender {
            Sender::Client => &mut self.events,
            Sender::Dispatcher => &mut self.dispatcher_events,
        }
    }
}
