//! Splits a byte stream into frames. Owns the receive buffer; every byte is scanned once, however
//! the stream is cut into reads. Where the bytes and descriptors come from, and what control
//! messages do, is left to `channel`.

use std::mem;
use std::ops::Range;

use super::Framing;
use super::control::Control;
use super::error::ReceiveError;
use super::json_lines::ControlSearch;
use super::{advanced, json_lines};

/// Room offered to a read, at least. Also the memory that an idle reader may keep.
const READ: usize = 64 * 1024;
/// More memory than this is not kept for the next frames, however busy the channel.
const KEEP: usize = 2 * 1024 * 1024;
/// The buffer doubles up to here, then grows by this much: a large message shall not make the
/// process touch twice its size.
const STEP: usize = 32 * 1024 * 1024;

/// Whole frames, cut off the stream.
#[derive(Debug)]
pub struct Frames {
    /// For JSON `[line,line,...]`; for advanced framing the frames as they were sent.
    region: Vec<u8>,
    /// Length of what is meaningful in `region`.
    len: usize,
    /// End of each payload in `region`.
    ends: Vec<u32>,
    framing: Framing,
    ascii: bool,
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
        if self.is_empty() {
            b"[]"
        } else {
            self.region()
        }
    }

    /// See [`Batch::region`](super::Batch::region).
    pub fn region(&self) -> &[u8] {
        &self.region[..self.len]
    }

    /// See [`Batch::range`](super::Batch::range).
    pub fn range(&self, index: usize) -> Range<usize> {
        payload(self.framing, &self.ends, index)
    }

    /// See [`Batch::is_ascii`](super::Batch::is_ascii).
    pub fn is_ascii(&self) -> bool {
        self.ascii
    }
}

/// The receive buffer of a channel and the position of its decoder.
#[derive(Debug)]
pub struct FrameReader {
    framing: Framing,
    max_message: usize,
    /// Always initialised, so that reads need no `unsafe`.
    buffer: Vec<u8>,
    /// End of what was received.
    filled: usize,
    /// End of what was searched for newlines.
    scanned: usize,
    /// Start of the unfinished frame.
    start: usize,
    /// Ends of the payloads found and not taken yet.
    ends: Vec<u32>,
    search: ControlSearch,
    /// Memory of delivered frames.
    spare: Vec<u8>,
    spare_ends: Vec<u32>,
}

impl FrameReader {
    /// A reader that refuses payloads above `max_message` bytes (a gigabyte at most, so that
    /// positions fit 32 bits).
    pub fn new(framing: Framing, max_message: usize) -> Self {
        let origin = origin(framing);
        FrameReader {
            framing,
            max_message: max_message.min(1 << 30),
            buffer: Vec::new(),
            filled: origin,
            scanned: origin,
            start: origin,
            ends: Vec::new(),
            search: ControlSearch::new(),
            spare: Vec::new(),
            spare_ends: Vec::new(),
        }
    }

    /// How the stream is cut.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Where to put the next bytes of the stream: 64 KiB or more.
    pub fn room(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = mem::take(&mut self.spare);
        }
        self.grow(self.filled + READ);
        &mut self.buffer[self.filled..]
    }

    /// Takes in bytes that came another way, without looking at them yet: the next
    /// [`advance`](Self::advance) does.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.grow(self.filled + bytes.len());
        self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Takes in the first `n` bytes of [`room`](Self::room) and finds the frames they complete.
    /// Control messages among them are appended to `controls` with their index; `thorough` as in
    /// [`receive`](super::Channel::receive)'s need to find every spelling of them.
    ///
    /// After an error the frames found before it can still be taken.
    pub fn advance(
        &mut self,
        n: usize,
        thorough: bool,
        controls: &mut Vec<(usize, Control)>,
    ) -> Result<(), ReceiveError> {
        self.filled += n;
        let first = self.ends.len();
        match self.framing {
            Framing::JsonLines => self.advance_lines(first, thorough, controls),
            Framing::Advanced => self.advance_advanced(first, controls),
        }
    }

    /// Cuts the whole frames off; an unfinished one stays.
    pub fn take(&mut self) -> Frames {
        let framing = self.framing;
        let ends = mem::replace(&mut self.ends, mem::take(&mut self.spare_ends));
        if ends.is_empty() {
            return Frames {
                region: Vec::new(),
                len: 0,
                ends,
                framing,
                ascii: false,
            };
        }
        let len = self.start;
        let mut region = self.move_unfinished();
        let ascii = match framing {
            Framing::JsonLines => {
                region[0] = b'[';
                region[len - 1] = b']';
                region[..len].is_ascii()
            }
            Framing::Advanced => false,
        };
        Frames {
            region,
            len,
            ends,
            framing,
            ascii,
        }
    }

    /// Bytes of the unfinished frame.
    pub fn unfinished(&self) -> usize {
        self.filled - self.start
    }

    /// Gives the memory of delivered frames back for the next ones, unless it is much more than
    /// they needed.
    pub fn recycle(&mut self, frames: Frames) {
        let Frames {
            region,
            len,
            mut ends,
            ..
        } = frames;
        let wanted = KEEP.min((4 * len).max(2 * READ));
        if region.len() <= wanted && region.len() > self.spare.len() {
            self.spare = region;
        }
        ends.clear();
        if ends.capacity() <= READ && ends.capacity() > self.spare_ends.capacity() {
            self.spare_ends = ends;
        }
    }

    /// Drops everything not taken yet, and the memory.
    pub fn clear(&mut self) {
        *self = FrameReader::new(self.framing, self.max_message);
    }

    fn advance_lines(
        &mut self,
        first: usize,
        thorough: bool,
        controls: &mut Vec<(usize, Control)>,
    ) -> Result<(), ReceiveError> {
        let bytes = &self.buffer[..self.filled];
        let from = mem::replace(&mut self.scanned, self.filled);
        let result = json_lines::split(
            bytes,
            from,
            &mut self.start,
            self.max_message,
            &mut self.ends,
        );
        self.search
            .search(bytes, &self.ends, first, thorough, controls);
        for &end in &self.ends[first..] {
            self.buffer[end as usize] = b',';
        }
        result
    }

    fn advance_advanced(
        &mut self,
        first: usize,
        controls: &mut Vec<(usize, Control)>,
    ) -> Result<(), ReceiveError> {
        let bytes = &self.buffer[..self.filled];
        let result = advanced::split(bytes, &mut self.start, self.max_message, &mut self.ends);
        for index in first..self.ends.len() {
            let payload = &bytes[payload(self.framing, &self.ends, index)];
            controls.extend(advanced::control(payload).map(|control| (index, control)));
        }
        result
    }

    /// Moves the unfinished frame to the front of other memory and returns the old.
    fn move_unfinished(&mut self) -> Vec<u8> {
        let old = mem::take(&mut self.buffer);
        let unfinished = self.start..self.filled;
        let origin = origin(self.framing);
        self.start = origin;
        self.filled = origin + unfinished.len();
        self.scanned = self.filled;
        if !unfinished.is_empty() {
            self.buffer = mem::take(&mut self.spare);
            self.grow(self.filled + READ);
            self.buffer[origin..self.filled].copy_from_slice(&old[unfinished]);
        }
        old
    }

    fn grow(&mut self, needed: usize) {
        if needed <= self.buffer.len() {
            return;
        }
        let grown = self.buffer.len() + self.buffer.len().min(STEP);
        let len = needed.max(grown);
        if self.buffer.is_empty() {
            // Zeroed by the allocator, which for fresh pages costs nothing.
            self.buffer = vec![0; len];
        } else {
            self.buffer.resize(len, 0);
        }
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity() + self.spare.capacity()
    }
}

/// Where the first frame begins: JSON leaves room for the opening bracket.
fn origin(framing: Framing) -> usize {
    match framing {
        Framing::JsonLines => 1,
        Framing::Advanced => 0,
    }
}

/// Where the payload of frame `index` lies.
fn payload(framing: Framing, ends: &[u32], index: usize) -> Range<usize> {
    match framing {
        Framing::JsonLines => json_lines::line(ends, index),
        Framing::Advanced => {
            let before = if index == 0 {
                0
            } else {
                ends[index - 1] as usize
            };
            before + advanced::PREFIX..ends[index] as usize
        }
    }
}
