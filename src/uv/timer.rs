//! A timer of microsecond precision on the event loop: a `timerfd` that is polled, because libuv's
//! own timers count whole milliseconds.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::handle::Loop;
use super::poll::Poll;

/// A timer. Dropping it cancels it.
pub struct Timer {
    poll: Poll,
    // Behind the handle that watches it: fields are dropped in their order.
    clock: Rc<TimerFd>,
}

impl Timer {
    /// A timer that calls `callback` each time it has been started and run down.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn new(owner: &Rc<Loop>, callback: impl Fn() + 'static) -> Result<Timer, Errno> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let clock = Rc::new(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        let fired = clock.clone();
        let poll = Poll::new(owner, clock.as_fd(), move |_| {
            // Consumes the expiration, or the descriptor would stay readable.
            if fired.wait().is_ok() {
                callback();
            }
        })?;
        poll.watch(true, false);
        Ok(Timer { poll, clock })
    }

    /// Starts it anew.
    ///
    /// # Errors
    /// None in practice: the delay is a positive time.
    pub fn start(&self, delay: Duration) -> Result<(), Errno> {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(delay));
        self.clock.set(expiration, TimerSetTimeFlags::empty())
    }

    /// Whether the timer keeps the event loop alive, also while it does not run.
    pub fn set_ref(&self, keeps_alive: bool) {
        self.poll.set_ref(keeps_alive);
    }
}
