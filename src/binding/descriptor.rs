//! Descriptors by number, for what `lib/` does with handles: what kind of socket one is,
//! duplicating it, closing it.

use std::os::fd::IntoRawFd;

use napi::sys::{napi_callback_info, napi_env, napi_value};

use super::Function;
use super::value;
use crate::sys::descriptor::{self, SocketKind};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("socketKind", Some(socket_kind)),
    ("duplicateDescriptor", Some(duplicate)),
    ("closeDescriptor", Some(close)),
];

/// `'tcp'`, `'pipe'` or `'udp'`; `undefined` for anything Node has no native handle for.
unsafe extern "C" fn socket_kind(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    let name: &[u8] = match descriptor::socket_kind(value::get_i32(env, fd)) {
        Some(SocketKind::Tcp) => b"tcp",
        Some(SocketKind::Pipe) => b"pipe",
        Some(SocketKind::Udp) => b"udp",
        None => return value::undefined(env),
    };
    value::string(env, name, true)
}

/// A close-on-exec duplicate, or a negative errno.
unsafe extern "C" fn duplicate(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    match descriptor::duplicate(value::get_i32(env, fd)) {
        Ok(duplicate) => value::integer(env, duplicate.into_raw_fd()),
        Err(errno) => value::failure(env, errno),
    }
}

/// Closes a descriptor that `lib/` owns; 0 or a negative errno.
unsafe extern "C" fn close(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    match descriptor::take(value::get_i32(env, fd)) {
        Ok(owned) => {
            drop(owned);
            value::integer(env, 0)
        }
        Err(errno) => value::failure(env, errno),
    }
}
