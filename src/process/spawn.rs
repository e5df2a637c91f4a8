//! From a command to a running child and our ends of its pipes. Everything that can fail for lack
//! of descriptors comes before the child, so that a failure leaves nothing behind.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socketpair};
use nix::sys::stat::Mode;

use super::candidates::candidates;
use super::child::Child;
use super::command::{Command, Environment, Stdio};
use super::launcher::{launch_permanently, run_later};
use super::{orphans, tree};
use crate::sys::descriptor;
use crate::sys::environ;
use crate::sys::launch::{Plan, Slot, launch};
use crate::sys::null;
use crate::sys::strings::Strings;

/// The send buffer of the child's end of a channel, as the kernel counts it: what it grants without
/// privilege where nothing else is configured, and twice what it gives by itself.
pub const CHANNEL_ROOM: usize = 2 * 212_992;

/// A child and, for each of its descriptors that is a pipe, our end of it: non-blocking.
#[derive(Debug)]
pub struct Spawned {
    /// The child.
    pub child: Child,
    /// Our ends, one place a descriptor.
    pub ends: Vec<Option<OwnedFd>>,
}

/// Why there is no child. When the pipes had been made already, our ends are still there (and at
/// their end of file): Node shows such streams on a child that could not be spawned.
#[derive(Debug)]
pub struct Failed {
    /// The reason.
    pub errno: Errno,
    /// Our ends of the pipes; empty when they could not be made.
    pub ends: Vec<Option<OwnedFd>>,
}

/// Runs the command.
///
/// # Errors
/// Of making the pipes or the process, of its working directory, limits and credentials, or of
/// the exec itself, as execvp reports it.
pub fn spawn(command: Command) -> Result<Spawned, Failed> {
    spawn_fed(command, |_| {})
}

/// The same; `feed` is given our ends of the pipes before there is a process at the others.
///
/// # Errors
/// As of [`spawn`].
pub fn spawn_fed(
    command: Command,
    feed: impl FnOnce(&[Option<OwnedFd>]),
) -> Result<Spawned, Failed> {
    orphans::reap();
    let pipes = Pipes::open(&command.stdio).map_err(|errno| Failed {
        errno,
        ends: Vec::new(),
    })?;
    feed(&pipes.ours);
    let slots = pipes.slots(&command.stdio);
    let launched = plan(command, slots, None).and_then(|mut plan| {
        if plan.dies_with_thread {
            launch_permanently(plan)
        } else {
            launch(&mut plan)
        }
    });
    match launched {
        Ok(launched) => Ok(Spawned {
            child: Child::new(launched.pid, launched.pidfd),
            ends: pipes.ours,
        }),
        Err(errno) => Err(Failed {
            errno,
            ends: pipes.ours,
        }),
    }
}

/// Has another thread run the command, and returns our ends of its pipes at once. The child gets
/// the descriptors, the environment and the working directory of this moment, and the rest of the
/// moment it is made. `done` is called on that thread.
///
/// # Errors
/// Of making the pipes, of what is to be inherited, and of the thread; all others go to `done`.
pub fn spawn_in_background(
    mut command: Command,
    done: impl FnOnce(Result<Child, Errno>) + Send + 'static,
) -> Result<Vec<Option<OwnedFd>>, Failed> {
    orphans::reap();
    let mut pipes = Pipes::open(&command.stdio).map_err(|errno| Failed {
        errno,
        ends: Vec::new(),
    })?;
    let ours = std::mem::take(&mut pipes.ours);
    let started = working_directory().and_then(|start| {
        pipes.hold(&command.stdio)?;
        if let Environment::Inherited { overrides } = command.environment {
            command.environment = Environment::Only(environ::inherited(overrides).to_block());
        }
        run_later(move |launch| {
            let slots = pipes.slots(&command.stdio);
            let launched = plan(command, slots, Some(start)).and_then(launch);
            drop(pipes);
            done(launched.map(|launched| Child::new(launched.pid, launched.pidfd)));
        })
    });
    match started {
        Ok(()) => Ok(ours),
        Err(errno) => Err(Failed { errno, ends: ours }),
    }
}

fn working_directory() -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(".", flags, Mode::empty())
}

fn plan(command: Command, slots: Vec<Slot>, start: Option<OwnedFd>) -> Result<Plan, Errno> {
    let environment = match command.environment {
        Environment::Inherited { overrides } => environ::inherited(overrides),
        Environment::Only(block) if block.is_empty() => Strings::empty(),
        Environment::Only(block) => Strings::from_block(block),
    };
    let directory = command.directory.map(CString::new).transpose();
    let path = || environment.variable(b"PATH");
    let is_us = command.uid.is_none() && command.gid.is_none();
    Ok(Plan {
        candidates: candidates(&command.file, path, is_us)?,
        arguments: Strings::from_block(command.arguments),
        environment,
        start,
        directory: directory.map_err(|_| Errno::EINVAL)?,
        slots,
        to_close: descriptors_to_close(),
        detached: command.detached,
        uid: command.uid,
        gid: command.gid,
        dies_with_thread: command.die_with_parent,
        limits: command.limits.prepare()?,
        by_modest: false,
        mark: tree::mark(),
    })
}

/// The socket pairs of a child, and what is held for it.
struct Pipes {
    ours: Vec<Option<OwnedFd>>,
    theirs: Vec<Option<OwnedFd>>,
}

impl Pipes {
    fn open(stdio: &[Stdio]) -> Result<Pipes, Errno> {
        let mut pipes = Pipes {
            ours: Vec::with_capacity(stdio.len()),
            theirs: Vec::with_capacity(stdio.len()),
        };
        for entry in stdio {
            let ends = match entry {
                Stdio::Pipe => Some(pair()?),
                Stdio::Channel => Some(roomy_pair()?),
                Stdio::Ignore | Stdio::Inherit(_) => None,
            };
            let (ours, theirs) = ends.unzip();
            pipes.ours.push(ours);
            pipes.theirs.push(theirs);
        }
        Ok(pipes)
    }

    /// Keeps what is inherited, which its owner may close at any time.
    fn hold(&mut self, stdio: &[Stdio]) -> Result<(), Errno> {
        for (entry, theirs) in stdio.iter().zip(&mut self.theirs) {
            if let Stdio::Inherit(fd) = entry {
                *theirs = Some(descriptor::duplicate(*fd)?);
            }
        }
        Ok(())
    }

    fn slots(&self, stdio: &[Stdio]) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::with_capacity(stdio.len().max(3));
        for (entry, theirs) in stdio.iter().zip(&self.theirs) {
            slots.push(match (entry, theirs) {
                (Stdio::Inherit(fd), held) => {
                    Slot::Inherit(held.as_ref().map_or(*fd, AsRawFd::as_raw_fd))
                }
                (_, Some(theirs)) => Slot::Own(theirs.as_raw_fd()),
                (_, None) => Slot::Ignore,
            });
        }
        slots.resize(stdio.len().max(3), Slot::Ignore);
        let nulls = [null::read_only, null::read_write, null::read_write];
        for (slot, null) in slots.iter_mut().zip(nulls) {
            if let (Slot::Ignore, Some(null)) = (*slot, null()) {
                *slot = Slot::Own(null.as_raw_fd());
            }
        }
        slots
    }
}

/// A socket pair whose first end is ours and non-blocking; the child's blocks, as programs expect
/// of their standard streams.
fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}

/// A pair of which the child's end takes [`CHANNEL_ROOM`]; ours is better off with less.
fn roomy_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = pair()?;
    if getsockopt(&theirs, SndBuf)? < CHANNEL_ROOM {
        // The kernel doubles what it is given.
        setsockopt(&theirs, SndBuf, &(CHANNEL_ROOM / 2))?;
    }
    Ok((ours, theirs))
}

/// All our descriptors, if the kernel cannot close what the child does not get.
fn descriptors_to_close() -> Vec<RawFd> {
    if Plan::kernel_closes() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}
