//! Child processes for JavaScript: each is known by its number until its end is taken. All those
//! of an environment are watched through one epoll descriptor, so that one more costs the event
//! loop one system call, and an exit costs the same however many are alive.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use napi::sys::{napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Function;
use super::callback::Target;
use super::command::{self, BACKGROUND, REFERENCED, Said};
use super::environment::{Callbacks, Environment};
use super::launches::{Launches, Outcome, Waiting};
use super::value;
use crate::process::tree::{Root, kill_tree};
use crate::process::{Child, Command, Ended, Failed, Spawned, Status, spawn, spawn_in_background};
use crate::uv::{Phase, Poll};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("setProcessCallbacks", Some(set_callbacks)),
    ("spawn", Some(spawn_process)),
    ("claimEnd", Some(claim)),
    ("processKill", Some(kill)),
    ("processRef", Some(reference)),
    ("processUnref", Some(unreference)),
    ("processClose", Some(close)),
    ("processChannel", Some(set_channel)),
    ("launchKill", Some(kill_launch)),
    ("launchRef", Some(set_launch_ref)),
    ("launchClose", Some(close_launch)),
    ("killTree", Some(signal_tree)),
];

/// How many exits are taken from the kernel at once.
const EXITS: usize = 64;

/// What the kernel calls the bell of the launches, among the numbers of children.
const BELL: u64 = u64::MAX;

/// The fields of a resource usage, as `process.resourceUsage()` orders them.
pub const USAGE_FIELDS: usize = 16;

/// The children of one environment.
#[derive(Default)]
pub struct Processes {
    watcher: RefCell<Option<Watcher>>,
    alive: RefCell<HashMap<i32, Process>>,
    /// How many of them keep the event loop alive.
    referenced: Cell<usize>,
    usage: value::Reference,
    launches: RefCell<Option<Rc<Launches>>>,
    /// Our ends of pipes that JavaScript knows of and has not made a stream of yet. In a thread that
    /// is terminated it never will.
    unclaimed: RefCell<Vec<OwnedFd>>,
}

struct Process {
    child: Child,
    target: Rc<Target>,
    is_referenced: bool,
    /// The number of its IPC channel.
    channel: Option<u32>,
}

/// Readable when one of the children has ended.
struct Watcher {
    poll: Poll,
    /// Ends are told of after all else that the loop has found in the same go: what a child has
    /// written before comes first, as it does where SIGCHLD is awaited.
    check: Phase,
    /// Those that `check` is going to tell of.
    ended: RefCell<Vec<u64>>,
    // Behind the handle that watches it: fields are dropped in their order.
    epoll: Rc<Epoll>,
}

impl Watcher {
    fn new(environment: &Rc<Environment>) -> Result<Watcher, Errno> {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // Weak: the environment owns us.
        let calling = |take: fn(&Processes, &Rc<Environment>)| {
            let owner = Rc::downgrade(environment);
            move || {
                if let Some(environment) = owner.upgrade() {
                    take(environment.processes(), &environment);
                }
            }
        };
        let check = Phase::after_events(environment.event_loop(), calling(Processes::take_ends))?;
        let look = calling(Processes::look);
        let poll = Poll::new(environment.event_loop(), epoll.0.as_fd(), move |_| look())?;
        poll.set_ref(false);
        poll.watch(true, false);
        let ended = RefCell::default();
        Ok(Watcher {
            poll,
            check,
            ended,
            epoll,
        })
    }
}

impl Processes {
    /// Runs the command for `owner`; returns the child's number and fills `slots`.
    fn spawn(
        &self,
        environment: &Rc<Environment>,
        owner: napi_value,
        command: Command,
        slots: napi_value,
        is_referenced: bool,
    ) -> Result<i32, Errno> {
        let env = environment.raw();
        let epoll = self.epoll(environment)?;
        // Before `slots` is filled: hooks of the program's own run here, and may spawn, too.
        let target = Target::new(env, owner, "PROCESSWRAP").map_err(|_| Errno::ECANCELED)?;
        let spawned = spawn(command).map_err(|failed| self.give_up(env, failed, slots))?;
        let Spawned { child, ends } = spawned;
        let pid = child.pid();
        if let Err(errno) = watch(&epoll, &child) {
            abandon(child);
            return Err(errno);
        }
        self.hand_over(env, ends, slots);
        self.add(child, Rc::new(target), is_referenced);
        Ok(pid)
    }

    fn add(&self, child: Child, target: Rc<Target>, is_referenced: bool) {
        let pid = child.pid();
        let process = Process {
            child,
            target,
            is_referenced: false,
            channel: None,
        };
        self.alive.borrow_mut().insert(pid, process);
        self.set_ref(pid, is_referenced);
    }

    /// Has another thread run the command for `owner`; returns the number of the start and fills
    /// `slots`.
    fn spawn_in_background(
        &self,
        environment: &Rc<Environment>,
        owner: napi_value,
        command: Command,
        slots: napi_value,
        is_referenced: bool,
    ) -> Result<i32, Errno> {
        let env = environment.raw();
        let launches = self.launches(environment)?;
        let target = Target::new(env, owner, "PROCESSWRAP").map_err(|_| Errno::ECANCELED)?;
        let (number, done) = launches.begin();
        let ends = spawn_in_background(command, done).map_err(|failed| failed.errno)?;
        self.hand_over(env, ends, slots);
        launches.wait_for(
            number,
            Waiting {
                target,
                is_referenced,
            },
        );
        if is_referenced {
            self.count_reference(true);
        }
        Ok(number)
    }

    fn launches(&self, environment: &Rc<Environment>) -> Result<Rc<Launches>, Errno> {
        let epoll = self.epoll(environment)?;
        let mut launches = self.launches.borrow_mut();
        if let Some(launches) = &*launches {
            return Ok(launches.clone());
        }
        let new = Rc::new(Launches::new()?);
        epoll.add(new.bell(), EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        *launches = Some(new.clone());
        Ok(new)
    }

    /// Takes over the children that have been started and reports each, and each failure.
    fn take_starts(&self, environment: &Rc<Environment>) {
        let Some(launches) = self.launches.borrow().clone() else {
            return;
        };
        // No more than there are now: JavaScript may go on starting children.
        for _ in 0..launches.answer_bell() {
            let Some((number, outcome)) = launches.next_outcome() else {
                return;
            };
            // Without: closed by JavaScript meanwhile. The child becomes an orphan.
            if let Some(waiting) = launches.take(number) {
                self.take_start(environment, waiting, outcome);
            }
        }
    }

    fn take_start(&self, environment: &Rc<Environment>, waiting: Waiting, outcome: Outcome) {
        if waiting.is_referenced {
            self.count_reference(false);
        }
        let target = Rc::new(waiting.target);
        let result = outcome.and_then(|child| {
            let pid = child.pid();
            let epoll = self.epoll(environment)?;
            if let Err(errno) = watch(&epoll, &child) {
                abandon(child);
                return Err(errno);
            }
            self.add(child, target.clone(), waiting.is_referenced);
            Ok(pid)
        });
        if environment.is_ending() {
            return;
        }
        let function = environment.callback(Callbacks::ProcessStart);
        let result = result.unwrap_or_else(|errno| -(errno as i32));
        target.call(function, |env| Some([value::integer(env, result)]));
    }

    fn epoll(&self, environment: &Rc<Environment>) -> Result<Rc<Epoll>, Errno> {
        let mut watcher = self.watcher.borrow_mut();
        if watcher.is_none() {
            *watcher = Some(Watcher::new(environment)?);
        }
        let epoll = watcher.as_ref().map(|watcher| watcher.epoll.clone());
        epoll.ok_or(Errno::ENODEV)
    }

    /// Something has happened: starts are reported at once, for what such a child has written may
    /// be told of in this very go.
    fn look(&self, environment: &Rc<Environment>) {
        let Some(epoll) = self.watcher.borrow().as_ref().map(|w| w.epoll.clone()) else {
            return;
        };
        let mut events = [EpollEvent::empty(); EXITS];
        let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        let (bells, ended): (Vec<_>, Vec<_>) = events[..count]
            .iter()
            .map(EpollEvent::data)
            .partition(|&data| data == BELL);
        self.set_ended(ended);
        if !bells.is_empty() {
            self.take_starts(environment);
        }
    }

    fn set_ended(&self, ended: Vec<u64>) {
        if let Some(watcher) = &*self.watcher.borrow() {
            watcher.check.set_active(!ended.is_empty());
            watcher.ended.replace(ended);
        }
    }

    /// Takes the ends of the children that have ended and reports each.
    fn take_ends(&self, environment: &Rc<Environment>) {
        let ended = self.watcher.borrow().as_ref().map(|w| w.ended.take());
        self.set_ended(Vec::new());
        for pid in ended.unwrap_or_default() {
            self.take_end(environment, pid as i32);
        }
    }

    fn take_end(&self, environment: &Rc<Environment>, pid: i32) {
        let channel = self.with(pid, |process| process.channel).flatten();
        if let Some(channel) = channel {
            environment.channels().receive_rest(environment, channel);
        }
        let end = match self.alive.borrow_mut().get_mut(&pid) {
            Some(process) => process.child.try_wait(),
            None => return, // closed by JavaScript that ran for another one's end
        };
        let (code, signal, usage) = match end {
            Ok(None) => return,
            Ok(Some(Ended { status, usage })) => match status {
                Status::Exited(code) => (code, 0, Some(usage)),
                Status::Signaled(signal) => (0, signal, Some(usage)),
            },
            // Somebody else has taken it: how the child ended is lost.
            Err(errno) => (-(errno as i32), 0, None),
        };
        let Some(process) = self.remove(pid) else {
            return;
        };
        if environment.is_ending() {
            return;
        }
        let function = environment.callback(Callbacks::ProcessExit);
        process.target.call(function, |env| {
            self.show_usage(env, usage.as_ref());
            Some([value::integer(env, code), value::integer(env, signal)])
        });
    }

    fn show_usage(&self, env: napi_env, usage: Option<&libc::rusage>) {
        let numbers = usage.map_or([0.0; USAGE_FIELDS], usage_fields);
        // SAFETY: no JavaScript runs while the slice is written.
        let bytes = unsafe { value::view_bytes(env, self.usage.get(env)) }.unwrap_or_default();
        for (place, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
            *place = number.to_ne_bytes();
        }
    }

    fn set_ref(&self, pid: i32, is_referenced: bool) {
        let mut alive = self.alive.borrow_mut();
        let Some(process) = alive.get_mut(&pid) else {
            return;
        };
        if std::mem::replace(&mut process.is_referenced, is_referenced) != is_referenced {
            self.count_reference(is_referenced);
        }
    }

    /// The watcher keeps the loop alive as long as one of the children does.
    fn count_reference(&self, is_new: bool) {
        let before = self.referenced.get();
        let now = if is_new { before + 1 } else { before - 1 };
        self.referenced.set(now);
        if (before == 0) != (now == 0)
            && let Some(watcher) = &*self.watcher.borrow()
        {
            watcher.poll.set_ref(now > 0);
        }
    }

    fn remove(&self, pid: i32) -> Option<Process> {
        let process = self.alive.borrow_mut().remove(&pid)?;
        if process.is_referenced {
            self.count_reference(false);
        }
        Some(process)
    }

    /// Stops watching the child, which is left to whoever reaps the orphans.
    fn close(&self, pid: i32) {
        let Some(process) = self.remove(pid) else {
            return;
        };
        if let (Some(watcher), Some(pidfd)) = (&*self.watcher.borrow(), process.child.as_fd()) {
            let _ = watcher.epoll.delete(pidfd);
        }
    }

    /// Runs `action` on a living child.
    fn with<T>(&self, pid: i32, action: impl FnOnce(&Process) -> T) -> Option<T> {
        self.alive.borrow().get(&pid).map(action)
    }

    /// How many are alive.
    pub fn len(&self) -> usize {
        self.alive.borrow().len()
    }

    /// Stops watching: the children live on and are reaped by later spawns of other threads.
    pub fn close_all(&self) {
        self.watcher.take();
        self.launches.take();
        self.referenced.set(0);
        self.alive.take();
        self.usage.clear();
        self.unclaimed.take();
    }

    /// Node shows the streams of a child that could not be run, if it reports that by an event; for
    /// all other errors it throws.
    fn give_up(&self, env: napi_env, failed: Failed, slots: napi_value) -> Errno {
        let ends = match failed.errno {
            Errno::ENOENT | Errno::EACCES | Errno::EAGAIN => failed.ends,
            _ => Vec::new(),
        };
        self.hand_over(env, ends, slots);
        failed.errno
    }

    /// Writes the numbers of our ends into the array; a place without one gets -1.
    fn hand_over(&self, env: napi_env, ends: Vec<Option<OwnedFd>>, slots: napi_value) {
        // SAFETY: no JavaScript runs while the slice is written.
        let bytes = unsafe { value::view_bytes(env, slots) }.unwrap_or_default();
        let mut unclaimed = self.unclaimed.borrow_mut();
        let mut ends = ends.into_iter();
        for place in bytes.as_chunks_mut().0 {
            let end = ends.next().flatten();
            *place = end.as_ref().map_or(-1, AsRawFd::as_raw_fd).to_ne_bytes();
            unclaimed.extend(end);
        }
    }

    /// The end with this number is JavaScript's from here on.
    fn claim(&self, number: RawFd) -> Result<RawFd, Errno> {
        let mut unclaimed = self.unclaimed.borrow_mut();
        let index = unclaimed.iter().position(|end| end.as_raw_fd() == number);
        let index = index.ok_or(Errno::EBADF)?;
        Ok(unclaimed.swap_remove(index).into_raw_fd())
    }
}

fn watch(epoll: &Epoll, child: &Child) -> Result<(), Errno> {
    let pidfd = child.as_fd().ok_or(Errno::ESRCH)?;
    epoll.add(
        pidfd,
        EpollEvent::new(EpollFlags::EPOLLIN, child.pid() as u64),
    )
}

/// Ends a child of which JavaScript will never know.
fn abandon(child: Child) {
    let _ = child.signal(libc::SIGKILL);
}

/// A resource usage as `process.resourceUsage()` has it.
pub fn usage_fields(usage: &libc::rusage) -> [f64; USAGE_FIELDS] {
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    let counts = [
        usage.ru_maxrss,
        usage.ru_ixrss,
        usage.ru_idrss,
        usage.ru_isrss,
        usage.ru_minflt,
        usage.ru_majflt,
        usage.ru_nswap,
        usage.ru_inblock,
        usage.ru_oublock,
        usage.ru_msgsnd,
        usage.ru_msgrcv,
        usage.ru_nsignals,
        usage.ru_nvcsw,
        usage.ru_nivcsw,
    ];
    let mut fields = [0.0; USAGE_FIELDS];
    fields[0] = micros(usage.ru_utime);
    fields[1] = micros(usage.ru_stime);
    for (field, count) in fields[2..].iter_mut().zip(counts) {
        *field = count as f64;
    }
    fields
}

/// The child has the IPC channel with this number.
unsafe extern "C" fn set_channel(env: napi_env, info: napi_callback_info) -> napi_value {
    let [pid, channel] = value::arguments(env, info).map(|v| value::get_i32(env, v));
    if let Some(environment) = Environment::of(env)
        && let Some(process) = environment.processes().alive.borrow_mut().get_mut(&pid)
    {
        process.channel = Some(channel as u32);
    }
    value::undefined(env)
}

/// Takes one of the numbers that `spawn` has put into its array; the number, or a negative errno.
unsafe extern "C" fn claim(env: napi_env, info: napi_callback_info) -> napi_value {
    let [number] = value::arguments(env, info);
    let number = value::get_i32(env, number);
    let claimed = Environment::of(env)
        .ok_or(Errno::EINVAL)
        .and_then(|environment| environment.processes().claim(number));
    value::outcome(env, claimed)
}

/// `(onExit, onStart, usage)`
unsafe extern "C" fn set_callbacks(env: napi_env, info: napi_callback_info) -> napi_value {
    let [on_exit, on_start, usage] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        environment.set_callback(Callbacks::ProcessExit, on_exit);
        environment.set_callback(Callbacks::ProcessStart, on_start);
        environment.processes().usage.set(env, usage);
    }
    value::undefined(env)
}

/// `(…, owner)` after what [`command::read`] takes: the child's number, or that of its start in the
/// background.
unsafe extern "C" fn spawn_process(env: napi_env, info: napi_callback_info) -> napi_value {
    let [values @ .., owner] = value::arguments::<11>(env, info);
    let Some(environment) = Environment::of(env).filter(|environment| !environment.is_ending())
    else {
        return value::failure(env, Errno::ECANCELED);
    };
    let Said {
        command,
        stdio,
        flags,
    } = command::read(env, values);
    let is_referenced = flags & REFERENCED != 0;
    let processes = environment.processes();
    let result = if flags & BACKGROUND == 0 {
        processes.spawn(&environment, owner, command, stdio, is_referenced)
    } else {
        processes.spawn_in_background(&environment, owner, command, stdio, is_referenced)
    };
    value::outcome(env, result)
}

/// `(pid, signal)`
unsafe extern "C" fn kill(env: napi_env, info: napi_callback_info) -> napi_value {
    let [pid, signal] = value::arguments(env, info);
    let signal = value::get_i32(env, signal);
    let result = on_process(env, pid, |process| process.child.signal(signal));
    value::outcome(env, result.unwrap_or(Err(Errno::ESRCH)).map(|()| 0))
}

/// `(pid)`
unsafe extern "C" fn reference(env: napi_env, info: napi_callback_info) -> napi_value {
    change_reference(env, info, true)
}

/// `(pid)`
unsafe extern "C" fn unreference(env: napi_env, info: napi_callback_info) -> napi_value {
    change_reference(env, info, false)
}

fn change_reference(env: napi_env, info: napi_callback_info, is_new: bool) -> napi_value {
    let [pid] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        let processes = environment.processes();
        processes.set_ref(value::get_i32(env, pid), is_new);
    }
    value::undefined(env)
}

/// `(pid)`
unsafe extern "C" fn close(env: napi_env, info: napi_callback_info) -> napi_value {
    let [pid] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        environment.processes().close(value::get_i32(env, pid));
    }
    value::undefined(env)
}

/// `(start, signal)`
unsafe extern "C" fn kill_launch(env: napi_env, info: napi_callback_info) -> napi_value {
    let [number, signal] = value::arguments(env, info);
    let launches = Environment::of(env)
        .and_then(|environment| environment.processes().launches.borrow().clone());
    let signal = value::get_i32(env, signal);
    let result = launches.map(|launches| launches.signal(value::get_i32(env, number), signal));
    value::outcome(env, result.unwrap_or(Err(Errno::ESRCH)).map(|()| 0))
}

/// `(start, isReferenced)`
unsafe extern "C" fn set_launch_ref(env: napi_env, info: napi_callback_info) -> napi_value {
    let [number, is_referenced] = value::arguments(env, info);
    let is_referenced = value::get_bool(env, is_referenced);
    if let Some(environment) = Environment::of(env) {
        let processes = environment.processes();
        let launches = processes.launches.borrow().clone();
        let number = value::get_i32(env, number);
        if launches.is_some_and(|launches| launches.set_ref(number, is_referenced)) {
            processes.count_reference(is_referenced);
        }
    }
    value::undefined(env)
}

/// `(start)`
unsafe extern "C" fn close_launch(env: napi_env, info: napi_callback_info) -> napi_value {
    let [number] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        let processes = environment.processes();
        let launches = processes.launches.borrow().clone();
        let waiting = launches.and_then(|launches| launches.take(value::get_i32(env, number)));
        if waiting.is_some_and(|waiting| waiting.is_referenced) {
            processes.count_reference(false);
        }
    }
    value::undefined(env)
}

/// `(pid, signal, hasEnded)`: how many processes got the signal.
unsafe extern "C" fn signal_tree(env: napi_env, info: napi_callback_info) -> napi_value {
    let [pid, signal, has_ended] = value::arguments(env, info);
    let signal = value::get_i32(env, signal);
    let result = if value::get_bool(env, has_ended) {
        kill_tree(Root::Ended(value::get_i32(env, pid)), signal)
    } else {
        let kill = |process: &Process| kill_tree(Root::Child(&process.child), signal);
        on_process(env, pid, kill).unwrap_or(Err(Errno::ESRCH))
    };
    value::outcome(env, result.map(|count| count as i32))
}

fn on_process<T>(env: napi_env, pid: napi_value, action: impl FnOnce(&Process) -> T) -> Option<T> {
    let environment = Environment::of(env)?;
    let pid = value::get_i32(env, pid);
    environment.processes().with(pid, action)
}
