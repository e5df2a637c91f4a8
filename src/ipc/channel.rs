//! One end of an IPC channel: sends and receives messages and handles over a transport, by Node's
//! protocol. Whoever owns it drives it (the loop thread, the dispatcher, a flusher) under a lock;
//! it starts nothing by itself and never blocks, but for [`Channel::drain_on_exit`].

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::errno::Errno;

use super::batch::Batch;
use super::send_queue::{FlushState, SendMode, SendStatus};
use super::transport::Transport;
use super::{Framing, Limits};

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

/// Counters since the channel began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Messages written whole, replies to handles included.
    pub messages_sent: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Descriptors written, retransmissions included.
    pub descriptors_sent: u64,
    /// Handle messages written again after a NACK.
    pub retransmissions: u64,
    /// Handles given up after the last NACK.
    pub handles_not_received: u64,
    /// Messages dropped because the channel broke or the exit deadline passed.
    pub messages_dropped: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Descriptors received.
    pub descriptors_received: u64,
    /// Reads whose descriptors the kernel cut off (`MSG_CTRUNC`).
    pub descriptors_truncated: u64,
}

/// One end of an IPC channel.
#[derive(Debug)]
pub struct Channel<T> {
    transport: T,
}

impl<T: Transport> Channel<T> {
    /// A channel with the default limits.
    pub fn new(transport: T, framing: Framing) -> Self {
        Self::with_limits(transport, framing, Limits::default())
    }

    /// A channel with limits of its own.
    pub fn with_limits(transport: T, framing: Framing, limits: Limits) -> Self {
        todo!()
    }

    /// The framing it speaks.
    pub fn framing(&self) -> Framing {
        todo!()
    }

    /// What carries the bytes.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Gives up the channel with all that is queued and received, and returns the transport.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Takes in bytes that somebody else read from the stream before this channel took over. They
    /// are delivered by the next [`receive`](Self::receive), before anything read from the socket.
    /// To be called before the first receive.
    pub fn adopt_unread(&mut self, bytes: &[u8]) {
        todo!()
    }

    // Sending.

    /// Sends one message: a JSON text without newline, or a serialized value without length. The
    /// handle is owned by the queue until the peer acknowledged it.
    ///
    /// An error is about this message alone if it carries a handle and
    /// [`broken`](Self::broken) is still `None`; otherwise the channel can send nothing any more
    /// and every message above [`completed`](Self::completed) is lost. Either way the handle is
    /// closed.
    pub fn send(
        &mut self,
        payload: &[u8],
        handle: Option<OwnedFd>,
        mode: SendMode,
    ) -> Result<SendStatus, Errno> {
        self.reserve(payload.len()).copy_from_slice(payload);
        self.commit(payload.len(), handle, mode)
    }

    /// Room for a payload of up to `len` bytes, directly in the queue's buffer; its content is
    /// arbitrary. Must be followed by [`commit`](Self::commit) or
    /// [`commit_unqueued`](Self::commit_unqueued); without, nothing happened.
    pub fn reserve(&mut self, len: usize) -> &mut [u8] {
        todo!()
    }

    /// Sends the first `len` bytes written to what [`reserve`](Self::reserve) returned; see
    /// [`send`](Self::send).
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    pub fn commit(
        &mut self,
        len: usize,
        handle: Option<OwnedFd>,
        mode: SendMode,
    ) -> Result<SendStatus, Errno> {
        todo!()
    }

    /// Sends a message that does not wait for the acknowledgement of a handle, at once and
    /// without a number: replies to handles, internal messages. Messages sent this way keep
    /// their order among themselves.
    pub fn send_unqueued(&mut self, payload: &[u8]) -> Result<(), Errno> {
        self.reserve(payload.len()).copy_from_slice(payload);
        self.commit_unqueued(payload.len())
    }

    /// As [`commit`](Self::commit), for [`send_unqueued`](Self::send_unqueued).
    pub fn commit_unqueued(&mut self, len: usize) -> Result<(), Errno> {
        todo!()
    }

    /// Tells the peer that its handle arrived (`NODE_HANDLE_ACK`).
    pub fn acknowledge_handle(&mut self) -> Result<(), Errno> {
        todo!()
    }

    /// Tells the peer that its handle is missing (`NODE_HANDLE_NACK`).
    pub fn refuse_handle(&mut self) -> Result<(), Errno> {
        todo!()
    }

    /// Writes whatever may be written until the kernel's buffer is full.
    pub fn flush(&mut self) -> FlushState {
        todo!()
    }

    /// The number of the last message that was written (or dropped with
    /// [`ChannelEvent::SendFailed`]); so were all before it.
    pub fn completed(&self) -> u64 {
        todo!()
    }

    /// Unwritten bytes that wait for nothing but the kernel or a flush.
    pub fn queued_bytes(&self) -> usize {
        todo!()
    }

    /// Messages that wait for the acknowledgement of a handle before them.
    pub fn held_messages(&self) -> usize {
        todo!()
    }

    /// Messages not written yet, gathered and held ones included.
    pub fn unwritten_messages(&self) -> usize {
        todo!()
    }

    /// Whether a handle was written that the peer has not acknowledged yet.
    pub fn awaits_ack(&self) -> bool {
        todo!()
    }

    /// Whether the last write met a full buffer: the driver arms the writable interest.
    pub fn wants_writable(&self) -> bool {
        todo!()
    }

    /// Since when bytes lie that only a flush would write: none if the queue is empty, if it
    /// waits for the socket to become writable, or for an acknowledgement.
    pub fn oldest_unsent(&self) -> Option<Instant> {
        todo!()
    }

    /// Why nothing can be sent any more, if so.
    pub fn broken(&self) -> Option<Errno> {
        todo!()
    }

    // Receiving.

    /// Reads until nothing is left or `budget` bytes are exceeded. Acknowledgements found are
    /// applied to the queue, which is flushed if one releases something; look at
    /// [`completed`](Self::completed), [`wants_writable`](Self::wants_writable) and
    /// [`next_event`](Self::next_event) afterwards.
    pub fn receive(&mut self, budget: usize) -> Batch {
        todo!()
    }

    /// Gives the memory of a delivered batch back. Handles still in it are closed.
    pub fn recycle(&mut self, batch: Batch) {
        todo!()
    }

    /// Whether part of a message has arrived (Node's `buffering`).
    pub fn is_buffering(&self) -> bool {
        todo!()
    }

    /// The next thing that happened to a sent handle.
    pub fn next_event(&mut self) -> Option<ChannelEvent> {
        todo!()
    }

    /// The counters.
    pub fn stats(&self) -> ChannelStats {
        todo!()
    }

    /// Writes what is queued before the process ends: blocks until all is written, nothing more
    /// can be, or the deadline passed. What is received meanwhile drives acknowledgements and is
    /// dropped. Returns how many messages are left; they are dropped with the channel.
    pub fn drain_on_exit(&mut self, deadline: Instant) -> usize {
        todo!()
    }
}
