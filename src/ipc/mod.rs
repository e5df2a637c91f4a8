//! The IPC channel between two processes: Node's wire format and its one-handle-at-a-time rule,
//! brood's own frames where both ends are brood's, and nothing of Node-API. Plain Rust without
//! `unsafe`; the system calls are in `sys::socket`, the policy (events, callbacks, reference counts)
//! in `binding` and `lib/ipc`.

mod advanced;
mod answers;
mod areas;
mod batch;
mod batch_queue;
mod batch_reader;
pub mod blocks;
mod buffer;
pub mod busy;
mod channel;
mod control;
mod descriptors;
mod error;
mod frame_reader;
mod gated_bytes;
mod json_lines;
mod layout;
mod ledger;
mod outgoing;
pub mod pace;
mod send_queue;
mod transport;
pub mod upgrade;
mod v8_value;

pub mod shared;

#[cfg(test)]
mod area_tests;
#[cfg(test)]
mod channel_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod socket_tests;

pub use batch::{Arrived, Batch, HandleSlot, ReadEnd};
pub use batch_queue::Beside;
pub use channel::{Channel, ChannelStats};
pub use control::Control;
pub use error::ReceiveError;
pub use frame_reader::{FrameReader, Frames, Run};
pub use layout::Content;
pub use ledger::{ChannelEvent, FlushState, Progress, SendMode, SendStatus};
pub use transport::{Ancillary, Ready, Received, Transport, UnixTransport};
pub use v8_value::{V8Reader, V8Text, V8Writer};

/// How messages are told apart on the wire: the two values of `serialization` in Node's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON text a line.
    JsonLines,
    /// A 4-byte big-endian length, then one value in V8's serialization format.
    Advanced,
}

/// What a peer may make this side hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest payload accepted, in bytes, without newline or length prefix. Values above
    /// [`Limits::LARGEST_MESSAGE`] are clamped to it.
    pub max_message: usize,
    /// Most descriptors that may wait for the message they belong to.
    pub max_unpaired_descriptors: usize,
}

impl Limits {
    /// What a string can hold: V8's limit on 64 bit.
    pub const LONGEST_STRING: usize = (1 << 29) - 24;
    /// Keeps positions within 32 bits.
    pub const LARGEST_MESSAGE: usize = 1 << 30;
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message: Self::LONGEST_STRING,
            // Those of a frame may be read together with the end of Node's protocol before it.
            max_unpaired_descriptors: layout::MAX_DESCRIPTORS,
        }
    }
}
