//! Bytes to be written in which descriptors have their places: each travels with a certain byte, and
//! a write never passes a place without what belongs there. What the bytes say is `batch_queue`'s.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::buffer::Buffer;
use super::transport::Transport;

/// An area in which a frame has something, and whether its descriptor comes with it.
pub(crate) type Used = (u32, bool);

/// Descriptors that travel with the byte at `position`.
#[derive(Debug)]
pub(crate) struct Gate {
    pub position: u64,
    /// Of the frame they belong to.
    pub number: u32,
    pub descriptors: Arc<Vec<OwnedFd>>,
    pub areas: Vec<Used>,
    /// What each descriptor counts for in the window.
    pub weight: usize,
}

/// Bytes to write, with the places where descriptors belong.
#[derive(Debug, Default)]
pub(crate) struct GatedBytes {
    /// What is still to be written.
    pub bytes: Buffer,
    /// Position of the first byte of `bytes` in all that ever were in it.
    pub position: u64,
    /// In the order of their positions.
    pub gates: VecDeque<Gate>,
}

impl GatedBytes {
    /// The position behind the last byte.
    pub fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// What the next byte may not leave without.
    pub fn gate(&self) -> Option<&Gate> {
        self.gates
            .front()
            .filter(|gate| gate.position == self.position)
    }

    /// Bytes up to the next place where descriptors belong.
    pub fn run(&self) -> usize {
        let next = self
            .gates
            .iter()
            .map(|gate| gate.position)
            .find(|&position| position > self.position);
        (next.unwrap_or(self.end()) - self.position) as usize
    }

    /// Writes up to `len` bytes; returns how many, and the gate that was passed.
    pub fn write(
        &mut self,
        transport: &mut impl Transport,
        len: usize,
    ) -> Result<(usize, Option<Gate>), Errno> {
        let bytes = [IoSlice::new(&self.bytes.filled()[..len])];
        let written = match self.gate() {
            None => transport.send(&bytes, &[])?,
            Some(gate) => {
                let descriptors: Vec<BorrowedFd<'_>> =
                    gate.descriptors.iter().map(AsFd::as_fd).collect();
                transport.send(&bytes, &descriptors)?
            }
        };
        let passed = match self.gate() {
            Some(_) if written > 0 => self.gates.pop_front(),
            _ => None,
        };
        self.skip(written);
        Ok((written, passed))
    }

    /// Drops the next `len` bytes.
    pub fn skip(&mut self, len: usize) {
        self.bytes.consume(len);
        self.position += len as u64;
    }
}
