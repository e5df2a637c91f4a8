//! One end of an IPC channel: sends and receives messages and handles over a transport, by Node's
//! protocol. Whoever owns it drives it (the loop thread, the dispatcher, a flusher) under a lock;
//! it starts nothing by itself and never blocks, but for [`Channel::drain`].

use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::answers::Answers;
use super::batch::{Arrived, Batch, HandleSlot, ReadEnd};
use super::batch_queue::Beside;
use super::batch_reader::{BatchReader, Notice};
use super::control::Control;
use super::descriptors::DescriptorFifo;
use super::error::ReceiveError;
use super::frame_reader::{FrameReader, Frames};
use super::layout::Kind;
use super::ledger::{ChannelEvent, FlushState, Progress, SendMode, SendStatus, Sender};
use super::outgoing::Outgoing;
use super::transport::{Ancillary, Ready, Transport};
use super::upgrade::{self, Negotiation, Offer, Step, Terms, features};
use super::{Framing, Limits, advanced, json_lines};
use crate::sys::area::Area;

/// What a read may take even when the budget is nearly used up.
const MIN_READ: usize = 4 * 1024;
/// Keeps positions in a batch within 32 bits.
const MAX_BUDGET: usize = 1 << 30;
/// Bytes of replies that may wait for a peer to read them; a well-behaved one has a single one coming.
const MAX_UNREAD_REPLIES: usize = 1 << 20;
/// The same of answers. A well-behaved peer may ask for thousands of things before it reads.
const MAX_UNREAD_ANSWERS: usize = 16 << 20;
/// What the descriptor of an answer counts for, so that these stay below some thousands.
const WEIGHT_OF_HANDLE: usize = 4 << 10;
/// Bytes read between two looks at the clock while draining.
const DRAIN_BUDGET: usize = 1 << 20;

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
    queue: Outgoing,
    answers: Answers,
    reader: FrameReader,
    descriptors: DescriptorFifo,
    /// What follows the reader once the peer has switched to brood's frames.
    frames: Option<BatchReader>,
    negotiation: Negotiation,
    /// Handles that came by Node's protocol and are not replied to yet.
    unanswered: usize,
    max_message: usize,
    /// The peer closed its end, or did what ends the reading.
    ended: bool,
    /// Bytes from before the takeover lie undecoded in the reader.
    preloaded: bool,
    /// How the reading has ended, while something that came before that waits for memory.
    postponed: Option<ReadEnd>,
    /// Reused between reads.
    controls: Vec<(usize, Control)>,
    notices: Vec<Notice>,
    received: ReceiveCounts,
}

/// What a receive has come upon among the messages.
#[derive(Debug, Default)]
struct Found {
    handles: Vec<(usize, HandleSlot)>,
    dispatched: Vec<usize>,
    /// How many messages are replies to our handles.
    replies: usize,
    /// Something of the queue waits no longer for an acknowledgement.
    released: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct ReceiveCounts {
    messages: u64,
    bytes: u64,
    descriptors: u64,
    truncated: u64,
}

impl<T: Transport> Channel<T> {
    /// A channel with the default limits.
    pub fn new(transport: T, framing: Framing) -> Self {
        Self::with_limits(transport, framing, Limits::default())
    }

    /// A channel with limits of its own.
    pub fn with_limits(transport: T, framing: Framing, limits: Limits) -> Self {
        let max_message = limits.max_message.min(Limits::LARGEST_MESSAGE);
        Channel {
            transport,
            queue: Outgoing::new(framing),
            answers: Answers::default(),
            reader: FrameReader::new(framing, max_message),
            descriptors: DescriptorFifo::new(limits.max_unpaired_descriptors),
            frames: None,
            negotiation: Negotiation::None,
            unanswered: 0,
            max_message,
            ended: false,
            preloaded: false,
            postponed: None,
            controls: Vec::new(),
            notices: Vec::new(),
            received: ReceiveCounts::default(),
        }
    }

    /// The framing it speaks, unless it is upgraded.
    pub fn framing(&self) -> Framing {
        self.reader.framing()
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
        self.reader.preload(bytes);
        self.preloaded = true;
    }

    // The upgrade to brood's own frames.

    /// The parent: the peer was made this offer out of band and may take it up at any time.
    pub fn offer_upgrade(&mut self, offer: &Offer) {
        self.negotiate(Negotiation::Offered {
            nonce: offer.nonce.clone(),
            terms: offer.terms,
        });
    }

    /// The child: takes up the parent's offer. Messages go by Node's protocol until the parent
    /// has switched. Returns whether there is common ground with what this side can do.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn accept_upgrade(&mut self, offer: &Offer, own: Terms) -> Result<bool, Errno> {
        let Some(terms) = own.agree(offer.terms) else {
            return Ok(false);
        };
        let nonce = offer.nonce.clone();
        self.announce(Step::Answer, &nonce, terms)?;
        self.negotiate(Negotiation::Agreed {
            nonce,
            terms,
            switched: false,
        });
        Ok(true)
    }

    /// The parent: whatever the peer answers, Node's protocol stays. Returns false when it is too
    /// late for that.
    pub fn pin(&mut self) -> bool {
        if matches!(self.negotiation, Negotiation::Offered { .. }) {
            self.negotiate(Negotiation::None);
        }
        self.negotiation == Negotiation::None
    }

    /// What was agreed, once this end sends frames.
    pub fn upgraded(&self) -> Option<Terms> {
        match self.negotiation {
            Negotiation::Done(terms) => Some(terms),
            Negotiation::Agreed {
                terms,
                switched: true,
                ..
            } => Some(terms),
            _ => None,
        }
    }

    fn negotiate(&mut self, negotiation: Negotiation) {
        self.reader.listen(negotiation.clone());
        self.negotiation = negotiation;
    }

    fn announce(&mut self, step: Step, nonce: &str, terms: Terms) -> Result<(), Errno> {
        let payload = upgrade::announcement(self.framing(), step, nonce, terms);
        self.send(&payload, None, SendMode::WriteNow).map(drop)
    }

    /// The last thing this end says by Node's protocol.
    fn switch(&mut self, nonce: &str, terms: Terms) {
        // If it cannot be sent, nothing can.
        let _ = self.announce(Step::Switch, nonce, terms);
        self.queue
            .switch(terms.features & features::PIPELINED_HANDLES != 0);
    }

    /// The peer has said what the negotiation waited for.
    fn proceed(&mut self, stated: Terms) {
        match mem::take(&mut self.negotiation) {
            Negotiation::Offered { nonce, .. } => {
                self.switch(&nonce, stated);
                self.negotiate(Negotiation::Agreed {
                    nonce,
                    terms: stated,
                    switched: true,
                });
            }
            Negotiation::Agreed {
                nonce, switched, ..
            } => {
                if !switched {
                    self.switch(&nonce, stated);
                }
                self.negotiation = Negotiation::Done(stated);
                let rest = self.reader.take_rest();
                let mut frames = match stated.features & features::AREAS {
                    0 => BatchReader::new(self.max_message, &rest),
                    _ => BatchReader::with_areas(self.max_message, &rest),
                };
                let (descriptors, lost) = self.descriptors.take_all();
                if lost || !descriptors.is_empty() {
                    // They came with the read that has just been decoded: one group.
                    let _ = frames.keep(descriptors, lost);
                }
                self.frames = Some(frames);
                self.preloaded = true;
            }
            settled => self.negotiation = settled,
        }
    }

    // Sending.

    /// Sends one message: a JSON text without newline, or a serialized value without length. The
    /// handle is owned by the queue until the peer acknowledged it.
    ///
    /// An error is about this message alone if [`broken`](Self::broken) is still `None`; otherwise
    /// the channel can send nothing any more and every message above
    /// [`completed`](Self::completed) is lost. Either way the handle is closed.
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
    /// [`commit_unqueued`](Self::commit_unqueued) before anything else is sent or flushed;
    /// without, nothing happened.
    pub fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.reserve_as(len, self.framing())
    }

    /// As [`reserve`](Self::reserve), for a payload that is encoded as said; other than the
    /// channel's [`framing`](Self::framing) it may be only once it is
    /// [`upgraded`](Self::upgraded).
    pub fn reserve_as(&mut self, len: usize, encoding: Framing) -> &mut [u8] {
        self.queue.reserve(len, encoding)
    }

    /// Sends the first `len` bytes of the reserved room, a serialized value of which 1 to 128 large
    /// buffers lie `beside` the stream, at once.
    ///
    /// # Errors
    /// As [`send`](Self::send); `EOPNOTSUPP` if the channel is not upgraded, `ENOENT` if there is no
    /// such area, or something is in it.
    pub fn commit_beside(&mut self, len: usize, beside: Vec<Beside>) -> Result<SendStatus, Errno> {
        self.queue.commit_beside(&mut self.transport, len, beside)
    }

    /// An area of at least `len` bytes to be filled and sent, its number first; nobody else gets it
    /// while it is held. `None` when the peer has not agreed to areas, or none is free and there
    /// may be no more.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`, `ENOSPC`; `ENOSYS` before Linux 5.1.
    pub fn take_area(&mut self, len: usize) -> Result<Option<(u32, Arc<Area>)>, Errno> {
        let agreed = self.upgraded().map_or(0, |terms| terms.features);
        match self.queue.frames() {
            Some(frames) if agreed & features::AREAS != 0 => frames.take_area(len),
            _ => Ok(None),
        }
    }

    /// An area that was taken and is not sent, by its number.
    pub fn hold_area(&mut self, number: u32) -> Option<Arc<Area>> {
        self.queue.frames()?.hold_area(number)
    }

    /// Drops areas that have not been used for `age`. Returns whether there are some left.
    pub fn expire_areas(&mut self, age: Duration) -> bool {
        let Some(frames) = self.queue.frames() else {
            return false;
        };
        let some_left = frames.expire_areas(age);
        self.flush();
        some_left
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
        self.queue.commit(&mut self.transport, len, handle, mode)
    }

    /// As [`commit`](Self::commit), for what the peer has asked for. To one that leaves 16 megabytes of
    /// answers unread, or 4000 with a descriptor, nothing is sent.
    ///
    /// # Errors
    /// As [`send`](Self::send); `ENOBUFS` in that case.
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    pub fn commit_answer(
        &mut self,
        len: usize,
        handle: Option<OwnedFd>,
        mode: SendMode,
    ) -> Result<SendStatus, Errno> {
        if self.answers.waiting(self.queue.completed()) > MAX_UNREAD_ANSWERS {
            return Err(Errno::ENOBUFS);
        }
        let weight = handle.as_ref().map_or(0, |_| WEIGHT_OF_HANDLE);
        let status = self.commit(len, handle, mode)?;
        if status.progress != Progress::Written {
            self.answers.add(status.sequence, len + weight);
        }
        Ok(status)
    }

    /// As [`send`](Self::send), at once, for a dispatcher that shares the channel with its owner:
    /// what becomes of the handle is told by
    /// [`next_dispatcher_event`](Self::next_dispatcher_event).
    pub fn send_dispatched(
        &mut self,
        payload: &[u8],
        handle: Arc<OwnedFd>,
    ) -> Result<SendStatus, Errno> {
        let len = payload.len();
        self.reserve(len).copy_from_slice(payload);
        self.queue
            .commit_dispatched(&mut self.transport, len, handle)
    }

    /// Sends a message that does not wait for the acknowledgement of a handle, at once and
    /// without a number: replies to handles, internal messages. Messages sent this way keep
    /// their order among themselves. They are for what is small and rare: a peer that leaves a
    /// megabyte of them unread is no longer listened to ([`ReceiveError::UnreadReplies`]).
    pub fn send_unqueued(&mut self, payload: &[u8]) -> Result<(), Errno> {
        self.reserve(payload.len()).copy_from_slice(payload);
        self.commit_unqueued(payload.len())
    }

    /// As [`commit`](Self::commit), for [`send_unqueued`](Self::send_unqueued).
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    pub fn commit_unqueued(&mut self, len: usize) -> Result<(), Errno> {
        if self.queue.speaks_frames() {
            return Err(Errno::EPROTO);
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        self.queue.commit_unqueued(&mut self.transport, len)
    }

    /// Replies to a handle that JavaScript was given, once the channel is upgraded: what came in
    /// frames has been acknowledged already, only what came before is replied to.
    fn reply_in_frames(&mut self, kind: Kind) {
        if self.frames.is_some() && self.unanswered == 0 {
            return;
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        if let Some(frames) = self.queue.frames() {
            frames.say(kind, 0);
        }
        self.flush();
    }

    /// Tells the peer that its handle arrived (`NODE_HANDLE_ACK`).
    pub fn acknowledge_handle(&mut self) -> Result<(), Errno> {
        if self.queue.speaks_frames() {
            self.reply_in_frames(Kind::StockAcknowledge);
            return Ok(());
        }
        self.send_unqueued(match self.framing() {
            Framing::JsonLines => json_lines::ACK,
            Framing::Advanced => advanced::ACK,
        })
    }

    /// Tells the peer that its handle is missing (`NODE_HANDLE_NACK`).
    pub fn refuse_handle(&mut self) -> Result<(), Errno> {
        if self.queue.speaks_frames() {
            self.reply_in_frames(Kind::StockRefuse);
            return Ok(());
        }
        self.send_unqueued(match self.framing() {
            Framing::JsonLines => json_lines::NACK,
            Framing::Advanced => advanced::NACK,
        })
    }

    /// Takes back the handle that [`send_dispatched`](Self::send_dispatched) has given this number,
    /// unless part of it may have reached the peer, or will: then returns false.
    pub fn withdraw_dispatched(&mut self, sequence: u64) -> bool {
        self.queue.withdraw(sequence)
    }

    /// Writes whatever may be written until the kernel's buffer is full.
    pub fn flush(&mut self) -> FlushState {
        self.queue.flush(&mut self.transport)
    }

    /// The number of the last message that was written (or dropped with
    /// [`ChannelEvent::SendFailed`]); so were all before it.
    pub fn completed(&self) -> u64 {
        self.queue.completed()
    }

    /// Unwritten bytes that wait for nothing but the kernel or a flush.
    pub fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    /// Messages that wait for the acknowledgement of a handle before them.
    pub fn held_messages(&self) -> usize {
        self.queue.held_messages()
    }

    /// Numbered messages not written yet, gathered and held ones included.
    pub fn unwritten_messages(&self) -> usize {
        self.queue.unwritten() as usize
    }

    /// Whether a handle is queued, written or not, that the peer has not acknowledged yet.
    pub fn holds_handle(&self) -> bool {
        self.queue.holds_handle()
    }

    /// Whether a handle was written that the peer has not acknowledged yet.
    pub fn awaits_ack(&self) -> bool {
        self.queue.awaits_ack()
    }

    /// Whether the last write met a full buffer: the driver arms the writable interest.
    pub fn wants_writable(&self) -> bool {
        self.queue.is_blocked()
    }

    /// Since when bytes lie that only a flush would write: none if the queue is empty, if it
    /// waits for the socket to become writable, or for an acknowledgement.
    pub fn oldest_unsent(&self) -> Option<Instant> {
        self.queue.oldest_unsent()
    }

    /// Why nothing can be sent any more, if so.
    pub fn broken(&self) -> Option<Errno> {
        self.queue.broken()
    }

    // Receiving.

    /// Reads until nothing seems left or `budget` bytes are reached. Acknowledgements found are
    /// applied to the queue, which is flushed if one releases something; look at
    /// [`completed`](Self::completed), [`wants_writable`](Self::wants_writable) and
    /// [`next_event`](Self::next_event) afterwards.
    pub fn receive(&mut self, budget: usize) -> Batch {
        let mut found = Found::default();
        // A switch in this very receive leaves what came before it to this batch.
        let by_frames = self.frames.is_some();
        let end = match self.postponed.take() {
            Some(end) => end,
            // Whoever sends waits, too, before it has filled our memory with what must wait.
            None if self.is_starved() => ReadEnd::ShortRead,
            None => self.read(budget.min(MAX_BUDGET), &mut found),
        };
        let mut fault = None;
        let (frames, beside) = match by_frames {
            true => self.take_frames(&mut found, &mut fault),
            false => (self.reader.take(), Vec::new()),
        };
        let end = self.postpone(fault.map_or(end, ReadEnd::Failed));
        let Found {
            handles,
            dispatched,
            replies,
            released,
        } = found;
        self.received.messages += frames.len() as u64;
        if matches!(end, ReadEnd::Closed | ReadEnd::Failed(_)) {
            self.ended = true;
            self.reader.clear();
            self.descriptors.clear();
            if let Some(frames) = &mut self.frames {
                frames.clear();
            }
        }
        if released {
            self.flush();
        }
        Batch {
            only_replies: replies > 0 && replies == frames.len(),
            frames,
            handles,
            beside,
            dispatched,
            end,
        }
    }

    /// Whether something that has come waits for memory.
    fn is_starved(&self) -> bool {
        self.frames.as_ref().is_some_and(BatchReader::is_starved)
    }

    /// What is held back for want of memory comes before the end.
    fn postpone(&mut self, end: ReadEnd) -> ReadEnd {
        if !self.is_starved() {
            return end;
        }
        if matches!(end, ReadEnd::Closed | ReadEnd::Failed(_)) {
            self.postponed = Some(end);
        }
        ReadEnd::Starved
    }

    /// Gives up the message that waits for memory, because nobody wants it.
    pub fn skip_starved(&mut self) {
        let Some(reader) = &mut self.frames else {
            return;
        };
        let areas = reader.skip_starved();
        if let Some(queue) = self.queue.frames() {
            for number in areas {
                queue.say(Kind::Release, number);
            }
        }
    }

    /// Cuts off what has come in frames, acknowledges its descriptors and releases the areas it lay
    /// in.
    fn take_frames(
        &mut self,
        found: &mut Found,
        fault: &mut Option<ReceiveError>,
    ) -> (Frames, Vec<(usize, Vec<Arrived>)>) {
        let Some(reader) = &mut self.frames else {
            return (Frames::none(), Vec::new());
        };
        let taken = reader.take();
        found.handles.extend(taken.handles);
        *fault = taken.fault;
        if let Some(queue) = self.queue.frames() {
            if let Some(number) = taken.acknowledge {
                queue.say(Kind::Acknowledge, number);
                found.released = true;
            }
            for number in taken.release {
                queue.say(Kind::Release, number);
                found.released = true;
            }
        }
        (taken.frames, taken.beside)
    }

    /// Gives the memory of a delivered batch back. Handles still in it are closed.
    pub fn recycle(&mut self, batch: Batch) {
        if self.ended {
            return;
        }
        match &mut self.frames {
            Some(reader) => reader.recycle(batch.frames.into_region()),
            None => self.reader.recycle(batch.frames),
        }
    }

    /// Moves a batch that will not be delivered soon into memory of its own size, and gives the
    /// rest back.
    pub fn compact(&mut self, mut batch: Batch) -> Batch {
        batch.frames = self.reader.compact(batch.frames);
        batch
    }

    /// Whether part of a message has arrived (Node's `buffering`).
    pub fn is_buffering(&self) -> bool {
        self.unfinished() > 0
    }

    fn unfinished(&self) -> usize {
        let frames = self.frames.as_ref().map(BatchReader::unfinished);
        frames.unwrap_or_else(|| self.reader.unfinished())
    }

    /// Whether the end was reached: nothing will be received any more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next thing that happened to a sent handle.
    pub fn next_event(&mut self) -> Option<ChannelEvent> {
        self.queue.next_event(Sender::Client)
    }

    /// The next thing that happened to a handle sent with
    /// [`send_dispatched`](Self::send_dispatched).
    pub fn next_dispatcher_event(&mut self) -> Option<ChannelEvent> {
        self.queue.next_event(Sender::Dispatcher)
    }

    /// The counters.
    pub fn stats(&self) -> ChannelStats {
        let sent = self.queue.counts();
        ChannelStats {
            messages_sent: sent.messages,
            bytes_sent: sent.bytes,
            descriptors_sent: sent.descriptors,
            retransmissions: sent.retransmissions,
            handles_not_received: sent.not_received,
            messages_dropped: sent.dropped,
            messages_received: self.received.messages,
            bytes_received: self.received.bytes,
            descriptors_received: self.received.descriptors,
            descriptors_truncated: self.received.truncated,
        }
    }

    /// Writes what is queued before the process ends: blocks until all is written, nothing more
    /// can be (then it returns true), or the deadline passed. What is received meanwhile drives
    /// acknowledgements and is dropped.
    pub fn drain(&mut self, deadline: Instant) -> bool {
        loop {
            let writable = match self.flush() {
                FlushState::Empty | FlushState::Failed(_) => return true,
                FlushState::Blocked => true,
                FlushState::AwaitingAck if self.ended => return true,
                FlushState::AwaitingAck => false,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let wanted = Ready {
                readable: !self.ended,
                writable,
            };
            if left.is_zero() {
                return false;
            }
            match self.transport.wait(wanted, left) {
                Ok(ready) if ready.readable => {
                    drop(self.receive(DRAIN_BUDGET));
                    self.skip_starved();
                }
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    }

    /// Counts what is still queued as dropped: the process ends now.
    pub fn give_up(&mut self) {
        self.queue.give_up();
    }

    fn read(&mut self, budget: usize, found: &mut Found) -> ReadEnd {
        if self.ended {
            return ReadEnd::Closed;
        }
        let waiting = self.queue.unqueued_bytes();
        if waiting > MAX_UNREAD_REPLIES {
            let limit = MAX_UNREAD_REPLIES;
            return ReadEnd::Failed(ReceiveError::UnreadReplies { waiting, limit });
        }
        if mem::take(&mut self.preloaded)
            && let Err(error) = self.decode(0, found)
        {
            return ReadEnd::Failed(error);
        }
        if self.preloaded {
            return ReadEnd::Switched;
        }
        let mut left = budget;
        loop {
            let room = match &mut self.frames {
                Some(frames) => frames.room(),
                None => self.reader.room(),
            };
            let asked = room.len().min(left.max(MIN_READ));
            let received = match self.transport.receive(&mut room[..asked]) {
                Ok(received) if received.bytes > 0 => received,
                // A peer that closes with unread data resets the connection; once all it sent
                // is read, the kernel says so a single time before end-of-file.
                Ok(_) | Err(Errno::ECONNRESET) => return self.end_of_file(),
                Err(Errno::EAGAIN) => return ReadEnd::Drained,
                Err(errno) => return ReadEnd::Failed(ReceiveError::System(errno)),
            };
            let bytes = received.bytes;
            let alone = matches!(received.ancillary, Ancillary::None);
            self.received.bytes += bytes as u64;
            let result = self.keep(received.ancillary);
            // Decoded in any case: what came before a fault is still delivered.
            let result = self.decode(bytes, found).and(result);
            if let Err(error) = result {
                return ReadEnd::Failed(error);
            }
            if self.preloaded {
                return ReadEnd::Switched;
            }
            // Descriptors end a read early, with more behind them.
            if bytes < asked && alone {
                return ReadEnd::ShortRead;
            }
            left = left.saturating_sub(bytes);
            if left == 0 {
                return ReadEnd::Budget;
            }
        }
    }

    /// Queues what came with a read for the messages that will claim it.
    fn keep(&mut self, ancillary: Ancillary) -> Result<(), ReceiveError> {
        let (descriptors, truncated) = match ancillary {
            Ancillary::None => return Ok(()),
            Ancillary::Complete(descriptors) => (descriptors, false),
            Ancillary::Truncated(descriptors) => (descriptors, true),
        };
        self.received.descriptors += descriptors.len() as u64;
        self.received.truncated += u64::from(truncated);
        if let Some(frames) = &mut self.frames {
            return frames.keep(descriptors, truncated);
        }
        self.descriptors.push(descriptors)?;
        if !truncated {
            return Ok(());
        }
        self.descriptors.push_lost()
    }

    /// Lets the reader find the frames that `bytes` more complete, and acts on control messages.
    fn decode(&mut self, bytes: usize, found: &mut Found) -> Result<(), ReceiveError> {
        if self.frames.is_some() {
            return self.decode_frames(bytes, &mut found.released);
        }
        let expecting = !self.descriptors.is_empty() || self.queue.awaits_ack();
        let result = self.reader.advance(bytes, expecting, &mut self.controls);
        for (index, control) in self.controls.drain(..) {
            if control != Control::Handle {
                found.replies += 1;
                if self.queue.awaits_dispatchers_ack() {
                    found.dispatched.push(index);
                }
            }
            match control {
                Control::Handle => {
                    self.unanswered += 1;
                    found.handles.push((index, self.descriptors.take()));
                }
                Control::Ack => found.released |= self.queue.acknowledge(),
                Control::Nack => found.released |= self.queue.refuse(),
            }
        }
        if let Some((_, terms)) = self.reader.take_heard() {
            self.proceed(terms);
        }
        result
    }

    /// Lets the reader of frames find those that `bytes` more complete, and acts on what they say.
    fn decode_frames(&mut self, bytes: usize, released: &mut bool) -> Result<(), ReceiveError> {
        let Some(reader) = &mut self.frames else {
            return Ok(());
        };
        let mut result = reader.advance(bytes, &mut self.notices);
        for notice in self.notices.drain(..) {
            match notice {
                Notice::StockAcknowledged => *released |= self.queue.acknowledge(),
                Notice::StockRefused => *released |= self.queue.refuse(),
                _ => {
                    // A peer that replies to what was never sent is not listened to.
                    let Some(queue) = self.queue.frames() else {
                        continue;
                    };
                    match notice {
                        Notice::Acknowledged(number) => *released |= queue.acknowledge(number),
                        Notice::Refused(number) => *released |= queue.refuse(number),
                        Notice::Abandoned(number) => queue.abandon(number),
                        Notice::Released(number) => {
                            if !queue.release_area(number) {
                                let lie = "releases an area that is not in use";
                                result = result.and(Err(ReceiveError::Frame(lie)));
                            }
                        }
                        Notice::Refuse(number) => queue.say(Kind::Refuse, number),
                        Notice::Abandon(number) => queue.say(Kind::Abandon, number),
                        Notice::StockAcknowledged | Notice::StockRefused => {}
                    }
                    *released = true;
                }
            }
        }
        result
    }

    fn end_of_file(&mut self) -> ReadEnd {
        if let Some(frames) = &mut self.frames {
            frames.give_up_missing();
        }
        match self.unfinished() {
            0 => ReadEnd::Closed,
            received => ReadEnd::Failed(ReceiveError::TruncatedFrame { received }),
        }
    }
}
