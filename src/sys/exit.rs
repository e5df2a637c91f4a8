//! Running code at the end of the process.

/// Registers `function` with `atexit(3)`. It runs on the thread that calls `exit`, while other
/// threads go on.
pub fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function stays loaded: addons are linked with `-z nodelete` (build.rs).
    unsafe { libc::atexit(function) };
}
