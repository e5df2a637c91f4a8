//! The sending direction of a channel: Node's protocol at first, and behind its last byte brood's
//! frames, if the two ends agree to. Presents both queues as one.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::Framing;
use super::batch_queue::{BatchQueue, Beside};
use super::ledger::{
    ChannelEvent, FlushState, Ledger, Progress, SendCounts, SendMode, SendStatus, Sender,
};
use super::send_queue::SendQueue;
use super::transport::Transport;

#[derive(Debug)]
pub(crate) struct Outgoing {
    stock: SendQueue,
    frames: Option<BatchQueue>,
    /// All of Node's protocol is written and acknowledged, and nothing will be added.
    stock_done: bool,
}

impl Outgoing {
    pub fn new(framing: Framing) -> Self {
        Outgoing {
            stock: SendQueue::new(framing),
            frames: None,
            stock_done: false,
        }
    }

    /// Whatever is sent from now on goes in frames, behind what is queued.
    pub fn switch(&mut self, pipelined_handles: bool) {
        let frames = BatchQueue::new(self.stock.ledger().last(), pipelined_handles);
        self.frames.get_or_insert(frames);
    }

    /// The queue of frames, once switched.
    pub fn frames(&mut self) -> Option<&mut BatchQueue> {
        self.frames.as_mut()
    }

    pub fn speaks_frames(&self) -> bool {
        self.frames.is_some()
    }

    /// By Node's protocol all messages are encoded in the channel's way, whatever `encoding`.
    pub fn reserve(&mut self, len: usize, encoding: Framing) -> &mut [u8] {
        match &mut self.frames {
            Some(frames) => frames.reserve(len, encoding),
            None => self.stock.reserve(len),
        }
    }

    pub fn commit(
        &mut self,
        transport: &mut impl Transport,
        len: usize,
        handle: Option<OwnedFd>,
        mode: SendMode,
    ) -> Result<SendStatus, Errno> {
        let may_write = self.is_stock_done();
        let Some(frames) = &mut self.frames else {
            let handle = handle.map(Arc::new);
            return self
                .stock
                .commit(transport, len, handle, mode, Sender::Client);
        };
        let status = frames.commit(may_write.then_some(transport), len, handle, mode)?;
        Ok(self.behind_stock(status))
    }

    /// A dispatcher's handle, at once; `EOPNOTSUPP` but by Node's protocol.
    pub fn commit_dispatched(
        &mut self,
        transport: &mut impl Transport,
        len: usize,
        handle: Arc<OwnedFd>,
    ) -> Result<SendStatus, Errno> {
        if self.speaks_frames() {
            return Err(Errno::EOPNOTSUPP);
        }
        let (mode, sender) = (SendMode::WriteNow, Sender::Dispatcher);
        self.stock
            .commit(transport, len, Some(handle), mode, sender)
    }

    /// See [`BatchQueue::commit_beside`]; `EOPNOTSUPP` by Node's protocol.
    pub fn commit_beside(
        &mut self,
        transport: &mut impl Transport,
        len: usize,
        beside: Vec<Beside>,
    ) -> Result<SendStatus, Errno> {
        let may_write = self.is_stock_done();
        let frames = self.frames.as_mut().ok_or(Errno::EOPNOTSUPP)?;
        let status = frames.commit_beside(may_write.then_some(transport), len, beside)?;
        Ok(self.behind_stock(status))
    }

    /// By Node's protocol only.
    pub fn commit_unqueued(
        &mut self,
        transport: &mut impl Transport,
        len: usize,
    ) -> Result<(), Errno> {
        self.stock.commit_unqueued(transport, len)
    }

    pub fn withdraw(&mut self, sequence: u64) -> bool {
        self.stock.withdraw(sequence)
    }

    pub fn flush(&mut self, transport: &mut impl Transport) -> FlushState {
        if !self.is_stock_done() {
            let state = self.stock.flush(transport);
            let Some(frames) = &mut self.frames else {
                return state;
            };
            if let FlushState::Failed(errno) = state {
                frames.break_off(errno);
            }
            if !self.is_stock_done() {
                return self.state();
            }
        }
        match &mut self.frames {
            Some(frames) => frames.flush(transport),
            None => self.stock.ledger().state(),
        }
    }

    /// A reply to a handle that was sent by Node's protocol.
    pub fn acknowledge(&mut self) -> bool {
        self.stock.acknowledge()
    }

    /// See [`acknowledge`](Self::acknowledge).
    pub fn refuse(&mut self) -> bool {
        self.stock.refuse()
    }

    fn state(&self) -> FlushState {
        FlushState::of(self.broken(), self.is_blocked(), self.unwritten())
    }

    pub fn completed(&self) -> u64 {
        match &self.frames {
            Some(frames) if self.stock_done => frames.ledger().completed(),
            _ => self.stock.ledger().completed(),
        }
    }

    pub fn unwritten(&self) -> u64 {
        let frames = self.frames_ledger().map_or(0, Ledger::unwritten);
        self.stock.ledger().unwritten() + frames
    }

    pub fn queued_bytes(&self) -> usize {
        let frames = self.frames.as_ref().map_or(0, BatchQueue::queued_bytes);
        self.stock.queued_bytes() + frames
    }

    /// Bytes of replies that wait for the peer to read them.
    pub fn unqueued_bytes(&self) -> usize {
        let frames = self.frames.as_ref().map_or(0, BatchQueue::control_bytes);
        self.stock.unqueued_bytes() + frames
    }

    pub fn held_messages(&self) -> usize {
        match &self.frames {
            Some(frames) if self.stock_done => frames.held_messages(),
            Some(frames) if self.stock.holds_handle() => {
                self.stock.held_messages() + frames.ledger().unwritten() as usize
            }
            _ => self.stock.held_messages(),
        }
    }

    pub fn holds_handle(&self) -> bool {
        let frames = self.frames.as_ref().is_some_and(BatchQueue::holds_handle);
        self.stock.holds_handle() || frames
    }

    pub fn awaits_ack(&self) -> bool {
        self.stock.awaits_ack() || self.frames.as_ref().is_some_and(BatchQueue::awaits_ack)
    }

    /// Whether that handle is the dispatcher's, which speaks Node's protocol only.
    pub fn awaits_dispatchers_ack(&self) -> bool {
        self.stock.awaits_dispatchers_ack()
    }

    pub fn is_blocked(&self) -> bool {
        self.stock.ledger().is_blocked() || self.frames_ledger().is_some_and(Ledger::is_blocked)
    }

    pub fn oldest_unsent(&self) -> Option<Instant> {
        self.stock.oldest_unsent().or_else(|| {
            let frames = self.frames.as_ref().filter(|_| self.is_stock_written());
            frames.and_then(BatchQueue::oldest_unsent)
        })
    }

    pub fn broken(&self) -> Option<Errno> {
        let frames = self.frames_ledger().and_then(Ledger::broken);
        self.stock.ledger().broken().or(frames)
    }

    pub fn next_event(&mut self, sender: Sender) -> Option<ChannelEvent> {
        self.stock.next_event(sender).or_else(|| {
            let frames = self.frames.as_mut().filter(|_| sender == Sender::Client);
            frames.and_then(BatchQueue::next_event)
        })
    }

    pub fn counts(&self) -> SendCounts {
        let frames = self.frames_ledger().map(|ledger| ledger.counts);
        self.stock.ledger().counts + frames.unwrap_or_default()
    }

    pub fn give_up(&mut self) {
        self.stock.give_up();
        if let Some(frames) = &mut self.frames {
            frames.give_up();
        }
    }

    fn frames_ledger(&self) -> Option<&Ledger> {
        self.frames.as_ref().map(BatchQueue::ledger)
    }

    /// Whether frames may be written: all before them is.
    fn is_stock_done(&mut self) -> bool {
        self.stock_done = self.stock_done || (self.frames.is_some() && self.is_stock_written());
        self.stock_done
    }

    fn is_stock_written(&self) -> bool {
        self.stock.ledger().unwritten() == 0
            && !self.stock.holds_handle()
            && self.stock.unqueued_bytes() == 0
            && self.stock.ledger().broken().is_none()
    }

    /// What `send` reports about a frame that waits for the end of Node's protocol.
    fn behind_stock(&self, status: SendStatus) -> SendStatus {
        if self.stock_done {
            return status;
        }
        SendStatus {
            progress: match self.stock.ledger().is_blocked() {
                true => Progress::Blocked,
                false => Progress::Held,
            },
            queued_bytes: self.queued_bytes(),
            held_messages: self.held_messages(),
            ..status
        }
    }
}
