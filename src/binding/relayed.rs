//! A channel that the cluster's dispatcher reads: where its messages wait for the channel's own
//! thread, and whether it keeps that thread's event loop alive meanwhile.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::dispatcher::Running;
use crate::cluster::relay::Inbox;
use crate::ipc::Batch;

/// The channel's place at the dispatcher.
pub struct Relayed {
    /// The worker at its other end.
    pub worker: u32,
    inbox: Arc<Inbox>,
    running: Rc<Running>,
    holds: Cell<bool>,
}

impl Relayed {
    /// `worker`'s channel, whose messages come to `inbox`.
    pub fn new(worker: u32, inbox: Arc<Inbox>, running: Rc<Running>) -> Relayed {
        Relayed {
            worker,
            inbox,
            running,
            holds: Cell::new(false),
        }
    }

    /// Where its messages wait.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// The oldest batch that waits.
    pub fn pop(&self) -> Option<Batch> {
        let popped = self.inbox.pop()?;
        if popped.has_room_again {
            self.ring_dispatcher();
        }
        Some(popped.batch)
    }

    /// Whether nothing waits, or is on its way to the inbox.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_idle()
    }

    /// Has the thread come back to what is left.
    pub fn ring(&self) {
        self.inbox.ring();
    }

    /// Has the dispatcher look at what it can do.
    pub fn ring_dispatcher(&self) {
        self.running.ring();
    }

    /// Whether the channel keeps the event loop alive.
    pub fn set_ref(&self, holds: bool) {
        if self.holds.replace(holds) != holds {
            self.running.hold(holds);
        }
    }

    /// The worker's process has ended: has the dispatcher read what it has written before.
    pub fn read_rest(&self) {
        self.running.read_rest(self.worker);
    }

    /// Gives the channel back to its own thread.
    pub fn release(self) {
        self.running.release(self.worker);
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.set_ref(false);
    }
}
