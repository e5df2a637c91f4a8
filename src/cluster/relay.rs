//! What the dispatcher has read on a channel and is not its own: messages in order, for the thread
//! whose channel it is. One bell (an eventfd on that thread's event loop) for all channels of an
//! environment. Delivering them is left to `binding`.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::ipc::Batch;

/// Bytes of messages that may wait for a thread that does not come to them. Above it the
/// dispatcher reads no more of that channel, so its worker gets no more connections either.
const MOST_WAITING: usize = 16 << 20;

/// What a descriptor that waits counts for, so that these stay few as well.
const WEIGHT_OF_HANDLE: usize = 64 << 10;

/// Which channels have something for their thread.
#[derive(Debug)]
pub struct Relay {
    bell: EventFd,
    ready: Mutex<Vec<u32>>,
}

impl Relay {
    /// Creates the bell.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn new() -> Result<Arc<Relay>, Errno> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Arc::new(Relay {
            bell: EventFd::from_value_and_flags(0, flags)?,
            ready: Mutex::new(Vec::new()),
        }))
    }

    /// Notes that `channel` is to be looked at, and wakes its thread.
    pub fn ring(&self, channel: u32) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&channel) {
            ready.push(channel);
        }
        drop(ready);
        // Fails only when the counter is full, and then the thread is being woken already.
        let _ = self.bell.write(1);
    }

    /// The channels to be looked at, each once.
    pub fn take(&self) -> Vec<u32> {
        // Fails when nobody has rung since.
        let _ = self.bell.read();
        mem::take(&mut *lock(&self.ready))
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// The messages that wait for one channel's thread.
#[derive(Debug)]
pub struct Inbox {
    channel: u32,
    relay: Arc<Relay>,
    batches: Mutex<VecDeque<Batch>>,
    bytes: AtomicUsize,
    /// Something may have been read and not been put here yet.
    is_being_filled: AtomicBool,
}

impl Inbox {
    /// An empty one for the channel that its thread knows as `channel`.
    pub fn new(channel: u32, relay: Arc<Relay>) -> Arc<Inbox> {
        Arc::new(Inbox {
            channel,
            relay,
            batches: Mutex::default(),
            bytes: AtomicUsize::new(0),
            is_being_filled: AtomicBool::new(false),
        })
    }

    /// Adds a batch and wakes the thread.
    pub fn push(&self, batch: Batch) {
        self.bytes.fetch_add(weight(&batch), Ordering::AcqRel);
        lock(&self.batches).push_back(batch);
        self.ring();
    }

    /// The oldest batch.
    pub fn pop(&self) -> Option<Popped> {
        let batch = lock(&self.batches).pop_front()?;
        let weight = weight(&batch);
        // The sum before and after in one step: between two looks it might become full.
        let before = self.bytes.fetch_sub(weight, Ordering::AcqRel);
        let after = before - weight;
        Some(Popped {
            batch,
            has_room_again: before > MOST_WAITING && after <= MOST_WAITING,
        })
    }

    /// Whether no more should be read before the thread has come to what is here.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) > MOST_WAITING
    }

    /// Says whether its channel is being read. To be set before the channel is locked: whoever then
    /// finds under its lock that something has been read finds it here, or this set.
    pub fn set_being_filled(&self, is_being_filled: bool) {
        self.is_being_filled
            .store(is_being_filled, Ordering::Release);
    }

    /// Whether nothing is here, or about to be.
    pub fn is_idle(&self) -> bool {
        !self.is_being_filled.load(Ordering::Acquire) && lock(&self.batches).is_empty()
    }

    /// Wakes the thread without a message: something else about the channel has changed.
    pub fn ring(&self) {
        self.relay.ring(self.channel);
    }
}

/// What was taken out of an inbox.
#[derive(Debug)]
pub struct Popped {
    /// The messages.
    pub batch: Batch,
    /// The inbox was full until now: whoever fills it is to be told.
    pub has_room_again: bool,
}

fn weight(batch: &Batch) -> usize {
    batch.memory() + WEIGHT_OF_HANDLE * batch.handles().len()
}

/// A panic elsewhere leaves lists of batches as usable as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
