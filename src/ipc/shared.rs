//! Channels as the process shares them: behind a lock, because besides the loop thread a flusher
//! writes what has been gathered when that thread is blocked, and the end of the process writes
//! what is left. The registry here is the one global of the addon.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::{Channel, UnixTransport};
use crate::sys::exit::{at_exit, is_forked_copy};

/// How long a gathered message may lie before the flusher writes it.
const LONGEST_GATHERING: Duration = Duration::from_millis(1);

/// How long the end of the process may take to write what is queued, all channels together.
const EXIT_BOUND: Duration = Duration::from_secs(1);

/// How long one channel whose peer does not read may keep the others waiting meanwhile.
const DRAIN_TURN: Duration = Duration::from_millis(5);

/// A channel several threads drive.
#[derive(Debug)]
pub struct SharedChannel {
    channel: Mutex<Channel<UnixTransport>>,
    watched: AtomicBool,
    attention: AtomicBool,
}

impl SharedChannel {
    /// Shares `channel` and enters it in the registry of channels flushed at exit.
    pub fn new(channel: Channel<UnixTransport>) -> Arc<Self> {
        flush_at_exit();
        let shared = Arc::new(SharedChannel {
            channel: Mutex::new(channel),
            watched: AtomicBool::new(false),
            attention: AtomicBool::new(false),
        });
        let mut registry = lock(registry());
        registry.retain(|entry| entry.strong_count() > 0);
        registry.push(Arc::downgrade(&shared));
        shared
    }

    /// The channel, for this thread alone. Never held while JavaScript runs.
    pub fn lock(&self) -> MutexGuard<'_, Channel<UnixTransport>> {
        lock(&self.channel)
    }

    /// Says whether the channel's own thread waits for something that whoever else drives the
    /// channel may bring about. To be called with the lock held.
    pub fn ask_for_attention(&self, wanted: bool) {
        self.attention.store(wanted, Ordering::Release);
    }

    /// Whether the channel's own thread wants to be told of progress.
    pub fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// Makes the flusher look at the channel within [`LONGEST_GATHERING`], should its own thread
    /// not come to it.
    pub fn watch(self: &Arc<Self>) {
        if !self.watched.swap(true, Ordering::AcqRel) {
            Flusher::get().watch(Arc::downgrade(self));
        }
    }
}

/// A panic while a lock was held leaves the data usable: every operation restores its invariants
/// before it can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn registry() -> &'static Mutex<Vec<Weak<SharedChannel>>> {
    static REGISTRY: Mutex<Vec<Weak<SharedChannel>>> = Mutex::new(Vec::new());
    &REGISTRY
}

/// The channels alive now.
fn live() -> Vec<Arc<SharedChannel>> {
    lock(registry()).iter().filter_map(Weak::upgrade).collect()
}

/// How many channels are alive in this process.
pub fn count() -> usize {
    live().len()
}

/// Writes what is gathered in every channel, as far as the kernel takes it: to be called before
/// anything that blocks the thread.
pub fn flush_all() {
    for shared in live() {
        shared.lock().flush();
    }
}

/// The thread that writes for a blocked event loop. It sleeps while nothing is gathered.
struct Flusher {
    pending: Mutex<Vec<Weak<SharedChannel>>>,
    wake: Condvar,
}

impl Flusher {
    fn get() -> &'static Flusher {
        static FLUSHER: OnceLock<Flusher> = OnceLock::new();
        static START: Once = Once::new();
        let flusher = FLUSHER.get_or_init(|| Flusher {
            pending: Mutex::new(Vec::new()),
            wake: Condvar::new(),
        });
        START.call_once(|| {
            // Without a thread (EAGAIN) messages are still flushed at the end of each turn.
            let _ = thread::Builder::new()
                .name("brood-flush".into())
                .spawn(|| flusher.run());
        });
        flusher
    }

    fn watch(&self, channel: Weak<SharedChannel>) {
        let mut pending = lock(&self.pending);
        pending.push(channel);
        if pending.len() == 1 {
            self.wake.notify_one();
        }
    }

    fn run(&self) {
        let mut pending = lock(&self.pending);
        loop {
            while pending.is_empty() {
                pending = self
                    .wake
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            drop(pending);
            thread::sleep(LONGEST_GATHERING);
            let due = std::mem::take(&mut *lock(&self.pending));
            let kept: Vec<_> = due.into_iter().filter(keep_watching).collect();
            pending = lock(&self.pending);
            pending.extend(kept);
        }
    }
}

/// Flushes the channel if its oldest message is due; says whether it must be looked at again.
fn keep_watching(entry: &Weak<SharedChannel>) -> bool {
    let Some(shared) = entry.upgrade() else {
        return false;
    };
    shared.watched.store(false, Ordering::Release);
    let mut channel = shared.lock();
    match channel.oldest_unsent() {
        None => return false,
        Some(since) if since.elapsed() >= LONGEST_GATHERING => {
            channel.flush();
            return false;
        }
        Some(_) => {}
    }
    !shared.watched.swap(true, Ordering::AcqRel)
}

/// Writes all that is queued before the process ends, whatever ends it but a signal:
/// `process.exit()` and uncaught exceptions skip Node-API's cleanup hooks, `atexit` they do not.
fn flush_at_exit() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| at_exit(drain_all));
}

extern "C" fn drain_all() {
    if !is_forked_copy() {
        drain(&live());
    }
}

/// Writes all that is queued in `channels`, within the bound. Says on stderr how many messages
/// could not be written; nothing is lost silently.
pub fn drain(channels: &[Arc<SharedChannel>]) {
    let start = Instant::now();
    let deadline = start + EXIT_BOUND;
    let dropped_before = dropped(channels);
    // What can be written at once is, before anybody is waited for.
    let mut open: Vec<_> = channels
        .iter()
        .filter(|shared| !shared.lock().drain(start))
        .collect();
    while !open.is_empty() && Instant::now() < deadline {
        open.retain(|shared| {
            let turn = Instant::now() + DRAIN_TURN;
            !shared.lock().drain(turn.min(deadline))
        });
    }
    for shared in channels {
        shared.lock().give_up();
    }
    report(dropped(channels) - dropped_before);
}

fn dropped(channels: &[Arc<SharedChannel>]) -> u64 {
    let count = |shared: &Arc<SharedChannel>| shared.lock().stats().messages_dropped;
    channels.iter().map(count).sum()
}

/// Nobody may be reading stderr any more: that must not end the process in another way.
fn report(lost: u64) {
    if lost > 0 {
        let _ = writeln!(
            io::stderr(),
            "brood: {lost} IPC messages were not sent before the process ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::ipc::{Framing, SendMode};

    const MEGABYTE: usize = 1 << 20;

    /// A channel with 8 MB queued, and the other end of its socket, which nobody reads yet.
    fn loaded() -> (Arc<SharedChannel>, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        let transport = UnixTransport::new(one.into());
        let shared = SharedChannel::new(Channel::new(transport, Framing::JsonLines));
        for _ in 0..8 {
            let payload = vec![b'1'; MEGABYTE - 1];
            shared
                .lock()
                .send(&payload, None, SendMode::Gather)
                .unwrap();
        }
        (shared, other)
    }

    #[test]
    fn a_peer_that_reads_gets_everything_at_the_end_although_another_reads_nothing() {
        let (stuck, _silent) = loaded();
        let (healthy, mut peer) = loaded();
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            peer.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let begin = Instant::now();
        drain(&[stuck.clone(), healthy.clone()]);
        assert!(begin.elapsed() < 2 * EXIT_BOUND);
        assert_eq!(healthy.lock().unwritten_messages(), 0);
        assert!(stuck.lock().stats().messages_dropped > 0);
        drop(healthy);
        assert_eq!(reader.join().unwrap(), 8 * MEGABYTE);
    }
}
