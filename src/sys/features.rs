//! Which kernel features are there. A feature is believed in until the kernel (or a seccomp
//! filter) refuses it, then it is written off for the rest of the process. Tests and a doubtful
//! operator can write one off by hand, which is how the slower ways stay tested.

use std::sync::atomic::{AtomicBool, Ordering};

/// A kernel feature with a slower way around it.
#[derive(Debug)]
pub struct Feature {
    name: &'static str,
    missing: AtomicBool,
}

/// `CLONE_PIDFD` (Linux 5.2); without it the descriptor is opened after the clone.
pub static CLONE_PIDFD: Feature = Feature::new("CLONE_PIDFD");
/// `clone3` with `CLONE_CLEAR_SIGHAND` (Linux 5.5); without it the child resets every signal.
pub static CLONE3: Feature = Feature::new("clone3");
/// `CLONE_INTO_CGROUP` (Linux 5.7); without it the child writes itself into `cgroup.procs`.
pub static CLONE_INTO_CGROUP: Feature = Feature::new("CLONE_INTO_CGROUP");
/// `close_range` (Linux 5.9); without it the parent lists the descriptors to close.
pub static CLOSE_RANGE: Feature = Feature::new("close_range");
/// `waitid(P_PIDFD)` (Linux 5.4); without it the process is waited for by number.
pub static WAIT_PIDFD: Feature = Feature::new("waitid(P_PIDFD)");
/// `pidfd_send_signal` (Linux 5.1); without it processes are signalled by number.
pub static PIDFD_SEND_SIGNAL: Feature = Feature::new("pidfd_send_signal");
/// `F_SEAL_FUTURE_WRITE` (Linux 5.1); without it every large buffer has sealed memory of its own.
pub static SEAL_FUTURE_WRITE: Feature = Feature::new("F_SEAL_FUTURE_WRITE");

impl Feature {
    const fn new(name: &'static str) -> Feature {
        Feature {
            name,
            missing: AtomicBool::new(false),
        }
    }

    /// Whether the feature has not been refused so far.
    pub fn is_usable(&self) -> bool {
        !self.missing.load(Ordering::Relaxed)
    }

    /// Writes the feature off.
    pub fn write_off(&self) {
        self.missing.store(true, Ordering::Relaxed);
    }

    /// Believes in the feature again: for the end of a test that wrote it off.
    pub fn trust_again(&self) {
        self.missing.store(false, Ordering::Relaxed);
    }

    /// The feature's name, for diagnostics.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// All features, for diagnostics.
pub fn all() -> [&'static Feature; 7] {
    [
        &CLONE_PIDFD,
        &CLONE3,
        &CLONE_INTO_CGROUP,
        &CLOSE_RANGE,
        &PIDFD_SEND_SIGNAL,
        &SEAL_FUTURE_WRITE,
        &WAIT_PIDFD,
    ]
}
