//! IPC channels for JavaScript: a number stands for each, its descriptor is watched on the loop
//! thread, and what arrives is handed over in one call. Queueing, framing and acknowledgement are
//! `ipc`'s; which event a message becomes is `lib/ipc`'s.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::os::fd::{AsFd, IntoRawFd};
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use napi::sys::{napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;

use super::Function;
use super::area;
use super::callback::Target;
use super::dispatcher::Running;
use super::environment::{Callbacks, Environment};
use super::memory;
use super::relayed::Relayed;
use super::value;
use crate::cluster::relay::Inbox;
use crate::ipc::pace::{Brought, Pace};
use crate::ipc::shared::{self, SharedChannel};
use crate::ipc::upgrade::{Offer, Terms, VERSION};
use crate::ipc::{
    Arrived, Batch, Channel, ChannelEvent, FlushState, Framing, HandleSlot, Limits, Progress,
    ReadEnd, Run, SendMode, SendStatus, UnixTransport,
};
use crate::process::CHANNEL_ROOM;
use crate::sys::descriptor;
use crate::uv::{Poll, Prepare, Readiness, Seen, Timer};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("setChannelCallbacks", Some(set_callbacks)),
    ("channelOpen", Some(open)),
    ("channelFeed", Some(feed)),
    ("channelSend", Some(send_text)),
    ("channelSendBytes", Some(send_bytes)),
    ("channelSendBeside", Some(send_beside)),
    ("channelFlush", Some(flush)),
    ("channelBusyPoll", Some(set_busy)),
    ("channelRef", Some(set_ref)),
    ("channelRead", Some(set_reading)),
    ("channelIdle", Some(is_idle)),
    ("channelReceiving", Some(is_receiving)),
    ("channelLines", Some(lines)),
    ("makeOffer", Some(make_offer)),
    ("channelOffer", Some(offer)),
    ("channelAccept", Some(accept)),
    ("channelPin", Some(pin)),
    ("channelShutdown", Some(shutdown)),
];

/// Bytes read for one readiness event; what is left waits for the next turn, so that a flooding
/// peer cannot starve the loop.
const READ_BUDGET: usize = 1 << 20;

/// Node's `send()` asks for a pause once this much is queued: two reads of 64 KiB.
const HIGH_WATER: usize = 2 * 65536;

/// The send buffer of a peer's socket where nobody has changed it: `net.core.wmem_default`.
const USUAL_ROOM: usize = 212_992;

/// Flags of a send.
const GATHER: i32 = 1;
const REPLY: i32 = 2;
const NOTIFY: i32 = 4;
const REFUSE: i32 = 8;

/// Bits of a send's result; the message's number stands above them.
const PENDING: u64 = 1;
const FULL: u64 = 2;
const SEQUENCE: u64 = 4;

/// What `onEvent` reports; the numbers are known to `lib/ipc/native_channel.js`.
#[derive(Clone, Copy)]
enum Event {
    End = 0,
    Broken = 1,
    Completed = 2,
    HandleLost = 3,
    Released = 4,
    Drained = 5,
    Closed = 6,
    SendFailed = 7,
    Upgraded = 8,
}

/// The channels of one environment.
#[derive(Default)]
pub struct Channels {
    next_id: Cell<u32>,
    open: RefCell<HashMap<u32, Rc<Entry>, BuildHasherDefault<ById>>>,
}

/// Numbers that were given in ascending order need no mixing, and every send looks one up.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn finish(&self) -> u64 {
        // The table looks at the upper bits, too.
        self.0 ^ (self.0 << 57)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 << 8) ^ u64::from(number);
    }
}

/// A channel with bytes to receive.
pub struct Busy(Rc<Entry>);

impl Busy {
    /// Receives them.
    pub fn receive(&self, environment: &Rc<Environment>) {
        self.0.on_ready(environment, Readiness::READABLE);
    }
}

/// One channel as its environment sees it.
struct Entry {
    id: u32,
    shared: Arc<SharedChannel>,
    poll: RefCell<Option<Poll>>,
    /// Made for the first flood; runs while reading pauses.
    timer: RefCell<Option<Timer>>,
    target: Target,
    interest: Cell<(bool, bool)>,
    reading: Cell<bool>,
    pace: RefCell<Pace>,
    pausing: Cell<bool>,
    /// Something was sent since the last read.
    answered: Cell<bool>,
    referenced: Cell<bool>,
    /// `shutdown` was called: what arrives is dropped, the channel ends with its queue.
    lingering: Cell<bool>,
    /// `send` has asked for a pause that `Drained` will end.
    full: Cell<bool>,
    /// JavaScript was told that a handle is queued or unacknowledged, which `Released` will end.
    holding: Cell<bool>,
    /// The highest number a callback waits for, and the highest reported.
    wanted: Cell<u64>,
    reported: Cell<u64>,
    /// The batch JavaScript is looking at, and which of its messages.
    batch: RefCell<Option<(Batch, Run)>>,
    /// How long the loop may spin for this channel.
    busy: Cell<Duration>,
    /// JavaScript knows that this end sends brood's frames.
    upgraded: Cell<bool>,
    /// Set while a cluster's dispatcher reads the channel, and until the inbox is empty after.
    relayed: RefCell<Option<Relayed>>,
    /// The dispatcher reads it no more.
    relay_ends: Cell<bool>,
}

impl Channels {
    fn get(&self, id: u32) -> Option<Rc<Entry>> {
        self.open.borrow().get(&id).cloned()
    }

    /// Writes what is gathered, because the thread is about to be blocked. What that has changed
    /// is not told yet: who waited for room is still woken for it.
    pub fn flush_all(&self) {
        for entry in self.open.borrow().values() {
            let mut channel = entry.shared.lock();
            channel.flush();
            if channel.wants_writable() {
                entry.update(&channel);
            }
        }
    }

    /// Has the loop spin as long as the most demanding channel wants.
    fn update_busy(&self, environment: &Rc<Environment>) {
        let open = self.open.borrow();
        let limit = open.values().map(|entry| entry.busy.get()).max();
        environment
            .busy()
            .set_limit(environment, limit.unwrap_or_default());
    }

    fn busy_entries(&self) -> Vec<Rc<Entry>> {
        let open = self.open.borrow();
        let busy = open.values().filter(|entry| entry.is_busy());
        busy.cloned().collect()
    }

    /// Looks for bytes on the channels that ask for it: the one that has some, or why none has.
    pub fn spin(&self, prepare: &Prepare, limit: Duration) -> Result<Busy, Seen> {
        let entries = self.busy_entries();
        if entries.is_empty() {
            return Err(Seen::Loop);
        }
        let polls: Vec<_> = entries.iter().map(|entry| entry.poll.borrow()).collect();
        let polls: Vec<&Poll> = polls.iter().filter_map(|poll| poll.as_ref()).collect();
        let descriptors: Vec<_> = polls.iter().map(|poll| poll.descriptor()).collect();
        match prepare.spin(&descriptors, limit) {
            Seen::Descriptor(index) if descriptors.len() == entries.len() => {
                Ok(Busy(entries[index].clone()))
            }
            seen => Err(seen),
        }
    }

    /// What an open channel's threads share.
    pub fn shared(&self, id: u32) -> Option<Arc<SharedChannel>> {
        self.get(id).map(|entry| entry.shared.clone())
    }

    /// Drops areas of a channel that have been idle for `age`; whether some are left.
    pub fn expire_areas(&self, environment: &Rc<Environment>, id: u32, age: Duration) -> bool {
        self.get(id).is_some_and(|entry| {
            let some_left = entry.shared.lock().expire_areas(age);
            // More than that may have been written, and the loop not come to it any more.
            entry.settle(environment);
            some_left
        })
    }

    /// What a dispatcher has left for a channel that it read before.
    pub fn inbox(&self, id: u32) -> Option<Arc<Inbox>> {
        let entry = self.get(id)?;
        let relayed = entry.relayed.borrow();
        relayed.as_ref().map(|relayed| relayed.inbox().clone())
    }

    /// From now on a dispatcher reads the channel of its worker `worker`, and leaves what is for
    /// JavaScript in `inbox`.
    pub fn read_elsewhere(&self, id: u32, worker: u32, inbox: Arc<Inbox>, running: Rc<Running>) {
        if let Some(entry) = self.get(id) {
            entry.relay_ends.set(false);
            *entry.relayed.borrow_mut() = Some(Relayed::new(worker, inbox, running));
            entry.update(&entry.shared.lock());
        }
    }

    /// The dispatcher has let go of its worker `worker`: its channel is read here again, after what
    /// lies in the inbox.
    pub fn read_here(&self, worker: u32) {
        let is_its = |entry: &&Rc<Entry>| {
            let relayed = entry.relayed.borrow();
            relayed.as_ref().is_some_and(|r| r.worker == worker)
        };
        let entry = self.open.borrow().values().find(is_its).cloned();
        if let Some(entry) = entry {
            entry.relay_ends.set(true);
            entry.ring();
        }
    }

    /// The dispatcher has read something on a channel, or written what was queued.
    pub fn on_relayed(&self, environment: &Rc<Environment>, id: u32) {
        if let Some(entry) = self.get(id) {
            entry.receive_relayed(environment);
            entry.settle(environment);
        }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Ends every channel: what is queued is written within the exit bound.
    pub fn close_all(&self) {
        let entries: Vec<_> = self
            .open
            .borrow_mut()
            .drain()
            .map(|(_, entry)| entry)
            .collect();
        let channels: Vec<_> = entries
            .iter()
            .inspect(|entry| entry.unwatch())
            .map(|entry| entry.shared.clone())
            .collect();
        shared::drain(&channels);
    }
}

impl Entry {
    /// Brings what is watched, and whether it keeps the loop alive, in line with the state:
    /// unwritten bytes keep it alive even after `unref()`.
    fn update(&self, channel: &Channel<UnixTransport>) {
        let poll = self.poll.borrow();
        let Some(poll) = poll.as_ref() else { return };
        let unwritten = channel.unwritten_messages() > 0;
        let keeps_alive = self.referenced.get() || unwritten;
        poll.set_ref(keeps_alive);
        let relayed = self.relayed.borrow();
        if let Some(relayed) = relayed.as_ref() {
            relayed.set_ref(keeps_alive);
        }
        let waits = self.wanted.get() > self.reported.get();
        self.shared
            .ask_for_attention(unwritten || waits || self.full.get() || self.holding.get());
        if let Some(timer) = self.timer.borrow().as_ref() {
            timer.set_ref(keeps_alive && self.pausing.get());
        }
        let reads = match self.lingering.get() {
            true => !channel.has_ended(),
            false => self.reading.get() && !self.pausing.get() && relayed.is_none(),
        };
        let interest = (reads, channel.wants_writable());
        if self.interest.replace(interest) != interest {
            poll.watch(interest.0, interest.1);
        }
    }

    fn report(&self, environment: &Environment, event: Event, number: u64, errno: i32) {
        self.tell(
            environment,
            event,
            |env| value::number(env, number as f64),
            errno,
        );
    }

    fn tell(
        &self,
        environment: &Environment,
        event: Event,
        detail: impl FnOnce(napi_env) -> napi_value,
        errno: i32,
    ) {
        self.target
            .call(environment.callback(Callbacks::ChannelEvent), |env| {
                Some([
                    value::integer(env, event as i32),
                    detail(env),
                    value::integer(env, errno),
                ])
            });
    }

    /// Tells JavaScript what a flush or an acknowledgement has changed, and ends a lingering
    /// channel that has nothing left to write.
    fn settle(&self, environment: &Rc<Environment>) {
        let (events, completed, unwritten, holding, broken) = {
            let mut channel = self.shared.lock();
            let events: Vec<_> = std::iter::from_fn(|| channel.next_event()).collect();
            self.update(&channel);
            (
                events,
                channel.completed(),
                channel.unwritten_messages(),
                channel.holds_handle(),
                channel.broken().is_some(),
            )
        };
        for event in events {
            match event {
                ChannelEvent::HandleAcknowledged { .. } => {}
                ChannelEvent::HandleNotReceived { sequence } => {
                    self.report(environment, Event::HandleLost, sequence, 0);
                }
                ChannelEvent::SendFailed { sequence, errno } => {
                    self.report(environment, Event::SendFailed, sequence, -(errno as i32));
                }
            }
        }
        if self.reported.get() < self.wanted.get() && completed > self.reported.get() {
            self.reported.set(completed);
            self.report(environment, Event::Completed, completed, 0);
        }
        if self.holding.get() && !holding {
            self.holding.set(false);
            self.report(environment, Event::Released, 0, 0);
        }
        if unwritten == 0 && self.full.replace(false) {
            self.report(environment, Event::Drained, 0, 0);
        }
        self.update(&self.shared.lock());
        if self.lingering.get() && (unwritten == 0 || broken) && self.close(environment) {
            self.report(environment, Event::Closed, 0, 0);
        }
    }

    /// Forgets the channel; its descriptor is closed with the last reference. Says whether it
    /// was open.
    fn close(&self, environment: &Rc<Environment>) -> bool {
        self.release();
        self.unwatch();
        let channels = environment.channels();
        let was_open = channels.open.borrow_mut().remove(&self.id).is_some();
        if !self.busy.get().is_zero() {
            channels.update_busy(environment);
        }
        was_open
    }

    /// Whether the loop is to look for its messages now.
    fn is_busy(&self) -> bool {
        !self.busy.get().is_zero() && self.interest.get().0
    }

    /// Something was sent or received.
    fn stir(&self, environment: &Environment) {
        if !self.busy.get().is_zero() {
            environment.busy().stir();
        }
    }

    /// Takes the channel back from the dispatcher, with nobody to hear what it has read.
    fn release(&self) {
        let relayed = self.relayed.borrow_mut().take();
        if let Some(relayed) = relayed {
            relayed.release();
        }
    }

    fn unwatch(&self) {
        self.relayed.borrow_mut().take();
        self.poll.borrow_mut().take();
        self.timer.borrow_mut().take();
    }

    /// After a read: lets a flood gather before the next one.
    fn pace(self: &Rc<Self>, environment: &Rc<Environment>, brought: Brought) {
        let answered = self.answered.replace(false);
        let wait = self
            .pace
            .borrow_mut()
            .wait(brought, answered, Instant::now());
        // JavaScript may have stopped the reading, or closed the channel.
        let started = wait.filter(|_| self.reads_here());
        let started = started.is_some_and(|wait| self.start_timer(environment, wait).is_ok());
        self.pausing.set(started);
    }

    fn start_timer(
        self: &Rc<Self>,
        environment: &Rc<Environment>,
        wait: Duration,
    ) -> Result<(), Errno> {
        let mut timer = self.timer.borrow_mut();
        if timer.is_none() {
            let handler = self.handler(environment, Entry::on_pause_over);
            *timer = Some(Timer::new(environment.event_loop(), move || handler(()))?);
        }
        timer
            .as_ref()
            .map_or(Err(Errno::ENODEV), |timer| timer.start(wait))
    }

    fn on_pause_over(self: &Rc<Self>, environment: &Rc<Environment>, (): ()) {
        self.pausing.set(false);
        if self.reads_here() {
            self.receive(environment, false);
        }
        self.settle(environment);
    }

    /// A callback for libuv that does nothing once the channel or its environment has ended.
    fn handler<E: 'static, F: Fn(&Rc<Self>, &Rc<Environment>, E) + 'static>(
        self: &Rc<Self>,
        environment: &Rc<Environment>,
        handle: F,
    ) -> impl Fn(E) + use<E, F> {
        let (entry, environment) = (Rc::downgrade(self), Rc::downgrade(environment));
        move |event| {
            if let (Some(entry), Some(environment)) = (entry.upgrade(), environment.upgrade())
                && !environment.is_ending()
            {
                handle(&entry, &environment, event);
            }
        }
    }

    /// Whether what arrives is read by this thread, for JavaScript.
    fn reads_here(&self) -> bool {
        self.reading.get() && self.relayed.borrow().is_none()
    }

    fn on_ready(self: &Rc<Self>, environment: &Rc<Environment>, ready: Readiness) {
        if ready.failed {
            // libuv has stopped the handle; what is there is read to the end below.
            self.interest.set((false, false));
            self.pausing.set(false);
        }
        if ready.writable || ready.failed {
            self.shared.lock().flush();
        }
        if ready.readable || ready.failed {
            if self.lingering.get() {
                self.discard(ready.failed);
            } else if self.reads_here() {
                self.receive(environment, ready.failed);
            }
        }
        self.settle(environment);
    }

    /// Reads for nobody while the rest of the queue is written: a peer that writes the rest of
    /// its own would else wait for us as we wait for it.
    fn discard(&self, to_the_end: bool) {
        loop {
            let batch = self.shared.lock().receive(READ_BUDGET);
            match batch.end() {
                ReadEnd::Switched => {}
                ReadEnd::Budget | ReadEnd::ShortRead if to_the_end => {}
                _ => return,
            }
        }
    }

    /// Reads what is there and hands it to JavaScript; after a failed poll until the end, for
    /// there will be no further event.
    fn receive(self: &Rc<Self>, environment: &Rc<Environment>, to_the_end: bool) {
        let before = self.shared.lock().stats().bytes_received;
        let mut messages = 0;
        loop {
            let (batch, upgraded) = {
                let mut channel = self.shared.lock();
                (channel.receive(READ_BUDGET), channel.upgraded())
            };
            if let Some(terms) = upgraded
                && !self.upgraded.replace(true)
            {
                self.report(environment, Event::Upgraded, u64::from(terms.features), 0);
            }
            let end = batch.end();
            messages += batch.len();
            self.stir(environment);
            if batch.is_empty() {
                self.shared.lock().recycle(batch);
            } else {
                self.deliver(environment, batch);
            }
            if self.report_end(environment, end) {
                return;
            }
            match end {
                ReadEnd::Closed | ReadEnd::Failed(_) => return,
                ReadEnd::Switched if self.reads_here() => {}
                ReadEnd::Budget | ReadEnd::ShortRead if to_the_end && self.reads_here() => {}
                ReadEnd::Budget | ReadEnd::ShortRead | ReadEnd::Switched | ReadEnd::Drained => {
                    break;
                }
            }
        }
        let bytes = (self.shared.lock().stats().bytes_received - before) as usize;
        self.pace(environment, Brought { messages, bytes });
    }

    /// Hands over what the dispatcher has read for this channel, about as much as one read of our
    /// own brings.
    fn receive_relayed(self: &Rc<Self>, environment: &Rc<Environment>) {
        let mut left = READ_BUDGET;
        while self.reading.get() {
            let Some(batch) = self.relayed.borrow().as_ref().and_then(Relayed::pop) else {
                return self.end_relay();
            };
            let end = batch.end();
            left = left.saturating_sub(batch.region().len());
            if !batch.is_empty() {
                self.deliver(environment, batch);
            }
            if self.report_end(environment, end) {
                return;
            }
            if left == 0 {
                return self.ring();
            }
        }
    }

    /// Reads here again once the inbox of a dispatcher that has let go is empty.
    fn end_relay(&self) {
        if self.relay_ends.replace(false) {
            self.relayed.borrow_mut().take();
            self.update(&self.shared.lock());
        }
    }

    /// Has this thread come to the inbox.
    fn ring(&self) {
        if let Some(relayed) = self.relayed.borrow().as_ref() {
            relayed.ring();
        }
    }

    /// Tells JavaScript when nothing more can be read; says whether that is so.
    fn report_end(&self, environment: &Environment, end: ReadEnd) -> bool {
        match end {
            ReadEnd::Closed => {
                self.stop_reading();
                self.report(environment, Event::End, 0, 0);
                true
            }
            ReadEnd::Failed(error) => {
                self.stop_reading();
                let text = error.to_string();
                let detail = |env| value::string(env, text.as_bytes(), false);
                self.tell(environment, Event::Broken, detail, 0);
                true
            }
            ReadEnd::Budget | ReadEnd::ShortRead | ReadEnd::Switched | ReadEnd::Drained => false,
        }
    }

    fn stop_reading(&self) {
        self.reading.set(false);
        self.update(&self.shared.lock());
    }

    /// Hands the messages to JavaScript, one call for all that are encoded alike.
    fn deliver(&self, environment: &Environment, mut batch: Batch) {
        let mut handles = batch.take_handles();
        let mut beside = batch.take_beside();
        for run in batch.runs() {
            let later =
                handles.split_off(handles.partition_point(|(index, _)| *index < run.messages.end));
            let own = std::mem::replace(&mut handles, later);
            let later =
                beside.split_off(beside.partition_point(|(index, _)| *index < run.messages.end));
            let memory = std::mem::replace(&mut beside, later);
            batch = self.deliver_run(environment, batch, run, own, memory);
        }
        self.shared.lock().recycle(batch);
    }

    fn deliver_run(
        &self,
        environment: &Environment,
        batch: Batch,
        run: Run,
        handles: Vec<(usize, HandleSlot)>,
        memory: Vec<(usize, Vec<Arrived>)>,
    ) -> Batch {
        let taken = self.batch.replace(Some((batch, run)));
        debug_assert!(taken.is_none(), "two batches at a time");
        self.target
            .call(environment.callback(Callbacks::ChannelMessages), |env| {
                let batch = self.batch.borrow();
                let (batch, run) = batch.as_ref()?;
                let (payload, ranges) = payload_of(env, batch, run);
                let count = value::integer(env, run.messages.len() as i32);
                let handles = handles_array(env, handles, run.messages.start);
                let memory = memory_array(env, memory, run.messages.start);
                Some([payload, count, handles, ranges, memory])
            });
        let (batch, _) = self
            .batch
            .take()
            .unwrap_or_else(|| unreachable!("put there above"));
        batch
    }
}

/// A run as JavaScript decodes it: a JSON array, or a copy of the bytes and where each value lies.
fn payload_of(env: napi_env, batch: &Batch, run: &Run) -> (napi_value, napi_value) {
    let bytes = &batch.region()[run.bytes.clone()];
    match run.encoding {
        Framing::JsonLines => (value::string(env, bytes, run.ascii), value::undefined(env)),
        Framing::Advanced => (value::buffer_copy(env, bytes), ranges_of(env, batch, run)),
    }
}

/// `[index, descriptor, …]` in ascending order, -1 for a descriptor that did not arrive;
/// `undefined` when no message carries one. The descriptors are JavaScript's from here on.
fn handles_array(
    env: napi_env,
    handles: Vec<(usize, HandleSlot)>,
    first_message: usize,
) -> napi_value {
    if handles.is_empty() {
        return value::undefined(env);
    }
    let numbers = handles.into_iter().flat_map(|(index, slot)| {
        let fd = match slot {
            HandleSlot::Received(fd) => fd.into_raw_fd(),
            HandleSlot::Missing => -1,
        };
        let index = index - first_message;
        [value::integer(env, index as i32), value::integer(env, fd)]
    });
    value::array(env, numbers)
}

/// `[index, [piece, …], …]` in ascending order, or `undefined`. A piece is a descriptor, JavaScript's
/// from here on, an ArrayBuffer or a string.
fn memory_array(
    env: napi_env,
    memory: Vec<(usize, Vec<Arrived>)>,
    first_message: usize,
) -> napi_value {
    if memory.is_empty() {
        return value::undefined(env);
    }
    let items = memory.into_iter().flat_map(|(index, pieces)| {
        let pieces = pieces.into_iter().map(|piece| memory::arrived(env, piece));
        let index = value::integer(env, (index - first_message) as i32);
        [index, value::array(env, pieces)]
    });
    value::array(env, items)
}

/// `[start, end, …]` of each message in the run's bytes.
fn ranges_of(env: napi_env, batch: &Batch, run: &Run) -> napi_value {
    let numbers = run.messages.clone().flat_map(|index| {
        let range = batch.range(index);
        [range.start, range.end].map(|at| value::number(env, (at - run.bytes.start) as f64))
    });
    value::array(env, numbers)
}

/// The environment and the channel a call is about: its first argument.
fn entry_of(env: napi_env, id: napi_value) -> Option<(Rc<Environment>, Rc<Entry>)> {
    let environment = Environment::of(env)?;
    let entry = environment.channels().get(value::get_i32(env, id) as u32)?;
    Some((environment, entry))
}

unsafe extern "C" fn set_callbacks(env: napi_env, info: napi_callback_info) -> napi_value {
    let [messages, event] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        environment.set_callback(Callbacks::ChannelMessages, messages);
        environment.set_callback(Callbacks::ChannelEvent, event);
    }
    value::undefined(env)
}

unsafe extern "C" fn open(env: napi_env, info: napi_callback_info) -> napi_value {
    let [owner, fd, advanced, max_message, is_roomy] = value::arguments(env, info);
    let fd = value::get_i32(env, fd);
    let framing = if value::get_bool(env, advanced) {
        Framing::Advanced
    } else {
        Framing::JsonLines
    };
    let max_message = value::get_f64(env, max_message);
    let room = if value::get_bool(env, is_roomy) {
        CHANNEL_ROOM
    } else {
        USUAL_ROOM
    };
    match open_channel(env, owner, fd, framing, max_message, room) {
        Ok(id) => value::integer(env, id as i32),
        Err(errno) => value::failure(env, errno),
    }
}

fn open_channel(
    env: napi_env,
    owner: napi_value,
    fd: i32,
    framing: Framing,
    max_message: f64,
    room: usize,
) -> Result<u32, Errno> {
    let environment = Environment::of(env).ok_or(Errno::EINVAL)?;
    let socket = descriptor::take(fd)?;
    let mut limits = Limits::default();
    if max_message > 0.0 {
        limits.max_message = max_message as usize;
    }
    let channel = Channel::with_limits(UnixTransport::new(socket), framing, limits);
    let shared = SharedChannel::new(channel);
    let target = Target::new(env, owner, "PIPEWRAP").map_err(|_| Errno::ENOMEM)?;
    let channels = environment.channels();
    let id = channels.next_id.get() + 1;
    channels.next_id.set(id);
    let entry = Rc::new(Entry {
        id,
        shared,
        poll: RefCell::new(None),
        timer: RefCell::new(None),
        target,
        interest: Cell::new((false, false)),
        reading: Cell::new(false),
        pace: RefCell::new(Pace::new(room)),
        pausing: Cell::new(false),
        answered: Cell::new(false),
        referenced: Cell::new(true),
        lingering: Cell::new(false),
        full: Cell::new(false),
        holding: Cell::new(false),
        wanted: Cell::new(0),
        reported: Cell::new(0),
        batch: RefCell::new(None),
        busy: Cell::new(Duration::ZERO),
        upgraded: Cell::new(false),
        relayed: RefCell::new(None),
        relay_ends: Cell::new(false),
    });
    let poll = {
        let channel = entry.shared.lock();
        let fd = channel.transport().as_fd();
        let handler = entry.handler(&environment, Entry::on_ready);
        Poll::new(environment.event_loop(), fd, handler)?
    };
    *entry.poll.borrow_mut() = Some(poll);
    channels.open.borrow_mut().insert(id, entry);
    Ok(id)
}

unsafe extern "C" fn feed(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, bytes] = value::arguments(env, info);
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, bytes) };
    if let (Some((_, entry)), Some(bytes)) = (entry_of(env, id), bytes) {
        entry.shared.lock().adopt_unread(bytes);
    }
    value::undefined(env)
}

unsafe extern "C" fn send_text(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, text, fd, flags] = value::arguments(env, info);
    let write = |channel: &mut Channel<UnixTransport>| {
        let bound = value::string_bound(env, text);
        let room = channel.reserve_as(bound, Framing::JsonLines);
        value::write_string(env, text, room)
    };
    send(env, id, fd, flags, write)
}

unsafe extern "C" fn send_bytes(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, bytes, fd, flags] = value::arguments(env, info);
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, bytes) }.unwrap_or_default();
    let write = |channel: &mut Channel<UnixTransport>| {
        let room = channel.reserve_as(bytes.len(), Framing::Advanced);
        room.copy_from_slice(bytes);
        bytes.len()
    };
    send(env, id, fd, flags, write)
}

/// Sends what `write` puts into the queue. Returns a negative errno or the state bits.
fn send(
    env: napi_env,
    id: napi_value,
    fd: napi_value,
    flags: napi_value,
    write: impl FnOnce(&mut Channel<UnixTransport>) -> usize,
) -> napi_value {
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::failure(env, Errno::EPIPE);
    };
    entry.stir(&environment);
    let fd = value::get_i32(env, fd);
    let handle = match if fd < 0 {
        Ok(None)
    } else {
        descriptor::duplicate(fd).map(Some)
    } {
        Ok(handle) => handle,
        Err(errno) => return value::failure(env, errno),
    };
    let flags = value::get_i32(env, flags);
    let mode = mode_of(flags);
    entry.answered.set(true);
    let mut channel = entry.shared.lock();
    if flags & REPLY != 0 && channel.upgraded().is_some() {
        let result = match flags & REFUSE {
            0 => channel.acknowledge_handle(),
            _ => channel.refuse_handle(),
        };
        entry.update(&channel);
        return value::integer(env, result.err().map_or(0, |errno| -(errno as i32)));
    }
    let length = write(&mut channel);
    if flags & REPLY != 0 {
        let result = channel.commit_unqueued(length);
        entry.update(&channel);
        return value::integer(env, result.err().map_or(0, |errno| -(errno as i32)));
    }
    let result = channel.commit(length, handle, mode);
    sent(env, &entry, channel, result, flags)
}

/// Sends a serialized value whose large buffers lie beside it, in sealed files and areas, which are
/// closed and let go in any case.
unsafe extern "C" fn send_beside(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, bytes, pieces, flags] = value::arguments(env, info);
    let beside = area::take_pieces(env, id, pieces);
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::failure(env, Errno::EPIPE);
    };
    entry.stir(&environment);
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, bytes) }.unwrap_or_default();
    let flags = value::get_i32(env, flags);
    entry.answered.set(true);
    let mut channel = entry.shared.lock();
    let room = channel.reserve_as(bytes.len(), Framing::Advanced);
    room.copy_from_slice(bytes);
    let result = channel.commit_beside(bytes.len(), beside);
    sent(env, &entry, channel, result, flags)
}

fn mode_of(flags: i32) -> SendMode {
    if flags & GATHER == 0 {
        SendMode::WriteNow
    } else {
        SendMode::Gather
    }
}

/// What a send returns to JavaScript: a negative errno, or the state bits.
fn sent(
    env: napi_env,
    entry: &Entry,
    channel: MutexGuard<'_, Channel<UnixTransport>>,
    result: Result<SendStatus, Errno>,
    flags: i32,
) -> napi_value {
    let status = match result {
        Ok(status) => status,
        Err(errno) => return value::failure(env, errno),
    };
    let mut result = status.sequence * SEQUENCE;
    if status.progress != Progress::Written {
        result |= PENDING;
        if flags & NOTIFY != 0 {
            entry.wanted.set(status.sequence);
        }
    }
    if is_full(&status) {
        result |= FULL;
        entry.full.set(true);
    }
    // Last, for it passes on what is waited for.
    if status.progress != Progress::Gathered {
        entry.update(&channel);
    }
    drop(channel);
    if status.progress == Progress::Gathered {
        entry.shared.watch();
    }
    value::number(env, result as f64)
}

/// Whether Node's `send()` would return false.
fn is_full(status: &SendStatus) -> bool {
    match status.progress {
        Progress::Held => status.held_messages != 1,
        _ => status.queued_bytes >= HIGH_WATER,
    }
}

/// Writes what is gathered. Returns the number of the last message written; what else has changed
/// is reported by events before, for the loop may have no reason to wake up for it.
unsafe extern "C" fn flush(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::integer(env, 0);
    };
    let completed = {
        let mut channel = entry.shared.lock();
        channel.flush();
        channel.completed()
    };
    entry.reported.set(completed);
    entry.settle(&environment);
    value::number(env, completed as f64)
}

/// Microseconds the event loop may spin for messages of this channel before it sleeps.
unsafe extern "C" fn set_busy(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, micros] = value::arguments(env, info);
    if let Some((environment, entry)) = entry_of(env, id) {
        let micros = value::get_f64(env, micros).clamp(0.0, 1e6);
        entry.busy.set(Duration::from_micros(micros as u64));
        environment.channels().update_busy(&environment);
    }
    value::undefined(env)
}

unsafe extern "C" fn set_ref(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, referenced] = value::arguments(env, info);
    if let Some((_, entry)) = entry_of(env, id) {
        entry.referenced.set(value::get_bool(env, referenced));
        entry.update(&entry.shared.lock());
    }
    value::undefined(env)
}

unsafe extern "C" fn set_reading(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, reading] = value::arguments(env, info);
    if let Some((_, entry)) = entry_of(env, id) {
        entry.reading.set(value::get_bool(env, reading));
        entry.ring();
        entry.update(&entry.shared.lock());
    }
    value::undefined(env)
}

/// Whether no handle is queued or unacknowledged.
unsafe extern "C" fn is_idle(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let idle = entry_of(env, id).is_none_or(|(_, entry)| {
        let channel = entry.shared.lock();
        entry.holding.set(channel.holds_handle());
        entry.update(&channel);
        !entry.holding.get()
    });
    value::boolean(env, idle)
}

/// Whether a message has arrived in part.
unsafe extern "C" fn is_receiving(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let receiving = entry_of(env, id).is_some_and(|(_, entry)| entry.shared.lock().is_buffering());
    value::boolean(env, receiving)
}

/// The messages of the batch that is being delivered, one string each.
unsafe extern "C" fn lines(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let Some((_, entry)) = entry_of(env, id) else {
        return value::undefined(env);
    };
    let batch = entry.batch.borrow();
    let Some((batch, run)) = batch.as_ref() else {
        return value::undefined(env);
    };
    let messages = run.messages.clone();
    let lines = messages.map(|i| value::string(env, batch.message(i), run.ascii));
    value::array(env, lines)
}

/// The text of an offer to a child of this process, of what layout `version` could do.
unsafe extern "C" fn make_offer(env: napi_env, info: napi_callback_info) -> napi_value {
    let [version] = value::arguments(env, info);
    let terms = Terms::of(value::get_i32(env, version).clamp(0, VERSION as i32) as u32);
    // Keyed with the kernel's random numbers.
    let [high, low] = [(); 2].map(|()| RandomState::new().hash_one(0));
    let offer = Offer::new(terms, std::process::id(), &format!("{high:016x}{low:016x}"));
    value::string(env, offer.to_text().as_bytes(), true)
}

/// The child was made this offer in its environment.
unsafe extern "C" fn offer(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, text] = value::arguments(env, info);
    if let (Some((_, entry)), Some(offer)) = (entry_of(env, id), offer_of(env, text)) {
        entry.shared.lock().offer_upgrade(&offer);
    }
    value::undefined(env)
}

/// Takes up the parent's offer, which is `text`, if it was made to this process and there is common
/// ground with `version`; returns whether.
unsafe extern "C" fn accept(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, text, version] = value::arguments(env, info);
    let own = Terms::of(value::get_i32(env, version).clamp(0, VERSION as i32) as u32);
    let accepted = match (entry_of(env, id), offer_of(env, text)) {
        (Some((_, entry)), Some(offer)) if offer.parent == std::os::unix::process::parent_id() => {
            let mut channel = entry.shared.lock();
            let accepted = channel.accept_upgrade(&offer, own);
            entry.update(&channel);
            accepted.unwrap_or(false)
        }
        _ => false,
    };
    value::boolean(env, accepted)
}

fn offer_of(env: napi_env, text: napi_value) -> Option<Offer> {
    let mut bytes = Vec::new();
    value::append_string(env, text, &mut bytes);
    Offer::parse(std::str::from_utf8(&bytes).ok()?)
}

/// Keeps Node's protocol, whatever the peer answers; false when it is too late.
unsafe extern "C" fn pin(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let pinned = entry_of(env, id).is_none_or(|(_, entry)| entry.shared.lock().pin());
    value::boolean(env, pinned)
}

/// Stops delivering and ends the channel once its queue is written. Returns whether it lingers.
unsafe extern "C" fn shutdown(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::boolean(env, false);
    };
    entry.release();
    entry.reading.set(false);
    entry.lingering.set(true);
    entry.referenced.set(false);
    let lingers = {
        let mut channel = entry.shared.lock();
        let state = channel.flush();
        entry.update(&channel);
        state == FlushState::Blocked
    };
    if !lingers {
        entry.close(&environment);
    }
    value::boolean(env, lingers)
}
