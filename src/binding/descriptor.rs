//! Descriptors by number, for what `lib/` does with handles: what kind of socket one is and where it
//! is bound, duplicating it, closing it.

use std::os::fd::IntoRawFd;

use napi::sys::{napi_callback_info, napi_env, napi_value};

use super::Function;
use super::value;
use crate::sys::descriptor::{self, BoundSocket, SocketKind, SocketName};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("socketKind", Some(socket_kind)),
    ("socketAddress", Some(socket_address)),
    ("closeOnExec", Some(close_on_exec)),
    ("countDuplicates", Some(count_duplicates)),
    ("duplicateDescriptor", Some(duplicate)),
    ("closeDescriptor", Some(close)),
];

/// `'tcp'`, `'pipe'` or `'udp'`; `undefined` for anything Node has no native handle for.
unsafe extern "C" fn socket_kind(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    match descriptor::socket_kind(value::get_i32(env, fd)) {
        Some(kind) => kind_name(env, kind),
        None => value::undefined(env),
    }
}

fn kind_name(env: napi_env, kind: SocketKind) -> napi_value {
    let name: &[u8] = match kind {
        SocketKind::Tcp => b"tcp",
        SocketKind::Pipe => b"pipe",
        SocketKind::Udp => b"udp",
    };
    value::string(env, name, true)
}

/// `{ kind, listening, address, port, family, ipv6Only }` of an IP socket, `{ kind, listening, path }`
/// of a Unix socket, or a negative errno. `kind` is as in `socketKind`, `family` 4 or 6.
unsafe extern "C" fn socket_address(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    let BoundSocket {
        kind,
        name,
        is_listening,
    } = match descriptor::bound_socket(value::get_i32(env, fd)) {
        Ok(socket) => socket,
        Err(errno) => return value::failure(env, errno),
    };
    let kind = (c"kind", kind_name(env, kind));
    let listening = (c"listening", value::boolean(env, is_listening));
    match name {
        SocketName::Ip { address, ipv6_only } => {
            let ip = address.ip().to_string();
            let family = if address.is_ipv4() { 4 } else { 6 };
            value::object(
                env,
                [
                    kind,
                    listening,
                    (c"address", value::string(env, ip.as_bytes(), true)),
                    (c"port", value::integer(env, address.port().into())),
                    (c"family", value::integer(env, family)),
                    (c"ipv6Only", value::boolean(env, ipv6_only)),
                ],
            )
        }
        SocketName::Path(path) => {
            let path = (c"path", value::string(env, &path, false));
            value::object(env, [kind, listening, path])
        }
    }
}

/// How many other descriptors of the process stand for the same socket, or a negative errno.
unsafe extern "C" fn count_duplicates(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    match descriptor::duplicates(value::get_i32(env, fd)) {
        Ok(count) => value::number(env, count as f64),
        Err(errno) => value::failure(env, errno),
    }
}

/// Keeps a descriptor from what is executed from now on; 0 or a negative errno.
unsafe extern "C" fn close_on_exec(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    let result = descriptor::close_on_exec(value::get_i32(env, fd));
    value::outcome(env, result.map(|()| 0))
}

/// A close-on-exec duplicate, or a negative errno.
unsafe extern "C" fn duplicate(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    let result = descriptor::duplicate(value::get_i32(env, fd));
    value::outcome(env, result.map(IntoRawFd::into_raw_fd))
}

/// Closes a descriptor that `lib/` owns; 0 or a negative errno.
unsafe extern "C" fn close(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd] = value::arguments(env, info);
    let result = descriptor::take(value::get_i32(env, fd)).map(drop);
    value::outcome(env, result.map(|()| 0))
}
