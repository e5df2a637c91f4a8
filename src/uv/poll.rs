//! A `uv_poll_t` as an owned value: dropping it closes the handle. [`Loop`] counts the handles
//! that are open on one event loop, so that an environment can end only after the last close.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use nix::errno::Errno;

use super::symbols::{Symbols, UV_POLL};

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

/// One event loop, and how many of our handles are open on it.
pub struct Loop {
    symbols: &'static Symbols,
    raw: NonNull<c_void>,
    open: Cell<usize>,
    on_idle: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Loop {
    /// Wraps the loop `raw` points to.
    ///
    /// # Safety
    /// `raw` is a live `uv_loop_t` of the libuv behind `symbols`, stays alive as long as any
    /// handle is open on it, and the value is used on that loop's thread only.
    pub unsafe fn from_raw(symbols: &'static Symbols, raw: NonNull<c_void>) -> Rc<Loop> {
        Rc::new(Loop {
            symbols,
            raw,
            open: Cell::new(0),
            on_idle: RefCell::new(None),
        })
    }

    /// Calls `done` once no handle of ours is open any more; at once when none is.
    pub fn when_idle(&self, done: Box<dyn FnOnce()>) {
        if self.open.get() == 0 {
            return done();
        }
        *self.on_idle.borrow_mut() = Some(done);
    }

    fn handle_closed(&self) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0
            && let Some(done) = self.on_idle.borrow_mut().take()
        {
            done();
        }
    }
}

type Callback = Rc<dyn Fn(Readiness)>;

/// What the handle's data pointer leads to; freed by the close callback.
struct Block {
    memory: *mut c_void,
    layout: std::alloc::Layout,
    owner: Rc<Loop>,
    callback: Callback,
}

/// A watched descriptor. The descriptor must outlive the value; dropping it stops the watching at
/// once and frees the handle when libuv has closed it.
pub struct Poll {
    handle: NonNull<c_void>,
    symbols: &'static Symbols,
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
        let symbols = owner.symbols;
        // SAFETY: uv_handle_size is a pure function of its argument.
        let size = unsafe { (symbols.handle_size)(UV_POLL) };
        let layout = std::alloc::Layout::from_size_align(size, 16).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: the layout has a non-zero size: libuv's poll handle is never empty.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<c_void>();
        let handle = NonNull::new(memory).ok_or(Errno::ENOMEM)?;
        // SAFETY: the block has the size of a uv_poll_t, the loop is live (Loop::from_raw).
        let status = unsafe { (symbols.poll_init)(owner.raw.as_ptr(), memory, fd.as_raw_fd()) };
        if status != 0 {
            // SAFETY: uv_poll_init failed, so libuv has kept no reference to the block.
            unsafe { std::alloc::dealloc(memory.cast(), layout) };
            return Err(Errno::from_raw(-status));
        }
        owner.open.set(owner.open.get() + 1);
        let block = Box::new(Block {
            memory,
            layout,
            owner: owner.clone(),
            callback: Rc::new(callback),
        });
        // SAFETY: the handle is initialised; the block is freed by on_close only.
        unsafe { (symbols.handle_set_data)(memory, Box::into_raw(block).cast()) };
        Ok(Poll { handle, symbols })
    }

    /// Sets what is watched for; neither stops the watching. Changing the set costs system
    /// calls at the loop's next turn.
    pub fn watch(&self, readable: bool, writable: bool) {
        let events = UV_READABLE * c_int::from(readable) | UV_WRITABLE * c_int::from(writable);
        // SAFETY: the handle is initialised and not closing: Drop consumes the value.
        unsafe {
            if events == 0 {
                (self.symbols.poll_stop)(self.handle.as_ptr());
            } else {
                (self.symbols.poll_start)(self.handle.as_ptr(), events, on_poll);
            }
        }
    }

    /// Whether the handle, while watching, keeps the event loop alive.
    pub fn set_ref(&self, keeps_alive: bool) {
        // SAFETY: the handle is initialised and not closing.
        unsafe {
            if keeps_alive {
                (self.symbols.reference)(self.handle.as_ptr());
            } else {
                (self.symbols.unreference)(self.handle.as_ptr());
            }
        }
    }

    /// Whether the handle is referenced.
    pub fn has_ref(&self) -> bool {
        // SAFETY: the handle is initialised and not closing.
        unsafe { (self.symbols.has_ref)(self.handle.as_ptr()) != 0 }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        // SAFETY: closed once, here; on_close frees the memory.
        unsafe { (self.symbols.close)(self.handle.as_ptr(), on_close) };
    }
}

unsafe extern "C" fn on_poll(handle: *mut c_void, status: c_int, events: c_int) {
    let Some(symbols) = super::symbols() else {
        return;
    };
    // SAFETY: the data pointer was set in Poll::new and is live until on_close.
    let block = unsafe { &*(symbols.handle_get_data)(handle).cast::<Block>() };
    // The callback may drop the Poll; our clone keeps it alive for the length of the call.
    let callback = block.callback.clone();
    callback(Readiness {
        readable: events & UV_READABLE != 0,
        writable: events & UV_WRITABLE != 0,
        failed: status < 0,
    });
}

unsafe extern "C" fn on_close(handle: *mut c_void) {
    let Some(symbols) = super::symbols() else {
        return;
    };
    // SAFETY: the data pointer was set in Poll::new; libuv calls this once and then forgets the
    // handle, so both boxes are ours to free.
    let block = unsafe { Box::from_raw((symbols.handle_get_data)(handle).cast::<Block>()) };
    // SAFETY: allocated in Poll::new with this layout.
    unsafe { std::alloc::dealloc(block.memory.cast(), block.layout) };
    block.owner.handle_closed();
}
