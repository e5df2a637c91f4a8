//! What one receive delivers: whole messages as one region of bytes, the handles that belong to
//! some of them, and how the reading ended. Parsing the bytes is left to JavaScript's own parsers.

use std::mem;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::blocks::Copied;
use super::error::ReceiveError;
use super::frame_reader::{Frames, Run};
use super::layout::Content;

/// The handle of a `NODE_HANDLE` message.
#[derive(Debug)]
pub enum HandleSlot {
    /// It arrived.
    Received(OwnedFd),
    /// It did not (`MSG_CTRUNC`, or the peer sent none): the receiver answers NACK.
    Missing,
}

/// A large buffer or a long text of a message that came beside the stream.
#[derive(Debug)]
pub enum Arrived {
    /// Sealed memory of its own, not looked at yet.
    File(OwnedFd),
    /// A copy of what lay in the peer's area.
    Copied(Copied, Content),
}

/// Why a receive stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// Nothing more is there now.
    Drained,
    /// A read brought less than it could have. Usually nothing more is there now, so asking is
    /// left to the next readiness; who has none to wait for (it is edge-triggered, or was lost
    /// with an error) calls [`receive`](super::Channel::receive) again.
    ShortRead,
    /// The byte budget is used up; there may be more.
    Budget,
    /// The peer closed its end between two messages, or was seen closed before.
    Closed,
    /// The peer speaks brood's frames from here on: receive again, for the first of them may have
    /// been read already.
    Switched,
    /// There is no memory for what comes next, which waits, and so does the peer before long: receive
    /// again when there may be some.
    Starved,
    /// The channel cannot be read any further, for this reason. Reported once, then `Closed`.
    Failed(ReceiveError),
}

/// Whole messages in the order of arrival. Owns its memory: give it back with
/// [`recycle`](super::Channel::recycle) once the messages are delivered.
#[derive(Debug)]
#[must_use = "the messages in it are delivered nowhere else"]
pub struct Batch {
    pub(crate) frames: Frames,
    pub(crate) handles: Vec<(usize, HandleSlot)>,
    pub(crate) beside: Vec<(usize, Vec<Arrived>)>,
    pub(crate) dispatched: Vec<usize>,
    pub(crate) only_replies: bool,
    pub(crate) end: ReadEnd,
}

impl Batch {
    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no message (there may still be an end to handle).
    pub fn is_empty(&self) -> bool {
        self.frames.len() == 0
    }

    /// All messages as one JSON array text (`[]` if there are none; JSON framing only). A hostile
    /// line such as `1,2` makes more elements than messages, and a bad one spoils the whole text:
    /// unless it parses to exactly [`len`](Self::len) elements, parse [`message`](Self::message)
    /// one by one.
    pub fn json_array(&self) -> &[u8] {
        self.frames.json_array()
    }

    /// The messages in order, by how they are encoded. Towards a peer that speaks Node's protocol
    /// it is one run at most.
    pub fn runs(&self) -> Vec<Run> {
        self.frames.runs()
    }

    /// Takes out what came beside messages, by their index: their large buffers.
    pub fn take_beside(&mut self) -> Vec<(usize, Vec<Arrived>)> {
        mem::take(&mut self.beside)
    }

    /// The region the ranges of [`range`](Self::range) refer to.
    pub fn region(&self) -> &[u8] {
        self.frames.region()
    }

    /// Where in [`region`](Self::region) a message's payload lies: a line without its newline, or
    /// a serialized value without its length.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.frames.range(index)
    }

    /// One message's payload, as it was sent.
    pub fn message(&self, index: usize) -> &[u8] {
        &self.region()[self.range(index)]
    }

    /// Whether [`json_array`](Self::json_array) is pure ASCII (never true for advanced framing).
    pub fn is_ascii(&self) -> bool {
        self.frames.is_ascii()
    }

    /// The `NODE_HANDLE` messages seen, by index in ascending order, with their handles. A
    /// `NODE_HANDLE` that JavaScript finds at an index not listed here (a peer can spell the name
    /// in ways that are only seen by a full parse) counts as [`HandleSlot::Missing`].
    pub fn handles(&self) -> &[(usize, HandleSlot)] {
        &self.handles
    }

    /// The acknowledgements, by index in ascending order, of handles that were sent with
    /// [`send_dispatched`](super::Channel::send_dispatched).
    pub fn dispatched(&self) -> &[usize] {
        &self.dispatched
    }

    /// Whether there is nothing in it but replies to handles that were sent, of which the channel has
    /// taken note already.
    pub fn holds_only_replies(&self) -> bool {
        self.only_replies
    }

    /// Takes the handles out. Those left in the batch are closed with it.
    pub fn take_handles(&mut self) -> Vec<(usize, HandleSlot)> {
        mem::take(&mut self.handles)
    }

    /// Bytes of memory it occupies.
    pub fn memory(&self) -> usize {
        mem::size_of::<Batch>() + self.frames.memory()
    }

    /// Takes the messages `gone` (indices in ascending order) out, as if they had never been sent.
    /// Handles that belong to them are closed.
    pub fn remove(&mut self, gone: &[usize]) {
        if gone.is_empty() {
            return;
        }
        self.frames.remove(gone);
        self.handles.retain_mut(|(index, _)| {
            let before = gone.partition_point(|removed| removed < index);
            let stays = gone.get(before) != Some(index);
            *index -= before;
            stays
        });
    }

    /// How the reading ended.
    pub fn end(&self) -> ReadEnd {
        self.end
    }
}
