//! What JavaScript sends in the areas of a channel: bytes and texts that are copied there, and
//! ArrayBuffers that lie in one and are handed over. Which areas there are is `ipc`'s.

use std::cell::RefCell;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use napi::sys::{self, napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;

use super::Function;
use super::environment::Environment;
use super::memory::external;
use super::value;
use crate::ipc::{Beside, Content, blocks};
use crate::sys::area::Area;
use crate::sys::descriptor;

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("areaReserve", Some(reserve)),
    ("areaFill", Some(fill)),
    ("areaCopyText", Some(copy_text)),
    ("areaBuffer", Some(buffer)),
    ("areaHandOver", Some(hand_over)),
    ("areaLetGo", Some(let_go)),
    ("areasExpire", Some(expire)),
    ("blocksTrim", Some(trim_blocks)),
];

/// What a piece of a message is to [`take_pieces`]; the numbers are known to
/// `lib/ipc/large_buffers.js`.
const FILE: i32 = 0;
const AREA: i32 = 1;

/// Something in an area, until its message is sent.
struct Piece {
    channel: u32,
    number: u32,
    length: usize,
    content: Content,
    /// Keeps it from being used for anything else.
    area: Arc<Area>,
}

/// What lies in areas of one environment's channels, for messages that are being put together.
#[derive(Default)]
pub struct Placed(RefCell<Vec<Piece>>);

impl Piece {
    fn is(&self, channel: u32, number: u32) -> bool {
        self.channel == channel && self.number == number
    }
}

impl Placed {
    fn put(&self, piece: Piece) {
        self.0.borrow_mut().push(piece);
    }

    /// Puts all the bytes of a piece where they belong.
    fn fill(&self, channel: u32, number: u32, bytes: &[u8]) -> Result<(), Errno> {
        let pieces = self.0.borrow();
        let mut pieces = pieces.iter();
        let piece = pieces
            .find(|piece| piece.is(channel, number))
            .ok_or(Errno::ENOENT)?;
        if bytes.len() != piece.length {
            return Err(Errno::EINVAL);
        }
        piece.area.fill(bytes);
        Ok(())
    }

    fn take(&self, channel: u32, number: u32) -> Option<Piece> {
        let mut pieces = self.0.borrow_mut();
        let index = pieces.iter().position(|piece| piece.is(channel, number))?;
        Some(pieces.swap_remove(index))
    }
}

/// `[kind, number, …]` as what a message has beside it; nothing, with which sending fails, when a part
/// is no more there. Areas are not held any longer, so the message has to be sent before
/// anything else is put into one, which only this thread does.
pub fn take_pieces(env: napi_env, channel: napi_value, pieces: napi_value) -> Vec<Beside> {
    let channel = value::get_i32(env, channel) as u32;
    let numbers: Vec<i32> = value::elements(env, pieces)
        .into_iter()
        .map(|number| value::get_i32(env, number))
        .collect();
    let (pairs, _) = numbers.as_chunks();
    let taken: Vec<_> = pairs
        .iter()
        .map(|&[kind, number]| match kind {
            FILE => descriptor::take(number).ok().map(Beside::File),
            AREA => {
                let environment = Environment::of(env)?;
                let piece = environment.placed().take(channel, number as u32)?;
                Some(Beside::Area {
                    number: piece.number,
                    length: piece.length as u32,
                    content: piece.content,
                })
            }
            _ => None,
        })
        .collect();
    taken.into_iter().collect::<Option<_>>().unwrap_or_default()
}

/// An area of the channel for `len` bytes.
fn take(env: napi_env, id: napi_value, len: usize) -> Result<(u32, Arc<Area>), Errno> {
    let id = value::get_i32(env, id) as u32;
    let environment = Environment::of(env).ok_or(Errno::EINVAL)?;
    let shared = environment.channels().shared(id).ok_or(Errno::EPIPE)?;
    let taken = shared.lock().take_area(len);
    // Numbers are given in JavaScript's range of integers.
    taken?
        .filter(|(number, _)| i32::try_from(*number).is_ok())
        .ok_or(Errno::EAGAIN)
}

/// Enters what was put into an area; its number, or a negative errno.
fn placed(
    env: napi_env,
    id: napi_value,
    (number, area): (u32, Arc<Area>),
    length: usize,
    content: Content,
) -> napi_value {
    let Some(environment) = Environment::of(env) else {
        return value::failure(env, Errno::EINVAL);
    };
    environment.placed().put(Piece {
        channel: value::get_i32(env, id) as u32,
        number,
        length,
        content,
        area,
    });
    value::integer(env, number as i32)
}

/// Enters `length` bytes that [`fill`] will put into an area: until all of the message is there, the
/// peer is to see none of it. Its number, or a negative errno.
unsafe extern "C" fn reserve(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, length] = value::arguments(env, info);
    let length = value::get_f64(env, length) as usize;
    match take(env, id, length) {
        Err(errno) => value::failure(env, errno),
        Ok(taken) => placed(env, id, taken, length, Content::Bytes),
    }
}

/// Copies the view's bytes to the area that was reserved for them; 0, or a negative errno when the
/// view has not as many any more.
unsafe extern "C" fn fill(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, number, view] = value::arguments(env, info);
    let (id, number) = (value::get_i32(env, id), value::get_i32(env, number));
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, view) }.unwrap_or_default();
    let filled = Environment::of(env)
        .ok_or(Errno::EINVAL)
        .and_then(|environment| environment.placed().fill(id as u32, number as u32, bytes));
    value::outcome(env, filled.map(|()| 0))
}

/// `[number, length]` of an area with the string, or a negative errno.
unsafe extern "C" fn copy_text(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, text] = value::arguments(env, info);
    let (units, bytes) = value::string_sizes(env, text);
    let taken = match take(env, id, bytes + 1) {
        Ok(taken) => taken,
        Err(errno) => return value::failure(env, errno),
    };
    // SAFETY: the area is mapped and writable, and this call alone uses it.
    let room = unsafe { slice::from_raw_parts_mut(taken.1.start().as_ptr(), bytes + 1) };
    let (length, content) = match units == bytes {
        true => (value::write_ascii(env, text, room), Content::Latin1),
        false => (value::write_string(env, text, room), Content::Utf8),
    };
    let number = placed(env, id, taken, length, content);
    value::array(env, [number, value::number(env, length as f64)].into_iter())
}

/// `[ArrayBuffer, number]` of an area for `size` bytes, its content what it happens to be; a
/// negative errno when there is none now, `undefined` where ArrayBuffers cannot lie in one.
unsafe extern "C" fn buffer(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, size] = value::arguments(env, info);
    let size = value::get_f64(env, size) as usize;
    let (number, area) = match take(env, id, size) {
        Ok(taken) => taken,
        Err(errno) => return value::failure(env, errno),
    };
    // The owner makes the area count as used until the ArrayBuffer is collected, or, detached, is
    // seen to be gone: the address of one that V8 still knows must not be given to it again.
    match external(env, area.start().as_ptr().cast(), size, Box::new(area)) {
        Err(_) => value::undefined(env),
        Ok(buffer) => value::array(
            env,
            [buffer, value::integer(env, number as i32)].into_iter(),
        ),
    }
}

/// Takes the ArrayBuffer's first `length` bytes, which lie in area `number`, for a message, and
/// detaches it; the number, or a negative errno.
unsafe extern "C" fn hand_over(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, buffer, number, length] = value::arguments(env, info);
    let number = value::get_i32(env, number) as u32;
    let area = Environment::of(env)
        .and_then(|environment| {
            environment
                .channels()
                .shared(value::get_i32(env, id) as u32)
        })
        .and_then(|shared| shared.lock().hold_area(number));
    let start = value::buffer_start(env, buffer);
    let Some(area) = area.filter(|area| area.start().as_ptr().cast() == start) else {
        return value::failure(env, Errno::ENOENT);
    };
    // SAFETY: the value is live in the current scope.
    if unsafe { sys::napi_detach_arraybuffer(env, buffer) } != sys::Status::napi_ok {
        return value::failure(env, Errno::EBUSY);
    }
    let length = value::get_f64(env, length) as usize;
    placed(env, id, (number, area), length, Content::Bytes)
}

/// The message for which something was put into an area is not sent.
unsafe extern "C" fn let_go(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, number] = value::arguments(env, info);
    if let Some(environment) = Environment::of(env) {
        let channel = value::get_i32(env, id) as u32;
        drop(
            environment
                .placed()
                .take(channel, value::get_i32(env, number) as u32),
        );
    }
    value::undefined(env)
}

/// Drops the channel's areas that have been idle for so many milliseconds; whether some are left.
unsafe extern "C" fn expire(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, millis] = value::arguments(env, info);
    let id = value::get_i32(env, id) as u32;
    let age = Duration::from_millis(value::get_f64(env, millis) as u64);
    let some_left = Environment::of(env)
        .is_some_and(|environment| environment.channels().expire_areas(&environment, id, age));
    value::boolean(env, some_left)
}

/// Gives back memory of received messages that has been idle for so many milliseconds; whether
/// some is left.
unsafe extern "C" fn trim_blocks(env: napi_env, info: napi_callback_info) -> napi_value {
    let [millis] = value::arguments(env, info);
    let age = Duration::from_millis(value::get_f64(env, millis) as u64);
    value::boolean(env, blocks::trim(age))
}
