//! What the child does between its birth and its program. It may be running in the parent's
//! memory while the parent sleeps, so it makes system calls and nothing else: no allocation, no
//! lock, no panic, no libc function with state (those that change ids talk to the parent's
//! threads). Order and details follow what libuv's children can observe.

use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::features;
use super::launch::{Plan, Slot};
use super::stack::Report;

/// The number a program could not be run at all exits with; the parent never shows it.
const NOT_RUN: c_int = 127;

const FIRST_REAL_TIME: c_int = 32;

/// The kernel's `struct sigaction` (the handler is its first word), larger than any layout of it.
const DEFAULT: [u64; 8] = [0; 8];

/// What the child is handed.
pub(super) struct Context<'a> {
    plan: &'a mut Plan,
    report: &'a Report,
    /// The process to die with.
    parent: Option<u32>,
    handlers_are_reset: bool,
    ignored: u64,
    closes_range: bool,
    /// Our descriptors are the parent's as well, until we leave with those below this number.
    shared_above: Option<RawFd>,
    cgroup_procs: Option<OwnedFd>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        plan: &'a mut Plan,
        report: &'a Report,
        shared_above: Option<RawFd>,
    ) -> Context<'a> {
        let parent = plan.dies_with_thread.then(std::process::id);
        Context {
            plan,
            parent,
            report,
            handlers_are_reset: false,
            ignored: ignored_real_time(),
            closes_range: features::CLOSE_RANGE.is_usable(),
            shared_above,
            cgroup_procs: None,
        }
    }

    pub(super) fn cgroup(&self) -> Option<RawFd> {
        self.plan.cgroup()
    }

    /// Whether no handler of the parent's is in place in the child.
    pub(super) fn handlers_are_reset(&mut self, by_the_kernel: bool) {
        self.handlers_are_reset = by_the_kernel;
    }

    /// Lets the child move itself, where it cannot be born in its cgroup.
    pub(super) fn enter_cgroup(&mut self) -> Result<(), Errno> {
        if let Some(directory) = &self.plan.limits.cgroup {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            self.cgroup_procs = Some(openat(directory, "cgroup.procs", flags, Mode::empty())?);
        }
        Ok(())
    }
}

/// A system call as the C library's `syscall` makes it: the error number it leaves belongs to the
/// thread that sleeps.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: the arguments are what the call's manual page asks for; pointers lead to memory
        // of the plan or of this stack.
        check(unsafe { libc::syscall(libc::$number $(, $argument as c_long)*) })
    };
}

fn check(result: c_long) -> Result<c_int, c_int> {
    match result {
        -1 => Err(Errno::last_raw()),
        value => Ok(value as c_int),
    }
}

pub(super) extern "C" fn main(context: *mut c_void) -> c_int {
    // SAFETY: `launch` passes its context and sleeps while we use it, or we have a copy.
    let context = unsafe { &mut *context.cast::<Context<'_>>() };
    let Err(errno) = run(context);
    context.report.fail(errno);
    exit()
}

fn exit() -> ! {
    loop {
        let _ = call!(SYS_exit_group, NOT_RUN);
    }
}

fn run(context: &mut Context<'_>) -> Result<Infallible, c_int> {
    let plan = &mut *context.plan;
    reset_dispositions(context.handlers_are_reset, context.ignored);
    if plan.detached {
        let _ = call!(SYS_setsid);
    }
    // Before descriptors are placed and closed.
    if let Some(start) = &plan.start {
        call!(SYS_fchdir, start.as_raw_fd())?;
    }
    if let Some(procs) = &context.cgroup_procs {
        call!(SYS_write, procs.as_raw_fd(), b"0".as_ptr(), 1)?;
    }
    if let Some(bound) = context.shared_above {
        let unshare = libc::CLOSE_RANGE_UNSHARE;
        call!(SYS_close_range, bound, c_uint::MAX, unshare)?;
    }
    place_descriptors(&mut plan.slots)?;
    close_the_rest(plan, context.closes_range);
    if let Some(directory) = &plan.directory {
        call!(SYS_chdir, directory.as_ptr())?;
    }
    if plan.by_modest {
        let parameters = libc::sched_param { sched_priority: 0 };
        let _ = call!(
            SYS_sched_setscheduler,
            0,
            libc::SCHED_OTHER,
            &raw const parameters
        );
    }
    set_limits(plan)?;
    set_credentials(plan)?;
    if let Some(parent) = context.parent {
        die_with(parent)?;
    }
    let none = 0u64;
    let how = libc::SIG_SETMASK;
    call!(
        SYS_rt_sigprocmask,
        how,
        &raw const none,
        0,
        size_of::<u64>()
    )?;
    Err(exec(context.plan))
}

/// Signals get their default dispositions, ignored ones included: an exec would keep those. If the
/// kernel has reset the handlers, of the real-time signals only those need it that are ignored.
fn reset_dispositions(handlers_are_reset: bool, ignored: u64) {
    for signal in 1..=64 {
        let is_needed = signal < FIRST_REAL_TIME || !handlers_are_reset;
        let is_ignored = ignored & (1 << (signal - 1)) != 0;
        if (is_needed || is_ignored) && signal != libc::SIGKILL && signal != libc::SIGSTOP {
            let _ = call!(
                SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                0,
                size_of::<u64>()
            );
        }
    }
}

/// The real-time signals this process ignores, a bit each. It was born with that (libc gives no
/// reason to ignore one), so it is asked for once.
fn ignored_real_time() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED.get_or_init(|| {
        let ignored = (FIRST_REAL_TIME..=64).filter(|&signal| {
            let mut action = DEFAULT;
            let size = size_of::<u64>();
            let asked = call!(SYS_rt_sigaction, signal, 0, action.as_mut_ptr(), size);
            asked.is_ok() && action[0] == libc::SIG_IGN as u64
        });
        ignored.fold(0, |mask, signal| mask | 1 << (signal - 1))
    })
}

/// Puts each slot's descriptor in its place. A source below its slot would be overwritten before
/// its turn (think of swapping 1 and 2), so those are moved out of the way first.
fn place_descriptors(slots: &mut [Slot]) -> Result<(), c_int> {
    let count = slots.len() as RawFd;
    for (target, slot) in (0..).zip(slots.iter_mut()) {
        let (Slot::Own(source) | Slot::Inherit(source)) = slot else {
            continue;
        };
        if *source < target {
            *source = call!(SYS_fcntl, *source, libc::F_DUPFD_CLOEXEC, count)?;
        }
    }
    let mut writable_null = None;
    for (target, slot) in (0..).zip(slots.iter()) {
        match *slot {
            Slot::Ignore if target > 2 => {
                let _ = call!(SYS_close, target);
            }
            Slot::Ignore => open_null(target, &mut writable_null)?,
            Slot::Own(source) => place(source, target)?,
            Slot::Inherit(source) => {
                place(source, target)?;
                if target <= 2 {
                    make_blocking(target)?;
                }
            }
        }
    }
    Ok(())
}

/// Makes `target` a copy of `source` that survives the exec.
fn place(source: RawFd, target: RawFd) -> Result<(), c_int> {
    if source == target {
        call!(SYS_fcntl, target, libc::F_SETFD, 0)?;
    } else {
        call!(SYS_dup3, source, target, 0)?;
    }
    Ok(())
}

fn open_null(target: RawFd, writable: &mut Option<RawFd>) -> Result<(), c_int> {
    if let Some(source) = *writable {
        return place(source, target);
    }
    let access = if target == 0 {
        libc::O_RDONLY
    } else {
        libc::O_RDWR
    };
    let path: &CStr = c"/dev/null";
    // The place is freed first: opening takes the lowest free number, which then is often it.
    let _ = call!(SYS_close, target);
    let opened = call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), access, 0)?;
    if opened != target {
        place(opened, target)?;
        let _ = call!(SYS_close, opened);
    }
    if target != 0 {
        *writable = Some(target);
    }
    Ok(())
}

fn make_blocking(fd: RawFd) -> Result<(), c_int> {
    let flags = call!(SYS_fcntl, fd, libc::F_GETFL, 0)?;
    if flags & libc::O_NONBLOCK != 0 {
        call!(SYS_fcntl, fd, libc::F_SETFL, flags & !libc::O_NONBLOCK)?;
    }
    Ok(())
}

/// Leaves the closing to the exec, where the kernel can: it does that when the parent runs again.
fn close_the_rest(plan: &Plan, closes_range: bool) {
    let first = plan.slots.len() as c_uint;
    let at_exec = libc::CLOSE_RANGE_CLOEXEC; // Linux 5.11
    let close = |how| call!(SYS_close_range, first, c_uint::MAX, how).is_ok();
    if closes_range && (close(at_exec) || close(0)) {
        return;
    }
    for &fd in &plan.to_close {
        if fd as c_uint >= first {
            let _ = call!(SYS_close, fd);
        }
    }
}

fn set_limits(plan: &Plan) -> Result<(), c_int> {
    let limits = &plan.limits;
    if let Some(text) = &limits.oom_score {
        write_file(c"/proc/self/oom_score_adj", text.as_bytes())?;
    }
    if let Some(nice) = limits.nice {
        call!(SYS_setpriority, libc::PRIO_PROCESS, 0, nice)?;
    }
    if let Some(mask) = &limits.processors {
        let size = size_of_val(mask.as_slice());
        call!(SYS_sched_setaffinity, 0, size, mask.as_ptr())?;
    }
    if let Some(mark) = plan.mark {
        let pid = call!(SYS_getpid)?;
        // Only a help for `killTree`: a child without it is as good.
        let _ = set_resource(libc::RLIMIT_LOCKS, mark | pid as u64, libc::RLIM_INFINITY);
    }
    for &(resource, soft, hard) in &limits.resources {
        set_resource(resource, soft, hard)?;
    }
    Ok(())
}

fn set_resource(resource: u32, soft: u64, hard: u64) -> Result<(), c_int> {
    let limit = [soft, hard];
    call!(SYS_prlimit64, 0, resource, limit.as_ptr(), 0)?;
    Ok(())
}

fn write_file(path: &CStr, text: &[u8]) -> Result<(), c_int> {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    let fd = call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0)?;
    let written = call!(SYS_write, fd, text.as_ptr(), text.len());
    let _ = call!(SYS_close, fd);
    written.map(drop)
}

fn set_credentials(plan: &Plan) -> Result<(), c_int> {
    if plan.uid.is_none() && plan.gid.is_none() {
        return Ok(());
    }
    // Root gives up its supplementary groups; for everybody else this fails, and is not needed.
    let _ = call!(SYS_setgroups, 0, 0);
    if let Some(gid) = plan.gid {
        call!(SYS_setgid, gid)?;
    }
    if let Some(uid) = plan.uid {
        call!(SYS_setuid, uid)?;
    }
    Ok(())
}

/// Set after the credentials, whose change clears it. A parent that died before is recognised by
/// the child having another one by now.
fn die_with(parent: u32) -> Result<(), c_int> {
    call!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL)?;
    if call!(SYS_getppid)? as u32 != parent {
        exit();
    }
    Ok(())
}

/// Tries the candidates as execvp does; comes back only with an error.
fn exec(plan: &mut Plan) -> c_int {
    let environment = plan.environment.as_ptr();
    let with_spare = plan.arguments.as_mut_ptr_with_spare();
    let mut candidate = plan.candidates.as_ptr();
    let mut denied = false;
    let mut errno = libc::ENOENT;
    loop {
        // SAFETY: the array ends with a null, at which we stop.
        let path = unsafe { *candidate };
        if path.is_null() {
            return if denied { libc::EACCES } else { errno };
        }
        // SAFETY: the arguments begin behind the spare place.
        errno = execve(path, unsafe { with_spare.add(1) }, environment);
        if errno == libc::ENOEXEC {
            errno = exec_script(path, with_spare, environment);
        }
        match errno {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return errno,
        }
        // SAFETY: not at the null yet.
        candidate = unsafe { candidate.add(1) };
    }
}

/// A file the kernel does not know how to run is given to the shell.
fn exec_script(
    path: *const c_char,
    with_spare: *mut *const c_char,
    environment: *const *const c_char,
) -> c_int {
    // SAFETY: the array has its spare place and at least the program's name behind it.
    unsafe {
        let name = *with_spare.add(1);
        *with_spare = c"/bin/sh".as_ptr();
        *with_spare.add(1) = path;
        let errno = execve(c"/bin/sh".as_ptr(), with_spare, environment);
        *with_spare.add(1) = name;
        errno
    }
}

fn execve(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    match call!(SYS_execve, path, arguments, environment) {
        Err(errno) => errno,
        Ok(_) => libc::ENOENT, // an exec that succeeds does not come back
    }
}
