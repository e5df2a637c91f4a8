//! A `uv_poll_t` as an owned value: readiness of a descriptor on the event loop.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;

use super::handle::{Handle, Loop, dispatch};
use super::symbols::UV_POLL;

const UV_READABLE: c_int = 1;
const UV_WRITABLE: c_int = 2;

/// What a watched descriptor is ready for. `failed` means libuv stopped the handle (`POLLERR`
/// makes it report `UV_EBADF` and no events): read until end of file to learn why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read will not block.
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
    /// libuv has stopped watching.
    pub failed: bool,
}

impl Readiness {
    /// Ready for a read alone.
    pub const READABLE: Readiness = Readiness {
        readable: true,
        writable: false,
        failed: false,
    };
}

/// A watched descriptor. The descriptor must outlive the value; dropping it stops the watching at
/// once and frees the handle when libuv has closed it.
pub struct Poll {
    handle: Handle<Readiness>,
    descriptor: RawFd,
}

impl Poll {
    /// Prepares to watch `fd` (which becomes non-blocking) and calls `callback` on the loop's
    /// thread. Nothing is watched before [`Poll::watch`].
    ///
    /// # Errors
    /// `EEXIST` when the loop already watches the descriptor, `EPERM` for a regular file.
    pub fn new(
        owner: &Rc<Loop>,
        fd: BorrowedFd<'_>,
        callback: impl Fn(Readiness) + 'static,
    ) -> Result<Poll, Errno> {
        let symbols = super::symbols().ok_or(Errno::ENOSYS)?;
        Handle::new(owner, UV_POLL, callback, |event_loop, handle| {
            // SAFETY: the block has the size of a uv_poll_t, the loop is live (Loop::from_raw).
            unsafe { (symbols.poll_init)(event_loop, handle, fd.as_raw_fd()) }
        })
        .map(|handle| Poll {
            handle,
            descriptor: fd.as_raw_fd(),
        })
    }

    /// The watched descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: it outlives the value, as `new` demands.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }

    /// Sets what is watched for; neither stops the watching. Changing the set costs system
    /// calls at the loop's next turn.
    pub fn watch(&self, readable: bool, writable: bool) {
        let events = (UV_READABLE * c_int::from(readable)) | (UV_WRITABLE * c_int::from(writable));
        let symbols = self.handle.symbols;
        // SAFETY: the handle is initialised and not closing.
        unsafe {
            if events == 0 {
                (symbols.poll_stop)(self.handle.raw());
            } else {
                (symbols.poll_start)(self.handle.raw(), events, on_poll);
            }
        }
    }

    /// Whether the handle, while watching, keeps the event loop alive.
    pub fn set_ref(&self, keeps_alive: bool) {
        self.handle.set_ref(keeps_alive);
    }
}

unsafe extern "C" fn on_poll(handle: *mut c_void, status: c_int, events: c_int) {
    let ready = Readiness {
        readable: events & UV_READABLE != 0,
        writable: events & UV_WRITABLE != 0,
        failed: status < 0,
    };
    // SAFETY: libuv calls this for the handle of a live Poll.
    unsafe { dispatch(handle, ready) };
}
