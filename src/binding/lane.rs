//! A brood worker's lane for JavaScript: its socket is watched on the loop thread, and the
//! connections of one turn are handed over in one call. What the messages mean, and whose a
//! connection is, is `cluster`'s; which server a connection goes to is `lib/cluster`'s.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, RawFd};
use std::rc::Rc;

use napi::sys::{napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;

use super::Function;
use super::callback::Target;
use super::environment::{Callbacks, Environment};
use super::value;
use crate::cluster::receiver::{Connection, LaneError, Receiver, TurnEnd};
use crate::sys::descriptor::{self, SocketKind};
use crate::uv::{Poll, Readiness};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("setLaneCallback", Some(set_callback)),
    ("laneOpen", Some(open)),
    ("laneAccept", Some(accept)),
    ("laneDecline", Some(decline)),
    ("laneRefuse", Some(refuse)),
    ("laneExpect", Some(expect)),
    ("laneForget", Some(forget)),
    ("laneReport", Some(report)),
    ("laneClose", Some(close)),
];

/// The lanes of one environment.
#[derive(Default)]
pub struct Lanes {
    next_id: Cell<u32>,
    open: RefCell<HashMap<u32, Rc<Lane>>>,
}

/// One lane as its environment sees it.
struct Lane {
    id: u32,
    // Before the receiver, whose socket it watches: fields are dropped in their order.
    poll: RefCell<Option<Poll>>,
    /// Of the listening sockets, where there have been more permits than connections.
    watches: RefCell<HashMap<u32, Watch>>,
    receiver: RefCell<Receiver>,
    target: Target,
}

/// A listening socket on the event loop.
struct Watch {
    poll: Poll,
    is_on: Cell<bool>,
}

impl Watch {
    /// Every change costs system calls.
    fn set(&self, is_on: bool) {
        if self.is_on.replace(is_on) != is_on {
            self.poll.watch(is_on, false);
        }
    }
}

/// Stands for the descriptor of a connection: JavaScript is to accept some.
const PERMIT: RawFd = -1;

/// A connection whose descriptor is JavaScript's.
struct HandedOver {
    listener: u32,
    token: u32,
    fd: RawFd,
}

impl From<Connection> for HandedOver {
    fn from(connection: Connection) -> HandedOver {
        HandedOver {
            listener: connection.listener,
            token: connection.sequence,
            fd: connection.descriptor.into_raw_fd(),
        }
    }
}

impl HandedOver {
    fn permits_for(listener: u32) -> HandedOver {
        HandedOver {
            listener,
            token: 0,
            fd: PERMIT,
        }
    }
}

impl Lanes {
    fn get(&self, id: u32) -> Option<Rc<Lane>> {
        self.open.borrow().get(&id).cloned()
    }

    fn remove(&self, id: u32) -> Option<Rc<Lane>> {
        let lane = self.open.borrow_mut().remove(&id)?;
        lane.close();
        Some(lane)
    }

    /// Ends every lane: what lies in its socket is the primary's again.
    pub fn close_all(&self) {
        let lanes = self.open.take();
        lanes.values().for_each(|lane| lane.close());
    }
}

impl Lane {
    fn close(&self) {
        self.poll.take();
        self.watches.take();
    }

    fn on_ready(self: &Rc<Self>, environment: &Rc<Environment>, ready: Readiness) {
        loop {
            let turn = self.receiver.borrow_mut().receive();
            self.deliver(environment, turn.connections, &turn.permitted);
            match turn.end {
                TurnEnd::Closed => return self.end(environment, None),
                TurnEnd::Failed(error) => return self.end(environment, Some(error)),
                // libuv has stopped watching: there will be no further event.
                TurnEnd::Bounded if ready.failed && self.is_open() => {}
                TurnEnd::Drained if ready.failed => return self.end(environment, None),
                TurnEnd::Bounded | TurnEnd::Drained => return,
            }
        }
    }

    fn on_listener_ready(
        self: &Rc<Self>,
        environment: &Rc<Environment>,
        listener: u32,
        ready: Readiness,
    ) {
        if ready.failed {
            self.receiver.borrow_mut().refuse(listener);
            return self.watch(environment, listener);
        }
        self.deliver(environment, Vec::new(), &[listener]);
    }

    /// Hands the connections over, and has what is permitted accepted. Whatever JavaScript does with
    /// connections, also when it throws, they are its own from then on, save those it declines.
    fn deliver(
        self: &Rc<Self>,
        environment: &Rc<Environment>,
        connections: Vec<Connection>,
        permitted: &[u32],
    ) {
        self.hand_over(environment, connections, permitted);
        for &listener in permitted {
            self.watch(environment, listener);
        }
    }

    /// Has the event loop look for connections to accept as long as there are permits, and no
    /// longer: what is for others would wake it again and again.
    fn watch(self: &Rc<Self>, environment: &Rc<Environment>, listener: u32) {
        if !self.is_open() {
            return;
        }
        let mut watches = self.watches.borrow_mut();
        let mut receiver = self.receiver.borrow_mut();
        let socket = receiver.socket_to_watch(listener);
        if let Some(watch) = watches.get(&listener) {
            return watch.set(socket.is_some());
        }
        let Some(socket) = socket else { return };
        match self.new_watch(environment, listener, socket) {
            Ok(watch) => {
                watch.set(true);
                watches.insert(listener, watch);
            }
            // They are good for nothing then.
            Err(_) => receiver.refuse(listener),
        }
    }

    fn new_watch(
        self: &Rc<Self>,
        environment: &Rc<Environment>,
        listener: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<Watch, Errno> {
        let (lane, of) = (Rc::downgrade(self), Rc::downgrade(environment));
        let poll = Poll::new(environment.event_loop(), socket, move |ready| {
            if let (Some(lane), Some(environment)) = (lane.upgrade(), of.upgrade())
                && !environment.is_ending()
            {
                lane.on_listener_ready(&environment, listener, ready);
            }
        })?;
        poll.set_ref(false);
        let is_on = Cell::new(false);
        Ok(Watch { poll, is_on })
    }

    fn hand_over(
        &self,
        environment: &Environment,
        connections: Vec<Connection>,
        permitted: &[u32],
    ) {
        // Numbers from here on: JavaScript may close them before it returns.
        let connections = connections.into_iter().map(HandedOver::from);
        let permits = permitted.iter().copied().map(HandedOver::permits_for);
        let handed_over: Vec<_> = connections.chain(permits).collect();
        let function = environment.callback(Callbacks::Lane);
        let has_run = handed_over.is_empty()
            || self.target.call(function, |env| {
                Some([batch_of(env, &handed_over), value::undefined(env)])
            });
        if has_run {
            return self.receiver.borrow_mut().settle();
        }
        self.receiver.borrow_mut().give_back();
        for connection in handed_over {
            if connection.fd != PERMIT {
                drop(descriptor::take(connection.fd));
            }
        }
    }

    fn end(&self, environment: &Environment, error: Option<LaneError>) {
        if environment.lanes().remove(self.id).is_none() {
            return; // JavaScript has closed it meanwhile
        }
        let function = environment.callback(Callbacks::Lane);
        self.target.call(function, |env| {
            let reason = match error {
                Some(error) => value::string(env, error.to_string().as_bytes(), true),
                None => value::undefined(env),
            };
            Some([value::null(env), reason])
        });
    }

    fn is_open(&self) -> bool {
        self.poll.borrow().is_some()
    }
}

/// `[listener, token, fd, …]`.
fn batch_of(env: napi_env, connections: &[HandedOver]) -> napi_value {
    let numbers = connections.iter().flat_map(|connection| {
        [
            value::number(env, connection.listener.into()),
            value::number(env, connection.token.into()),
            value::integer(env, connection.fd),
        ]
    });
    value::array(env, numbers)
}

/// The lane a call is about: its first argument.
fn lane_of(env: napi_env, id: napi_value) -> Option<Rc<Lane>> {
    Environment::of(env)?
        .lanes()
        .get(value::get_i32(env, id) as u32)
}

/// `setLaneCallback(function (batch, reason))`: `this` is the lane's owner; `batch` is
/// `[listener, token, fd, …]` (-1 where it is to accept, as many as it can), or null when the lane
/// has ended, then `reason` says what was wrong if anything was.
unsafe extern "C" fn set_callback(env: napi_env, info: napi_callback_info) -> napi_value {
    let [function] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        environment.set_callback(Callbacks::Lane, function);
    }
    value::undefined(env)
}

/// `laneOpen(owner, fd)`: takes the descriptor over, also when it fails; the lane's number or a
/// negative errno. The lane never keeps the loop alive.
unsafe extern "C" fn open(env: napi_env, info: napi_callback_info) -> napi_value {
    let [owner, fd] = value::arguments(env, info);
    let opened = open_lane(env, owner, value::get_i32(env, fd));
    value::outcome(env, opened.map(|id| id as i32))
}

fn open_lane(env: napi_env, owner: napi_value, fd: i32) -> Result<u32, Errno> {
    let environment = Environment::of(env).ok_or(Errno::EINVAL)?;
    let socket = descriptor::take(fd)?;
    if descriptor::socket_kind(fd) != Some(SocketKind::Pipe) {
        return Err(Errno::ENOTSOCK);
    }
    let target = Target::new(env, owner, "BROODLANE").map_err(|_| Errno::ENOMEM)?;
    let lanes = environment.lanes();
    let id = lanes.next_id.get() + 1;
    lanes.next_id.set(id);
    let lane = Rc::new(Lane {
        id,
        poll: RefCell::default(),
        watches: RefCell::default(),
        receiver: RefCell::new(Receiver::new(socket)),
        target,
    });
    let poll = {
        let receiver = lane.receiver.borrow();
        let (lane, of) = (Rc::downgrade(&lane), Rc::downgrade(&environment));
        Poll::new(environment.event_loop(), receiver.as_fd(), move |ready| {
            if let (Some(lane), Some(environment)) = (lane.upgrade(), of.upgrade())
                && !environment.is_ending()
            {
                lane.on_ready(&environment, ready);
            }
        })?
    };
    poll.set_ref(false);
    poll.watch(true, false);
    lane.poll.replace(Some(poll));
    lanes.open.borrow_mut().insert(id, lane);
    Ok(id)
}

/// `laneAccept(id, listener)`: the descriptor of a connection that was permitted to be accepted, or a
/// negative errno; then there is none, and when there is, it will be told.
unsafe extern "C" fn accept(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, listener] = value::arguments(env, info);
    let listener = value::get_f64(env, listener) as u32;
    let accepted = match lane_of(env, id) {
        Some(lane) => lane.receiver.borrow_mut().accept(listener),
        None => Err(Errno::EBADF),
    };
    value::outcome(env, accepted.map(IntoRawFd::into_raw_fd))
}

/// `laneExpect(id, listener)`: from here on the listening socket is kept when it comes.
unsafe extern "C" fn expect(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, listener] = value::arguments(env, info);
    if let Some(lane) = lane_of(env, id) {
        let listener = value::get_f64(env, listener) as u32;
        lane.receiver.borrow_mut().expect_listener(listener);
    }
    value::undefined(env)
}

/// `laneForget(id, listener)`: closes this process's descriptor of the listening socket, if any.
unsafe extern "C" fn forget(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, listener] = value::arguments(env, info);
    if let Some(lane) = lane_of(env, id) {
        let listener = value::get_f64(env, listener) as u32;
        // First what watches the socket.
        drop(lane.watches.borrow_mut().remove(&listener));
        lane.receiver.borrow_mut().forget(listener);
    }
    value::undefined(env)
}

/// `laneRefuse(id, listener)`: there is no room for the listener's connections now; whoever else may
/// accept them shall.
unsafe extern "C" fn refuse(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, listener] = value::arguments(env, info);
    if let Some(lane) = lane_of(env, id) {
        let listener = value::get_f64(env, listener) as u32;
        lane.receiver.borrow_mut().refuse(listener);
    }
    value::undefined(env)
}

/// `laneDecline(id, token)`: this connection of the batch being handed over goes back to the primary;
/// the caller closes its descriptor. 0, or a negative errno for any other.
unsafe extern "C" fn decline(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, token] = value::arguments(env, info);
    let declined = lane_of(env, id).is_some_and(|lane| {
        let sequence = value::get_f64(env, token) as u32;
        lane.receiver.borrow_mut().decline(sequence)
    });
    value::outcome(env, if declined { Ok(0) } else { Err(Errno::EINVAL) })
}

/// `laneReport(id, connections, utilisation)`: what the primary's scheduler may go by, the latter
/// in thousandths.
unsafe extern "C" fn report(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, connections, utilisation] = value::arguments(env, info);
    if let Some(lane) = lane_of(env, id) {
        let connections = value::get_f64(env, connections) as u32;
        let utilisation = value::get_f64(env, utilisation) as u16;
        lane.receiver.borrow().report(connections, utilisation);
    }
    value::undefined(env)
}

/// `laneClose(id)`: ends the lane without a further call; connections not received yet are the
/// primary's again.
unsafe extern "C" fn close(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        environment.lanes().remove(value::get_i32(env, id) as u32);
    }
    value::undefined(env)
}
