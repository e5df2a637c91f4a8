//! What is still to be written: framed bytes in one buffer, the handles among them, and the rule
//! that after a handle nothing follows until the peer acknowledged it. Reading the
//! acknowledgements is left to `channel`.

use nix::errno::Errno;

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
