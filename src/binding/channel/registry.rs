//! The channels of one environment by their numbers, and what is done to all of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::Entry;
use crate::binding::dispatcher::Running;
use crate::binding::environment::Environment;
use crate::binding::relayed::Relayed;
use crate::cluster::relay::Inbox;
use crate::ipc::shared::{self, SharedChannel};
use crate::uv::{Poll, Prepare, Readiness, Seen};

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

impl Channels {
    /// Enters the channel that `make` makes of its number, and returns the number.
    pub(super) fn add(
        &self,
        make: impl FnOnce(u32) -> Result<Rc<Entry>, Errno>,
    ) -> Result<u32, Errno> {
        let id = self.next_id.get() + 1;
        self.next_id.set(id);
        let entry = make(id)?;
        self.open.borrow_mut().insert(id, entry);
        Ok(id)
    }

    /// Forgets a channel; says whether it was there.
    pub(super) fn remove(&self, environment: &Rc<Environment>, entry: &Entry) -> bool {
        let was_open = self.open.borrow_mut().remove(&entry.id).is_some();
        if !entry.busy.get().is_zero() {
            self.update_busy(environment);
        }
        was_open
    }

    pub(super) fn get(&self, id: u32) -> Option<Rc<Entry>> {
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
    pub(super) fn update_busy(&self, environment: &Rc<Environment>) {
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

    /// The process at the other end has ended: hands over what it has written before.
    pub fn receive_rest(&self, environment: &Rc<Environment>, id: u32) {
        if let Some(entry) = self.get(id) {
            entry.receive_rest(environment);
        }
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
