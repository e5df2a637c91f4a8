//! Processes by descriptor: a number can come to mean another process, a descriptor cannot.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::features;

/// A descriptor of a process, close-on-exec.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

/// Whether to wait for the end of a process that still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait for it.
    Block,
    /// Only look.
    Poll,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// The end of a child: how, and what it used up (with its own reaped children).
#[derive(Clone, Copy)]
pub struct Ended {
    /// How it ended.
    pub status: Status,
    /// What it used.
    pub usage: libc::rusage,
}

impl PidFd {
    /// The descriptor of process `pid` as it is now: the caller knows that the number still means
    /// the right process, or finds out afterwards.
    pub fn open(pid: i32) -> Result<PidFd, Errno> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = Errno::result(fd)? as RawFd;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal; 0 only asks whether the process is there. `pid` is its number, by which it is
    /// signalled where a seccomp filter knows kill(2) alone, and only while it lives: an ended one's
    /// may mean another process, and needs no signal.
    pub fn signal(&self, pid: i32, signal: i32) -> Result<(), Errno> {
        if features::PIDFD_SEND_SIGNAL.is_usable() {
            match self.signal_by_descriptor(signal) {
                // Of the kernel, EPERM means the same for both: then kill(2) says so, too.
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                other => return other,
            }
        }
        if self.has_ended() {
            return Ok(());
        }
        // SAFETY: no pointers.
        Errno::result(unsafe { libc::kill(pid, signal) })?;
        features::PIDFD_SEND_SIGNAL.write_off();
        Ok(())
    }

    /// The same, refused where a filter refuses it.
    pub fn signal_by_descriptor(&self, signal: i32) -> Result<(), Errno> {
        let fd = self.0.as_raw_fd();
        let no_info = ptr::null::<libc::siginfo_t>();
        // SAFETY: without siginfo the kernel makes its own, as for kill(2).
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
        Errno::result(result).map(drop)
    }

    /// Whether the process has ended, reaped or not.
    fn has_ended(&self) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
    }

    /// Takes the end of our child `pid`, whose descriptor this is: `None` while it runs.
    ///
    /// # Errors
    /// `ECHILD` when somebody else in this process has taken it.
    pub fn wait(&self, pid: i32, wait: Wait) -> Result<Option<Ended>, Errno> {
        if features::WAIT_PIDFD.is_usable() {
            match wait_id(libc::P_PIDFD, self.0.as_raw_fd() as libc::id_t, wait) {
                Err(Errno::EINVAL) => features::WAIT_PIDFD.write_off(),
                other => return other,
            }
        }
        wait_id(libc::P_PID, pid as libc::id_t, wait)
    }
}

/// The soft limit of process `pid` on file locks.
pub fn file_locks_limit(pid: i32) -> Result<u64, Errno> {
    let mut limit = [0u64; 2];
    let (resource, unchanged) = (libc::RLIMIT_LOCKS, ptr::null::<u64>());
    // SAFETY: the kernel fills the two words of a struct rlimit64.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            unchanged,
            limit.as_mut_ptr(),
        )
    };
    Errno::result(result).map(|_| limit[0])
}

/// Ends a child of which there is no descriptor.
pub(super) fn kill_and_reap(pid: i32) {
    // SAFETY: no pointers; an unreaped child's number is its own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let _ = wait_id(libc::P_PID, pid as libc::id_t, Wait::Block);
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, wait: Wait) -> Result<Option<Ended>, Errno> {
    let mut options = libc::WEXITED | libc::__WALL;
    if wait == Wait::Poll {
        options |= libc::WNOHANG;
    }
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: the kernel fills both structures, for which all zeros is a valid value.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                kind,
                id,
                info.as_mut_ptr(),
                options,
                usage.as_mut_ptr(),
            )
        };
        match Errno::result(result) {
            Ok(_) => break,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: zeroed, and filled if a child has ended.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: waitid fills the fields of SIGCHLD or leaves the zeros.
    let (pid, value) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = match info.si_code {
        libc::CLD_EXITED => Status::Exited(value),
        _ => Status::Signaled(value),
    };
    Ok(Some(Ended { status, usage }))
}

impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> PidFd {
        PidFd(fd)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
