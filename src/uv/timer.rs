//! A `uv_timer_t` as an owned value: one call after a delay, on the event loop.

use std::ffi::c_void;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::handle::{Handle, Loop, dispatch};
use super::symbols::UV_TIMER;

/// A timer. Dropping it cancels it.
pub struct Timer(Handle<()>);

impl Timer {
    /// A timer that calls `callback` each time it has been started and run down.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(owner: &Rc<Loop>, callback: impl Fn() + 'static) -> Result<Timer, Errno> {
        let symbols = super::symbols().ok_or(Errno::ENOSYS)?;
        let callback = move |()| callback();
        Handle::new(owner, UV_TIMER, callback, |event_loop, handle| {
            // SAFETY: the block has the size of a uv_timer_t, the loop is live.
            unsafe { (symbols.timer_init)(event_loop, handle) }
        })
        .map(Timer)
    }

    /// Starts it anew. libuv counts whole milliseconds, from the beginning of the loop's turn.
    pub fn start(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: the handle is initialised and not closing.
        unsafe { (self.0.symbols.timer_start)(self.0.raw(), on_timer, millis, 0) };
    }

    /// Stops it.
    pub fn stop(&self) {
        // SAFETY: the handle is initialised and not closing.
        unsafe { (self.0.symbols.timer_stop)(self.0.raw()) };
    }

    /// Whether the timer, while running, keeps the event loop alive.
    pub fn set_ref(&self, keeps_alive: bool) {
        self.0.set_ref(keeps_alive);
    }
}

unsafe extern "C" fn on_timer(handle: *mut c_void) {
    // SAFETY: libuv calls this for the handle of a live Timer.
    unsafe { dispatch(handle, ()) };
}
