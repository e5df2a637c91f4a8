//! Calling JavaScript from the event loop, each time in the async context of the child or channel
//! it is about: nextTicks and microtasks are drained afterwards, AsyncLocalStorage is carried, and
//! an exception becomes an uncaught exception of the process.

use std::ptr;

use napi::sys::{self, napi_callback_info, napi_env, napi_value};
use napi::{Result, check_status};

use super::Function;
use super::environment::Environment;
use super::value;

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[("reportUncaught", Some(report_uncaught))];

/// A JavaScript object that events are about, with the async context they run in.
pub struct Target {
    env: napi_env,
    context: sys::napi_async_context,
    owner: sys::napi_ref,
}

impl Target {
    /// Remembers `owner` (a strong reference) and opens an async context named `resource`.
    pub fn new(env: napi_env, owner: napi_value, resource: &str) -> Result<Target> {
        let mut name = ptr::null_mut();
        let (data, length) = (resource.as_ptr().cast(), resource.len() as isize);
        let mut target = Target {
            env,
            context: ptr::null_mut(),
            owner: ptr::null_mut(),
        };
        // SAFETY: the values are live in the current scope; the results are owned by `target`.
        unsafe {
            check_status!(sys::napi_create_string_utf8(env, data, length, &mut name))?;
            check_status!(sys::napi_create_reference(env, owner, 1, &mut target.owner))?;
            check_status!(sys::napi_async_init(env, owner, name, &mut target.context))?;
        }
        Ok(target)
    }

    /// Calls `function` with the owner as `this` and the arguments that `build` makes; not at all
    /// when it makes none, or one of them could not be made. No borrow of Rust state may be held
    /// across it: JavaScript can call back into the addon. Says whether JavaScript has run, if only
    /// to throw: in a thread that is being terminated it does not.
    pub fn call<const N: usize>(
        &self,
        function: sys::napi_ref,
        build: impl FnOnce(napi_env) -> Option<[napi_value; N]>,
    ) -> bool {
        let env = self.env;
        let mut has_run = false;
        let mut scope = ptr::null_mut();
        // SAFETY: called on the environment's thread; every value is used inside the scope.
        unsafe {
            if sys::napi_open_handle_scope(env, &mut scope) != sys::Status::napi_ok {
                return false; // the environment is ending
            }
            let (mut owner, mut callee) = (ptr::null_mut(), ptr::null_mut());
            sys::napi_get_reference_value(env, self.owner, &mut owner);
            sys::napi_get_reference_value(env, function, &mut callee);
            if !owner.is_null()
                && !callee.is_null()
                && let Some(arguments) = build(env)
                && !arguments.iter().any(|argument| argument.is_null())
            {
                let status = sys::napi_make_callback(
                    env,
                    self.context,
                    owner,
                    callee,
                    N,
                    arguments.as_ptr(),
                    ptr::null_mut(),
                );
                has_run = status == sys::Status::napi_ok;
                if status == sys::Status::napi_pending_exception {
                    has_run = settle_exception(env);
                }
            }
            sys::napi_close_handle_scope(env, scope);
        }
        has_run
    }

    /// Makes of the calls in `work` one: nextTicks and microtasks, and with them the program's own
    /// code, come after the last.
    pub fn call_together(&self, work: impl FnOnce()) {
        let env = self.env;
        let (mut handles, mut scope, mut owner) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: called on the environment's thread; both scopes are closed in the reverse order. What
        // a nextTick throws is an uncaught exception by then.
        unsafe {
            if sys::napi_open_handle_scope(env, &mut handles) != sys::Status::napi_ok {
                return; // the environment is ending
            }
            sys::napi_get_reference_value(env, self.owner, &mut owner);
            let opened = sys::napi_open_callback_scope(env, owner, self.context, &mut scope);
            work();
            if opened == sys::Status::napi_ok {
                sys::napi_close_callback_scope(env, scope);
            }
            sys::napi_close_handle_scope(env, handles);
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: both were created in `new` (or are null) and are released once, here, on the
        // environment's thread. Node-API wants a handle scope for the context's resource.
        unsafe {
            let mut scope = ptr::null_mut();
            if sys::napi_open_handle_scope(self.env, &mut scope) != sys::Status::napi_ok {
                return;
            }
            if !self.context.is_null() {
                sys::napi_async_destroy(self.env, self.context);
            }
            if !self.owner.is_null() {
                sys::napi_delete_reference(self.env, self.owner);
            }
            sys::napi_close_handle_scope(self.env, scope);
        }
    }
}

/// Takes what a call has thrown, and reports it unless that is done: `lib/` reports what a callback
/// throws, but a nextTick after it may throw, too. Says whether JavaScript has run.
///
/// # Safety
/// A call on `env` has ended with `napi_pending_exception` and a handle scope is open.
unsafe fn settle_exception(env: napi_env) -> bool {
    let is_reported = Environment::of(env).is_some_and(|environment| environment.take_reported());
    let (mut is_pending, mut error) = (false, ptr::null_mut());
    // SAFETY: guaranteed by the caller.
    unsafe {
        // Without an exception the status means that no JavaScript may run.
        sys::napi_is_exception_pending(env, &mut is_pending);
        sys::napi_get_and_clear_last_exception(env, &mut error);
        if is_pending && !is_reported {
            sys::napi_fatal_exception(env, error);
        }
    }
    is_pending || is_reported
}

/// `reportUncaught(error)`: what `process.on('uncaughtException')` is for, or the end of the
/// process. The caller throws the error again.
unsafe extern "C" fn report_uncaught(env: napi_env, info: napi_callback_info) -> napi_value {
    let [error] = value::arguments(env, info);
    // SAFETY: `error` is live in this call and no exception is pending yet.
    unsafe { sys::napi_fatal_exception(env, error) };
    // Not before: a handler may make calls that report an error of their own.
    if let Some(environment) = Environment::of(env) {
        environment.note_reported();
    }
    value::undefined(env)
}
