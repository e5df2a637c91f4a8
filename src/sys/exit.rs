//! Running code at the end of the process.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The process that has registered functions.
static REGISTRANT: AtomicU32 = AtomicU32::new(0);

/// Registers `function` with `atexit(3)`. It runs on the thread that calls `exit`, while other
/// threads go on.
pub fn at_exit(function: extern "C" fn()) {
    REGISTRANT.store(process::id(), Ordering::Relaxed);
    // SAFETY: the function stays loaded: addons are linked with `-z nodelete` (build.rs).
    unsafe { libc::atexit(function) };
}

/// Whether this is a copy of the process that has registered functions, as another addon may make
/// it with fork(2) alone. They run at its end, too, and must do nothing: what they would finish is
/// the original's to do, and the threads that hold their locks are only there.
pub fn is_forked_copy() -> bool {
    REGISTRANT.load(Ordering::Relaxed) != process::id()
}
