//! What the tests of a shortage of descriptors share. The limit and the descriptor table belong to
//! the whole process: each of them is alone in its file, and in it everything is one test.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many descriptors this process has.
pub fn open_descriptors() -> usize {
    // The one that reads the directory is not ours.
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Runs with room for `free` more descriptors.
pub fn with_room_for<R>(free: usize, work: impl FnOnce() -> R) -> R {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mut unused = (0..).filter(|n| !fs::exists(format!("/proc/self/fd/{n}")).unwrap());
    let limit = unused.nth(free).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let result = work();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    result
}
