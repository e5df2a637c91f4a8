//! The cluster's dispatcher for JavaScript: listeners and workers by number. What it reads on a
//! stock worker's channel for JavaScript comes back to `channel`, woken by the relay. One
//! dispatcher an environment, started at its first listener or lane.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;

use napi::sys::{napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;

use super::Function;
use super::environment::Environment;
use super::secret::secret;
use super::value;
use crate::cluster::dispatcher::Dispatcher;
use crate::cluster::relay::{Inbox, Relay};
use crate::cluster::scheduler::Policy;
use crate::cluster::thread::DispatcherThread;
use crate::sys::{descriptor, listener};
use crate::uv::Poll;

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("dispatcherListen", Some(listen)),
    ("dispatcherClose", Some(close)),
    ("dispatcherAdd", Some(add)),
    ("dispatcherRemove", Some(remove)),
    ("dispatcherPolicy", Some(set_policy)),
    ("dispatcherWorker", Some(set_worker)),
    ("dispatcherLane", Some(open_lane)),
    ("dispatcherForget", Some(forget)),
    ("dispatcherBury", Some(bury)),
    ("dispatcherStats", Some(worker_stats)),
    ("dispatcherListeners", Some(listener_stats)),
];

/// Node's default for listen(2).
const DEFAULT_BACKLOG: i32 = 511;

/// The dispatcher of one environment, if it has been needed.
#[derive(Default)]
pub struct Dispatching(RefCell<Option<Rc<Running>>>);

/// A running dispatcher and what connects it with the environment's thread.
pub struct Running {
    thread: DispatcherThread,
    relay: Arc<Relay>,
    /// Rings when the dispatcher has read something for this thread.
    poll: Poll,
    /// How many channels it reads for that keep the event loop alive.
    references: Cell<usize>,
}

impl Dispatching {
    /// The dispatcher, started at first need.
    fn start(&self, environment: &Rc<Environment>) -> Result<Rc<Running>, Errno> {
        if let Some(running) = self.get() {
            return Ok(running);
        }
        let relay = Relay::new()?;
        let (weak, bell) = (Rc::downgrade(environment), relay.clone());
        let poll = Poll::new(environment.event_loop(), relay.as_fd(), move |_| {
            let ready = bell.take();
            if let Some(environment) = weak.upgrade().filter(|e| !e.is_ending()) {
                let channels = environment.channels();
                ready
                    .into_iter()
                    .for_each(|channel| channels.on_relayed(&environment, channel));
            }
        })?;
        poll.set_ref(false);
        poll.watch(true, false);
        let running = Rc::new(Running {
            thread: DispatcherThread::start(secret().to_ne_bytes())?,
            relay,
            poll,
            references: Cell::new(0),
        });
        *self.0.borrow_mut() = Some(running.clone());
        Ok(running)
    }

    /// The dispatcher, if it runs.
    pub fn get(&self) -> Option<Rc<Running>> {
        self.0.borrow().clone()
    }

    /// Ends it when it has nothing left to do: a thread and its descriptors go with the last worker
    /// and listener.
    fn end_if_idle(&self) {
        let is_idle = |running: &Rc<Running>| running.thread.read(Dispatcher::is_idle);
        if self.get().as_ref().is_some_and(is_idle) {
            self.close();
        }
    }

    /// Ends it. Connections that no worker has been given are closed.
    pub fn close(&self) {
        self.0.borrow_mut().take();
    }
}

impl Running {
    /// Gives a worker's channel back to this thread.
    pub fn release(&self, worker: u32) {
        self.thread.with(|dispatcher| dispatcher.release(worker));
    }

    /// Has what a worker that has ended wrote before read by the time this returns.
    pub fn read_rest(&self, worker: u32) {
        self.thread.with(|dispatcher| dispatcher.read_rest(worker));
    }

    /// One more channel that keeps the event loop alive is read elsewhere, or one less.
    pub fn hold(&self, holds: bool) {
        let before = self.references.get();
        self.references
            .set(if holds { before + 1 } else { before - 1 });
        self.poll.set_ref(self.references.get() > 0);
    }

    /// The dispatcher may have waited for what has just been taken out of an inbox.
    pub fn ring(&self) {
        self.thread.ring();
    }
}

fn running_in(env: napi_env) -> Option<(Rc<Environment>, Rc<Running>)> {
    let environment = Environment::of(env)?;
    let running = environment.dispatching().get()?;
    Some((environment, running))
}

fn running(env: napi_env) -> Option<Rc<Running>> {
    running_in(env).map(|(_, running)| running)
}

fn started(env: napi_env) -> Result<(Rc<Environment>, Rc<Running>), Errno> {
    let environment = Environment::of(env).ok_or(Errno::EINVAL)?;
    let running = environment.dispatching().start(&environment)?;
    Ok((environment, running))
}

fn unsigned(env: napi_env, value: napi_value) -> u32 {
    value::get_i32(env, value).max(0) as u32
}

/// `(fd, key, policy, backlog)`: a listener's number or a negative errno.
unsafe extern "C" fn listen(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd, key, policy, backlog] = value::arguments(env, info);
    value::outcome(env, try_listen(env, fd, key, policy, backlog))
}

fn try_listen(
    env: napi_env,
    fd: napi_value,
    key: napi_value,
    policy: napi_value,
    backlog: napi_value,
) -> Result<i32, Errno> {
    let policy = Policy::from_number(value::get_i32(env, policy)).ok_or(Errno::EINVAL)?;
    let (_, running) = started(env)?;
    let socket = descriptor::duplicate(value::get_i32(env, fd))?;
    descriptor::set_nonblocking(socket.as_fd())?;
    let backlog = match value::get_i32(env, backlog) {
        backlog if backlog > 0 => backlog,
        _ => DEFAULT_BACKLOG,
    };
    listener::listen(socket.as_fd(), backlog)?;
    let mut bytes = Vec::new();
    value::append_string(env, key, &mut bytes);
    let key = String::from_utf8_lossy(&bytes).into_owned();
    let listener = running
        .thread
        .with(|dispatcher| dispatcher.listen(socket, key, policy))?;
    Ok(listener as i32)
}

/// `(listenerId, isOwn)`: the latter when nobody but workers has the socket, too.
unsafe extern "C" fn close(env: napi_env, info: napi_callback_info) -> napi_value {
    let [listener, is_own] = value::arguments(env, info);
    if let Some((environment, running)) = running_in(env) {
        let listener = unsigned(env, listener);
        let is_own = value::get_bool(env, is_own);
        running.thread.with(|dispatcher| match is_own {
            true => dispatcher.stop(listener),
            false => dispatcher.close(listener),
        });
        environment.dispatching().end_if_idle();
    }
    value::undefined(env)
}

/// `(listenerId, workerId, channelId)`: 0 or a negative errno.
unsafe extern "C" fn add(env: napi_env, info: napi_callback_info) -> napi_value {
    let [listener, worker, channel] = value::arguments(env, info).map(|v| unsigned(env, v));
    value::outcome(env, try_add(env, listener, worker, channel).map(|()| 0))
}

fn try_add(env: napi_env, listener: u32, worker: u32, channel: u32) -> Result<(), Errno> {
    let (environment, running) = started(env)?;
    if !running
        .thread
        .read(|dispatcher| dispatcher.has_link(worker))
    {
        let channels = environment.channels();
        let shared = channels.shared(channel).ok_or(Errno::EPIPE)?;
        // The dispatcher speaks Node's protocol only.
        if !shared.lock().pin() {
            return Err(Errno::EPROTO);
        }
        let inbox = channels.inbox(channel);
        let inbox = inbox.unwrap_or_else(|| Inbox::new(channel, running.relay.clone()));
        let given = inbox.clone();
        running
            .thread
            .with(|dispatcher| dispatcher.open_stock(worker, shared, given))?;
        channels.read_elsewhere(channel, worker, inbox, running.clone());
    }
    let added = running
        .thread
        .with(|dispatcher| dispatcher.add(listener, worker));
    added.then_some(()).ok_or(Errno::ENOENT)
}

unsafe extern "C" fn remove(env: napi_env, info: napi_callback_info) -> napi_value {
    let [listener, worker] = value::arguments(env, info).map(|v| unsigned(env, v));
    if let Some(running) = running(env) {
        running
            .thread
            .with(|dispatcher| dispatcher.remove(listener, worker));
    }
    value::undefined(env)
}

/// `(listenerId, policy)`: 0 or a negative errno.
unsafe extern "C" fn set_policy(env: napi_env, info: napi_callback_info) -> napi_value {
    let [listener, policy] = value::arguments(env, info);
    let Some(policy) = Policy::from_number(value::get_i32(env, policy)) else {
        return value::failure(env, Errno::EINVAL);
    };
    if let Some(running) = running(env) {
        let listener = unsigned(env, listener);
        running
            .thread
            .with(|dispatcher| dispatcher.set_policy(listener, policy));
    }
    value::integer(env, 0)
}

/// `(workerId, weight, draining)`: 0 or a negative errno.
unsafe extern "C" fn set_worker(env: napi_env, info: napi_callback_info) -> napi_value {
    let [worker, weight, draining] = value::arguments(env, info);
    let (worker, weight) = (unsigned(env, worker), unsigned(env, weight));
    let draining = value::get_bool(env, draining);
    let result = started(env).map(|(_, running)| {
        running
            .thread
            .with(|dispatcher| dispatcher.set_worker(worker, weight, draining));
        0
    });
    value::outcome(env, result)
}

/// `(workerId, mayAccept)`: the descriptor of the worker's end of its new lane, which is the
/// caller's, or a negative errno.
unsafe extern "C" fn open_lane(env: napi_env, info: napi_callback_info) -> napi_value {
    let [worker, may_accept] = value::arguments(env, info);
    let (worker, may_accept) = (unsigned(env, worker), value::get_bool(env, may_accept));
    let result = started(env).and_then(|(environment, running)| {
        let end = running
            .thread
            .with(|dispatcher| dispatcher.open_lane(worker, may_accept))?;
        environment.channels().read_here(worker);
        Ok(end.into_raw_fd())
    });
    value::outcome(env, result)
}

unsafe extern "C" fn forget(env: napi_env, info: napi_callback_info) -> napi_value {
    part_with(env, info, Dispatcher::forget)
}

unsafe extern "C" fn bury(env: napi_env, info: napi_callback_info) -> napi_value {
    part_with(env, info, Dispatcher::bury)
}

fn part_with(env: napi_env, info: napi_callback_info, how: fn(&mut Dispatcher, u32)) -> napi_value {
    let [worker] = value::arguments(env, info).map(|v| unsigned(env, v));
    if let Some((environment, running)) = running_in(env) {
        running.thread.with(|dispatcher| how(dispatcher, worker));
        environment.channels().read_here(worker);
        environment.dispatching().end_if_idle();
    }
    value::undefined(env)
}

/// Eight numbers a worker: its id, whether it has a lane, connections taken, open (-1 where only
/// the worker knows), on their way to it, handed back, its loop's utilisation in permille (or -1),
/// its weight.
unsafe extern "C" fn worker_stats(env: napi_env, _info: napi_callback_info) -> napi_value {
    let Some(running) = running(env) else {
        return value::array(env, std::iter::empty());
    };
    let rows: Vec<f64> = running.thread.read(|dispatcher| {
        let stats = dispatcher.worker_stats();
        stats
            .flat_map(|worker| {
                [
                    f64::from(worker.id),
                    f64::from(u8::from(worker.has_lane)),
                    worker.accepted as f64,
                    worker.open.map_or(-1.0, f64::from),
                    worker.waiting as f64,
                    worker.handed_back as f64,
                    worker.utilisation.map_or(-1.0, f64::from),
                    f64::from(worker.weight),
                ]
            })
            .collect()
    });
    value::array(env, rows.into_iter().map(|field| value::number(env, field)))
}

/// Four numbers a listener: its id, connections accepted, those that wait for a worker, workers.
unsafe extern "C" fn listener_stats(env: napi_env, _info: napi_callback_info) -> napi_value {
    let Some(running) = running(env) else {
        return value::array(env, std::iter::empty());
    };
    let rows: Vec<f64> = running.thread.read(|dispatcher| {
        let stats = dispatcher.listener_stats();
        stats
            .flat_map(|listener| {
                [
                    f64::from(listener.id),
                    listener.accepted as f64,
                    listener.waiting as f64,
                    listener.workers as f64,
                ]
            })
            .collect()
    });
    value::array(env, rows.into_iter().map(|field| value::number(env, field)))
}
