//! The only Rust that knows Node-API: turns JavaScript values into the plain Rust layers' types
//! and their results back. Everything here runs on the thread of its environment.
//!
//! Hot functions are raw `napi_callback`s, listed by each area's `FUNCTIONS`; functions that are
//! called once in a while use `#[napi]`.

mod area;
mod busy;
mod callback;
mod channel;
mod command;
mod descriptor;
mod diagnostics;
mod dispatcher;
mod environment;
mod lane;
mod launches;
mod memory;
mod process;
mod relayed;
mod secret;
mod spawn_sync;
mod value;

use napi::bindgen_prelude::{Env, JsValue, Object};
use napi::{Error, Result, Status};
use napi_derive::napi;

use environment::Environment;

/// A raw function and the name JavaScript sees.
type Function = (&'static str, napi::sys::napi_callback);

#[napi(module_exports)]
fn init(exports: Object, env: Env) -> Result<()> {
    let Some(symbols) = crate::uv::symbols() else {
        return Err(Error::new(
            Status::GenericFailure,
            "brood needs Node.js: this runtime does not export libuv's functions",
        ));
    };
    Environment::install(env.raw(), symbols)?;
    for (name, function) in AREAS.iter().copied().flatten().copied() {
        value::export(env.raw(), exports.raw(), name, function)?;
    }
    value::export_string(
        env.raw(),
        exports.raw(),
        "version",
        env!("CARGO_PKG_VERSION"),
    )
}

const AREAS: &[&[Function]] = &[
    callback::FUNCTIONS,
    channel::functions::FUNCTIONS,
    channel::sending::FUNCTIONS,
    channel::upgrading::FUNCTIONS,
    descriptor::FUNCTIONS,
    diagnostics::FUNCTIONS,
    memory::FUNCTIONS,
    area::FUNCTIONS,
    dispatcher::FUNCTIONS,
    lane::FUNCTIONS,
    process::FUNCTIONS,
    spawn_sync::FUNCTIONS,
];
