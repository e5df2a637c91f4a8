//! Stacks for children that run in the parent's memory until they exec. Each has a guard page
//! below it, and above it a page for the child's report, shared also with a forked child. A few
//! are kept for the next spawn, so that one costs no page fault.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE: usize = 64 * 1024; // the largest page of the platforms we run on
const SIZE: usize = 64 * 1024;
const KEPT: usize = 4;

static FREE: Mutex<Vec<Stack>> = Mutex::new(Vec::new());

/// What a child that could not exec leaves behind for its parent.
#[repr(C)]
pub(super) struct Report {
    errno: AtomicI32,
}

impl Report {
    pub(super) fn clear(&self) {
        self.errno.store(0, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, errno: i32) {
        self.errno.store(errno, Ordering::Release);
    }

    pub(super) fn failure(&self) -> Option<Errno> {
        match self.errno.load(Ordering::Acquire) {
            0 => None,
            errno => Some(Errno::from_raw(errno)),
        }
    }
}

/// One mapping: guard, stack, report.
pub(super) struct Stack {
    base: NonNull<c_void>,
}

// SAFETY: the mapping belongs to the value and to no thread.
unsafe impl Send for Stack {}

impl Stack {
    /// A stack of earlier use, or a new one.
    pub(super) fn take() -> Result<Stack, Errno> {
        let kept = FREE.lock().unwrap_or_else(|e| e.into_inner()).pop();
        kept.map_or_else(Stack::map, Ok)
    }

    /// Keeps the stack for the next one to take it.
    pub(super) fn put_back(self) {
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        if free.len() < KEPT {
            free.push(self);
        }
    }

    fn map() -> Result<Stack, Errno> {
        const LENGTH: NonZeroUsize = NonZeroUsize::new(PAGE + SIZE + PAGE).expect("not zero");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Shared: a child with a copy of the memory must reach the report as well.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(None, LENGTH, access, flags) }?;
        let stack = Stack { base };
        // SAFETY: the first page of our own mapping, which nothing uses.
        unsafe { mprotect(base, PAGE, ProtFlags::PROT_NONE) }?;
        Ok(stack)
    }

    /// The lowest address a child may use.
    pub(super) fn bottom(&self) -> *mut c_void {
        // SAFETY: inside the mapping.
        unsafe { self.base.as_ptr().byte_add(PAGE) }
    }

    /// The usable size.
    pub(super) fn size(&self) -> usize {
        SIZE
    }

    /// Where a stack that grows down begins.
    pub(super) fn top(&self) -> *mut c_void {
        // SAFETY: inside the mapping.
        unsafe { self.base.as_ptr().byte_add(PAGE + SIZE) }
    }

    /// The page behind the stack.
    pub(super) fn report(&self) -> &Report {
        // SAFETY: inside the mapping, aligned to a page, zeroed by the kernel; atomics only.
        unsafe { &*self.top().cast::<Report>() }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, used by nobody any more. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.base, PAGE + SIZE + PAGE) };
    }
}
