//! A child that runs, until somebody has taken its end. One that nobody waits for any more is
//! left to the orphans, so that it does not stay a zombie.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::orphans;
use crate::sys::pidfd::{Ended, PidFd, Wait};

/// A running child.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: Option<PidFd>,
}

impl Child {
    pub(super) fn new(pid: i32, pidfd: PidFd) -> Child {
        Child {
            pid,
            pidfd: Some(pidfd),
        }
    }

    /// The child's number, its own until the end is taken.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The child's descriptor, readable once it has ended; `None` when the end is taken.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` when the end is taken, `EPERM`, `EINVAL`.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        let pidfd = self.pidfd.as_ref().ok_or(Errno::ESRCH)?;
        pidfd.signal(self.pid, signal)
    }

    /// Takes the end: `None` while the child runs.
    ///
    /// # Errors
    /// `ECHILD` when the end has been taken, here or by somebody who waits for any child.
    pub fn try_wait(&mut self) -> Result<Option<Ended>, Errno> {
        self.take_end(Wait::Poll)
    }

    /// Waits for the end and takes it.
    ///
    /// # Errors
    /// As [`Child::try_wait`].
    pub fn wait(&mut self) -> Result<Ended, Errno> {
        self.take_end(Wait::Block)?.ok_or(Errno::ECHILD)
    }

    fn take_end(&mut self, wait: Wait) -> Result<Option<Ended>, Errno> {
        let pidfd = self.pidfd.as_ref().ok_or(Errno::ECHILD)?;
        let result = pidfd.wait(self.pid, wait);
        if !matches!(result, Ok(None)) {
            self.pidfd = None;
        }
        result
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            orphans::adopt(self.pid, pidfd);
        }
    }
}
