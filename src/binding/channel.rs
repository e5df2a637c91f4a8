//! An IPC channel as its environment sees it: a number stands for it, its descriptor is watched on
//! the loop thread, and what happens to it becomes events. Queueing, framing and acknowledgement
//! are `ipc`'s; which event a message becomes is `lib/ipc`'s.

mod delivery;
pub mod functions;
mod reading;
mod registry;
pub mod sending;
pub mod upgrading;

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use napi::sys::{napi_env, napi_value};
use nix::errno::Errno;

use super::callback::Target;
use super::environment::{Callbacks, Environment};
use super::relayed::Relayed;
use super::value;
use crate::ipc::pace::Pace;
use crate::ipc::shared::SharedChannel;
use crate::ipc::{Batch, Channel, ChannelEvent, Run, UnixTransport};
use crate::uv::{Poll, Timer};

pub use registry::Channels;

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
    Starved = 9,
    Whole = 10,
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
    /// How often in a row there was no memory for what has come.
    shortages: Cell<u32>,
    /// Something was sent since the last read.
    answered: Cell<bool>,
    referenced: Cell<bool>,
    /// Somebody may listen for the peer's replies to handles.
    hears_replies: Cell<bool>,
    /// `shutdown` was called: what arrives is dropped, the channel ends with its queue.
    lingering: Cell<bool>,
    /// `send` has asked for a pause that `Drained` will end.
    full: Cell<bool>,
    /// JavaScript was told that a handle is queued or unacknowledged, which `Released` will end.
    holding: Cell<bool>,
    /// JavaScript was told that a message has come in part, and waits for `Whole`.
    partial: Cell<bool>,
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

impl Entry {
    /// A channel that nothing is read from yet. `room` is the size of the peer's send buffer.
    fn new(
        environment: &Rc<Environment>,
        id: u32,
        channel: Channel<UnixTransport>,
        target: Target,
        room: usize,
    ) -> Result<Rc<Entry>, Errno> {
        let entry = Rc::new(Entry {
            id,
            shared: SharedChannel::new(channel),
            poll: RefCell::new(None),
            timer: RefCell::new(None),
            target,
            interest: Cell::new((false, false)),
            reading: Cell::new(false),
            pace: RefCell::new(Pace::new(room)),
            pausing: Cell::new(false),
            shortages: Cell::new(0),
            answered: Cell::new(false),
            referenced: Cell::new(true),
            hears_replies: Cell::new(true),
            lingering: Cell::new(false),
            full: Cell::new(false),
            holding: Cell::new(false),
            partial: Cell::new(false),
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
            let handler = entry.handler(environment, Entry::on_ready);
            Poll::new(environment.event_loop(), fd, handler)?
        };
        *entry.poll.borrow_mut() = Some(poll);
        Ok(entry)
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
        let told = self.full.get() || self.holding.get() || self.partial.get();
        self.shared.ask_for_attention(unwritten || waits || told);
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
    /// channel that has nothing left to write. Whatever is told runs JavaScript, which may send and
    /// hang up: each thing is looked at when its turn has come.
    fn settle(&self, environment: &Rc<Environment>) {
        let (events, completed) = {
            let mut channel = self.shared.lock();
            let events: Vec<_> = std::iter::from_fn(|| channel.next_event()).collect();
            self.update(&channel);
            (events, channel.completed())
        };
        for event in events {
            match event {
                ChannelEvent::HandleAcknowledged { .. } => {}
                ChannelEvent::HandleNotReceived { sequence } => {
                    self.report(environment, Event::HandleLost, sequence, 0);
                }
                ChannelEvent::SendFailed { sequence, errno } => {
                    // The dispatcher may have waited for it.
                    if let Some(relayed) = self.relayed.borrow().as_ref() {
                        relayed.ring_dispatcher();
                    }
                    self.report(environment, Event::SendFailed, sequence, -(errno as i32));
                }
            }
        }
        if self.reported.get() < self.wanted.get() && completed > self.reported.get() {
            self.reported.set(completed);
            self.report(environment, Event::Completed, completed, 0);
        }
        if self.holding.get() && !self.shared.lock().holds_handle() {
            self.holding.set(false);
            self.report(environment, Event::Released, 0, 0);
        }
        if self.partial.get() && self.is_whole() {
            self.partial.set(false);
            self.report(environment, Event::Whole, 0, 0);
        }
        if self.full.get() && self.shared.lock().unwritten_messages() == 0 {
            self.full.set(false);
            self.report(environment, Event::Drained, 0, 0);
        }
        let has_written = {
            let channel = self.shared.lock();
            self.update(&channel);
            channel.unwritten_messages() == 0 || channel.broken().is_some()
        };
        if self.lingering.get() && has_written && self.close(environment) {
            self.report(environment, Event::Closed, 0, 0);
        }
    }

    /// Whether nothing has come in part, and JavaScript has all that the dispatcher has read.
    fn is_whole(&self) -> bool {
        let relayed = self.relayed.borrow();
        !self.shared.lock().is_buffering() && relayed.as_ref().is_none_or(Relayed::is_idle)
    }

    /// Forgets the channel; its descriptor is closed with the last reference. Says whether it
    /// was open.
    fn close(&self, environment: &Rc<Environment>) -> bool {
        self.release();
        self.unwatch();
        environment.channels().remove(environment, self)
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
}

/// The environment and the channel a call is about: its first argument.
fn entry_of(env: napi_env, id: napi_value) -> Option<(Rc<Environment>, Rc<Entry>)> {
    let environment = Environment::of(env)?;
    let entry = environment.channels().get(value::get_i32(env, id) as u32)?;
    Some((environment, entry))
}
