//! What the addon keeps for one Node environment (the main thread or a worker thread): the event
//! loop, the callbacks `lib/` has registered, and the live processes, channels and lanes. It is
//! torn down before the environment's thread ends, for a loop with an open handle aborts the
//! process.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::time::Duration;

use napi::sys::{self, napi_env, napi_value};
use napi::{Error, Result, Status, check_status};

use super::area::Placed;
use super::busy::BusyPolling;
use super::channel::Channels;
use super::dispatcher::Dispatching;
use super::lane::Lanes;
use super::memory::Regions;
use super::process::Processes;
use crate::ipc::blocks;
use crate::uv::{Loop, Symbols};

/// The state of one environment.
pub struct Environment {
    raw: napi_env,
    event_loop: Rc<Loop>,
    callbacks: RefCell<[sys::napi_ref; Callbacks::COUNT]>,
    channels: Channels,
    dispatching: Dispatching,
    lanes: Lanes,
    processes: Processes,
    regions: Regions,
    placed: Placed,
    busy: BusyPolling,
    ending: Cell<bool>,
    has_reported: Cell<bool>,
}

/// The functions of `lib/` that the addon calls.
#[derive(Clone, Copy)]
pub enum Callbacks {
    /// A child has ended.
    ProcessExit,
    /// A child has been started in the background, or has not.
    ProcessStart,
    /// Messages have arrived on a channel.
    ChannelMessages,
    /// Anything else that happened to a channel.
    ChannelEvent,
    /// Connections have arrived on a lane, or it has ended.
    Lane,
}

impl Callbacks {
    const COUNT: usize = Callbacks::Lane as usize + 1;
}

impl Environment {
    /// Creates the state of `env` and arranges for its end.
    pub fn install(env: napi_env, symbols: &'static Symbols) -> Result<()> {
        let mut raw_loop = ptr::null_mut();
        // SAFETY: env is live during module registration.
        check_status!(unsafe { sys::napi_get_uv_event_loop(env, &mut raw_loop) })?;
        let raw_loop = NonNull::new(raw_loop.cast())
            .ok_or_else(|| Error::new(Status::GenericFailure, "this environment has no loop"))?;
        let state = Rc::new(Environment {
            raw: env,
            // SAFETY: the loop belongs to this environment's thread and outlives its cleanup
            // hooks, in which the last handle is closed.
            event_loop: unsafe { Loop::from_raw(symbols, raw_loop) },
            callbacks: RefCell::new([ptr::null_mut(); Callbacks::COUNT]),
            channels: Channels::default(),
            dispatching: Dispatching::default(),
            lanes: Lanes::default(),
            processes: Processes::default(),
            regions: Regions::default(),
            placed: Placed::default(),
            busy: BusyPolling::default(),
            ending: Cell::new(false),
            has_reported: Cell::new(false),
        });
        let shared = Rc::into_raw(state.clone()).cast_mut().cast();
        // SAFETY: the pointer is released by `drop_state`.
        check_status!(unsafe {
            sys::napi_set_instance_data(env, shared, Some(drop_state), ptr::null_mut())
        })?;
        let hook_state = Rc::into_raw(state).cast_mut().cast();
        // SAFETY: `on_teardown` takes the reference back; it runs once.
        check_status!(unsafe {
            sys::napi_add_async_cleanup_hook(env, Some(on_teardown), hook_state, ptr::null_mut())
        })
    }

    /// The state installed for `env`.
    pub fn of(env: napi_env) -> Option<Rc<Environment>> {
        let mut data: *mut c_void = ptr::null_mut();
        // SAFETY: the instance data is the pointer `install` stored, live until `drop_state`.
        unsafe {
            sys::napi_get_instance_data(env, &mut data);
            let state = NonNull::new(data.cast::<Environment>())?;
            Rc::increment_strong_count(state.as_ptr());
            Some(Rc::from_raw(state.as_ptr()))
        }
    }

    /// The raw environment.
    pub fn raw(&self) -> napi_env {
        self.raw
    }

    /// The environment's event loop.
    pub fn event_loop(&self) -> &Rc<Loop> {
        &self.event_loop
    }

    /// The environment's IPC channels.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// The environment's lanes.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The environment's cluster dispatcher.
    pub fn dispatching(&self) -> &Dispatching {
        &self.dispatching
    }

    /// The environment's child processes.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Whether its event loop spins before it waits.
    pub fn busy(&self) -> &BusyPolling {
        &self.busy
    }

    /// Memory of the environment that may be handed over.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// What lies in areas and is about to be sent.
    pub fn placed(&self) -> &Placed {
        &self.placed
    }

    /// Whether the environment is being torn down: JavaScript must not be called any more.
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Registers one of `lib/`'s functions, replacing an earlier one.
    pub fn set_callback(&self, which: Callbacks, function: napi_value) {
        let mut reference = ptr::null_mut();
        // SAFETY: `function` is live in the caller's scope.
        unsafe { sys::napi_create_reference(self.raw, function, 1, &mut reference) };
        let previous =
            std::mem::replace(&mut self.callbacks.borrow_mut()[which as usize], reference);
        if !previous.is_null() {
            // SAFETY: created by an earlier call, deleted once.
            unsafe { sys::napi_delete_reference(self.raw, previous) };
        }
    }

    /// The function registered for `which`; null before it is set.
    pub fn callback(&self, which: Callbacks) -> sys::napi_ref {
        self.callbacks.borrow()[which as usize]
    }

    /// Remembers that the exception which is about to be thrown is reported already.
    pub fn note_reported(&self) {
        self.has_reported.set(true);
    }

    /// Whether there was such an exception since this was asked last.
    pub fn take_reported(&self) -> bool {
        self.has_reported.take()
    }

    /// Closes everything that is open on the loop.
    fn close_all(&self) {
        self.ending.set(true);
        self.dispatching.close();
        self.channels.close_all();
        self.busy.close();
        self.lanes.close_all();
        self.processes.close_all();
    }
}

unsafe extern "C" fn drop_state(_env: napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: the reference `install` gave to the instance data.
    drop(unsafe { Rc::from_raw(data.cast::<Environment>()) });
    // Nobody may be left to look after what this environment has received.
    blocks::trim(Duration::ZERO);
}

unsafe extern "C" fn on_teardown(hook: sys::napi_async_cleanup_hook_handle, data: *mut c_void) {
    // SAFETY: the reference `install` gave to the hook.
    let state = unsafe { Rc::from_raw(data.cast::<Environment>()) };
    state.close_all();
    let event_loop = state.event_loop.clone();
    // SAFETY: removed once, after the last handle is closed, which lets the thread end.
    event_loop.when_idle(Box::new(move || unsafe {
        sys::napi_remove_async_cleanup_hook(hook);
        drop(state);
    }));
}
