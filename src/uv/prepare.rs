//! A callback each time the event loop is about to wait, able to wait in its place for a while,
//! spinning.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::handle::Loop;
use super::phase::Phase;

/// A callback before the loop waits. It never keeps the loop alive.
pub struct Prepare {
    phase: Phase,
    owner: Rc<Loop>,
}

impl Prepare {
    /// Calls `callback` before each wait from [`set_active`](Self::set_active) on.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(owner: &Rc<Loop>, callback: impl Fn() + 'static) -> Result<Prepare, Errno> {
        Ok(Prepare {
            phase: Phase::before_wait(owner, callback)?,
            owner: owner.clone(),
        })
    }

    /// Whether the callback is called.
    pub fn set_active(&self, active: bool) {
        self.phase.set_active(active);
    }

    /// To be called by the callback: looks for bytes on `descriptors` and for other events of the
    /// loop over and over, for `limit` or until a timer is due.
    pub fn spin(&self, descriptors: &[BorrowedFd<'_>], limit: Duration) -> Seen {
        let limit = match self.owner.timeout() {
            Some(Duration::ZERO) => return Seen::Loop,
            Some(timeout) => limit.min(timeout),
            None => limit,
        };
        let watched = descriptors.iter().copied().chain([self.owner.backend()]);
        let mut entries: Vec<_> = watched
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let start = Instant::now();
        while start.elapsed() < limit {
            if matches!(poll(&mut entries, PollTimeout::ZERO), Ok(0)) {
                std::hint::spin_loop();
                continue;
            }
            let ready = |entry: &PollFd<'_>| entry.any().unwrap_or(true);
            return match entries.iter().position(ready) {
                Some(index) if index < descriptors.len() => Seen::Descriptor(index),
                _ => Seen::Loop,
            };
        }
        Seen::Nothing
    }
}

/// What [`Prepare::spin`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Bytes, or an end, on this one of the descriptors.
    Descriptor(usize),
    /// The loop has something else to do.
    Loop,
    /// Nothing in all the time.
    Nothing,
}

/// `uv_backend_timeout`'s milliseconds; negative means no timer.
pub(super) fn timeout_of(millis: c_int) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}
