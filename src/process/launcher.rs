//! A thread that lives as long as the process and launches children for others: those that are to
//! die with the process, since the kernel's death signal is sent when the launching *thread* ends
//! and any other thread may end before the process does; and those an event loop does not want to
//! wait for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, Once};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::SigSet;

use crate::sys::exit::{at_exit, is_forked_copy};
use crate::sys::launch::{Launched, Plan, launch};
use crate::sys::scheduling::be_modest;

type Outcome = Result<Launched, Errno>;
type Launch<'a> = &'a dyn Fn(Plan) -> Outcome;
type Job = Box<dyn FnOnce(Launch<'_>) + Send>;

/// How long the end of the process waits for the jobs that are left: each takes a fraction of a
/// millisecond.
const EXIT_BOUND: Duration = Duration::from_secs(1);

static LAUNCHER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// The jobs nobody waits for that are not done.
static LEFT: Mutex<usize> = Mutex::new(0);
static DONE: Condvar = Condvar::new();

/// Launches on the permanent thread, which is started by the first call.
pub(super) fn launch_permanently(plan: Plan) -> Outcome {
    let (reply, outcome) = sync_channel(1);
    run(Box::new(move |launch| {
        let _ = reply.send(launch(plan));
    }))?;
    outcome.recv().map_err(|_| Errno::EAGAIN)?
}

/// Has the permanent thread run `job`, in the order of the calls, and gives it what launches there.
/// The process does not end before, unless by a signal or after [`EXIT_BOUND`].
pub(super) fn run_later(job: impl FnOnce(Launch<'_>) + Send + 'static) -> Result<(), Errno> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| at_exit(finish));
    let pending = Pending::new();
    run(Box::new(move |launch| {
        let _pending = pending;
        job(launch);
    }))
}

/// One of the jobs that are left.
struct Pending;

impl Pending {
    fn new() -> Pending {
        *left() += 1;
        Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        *left() -= 1;
        DONE.notify_all();
    }
}

fn left() -> MutexGuard<'static, usize> {
    LEFT.lock().unwrap_or_else(|poison| poison.into_inner())
}

extern "C" fn finish() {
    if !is_forked_copy() {
        let _ = DONE.wait_timeout_while(left(), EXIT_BOUND, |left| *left > 0);
    }
}

fn run(job: Job) -> Result<(), Errno> {
    sender()?.send(job).map_err(|_| Errno::EAGAIN)
}

fn sender() -> Result<Sender<Job>, Errno> {
    let mut launcher = LAUNCHER.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some(sender) = &*launcher {
        return Ok(sender.clone());
    }
    let (sender, jobs) = channel();
    let thread = thread::Builder::new().name("brood-launcher".into());
    let started = thread.stack_size(256 * 1024).spawn(|| serve(jobs));
    started.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
    *launcher = Some(sender.clone());
    Ok(sender)
}

fn serve(jobs: Receiver<Job>) {
    // The process's signals are for the threads that were there before.
    let _ = SigSet::all().thread_block();
    // Where it has to share a processor with an event loop, that goes first.
    let by_modest = be_modest();
    let launch = |mut plan: Plan| {
        plan.by_modest = by_modest;
        launch(&mut plan)
    };
    for job in jobs {
        // One job that fails by a fault of ours must not take the later ones with it.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&launch)));
    }
}
