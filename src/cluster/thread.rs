//! The dispatcher's thread, and the dispatcher as other threads hold it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::errno::Errno;

use super::dispatcher::Dispatcher;
use super::gather::Gathering;
use super::watch::Watch;

/// A running dispatcher. Dropping it ends and joins the thread.
#[derive(Debug)]
pub struct DispatcherThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dispatcher: Mutex<Dispatcher>,
    watch: Arc<Watch>,
    ending: AtomicBool,
}

impl DispatcherThread {
    /// Starts the thread. `seed` should be random.
    ///
    /// # Errors
    /// Out of descriptors, threads or memory.
    pub fn start(seed: [u8; 16]) -> Result<DispatcherThread, Errno> {
        let watch = Arc::new(Watch::new()?);
        let shared = Arc::new(Shared {
            dispatcher: Mutex::new(Dispatcher::new(watch.clone(), seed)),
            watch,
            ending: AtomicBool::new(false),
        });
        let running = shared.clone();
        let thread = thread::Builder::new()
            .name("brood-dispatch".into())
            .spawn(move || running.run())
            .map_err(|error| errno_of(&error))?;
        Ok(DispatcherThread {
            shared,
            thread: Some(thread),
        })
    }

    /// Does something with the dispatcher, which then acts upon it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Dispatcher) -> T) -> T {
        let result = act(&mut self.shared.lock());
        self.shared.watch.ring();
        result
    }

    /// Looks at the dispatcher without waking it.
    pub fn read<T>(&self, look: impl FnOnce(&Dispatcher) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Something about a channel has changed that the dispatcher may have waited for.
    pub fn ring(&self) {
        self.shared.watch.ring();
    }
}

impl Drop for DispatcherThread {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        self.shared.watch.ring();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by then.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A panic while the lock was held leaves connections that are still owned by somebody.
    fn lock(&self) -> MutexGuard<'_, Dispatcher> {
        self.dispatcher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut limit = None;
        let mut gathering = Gathering::default();
        loop {
            let begin = Instant::now();
            let events = self.watch.wait(limit);
            let waited = begin.elapsed();
            if self.ending.load(Ordering::Acquire) {
                return;
            }
            let now = Instant::now();
            let mut dispatcher = self.lock();
            let pause = gathering.pause(waited, !events.is_empty());
            let pause = pause.filter(|_| dispatcher.may_gather());
            for event in events {
                dispatcher.on_ready(event, now);
            }
            dispatcher.turn(now, pause.is_some());
            limit = dispatcher.next_look(now);
            drop(dispatcher);
            if let Some(pause) = pause {
                thread::sleep(pause);
            }
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw)
}
