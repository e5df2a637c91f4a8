//! What is called once in each turn of the event loop, as an owned value: a `uv_prepare_t` before the
//! loop waits, or a `uv_check_t` once it has told of everything that it has found in one go.

use std::ffi::{c_int, c_void};
use std::rc::Rc;

use nix::errno::Errno;

use super::handle::{Handle, Loop, dispatch};
use super::symbols::{PhaseFunctions, UV_CHECK, UV_PREPARE};

/// A callback in one phase of each turn. It never keeps the loop alive.
pub struct Phase {
    handle: Handle<()>,
    functions: PhaseFunctions,
}

impl Phase {
    /// Calls `callback` before each wait from [`set_active`](Self::set_active) on.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn before_wait(owner: &Rc<Loop>, callback: impl Fn() + 'static) -> Result<Phase, Errno> {
        let symbols = super::symbols().ok_or(Errno::ENOSYS)?;
        Phase::new(owner, UV_PREPARE, symbols.prepare, callback)
    }

    /// The same after the events of each turn, before the `setImmediate()` callbacks of Node's.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn after_events(owner: &Rc<Loop>, callback: impl Fn() + 'static) -> Result<Phase, Errno> {
        let symbols = super::symbols().ok_or(Errno::ENOSYS)?;
        Phase::new(owner, UV_CHECK, symbols.check, callback)
    }

    fn new(
        owner: &Rc<Loop>,
        kind: c_int,
        functions: PhaseFunctions,
        callback: impl Fn() + 'static,
    ) -> Result<Phase, Errno> {
        let handle = Handle::new(
            owner,
            kind,
            move |()| callback(),
            |event_loop, handle| {
                // SAFETY: the block has the size of a handle of this kind, the loop is live.
                unsafe { (functions.init)(event_loop, handle) }
            },
        )?;
        handle.set_ref(false);
        Ok(Phase { handle, functions })
    }

    /// Whether the callback is called.
    pub fn set_active(&self, active: bool) {
        // SAFETY: the handle is initialised and not closing.
        unsafe {
            if active {
                (self.functions.start)(self.handle.raw(), on_phase);
            } else {
                (self.functions.stop)(self.handle.raw());
            }
        }
    }
}

unsafe extern "C" fn on_phase(handle: *mut c_void) {
    // SAFETY: libuv calls this for the handle of a live Phase.
    unsafe { dispatch(handle, ()) };
}
