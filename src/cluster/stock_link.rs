//! A worker that runs Node's own cluster: it gets connections as messages on its IPC channel, the
//! next one when the last has been acknowledged (two handles in flight could swap), and answers
//! each. The dispatcher reads the channel, so that answers are seen while the primary's JavaScript
//! is busy; what is not for it goes to the channel's own thread.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::connection::Connection;
use super::outcome::Outcome;
use super::relay::Inbox;
use super::stock::{self, Reply};
use super::watch::{Source, Watch};
use crate::ipc::shared::SharedChannel;
use crate::ipc::{Batch, ChannelEvent, Framing, ReadEnd, ReceiveError};

/// Connections that were acknowledged and not answered yet, with the one that was neither: a worker
/// does both in one go, but in two messages, and waiting for the second would cost a wake-up.
const MOST_IN_FLIGHT: usize = 4;

/// Bytes read at a time.
const READ_BUDGET: usize = 1 << 18;

/// Reads in one go, of a worker that has hung up: far more than its socket can hold.
const MOST_READS: usize = 64;

/// A connection that is on its way.
#[derive(Debug)]
struct InFlight {
    connection: Connection,
    /// The message's number in the protocol: what the answer names.
    number: i32,
    /// Its number on the channel: what the channel's events name.
    sequence: u64,
}

/// The channel of one worker.
#[derive(Debug)]
pub struct StockLink {
    channel: Arc<SharedChannel>,
    inbox: Arc<Inbox>,
    in_flight: VecDeque<InFlight>,
    last_number: i32,
    /// What the channel is watched for.
    watched: EpollFlags,
    ended: bool,
    /// Nothing can be sent on the channel any more.
    is_broken: bool,
}

/// What a new link is watched for.
pub const FIRST_WATCHED: EpollFlags = EpollFlags::EPOLLIN;

impl StockLink {
    /// From now on the caller reads `channel`, and what it reads for others goes to `inbox`.
    pub fn new(channel: Arc<SharedChannel>, inbox: Arc<Inbox>) -> StockLink {
        StockLink {
            channel,
            inbox,
            in_flight: VecDeque::new(),
            last_number: 0,
            watched: FIRST_WATCHED,
            ended: false,
            is_broken: false,
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<SharedChannel> {
        &self.channel
    }

    /// Connections that were sent and not answered.
    pub fn waiting(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether there is still a way to the worker.
    pub fn is_open(&self) -> bool {
        !self.ended && !self.is_broken
    }

    /// Whether the worker can be sent a connection: no handle of ours or of the program's is on
    /// its way, and answers are being read.
    pub fn has_room(&self) -> bool {
        let busy = !self.is_open() || self.inbox.is_full();
        !busy && self.in_flight.len() < MOST_IN_FLIGHT && !self.channel.lock().holds_handle()
    }

    /// Brings what the channel is watched for in line with what can be done with it.
    pub fn watch(&mut self, watch: &Watch, source: Source) {
        let channel = self.channel.lock();
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, !self.inbox.is_full());
        flags.set(EpollFlags::EPOLLOUT, channel.wants_writable());
        if flags != self.watched && watch.change(source, channel.transport().as_fd(), flags) {
            self.watched = flags;
        }
    }

    /// Whether the channel has nothing more to read.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Sends a connection for the server known as `key`; gives it back if that cannot be done.
    pub fn send(&mut self, key: &str, connection: Connection) -> Result<(), Connection> {
        let number = self.last_number.checked_sub(1).unwrap_or(-1);
        match self.try_send(key, number, &connection) {
            Ok(sequence) => {
                self.last_number = number;
                self.in_flight.push_back(InFlight {
                    connection,
                    number,
                    sequence,
                });
                Ok(())
            }
            Err(_) => {
                self.is_broken = self.channel.lock().broken().is_some();
                Err(connection)
            }
        }
    }

    fn try_send(&self, key: &str, number: i32, connection: &Connection) -> Result<u64, Errno> {
        let mut channel = self.channel.lock();
        let message = stock::new_connection(channel.framing(), key, number);
        channel
            .send_dispatched(&message, connection.socket())
            .map(|status| status.sequence)
    }

    /// The channel is readable, writable or broken. What is left to read is told of again, and so
    /// waits while others have their turn; but a worker that has hung up is read to the end, however
    /// much lies in the inbox: the end must be seen. It is no more than a socket holds, unless somebody
    /// else holds the other end and goes on writing.
    pub fn on_ready(&mut self, hung_up: bool, outcome: &mut Outcome) {
        self.inbox.set_being_filled(true);
        self.channel.lock().flush();
        let mut reads = 0;
        while !self.ended && reads < MOST_READS && (hung_up || !self.inbox.is_full()) {
            reads += 1;
            match self.receive(outcome) {
                ReadEnd::Closed | ReadEnd::Failed(ReceiveError::TruncatedFrame { .. }) => {
                    self.end(outcome);
                }
                ReadEnd::Failed(_) if hung_up => self.end(outcome),
                // It lives, and may serve what it has, which is not for another then.
                ReadEnd::Failed(_) => self.ended = true,
                ReadEnd::Budget | ReadEnd::ShortRead if hung_up => {}
                ReadEnd::Budget | ReadEnd::ShortRead | ReadEnd::Drained => break,
                // A channel that is read here is pinned to Node's protocol.
                ReadEnd::Switched | ReadEnd::Starved => break,
            }
        }
        self.check_events(outcome);
        self.inbox.set_being_filled(false);
        if self.channel.wants_attention() {
            self.inbox.ring();
        }
    }

    fn receive(&mut self, outcome: &mut Outcome) -> ReadEnd {
        let (batch, framing) = {
            let mut channel = self.channel.lock();
            (channel.receive(READ_BUDGET), channel.framing())
        };
        let end = batch.end();
        self.take_in(batch, framing, outcome);
        end
    }

    /// The worker's process has ended: takes in what it has written before.
    pub fn bury(&mut self, outcome: &mut Outcome) {
        self.on_ready(true, outcome);
        // Somebody else may hold the other end open.
        self.end(outcome);
    }

    /// Keeps the answers of a batch and passes the rest on.
    fn take_in(&mut self, mut batch: Batch, framing: Framing, outcome: &mut Outcome) {
        let acknowledgements = batch.dispatched();
        let mut answers = Vec::new();
        for index in 0..batch.len() {
            if acknowledgements.contains(&index) {
                answers.push(index);
            } else if let Some(reply) = stock::reply(framing, batch.message(index)) {
                answers.push(index);
                self.answered(reply, outcome);
            }
        }
        batch.remove(&answers);
        if batch.is_empty() && !matches!(batch.end(), ReadEnd::Closed | ReadEnd::Failed(_)) {
            self.channel.lock().recycle(batch);
        } else {
            let batch = self.channel.lock().compact(batch);
            self.inbox.push(batch);
        }
    }

    fn answered(&mut self, reply: Reply, outcome: &mut Outcome) {
        match self.take(|flight| flight.number == reply.number) {
            Some(_) if reply.accepted => outcome.take(),
            Some(flight) => outcome.decline(flight.connection),
            None => {}
        }
    }

    fn take(&mut self, is_wanted: impl Fn(&InFlight) -> bool) -> Option<InFlight> {
        let index = self.in_flight.iter().position(is_wanted)?;
        self.in_flight.remove(index)
    }

    /// What the channel says of the descriptor: that it never arrived.
    pub fn check_events(&mut self, outcome: &mut Outcome) {
        let next_event = |link: &Self| link.channel.lock().next_dispatcher_event();
        while let Some(event) = next_event(self) {
            let lost = match event {
                ChannelEvent::HandleAcknowledged { .. } => continue,
                ChannelEvent::HandleNotReceived { sequence }
                | ChannelEvent::SendFailed { sequence, .. } => sequence,
            };
            if let Some(flight) = self.take(|flight| flight.sequence == lost) {
                outcome.decline(flight.connection);
            }
        }
    }

    /// The worker is gone, and all it has written is read.
    fn end(&mut self, outcome: &mut Outcome) {
        self.ended = true;
        for flight in self.in_flight.drain(..) {
            outcome.orphan(flight.connection);
        }
    }

    /// Gives the channel back to its thread, with nobody left to hear an answer: a connection that
    /// has not left yet is for another worker, one that has is the worker's.
    pub fn release(mut self, outcome: &mut Outcome) {
        for flight in self.in_flight.drain(..) {
            if self.channel.lock().withdraw_dispatched(flight.sequence) {
                outcome.returned.push(flight.connection);
            } else {
                outcome.take();
            }
        }
    }
}
