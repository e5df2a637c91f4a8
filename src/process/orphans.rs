//! Children nobody waits for any more, for example those of a worker thread that was terminated.
//! Each spawn looks at a few of them and takes the end of those that have ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::sys::pidfd::{PidFd, Wait};

/// How many one spawn looks at: it must not cost more because there are many.
const AT_ONCE: usize = 8;

static ORPHANS: Mutex<VecDeque<(i32, PidFd)>> = Mutex::new(VecDeque::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Looks after a child from now on.
pub(super) fn adopt(pid: i32, pidfd: PidFd) {
    if !matches!(pidfd.wait(pid, Wait::Poll), Ok(None)) {
        return;
    }
    let mut orphans = lock();
    orphans.push_back((pid, pidfd));
    COUNT.store(orphans.len(), Ordering::Relaxed);
}

/// Takes the end of those that have ended.
pub(super) fn reap() {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut orphans = lock();
    for _ in 0..orphans.len().min(AT_ONCE) {
        let Some((pid, pidfd)) = orphans.pop_front() else {
            break;
        };
        if matches!(pidfd.wait(pid, Wait::Poll), Ok(None)) {
            orphans.push_back((pid, pidfd));
        }
    }
    COUNT.store(orphans.len(), Ordering::Relaxed);
}

/// How many there are, for diagnostics.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

fn lock() -> MutexGuard<'static, VecDeque<(i32, PidFd)>> {
    ORPHANS.lock().unwrap_or_else(|poison| poison.into_inner())
}
