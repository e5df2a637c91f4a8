//! Splits a byte stream into frames. Owns the receive buffer; every byte is scanned once. Where
//! the bytes and descriptors come from, and what control messages do, is left to `channel`.

use std::ops::Range;

use super::Framing;
use super::control::Control;
use super::error::ReceiveError;

/// Whole frames, cut off the stream.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    /// End of the region in `bytes`.
    end: usize,
    /// End of each payload in `bytes`.
    ends: Vec<u32>,
    framing: Framing,
}

impl Frames {
    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// See [`Batch::json_array`](super::Batch::json_array).
    pub fn json_array(&self) -> &[u8] {
        todo!()
    }

    /// See [`Batch::region`](super::Batch::region).
    pub fn region(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// See [`Batch::range`](super::Batch::range).
    pub fn range(&self, index: usize) -> Range<usize> {
        todo!()
    }

    /// See [`Batch::is_ascii`](super::Batch::is_ascii).
    pub fn is_ascii(&self) -> bool {
        todo!()
    }
}

/// The receive buffer of a channel and the position of its decoder.
#[derive(Debug)]
pub struct FrameReader {
    framing: Framing,
}

impl FrameReader {
    /// A reader that refuses payloads above `max_message` bytes.
    pub fn new(framing: Framing, max_message: usize) -> Self {
        todo!()
    }

    /// Where to put the next bytes of the stream. Never empty.
    pub fn spare(&mut self) -> &mut [u8] {
        todo!()
    }

    /// Takes in the first `n` bytes of [`spare`](Self::spare) and finds the frames they complete.
    /// Control frames among them are appended to `controls` with their index.
    pub fn advance(
        &mut self,
        n: usize,
        controls: &mut Vec<(usize, Control)>,
    ) -> Result<(), ReceiveError> {
        todo!()
    }

    /// Cuts the whole frames off; an unfinished one stays.
    pub fn take(&mut self) -> Frames {
        todo!()
    }

    /// Bytes of the unfinished frame.
    pub fn unfinished(&self) -> usize {
        todo!()
    }

    /// Gives the memory of delivered frames back for the next ones.
    pub fn recycle(&mut self, frames: Frames) {
        todo!()
    }
}
