//! Making the child: a clone that shares the parent's memory and suspends it until the exec, or,
//! where the child changes its credentials, a clone with a copy of the memory. What the child
//! then does is in `child`; what is to be run, and with which descriptors, is decided above.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

use super::child::{self, Context};
use super::features;
use super::low;
use super::pidfd::{self, PidFd};
use super::stack::Stack;
use super::strings::Strings;

/// Everything the child needs, ready before the clone: nothing is allocated after it.
#[derive(Debug)]
pub struct Plan {
    /// The paths to try, in order.
    pub candidates: Strings,
    /// The arguments, the program's name first; never empty.
    pub arguments: Strings,
    /// The environment.
    pub environment: Strings,
    /// The directory to begin in, if not that of the launching thread.
    pub start: Option<OwnedFd>,
    /// The working directory, as seen from there, if another one.
    pub directory: Option<CString>,
    /// What becomes descriptor 0, 1, 2 and so on. At least three.
    pub slots: Vec<Slot>,
    /// The descriptors to close, where the kernel cannot close a range.
    pub to_close: Vec<RawFd>,
    /// Whether the child becomes the leader of a session of its own.
    pub detached: bool,
    /// The user to become.
    pub uid: Option<u32>,
    /// The group to become.
    pub gid: Option<u32>,
    /// Whether the child is killed when the thread that launches it ends.
    pub dies_with_thread: bool,
    /// What the child may use.
    pub limits: Limits,
    /// Whether the launching thread is modest (see `scheduling`), as the child is not to be.
    pub by_modest: bool,
    /// Marks the child's descendants: see `process::tree`. The child adds its pid.
    pub mark: Option<u64>,
}

/// What becomes of one of the child's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `/dev/null` for 0, 1 and 2, closed for the rest.
    Ignore,
    /// A descriptor made for this child.
    Own(RawFd),
    /// A descriptor the parent goes on using.
    Inherit(RawFd),
}

impl Slot {
    /// The descriptor of ours that the child gets.
    pub(super) fn source(&self) -> Option<RawFd> {
        match *self {
            Slot::Ignore => None,
            Slot::Own(fd) | Slot::Inherit(fd) => Some(fd),
        }
    }
}

/// Limits of the child, as the kernel wants them.
#[derive(Debug, Default)]
pub struct Limits {
    /// Resource, soft limit, hard limit.
    pub resources: Vec<(u32, u64, u64)>,
    /// The nice value.
    pub nice: Option<i32>,
    /// The mask of processors, in words of the machine.
    pub processors: Option<Vec<usize>>,
    /// The text for `oom_score_adj`.
    pub oom_score: Option<String>,
    /// The directory of a cgroup (version 2).
    pub cgroup: Option<OwnedFd>,
}

/// A child that has begun to run its program.
#[derive(Debug)]
pub struct Launched {
    /// Its number.
    pub pid: i32,
    /// Its descriptor.
    pub pidfd: PidFd,
}

/// Starts the program of `plan`.
///
/// # Errors
/// Of the clone, or the one that kept the child from running its program.
pub fn launch(plan: &mut Plan) -> Result<Launched, Errno> {
    let stack = Stack::take()?;
    stack.report().clear();
    let loan = if Plan::kernel_closes() {
        low::lower(&mut plan.slots)
    } else {
        None
    };
    let bound = loan.as_ref().map(|loan| loan.bound);
    let launched = with_signals_blocked(|| clone_child(plan, &stack, bound));
    drop(loan);
    let failure = stack.report().failure();
    stack.put_back();
    let launched = launched?;
    let Some(errno) = failure else {
        return Ok(launched);
    };
    // The child has ended or is about to: this takes no time.
    let _ = launched.pidfd.wait(launched.pid, pidfd::Wait::Block);
    Err(errno)
}

/// Blocks every signal for the length of `action`. libc's own function leaves two of its signals
/// open, whose handlers would run in the child on the parent's memory.
fn with_signals_blocked<T>(action: impl FnOnce() -> T) -> T {
    let every = u64::MAX;
    let mut before = 0u64;
    // SAFETY: both masks have the eight bytes the kernel is told; restoring what was read cannot
    // fail.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const every,
            &raw mut before,
            size_of::<u64>(),
        );
        let result = action();
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const before,
            ptr::null_mut::<u64>(),
            size_of::<u64>(),
        );
        result
    }
}

/// With a `bound` the child shares our descriptors until it leaves with those below it.
fn clone_child(plan: &mut Plan, stack: &Stack, bound: Option<RawFd>) -> Result<Launched, Errno> {
    // Changing credentials in shared memory would make the parent undumpable for good.
    let shares_memory = plan.uid.is_none() && plan.gid.is_none();
    let memory = if shares_memory { libc::CLONE_VM } else { 0 };
    let descriptors = bound.map_or(0, |_| libc::CLONE_FILES);
    let flags = libc::CLONE_VFORK | memory | descriptors;
    let mut context = Context::new(plan, stack.report(), bound);
    if let Some(cgroup) = context.cgroup() {
        if features::CLONE3.is_usable() && features::CLONE_INTO_CGROUP.is_usable() {
            match clone3(flags, Some(cgroup), stack, &mut context) {
                Err(Errno::ENOSYS | Errno::E2BIG | Errno::EPERM) => {
                    features::CLONE_INTO_CGROUP.write_off();
                }
                other => return other,
            }
        }
        context.enter_cgroup()?;
    }
    if features::CLONE3.is_usable() {
        match clone3(flags, None, stack, &mut context) {
            // Unknown, unknown in part, or forbidden by a filter that cannot see its flags.
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => features::CLONE3.write_off(),
            other => return other,
        }
    }
    if features::CLONE_PIDFD.is_usable() {
        match clone_with_pidfd(flags, stack, &mut context) {
            Err(Errno::EINVAL) => features::CLONE_PIDFD.write_off(),
            other => return other,
        }
    }
    clone_then_open(flags, stack, &mut context)
}

fn clone_with_pidfd(
    flags: c_int,
    stack: &Stack,
    context: &mut Context<'_>,
) -> Result<Launched, Errno> {
    let mut pidfd: RawFd = -1;
    let flags = flags | libc::CLONE_PIDFD;
    let pid = raw_clone(flags, stack, context, &mut pidfd)?;
    if pidfd < 0 {
        // Before Linux 5.2 the flag had no meaning and was ignored.
        features::CLONE_PIDFD.write_off();
        return open_pidfd(pid);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = PidFd::from(unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok(Launched { pid, pidfd })
}

fn clone_then_open(
    flags: c_int,
    stack: &Stack,
    context: &mut Context<'_>,
) -> Result<Launched, Errno> {
    let pid = raw_clone(flags, stack, context, &mut -1)?;
    open_pidfd(pid)
}

/// The descriptor of our own child, which nobody has reaped: the number is still its own.
fn open_pidfd(pid: i32) -> Result<Launched, Errno> {
    match PidFd::open(pid) {
        Ok(pidfd) => Ok(Launched { pid, pidfd }),
        Err(errno) => {
            pidfd::kill_and_reap(pid);
            Err(errno)
        }
    }
}

fn raw_clone(
    flags: c_int,
    stack: &Stack,
    context: &mut Context<'_>,
    pidfd: &mut RawFd,
) -> Result<i32, Errno> {
    // SAFETY: the child runs `child::main` on a stack of its own and ends in it. With CLONE_VFORK
    // this thread sleeps until the child has left our memory, so everything the context borrows
    // outlives the child's use of it. All signals are blocked (with_signals_blocked).
    let pid = unsafe {
        libc::clone(
            child::main,
            stack.top(),
            flags | libc::SIGCHLD,
            ptr::from_mut(context).cast::<c_void>(),
            ptr::from_mut(pidfd),
            ptr::null_mut::<c_void>(),
            ptr::null_mut::<c_int>(),
        )
    };
    Errno::result(pid)
}

/// `struct clone_args` of linux/sched.h, up to the cgroup.
#[repr(C)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// With its signal handlers reset by the kernel, which saves a system call a signal; and born in
/// the cgroup: moving it later would make everybody wait for an RCU grace period.
#[cfg(target_arch = "x86_64")]
fn clone3(
    flags: c_int,
    cgroup: Option<RawFd>,
    stack: &Stack,
    context: &mut Context<'_>,
) -> Result<Launched, Errno> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: (flags | libc::CLONE_PIDFD) as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.bottom() as u64,
        stack_size: stack.size() as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup as u64;
    }
    context.handlers_are_reset(true);
    let result: isize;
    // SAFETY: as in raw_clone. The child, told by a zero, calls `child::main` on its own stack
    // (whose top is a multiple of 16) and does not come back; the parent's registers are those
    // the kernel declares.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("r12") child::main as extern "C" fn(*mut c_void) -> c_int,
            in("r13") ptr::from_mut(context),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        context.handlers_are_reset(false);
        return Err(Errno::from_raw(-result as i32));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = PidFd::from(unsafe { OwnedFd::from_raw_fd(pidfd) });
    let pid = result as i32;
    Ok(Launched { pid, pidfd })
}

#[cfg(not(target_arch = "x86_64"))]
fn clone3(
    _flags: c_int,
    _cgroup: Option<RawFd>,
    _stack: &Stack,
    _context: &mut Context<'_>,
) -> Result<Launched, Errno> {
    Err(Errno::ENOSYS)
}

impl Plan {
    /// Whether the kernel closes what the child does not get; if not, `to_close` must be filled.
    pub fn kernel_closes() -> bool {
        if !features::CLOSE_RANGE.is_usable() {
            return false;
        }
        static PROBED: std::sync::Once = std::sync::Once::new();
        PROBED.call_once(|| {
            let none = std::ffi::c_uint::MAX;
            // SAFETY: there is no descriptor of this number to close.
            if unsafe { libc::syscall(libc::SYS_close_range, none, none, 0) } != 0 {
                features::CLOSE_RANGE.write_off();
            }
        });
        features::CLOSE_RANGE.is_usable()
    }

    pub(super) fn cgroup(&self) -> Option<RawFd> {
        self.limits.cgroup.as_ref().map(AsRawFd::as_raw_fd)
    }
}
