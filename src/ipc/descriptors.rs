//! Received descriptors that wait for the message they belong to, in the order they came. What
//! happens to a message without one is left to `channel`.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::batch::HandleSlot;
use super::error::ReceiveError;

/// Closes what nobody takes.
#[derive(Debug)]
pub(crate) struct DescriptorFifo {
    /// `None` stands for a descriptor the kernel dropped, so that the next one is not taken for
    /// it.
    waiting: VecDeque<Option<OwnedFd>>,
    limit: usize,
}

impl DescriptorFifo {
    pub fn new(limit: usize) -> Self {
        DescriptorFifo {
            waiting: VecDeque::new(),
            limit,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn push(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), ReceiveError> {
        self.waiting.extend(descriptors.into_iter().map(Some));
        self.check()
    }

    /// The kernel dropped a descriptor here.
    pub fn push_lost(&mut self) -> Result<(), ReceiveError> {
        self.waiting.push_back(None);
        self.check()
    }

    /// The handle of the next message that has one.
    pub fn take(&mut self) -> HandleSlot {
        match self.waiting.pop_front().flatten() {
            Some(descriptor) => HandleSlot::Received(descriptor),
            None => HandleSlot::Missing,
        }
    }

    /// All that wait, and whether the kernel dropped one among them.
    pub fn take_all(&mut self) -> (Vec<OwnedFd>, bool) {
        let waiting = std::mem::take(&mut self.waiting);
        let lost = waiting.iter().any(Option::is_none);
        (waiting.into_iter().flatten().collect(), lost)
    }

    pub fn clear(&mut self) {
        self.waiting = VecDeque::new();
    }

    fn check(&mut self) -> Result<(), ReceiveError> {
        let waiting = self.waiting.len();
        if waiting <= self.limit {
            return Ok(());
        }
        self.clear();
        Err(ReceiveError::UnexpectedDescriptors {
            waiting,
            limit: self.limit,
        })
    }
}
