//! A `uv_check_t` as an owned value: called once the event loop has told of everything it has found
//! in one go.

use std::ffi::c_void;
use std::rc::Rc;

use nix::errno::Errno;

use super::handle::{Handle, Loop, dispatch};
use super::symbols::UV_CHECK;

/// A callback after the loop's events, before the `setImmediate()` callbacks of Node's that were
/// there first. It never keeps the loop alive.
pub struct Check(Handle<()>);

impl Check {
    /// Calls `callback` after each round of events from [`set_active`](Self::set_active) on.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(owner: &Rc<Loop>, callback: impl Fn() + 'static) -> Result<Check, Errno> {
        let symbols = super::symbols().ok_or(Errno::ENOSYS)?;
        let handle = Handle::new(
            owner,
            UV_CHECK,
            move |()| callback(),
            |event_loop, handle| {
                // SAFETY: the block has the size of a uv_check_t, the loop is live.
                unsafe { (symbols.check_init)(event_loop, handle) }
            },
        )?;
        handle.set_ref(false);
        Ok(Check(handle))
    }

    /// Whether the callback is called.
    pub fn set_active(&self, active: bool) {
        let symbols = self.0.symbols;
        // SAFETY: the handle is initialised and not closing.
        unsafe {
            if active {
                (symbols.check_start)(self.0.raw(), on_check);
            } else {
                (symbols.check_stop)(self.0.raw());
            }
        }
    }
}

unsafe extern "C" fn on_check(handle: *mut c_void) {
    // SAFETY: libuv calls this for the handle of a live Check.
    unsafe { dispatch(handle, ()) };
}
