//! What JavaScript can do to a channel besides sending: open it, say what it wants of it, ask how it
//! stands, close it.

use std::time::Duration;

use napi::sys::{napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;

use super::{Entry, entry_of};
use crate::binding::callback::Target;
use crate::binding::environment::{Callbacks, Environment};
use crate::binding::{Function, value};
use crate::ipc::{Channel, FlushState, Framing, Limits, UnixTransport};
use crate::process::CHANNEL_ROOM;
use crate::sys::{descriptor, spare};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("setChannelCallbacks", Some(set_callbacks)),
    ("channelOpen", Some(open)),
    ("channelFeed", Some(feed)),
    ("channelBusyPoll", Some(set_busy)),
    ("channelRef", Some(set_ref)),
    ("channelRead", Some(set_reading)),
    ("channelHearReplies", Some(hear_replies)),
    ("channelIdle", Some(is_idle)),
    ("channelReceiving", Some(is_receiving)),
    ("channelLines", Some(lines)),
    ("channelShutdown", Some(shutdown)),
];

/// The send buffer of a peer's socket where nobody has changed it: `net.core.wmem_default`.
const USUAL_ROOM: usize = 212_992;

unsafe extern "C" fn set_callbacks(env: napi_env, info: napi_callback_info) -> napi_value {
    let [messages, event] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        environment.set_callback(Callbacks::ChannelMessages, messages);
        environment.set_callback(Callbacks::ChannelEvent, event);
    }
    value::undefined(env)
}

unsafe extern "C" fn open(env: napi_env, info: napi_callback_info) -> napi_value {
    let [owner, fd, advanced, max_message, is_roomy] = value::arguments(env, info);
    let fd = value::get_i32(env, fd);
    let framing = if value::get_bool(env, advanced) {
        Framing::Advanced
    } else {
        Framing::JsonLines
    };
    let max_message = value::get_f64(env, max_message);
    let room = if value::get_bool(env, is_roomy) {
        CHANNEL_ROOM
    } else {
        USUAL_ROOM
    };
    let result = open_channel(env, owner, fd, framing, max_message, room);
    value::outcome(env, result.map(|id| id as i32))
}

fn open_channel(
    env: napi_env,
    owner: napi_value,
    fd: i32,
    framing: Framing,
    max_message: f64,
    room: usize,
) -> Result<u32, Errno> {
    let environment = Environment::of(env).ok_or(Errno::EINVAL)?;
    let socket = descriptor::take(fd)?;
    spare::keep();
    let mut limits = Limits::default();
    if max_message > 0.0 {
        limits.max_message = max_message as usize;
    }
    let channel = Channel::with_limits(UnixTransport::new(socket), framing, limits);
    let target = Target::new(env, owner, "PIPEWRAP").map_err(|_| Errno::ENOMEM)?;
    environment
        .channels()
        .add(|id| Entry::new(&environment, id, channel, target, room))
}

unsafe extern "C" fn feed(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, bytes] = value::arguments(env, info);
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, bytes) };
    if let (Some((_, entry)), Some(bytes)) = (entry_of(env, id), bytes) {
        entry.shared.lock().adopt_unread(bytes);
    }
    value::undefined(env)
}

/// Microseconds the event loop may spin for messages of this channel before it sleeps.
unsafe extern "C" fn set_busy(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, micros] = value::arguments(env, info);
    if let Some((environment, entry)) = entry_of(env, id) {
        let micros = value::get_f64(env, micros).clamp(0.0, 1e6);
        entry.busy.set(Duration::from_micros(micros as u64));
        environment.channels().update_busy(&environment);
    }
    value::undefined(env)
}

unsafe extern "C" fn set_ref(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, referenced] = value::arguments(env, info);
    if let Some((_, entry)) = entry_of(env, id) {
        entry.referenced.set(value::get_bool(env, referenced));
        entry.update(&entry.shared.lock());
    }
    value::undefined(env)
}

unsafe extern "C" fn set_reading(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, reading] = value::arguments(env, info);
    if let Some((_, entry)) = entry_of(env, id) {
        entry.reading.set(value::get_bool(env, reading));
        entry.ring();
        entry.update(&entry.shared.lock());
    }
    value::undefined(env)
}

/// From here on replies to handles are handed over as messages, until a handle is sent `UNHEARD`.
unsafe extern "C" fn hear_replies(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    if let Some((_, entry)) = entry_of(env, id) {
        entry.hears_replies.set(true);
    }
    value::undefined(env)
}

/// Whether no handle is queued or unacknowledged.
unsafe extern "C" fn is_idle(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let idle = entry_of(env, id).is_none_or(|(_, entry)| {
        let channel = entry.shared.lock();
        entry.holding.set(channel.holds_handle());
        entry.update(&channel);
        !entry.holding.get()
    });
    value::boolean(env, idle)
}

/// Whether a message has arrived in part; `Whole` will tell when there is none any more.
unsafe extern "C" fn is_receiving(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let receiving = entry_of(env, id).is_some_and(|(_, entry)| {
        let channel = entry.shared.lock();
        entry.partial.set(channel.is_buffering());
        entry.update(&channel);
        entry.partial.get()
    });
    value::boolean(env, receiving)
}

/// The messages of the batch that is being delivered, one string each.
unsafe extern "C" fn lines(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let lines = entry_of(env, id).and_then(|(_, entry)| entry.lines(env));
    lines.unwrap_or_else(|| value::undefined(env))
}

/// Stops delivering and ends the channel once its queue is written, or at once, with what the kernel
/// takes of it now. Returns whether it lingers.
unsafe extern "C" fn shutdown(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, at_once] = value::arguments(env, info);
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::boolean(env, false);
    };
    let at_once = value::get_bool(env, at_once);
    entry.release();
    entry.reading.set(false);
    entry.lingering.set(true);
    entry.referenced.set(false);
    let lingers = {
        let mut channel = entry.shared.lock();
        let state = channel.flush();
        if at_once {
            channel.give_up();
        }
        entry.update(&channel);
        state == FlushState::Blocked && !at_once
    };
    if !lingers {
        entry.close(&environment);
    }
    value::boolean(env, lingers)
}
