//! A send, from JavaScript's arguments to what it returns.

use std::sync::MutexGuard;

use napi::sys::{napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;

use super::{Entry, entry_of};
use crate::binding::{Function, area, value};
use crate::ipc::{Channel, Framing, Progress, SendMode, SendStatus, UnixTransport};
use crate::sys::spare;

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("channelSend", Some(send_text)),
    ("channelSendBytes", Some(send_bytes)),
    ("channelSendBeside", Some(send_beside)),
    ("channelFlush", Some(flush)),
];

/// Node's `send()` asks for a pause once this much is queued: two reads of 64 KiB.
const HIGH_WATER: usize = 2 * 65536;

/// Flags of a send.
const GATHER: i32 = 1;
const REPLY: i32 = 2;
const NOTIFY: i32 = 4;
const REFUSE: i32 = 8;
const ANSWER: i32 = 16;
const UNHEARD: i32 = 32;

/// Bits of a send's result; the message's number stands above them.
const PENDING: u64 = 1;
const FULL: u64 = 2;
const SEQUENCE: u64 = 4;

unsafe extern "C" fn send_text(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, text, fd, flags] = value::arguments(env, info);
    let write = |channel: &mut Channel<UnixTransport>| {
        let bound = value::string_bound(env, text);
        let room = channel.reserve_as(bound, Framing::JsonLines);
        value::write_string(env, text, room)
    };
    send(env, id, fd, flags, write)
}

unsafe extern "C" fn send_bytes(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, bytes, fd, flags] = value::arguments(env, info);
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, bytes) }.unwrap_or_default();
    let write = |channel: &mut Channel<UnixTransport>| {
        let room = channel.reserve_as(bytes.len(), Framing::Advanced);
        room.copy_from_slice(bytes);
        bytes.len()
    };
    send(env, id, fd, flags, write)
}

/// Sends what `write` puts into the queue. Returns a negative errno or the state bits.
fn send(
    env: napi_env,
    id: napi_value,
    fd: napi_value,
    flags: napi_value,
    write: impl FnOnce(&mut Channel<UnixTransport>) -> usize,
) -> napi_value {
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::failure(env, Errno::EPIPE);
    };
    entry.stir(&environment);
    let fd = value::get_i32(env, fd);
    let handle = match if fd < 0 {
        Ok(None)
    } else {
        spare::duplicate(fd).map(Some)
    } {
        Ok(handle) => handle,
        Err(errno) => return value::failure(env, errno),
    };
    let flags = value::get_i32(env, flags);
    let mode = mode_of(flags);
    entry.answered.set(true);
    if handle.is_some() {
        entry.hears_replies.set(flags & UNHEARD == 0);
    }
    let mut channel = entry.shared.lock();
    if flags & REPLY != 0 && channel.upgraded().is_some() {
        let result = match flags & REFUSE {
            0 => channel.acknowledge_handle(),
            _ => channel.refuse_handle(),
        };
        entry.update(&channel);
        return value::outcome(env, result.map(|()| 0));
    }
    let length = write(&mut channel);
    if flags & REPLY != 0 {
        let result = channel.commit_unqueued(length);
        entry.update(&channel);
        return value::outcome(env, result.map(|()| 0));
    }
    let result = match flags & ANSWER {
        0 => channel.commit(length, handle, mode),
        _ => channel.commit_answer(length, handle, mode),
    };
    sent(env, &entry, channel, result, flags)
}

/// Sends a serialized value whose large buffers lie beside it, in sealed files and areas, which are
/// closed and let go in any case.
unsafe extern "C" fn send_beside(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, bytes, pieces, flags] = value::arguments(env, info);
    let beside = area::take_pieces(env, id, pieces);
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::failure(env, Errno::EPIPE);
    };
    entry.stir(&environment);
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, bytes) }.unwrap_or_default();
    let flags = value::get_i32(env, flags);
    entry.answered.set(true);
    let mut channel = entry.shared.lock();
    let room = channel.reserve_as(bytes.len(), Framing::Advanced);
    room.copy_from_slice(bytes);
    let result = channel.commit_beside(bytes.len(), beside);
    sent(env, &entry, channel, result, flags)
}

fn mode_of(flags: i32) -> SendMode {
    if flags & GATHER == 0 {
        SendMode::WriteNow
    } else {
        SendMode::Gather
    }
}

/// What a send returns to JavaScript: a negative errno, or the state bits.
fn sent(
    env: napi_env,
    entry: &Entry,
    channel: MutexGuard<'_, Channel<UnixTransport>>,
    result: Result<SendStatus, Errno>,
    flags: i32,
) -> napi_value {
    let status = match result {
        Ok(status) => status,
        Err(errno) => return value::failure(env, errno),
    };
    let mut result = status.sequence * SEQUENCE;
    if status.progress != Progress::Written {
        result |= PENDING;
        if flags & NOTIFY != 0 {
            entry.wanted.set(status.sequence);
        }
    }
    if is_full(&status) {
        result |= FULL;
        entry.full.set(true);
    }
    // Last, for it passes on what is waited for.
    if status.progress != Progress::Gathered {
        entry.update(&channel);
    }
    drop(channel);
    if status.progress == Progress::Gathered {
        entry.shared.watch();
    }
    value::number(env, result as f64)
}

/// Whether Node's `send()` would return false.
fn is_full(status: &SendStatus) -> bool {
    match status.progress {
        Progress::Held => status.held_messages != 1,
        _ => status.queued_bytes >= HIGH_WATER,
    }
}

/// Writes what is gathered. Returns the number of the last message written; what else has changed
/// is reported by events before, for the loop may have no reason to wake up for it.
unsafe extern "C" fn flush(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let Some((environment, entry)) = entry_of(env, id) else {
        return value::integer(env, 0);
    };
    let completed = {
        let mut channel = entry.shared.lock();
        channel.flush();
        channel.completed()
    };
    entry.reported.set(completed);
    entry.settle(&environment);
    value::number(env, completed as f64)
}
