//! When a channel is read: on readiness, after a pause, or from what the dispatcher has left, and
//! when no more.

use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{Entry, Event};
use crate::binding::environment::Environment;
use crate::binding::memory;
use crate::binding::relayed::Relayed;
use crate::binding::value;
use crate::ipc::pace::Brought;
use crate::ipc::{Batch, ReadEnd, ReceiveError};
use crate::uv::{Readiness, Timer};

/// Bytes read for one readiness event; what is left waits for the next turn, so that a flooding
/// peer cannot starve the loop.
const READ_BUDGET: usize = 1 << 20;

/// Reads in one go, of a process that has ended: far more than its socket can hold.
const MOST_READS: usize = 64;

/// How long what has come waits for memory before it is tried again: at first; then twice as long
/// each time, as often as this.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGER_WAITS: u32 = 10;

impl Entry {
    pub(super) fn on_ready(self: &Rc<Self>, environment: &Rc<Environment>, ready: Readiness) {
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

    /// Whether what arrives is read by this thread, for JavaScript.
    fn reads_here(&self) -> bool {
        self.reading.get() && self.relayed.borrow().is_none()
    }

    /// Reads all that is there, unless somebody else holds the other end open and goes on writing.
    pub(super) fn receive_rest(self: &Rc<Self>, environment: &Rc<Environment>) {
        self.receive_rest_relayed(environment);
        for _ in 0..MOST_READS {
            if !self.reads_here() {
                return;
            }
            self.pausing.set(false);
            let end = self.receive(environment, false);
            self.settle(environment);
            if !matches!(
                end,
                ReadEnd::Budget | ReadEnd::ShortRead | ReadEnd::Switched
            ) {
                return;
            }
        }
    }

    /// The same where a dispatcher reads: it is not waited for, but told to read at once.
    fn receive_rest_relayed(self: &Rc<Self>, environment: &Rc<Environment>) {
        if let Some(relayed) = self.relayed.borrow().as_ref() {
            relayed.read_rest();
        }
        let is_left = || self.relayed.borrow().as_ref().is_some_and(|r| !r.is_idle());
        for _ in 0..MOST_READS {
            if !self.reading.get() || !is_left() {
                return;
            }
            self.receive_relayed(environment);
            self.settle(environment);
        }
    }

    /// Reads what is there and hands it to JavaScript; after a failed poll until the end, for
    /// there will be no further event. Returns how it has ended.
    fn receive(self: &Rc<Self>, environment: &Rc<Environment>, to_the_end: bool) -> ReadEnd {
        let before = self.shared.lock().stats().bytes_received;
        let mut messages = 0;
        let end = loop {
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
            if batch.is_empty() || self.is_for_nobody(&batch) {
                self.shared.lock().recycle(batch);
            } else {
                self.deliver(environment, batch);
            }
            if self.report_end(environment, end) {
                return end;
            }
            if end != ReadEnd::Starved {
                self.shortages.set(0);
            }
            match end {
                ReadEnd::Closed | ReadEnd::Failed(_) => return end,
                ReadEnd::Starved => {
                    self.wait_for_memory(environment);
                    return end;
                }
                ReadEnd::Switched if self.reads_here() => {}
                ReadEnd::Budget | ReadEnd::ShortRead if to_the_end && self.reads_here() => {}
                ReadEnd::Budget | ReadEnd::ShortRead | ReadEnd::Switched | ReadEnd::Drained => {
                    break end;
                }
            }
        };
        let bytes = (self.shared.lock().stats().bytes_received - before) as usize;
        self.pace(environment, Brought { messages, bytes });
        end
    }

    /// Replies to handles are the channel's own business: a call into JavaScript for each socket that
    /// is handed on is a tenth of what that costs.
    fn is_for_nobody(&self, batch: &Batch) -> bool {
        !self.hears_replies.get() && batch.holds_only_replies()
    }

    /// Reads for nobody while the rest of the queue is written: a peer that writes the rest of
    /// its own would else wait for us as we wait for it.
    fn discard(&self, to_the_end: bool) {
        loop {
            let batch = self.shared.lock().receive(READ_BUDGET);
            match batch.end() {
                ReadEnd::Switched => {}
                ReadEnd::Starved => self.shared.lock().skip_starved(),
                ReadEnd::Budget | ReadEnd::ShortRead if to_the_end => {}
                _ => return,
            }
        }
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

    /// Has V8 let go of what nobody uses any more, and looks again a little later, when that has come
    /// back: what has come is kept, and nothing is read on top of it.
    fn wait_for_memory(self: &Rc<Self>, environment: &Rc<Environment>) {
        let shortages = self.shortages.get();
        self.shortages.set((shortages + 1).min(LONGER_WAITS + 1));
        memory::collect_garbage(environment.raw());
        if shortages == LONGER_WAITS {
            self.report(environment, Event::Starved, 0, 0);
        }
        if !self.reads_here() {
            return;
        }
        let wait = FIRST_WAIT * 2u32.pow(shortages.min(LONGER_WAITS));
        match self.start_timer(environment, wait) {
            Ok(()) => self.pausing.set(true),
            Err(errno) => {
                self.report_end(environment, ReadEnd::Failed(ReceiveError::System(errno)));
            }
        }
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

    /// Hands over what the dispatcher has read for this channel, about as much as one read of our
    /// own brings.
    pub(super) fn receive_relayed(self: &Rc<Self>, environment: &Rc<Environment>) {
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
    pub(super) fn ring(&self) {
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
            ReadEnd::Budget
            | ReadEnd::ShortRead
            | ReadEnd::Switched
            | ReadEnd::Starved
            | ReadEnd::Drained => false,
        }
    }

    fn stop_reading(&self) {
        self.reading.set(false);
        self.update(&self.shared.lock());
    }
}
