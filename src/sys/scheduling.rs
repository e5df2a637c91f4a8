//! How a thread competes for its processor.

/// Lets this thread run when the others do not want to: being woken, it takes the processor from
/// nobody (`SCHED_BATCH`). Says whether that is so now; a thread whose scheduling somebody has
/// chosen keeps it.
pub fn be_modest() -> bool {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: both calls are about the calling thread; the parameters are live.
    unsafe {
        libc::sched_getscheduler(0) == libc::SCHED_OTHER
            && libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) == 0
    }
}
