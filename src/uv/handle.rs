//! What all libuv handles share: a block of memory that libuv initialises, a callback behind its
//! data pointer, and a close that frees both when libuv says so. [`Loop`] counts the handles open
//! on one event loop, so that an environment can end only after the last close.

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::prepare::timeout_of;
use super::symbols::Symbols;

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

    /// How long the loop would wait for events now: until its next timer, or (`None`) for ever.
    pub(super) fn timeout(&self) -> Option<Duration> {
        // SAFETY: the loop is live, and this its thread (see `from_raw`).
        timeout_of(unsafe { (self.symbols.backend_timeout)(self.raw.as_ptr()) })
    }

    /// The descriptor that is readable when a descriptor of the loop is ready.
    pub(super) fn backend(&self) -> BorrowedFd<'_> {
        // SAFETY: as above; the descriptor is the loop's and lives as long.
        unsafe { BorrowedFd::borrow_raw((self.symbols.backend_fd)(self.raw.as_ptr())) }
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

/// What a handle's data pointer leads to; freed by the close callback.
struct Block<E: 'static> {
    memory: *mut c_void,
    layout: Layout,
    owner: Rc<Loop>,
    callback: Rc<dyn Fn(E)>,
}

/// An initialised handle whose events are of type `E`. Dropping it closes it.
pub(super) struct Handle<E: 'static> {
    raw: NonNull<c_void>,
    pub(super) symbols: &'static Symbols,
    close: unsafe extern "C" fn(*mut c_void),
    events: std::marker::PhantomData<E>,
}

impl<E: 'static> Handle<E> {
    /// Allocates a handle of libuv's type `kind` and has `init(loop, handle)` initialise it.
    pub(super) fn new(
        owner: &Rc<Loop>,
        kind: c_int,
        callback: impl Fn(E) + 'static,
        init: impl FnOnce(*mut c_void, *mut c_void) -> c_int,
    ) -> Result<Handle<E>, Errno> {
        let symbols = owner.symbols;
        // SAFETY: uv_handle_size is a pure function of its argument.
        let size = unsafe { (symbols.handle_size)(kind) };
        let layout = Layout::from_size_align(size, 16).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: the layout has a non-zero size: no libuv handle is empty.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<c_void>();
        let raw = NonNull::new(memory).ok_or(Errno::ENOMEM)?;
        let status = init(owner.raw.as_ptr(), memory);
        if status != 0 {
            // SAFETY: the initialisation failed, so libuv has kept no reference to the block.
            unsafe { std::alloc::dealloc(memory.cast(), layout) };
            return Err(Errno::from_raw(-status));
        }
        owner.open.set(owner.open.get() + 1);
        let callback = Rc::new(callback);
        let block = Box::new(Block {
            memory,
            layout,
            owner: owner.clone(),
            callback,
        });
        // SAFETY: the handle is initialised; the block is freed by on_close only.
        unsafe { (symbols.handle_set_data)(memory, Box::into_raw(block).cast()) };
        Ok(Handle {
            raw,
            symbols,
            close: on_close::<E>,
            events: std::marker::PhantomData,
        })
    }

    /// The handle, initialised and not closing: that begins with Drop.
    pub(super) fn raw(&self) -> *mut c_void {
        self.raw.as_ptr()
    }

    /// Whether the handle, while active, keeps the event loop alive.
    pub(super) fn set_ref(&self, keeps_alive: bool) {
        // SAFETY: see `raw`.
        unsafe {
            if keeps_alive {
                (self.symbols.reference)(self.raw());
            } else {
                (self.symbols.unreference)(self.raw());
            }
        }
    }
}

impl<E: 'static> Drop for Handle<E> {
    fn drop(&mut self) {
        // SAFETY: closed once, here; on_close frees the memory.
        unsafe { (self.symbols.close)(self.raw(), self.close) };
    }
}

/// Calls the callback of the handle `raw` with `event`.
///
/// # Safety
/// `raw` belongs to a [`Handle<E>`] that libuv has not reported closed.
pub(super) unsafe fn dispatch<E: 'static>(raw: *mut c_void, event: E) {
    let Some(symbols) = super::symbols() else {
        return;
    };
    // SAFETY: the data pointer was set in Handle::new and is live until on_close.
    let block = unsafe { &*(symbols.handle_get_data)(raw).cast::<Block<E>>() };
    // The callback may drop the handle; our clone keeps it alive for the length of the call.
    let callback = block.callback.clone();
    callback(event);
}

unsafe extern "C" fn on_close<E: 'static>(raw: *mut c_void) {
    let Some(symbols) = super::symbols() else {
        return;
    };
    // SAFETY: the data pointer was set in Handle::new; libuv calls this once and then forgets the
    // handle, so both boxes are ours to free.
    let block = unsafe { Box::from_raw((symbols.handle_get_data)(raw).cast::<Block<E>>()) };
    // SAFETY: allocated in Handle::new with this layout.
    unsafe { std::alloc::dealloc(block.memory.cast(), block.layout) };
    block.owner.handle_closed();
}
