//! A thread that lives as long as the process and launches the children that are to die with it:
//! the kernel's death signal is sent when the launching *thread* ends, and any other thread may
//! end before the process does.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::SigSet;

use crate::sys::launch::{Launched, Plan, launch};

type Outcome = Result<Launched, Errno>;
type Job = (Plan, SyncSender<Outcome>);

static LAUNCHER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Launches on the permanent thread, which is started by the first call.
pub(super) fn launch_permanently(plan: Plan) -> Outcome {
    let (reply, outcome) = sync_channel(1);
    let sent = sender()?.send((plan, reply));
    sent.map_err(|_| Errno::EAGAIN)?;
    outcome.recv().map_err(|_| Errno::EAGAIN)?
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
    for (mut plan, reply) in jobs {
        let _ = reply.send(launch(&mut plan));
    }
}
