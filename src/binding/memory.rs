//! Large buffers beside the stream: JavaScript's bytes as sealed files to send, a peer's as
//! ArrayBuffers and strings, and ArrayBuffers that are filled in place and then handed over. What is
//! sent in a channel's areas is `area`'s.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::ptr;
use std::rc::{Rc, Weak};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use napi::sys::{self, napi_callback_info, napi_env, napi_value};
use nix::errno::Errno;

use super::Function;
use super::environment::Environment;
use super::value;
use crate::ipc::Content;
use crate::ipc::blocks::Copied;
use crate::sys::descriptor;
use crate::sys::sealed::{self, Mapping};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("sealBytes", Some(seal_bytes)),
    ("sealText", Some(seal_text)),
    ("openSealed", Some(open_sealed)),
    ("openSealedText", Some(open_sealed_text)),
    ("sharedMemory", Some(shared_memory)),
    ("handOver", Some(hand_over)),
    ("detach", Some(detach)),
];

/// What there may be of peers' memory, and of copies of it, that JavaScript uses directly; above it
/// V8 gets a copy.
const MAX_MAPPINGS: usize = 1024;
const MAX_MAPPED_BYTES: usize = 1 << 30;

static MAPPINGS: AtomicUsize = AtomicUsize::new(0);
static MAPPED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Node-API's answer where ArrayBuffers cannot lie outside of V8's own memory.
const NO_EXTERNAL_BUFFERS: sys::napi_status = 22;

/// That some memory is counted, until it is dropped.
struct Counted(usize);

impl Counted {
    /// `None` when there is too much already.
    fn new(size: usize) -> Option<Counted> {
        let count = MAPPINGS.fetch_add(1, Ordering::Relaxed);
        let bytes = MAPPED_BYTES.fetch_add(size, Ordering::Relaxed);
        let counted = Counted(size);
        (count < MAX_MAPPINGS && bytes + size <= MAX_MAPPED_BYTES).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
        MAPPED_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Memory that JavaScript fills; the file is there until it is handed over.
struct Region {
    mapping: Mapping,
    file: RefCell<Option<OwnedFd>>,
}

/// The regions of one environment that may still be handed over.
#[derive(Default)]
pub struct Regions {
    last: Cell<u32>,
    open: RefCell<HashMap<u32, Weak<Region>>>,
}

/// A descriptor of a sealed copy of the view's bytes, or a negative errno.
unsafe extern "C" fn seal_bytes(env: napi_env, info: napi_callback_info) -> napi_value {
    let [view] = value::arguments(env, info);
    // SAFETY: no JavaScript runs before the bytes are copied.
    let bytes = unsafe { value::view_bytes(env, view) }.unwrap_or_default();
    descriptor_or_errno(env, sealed::copy(bytes))
}

/// `[descriptor, length]` of a sealed file with the string's UTF-8, or a negative errno.
unsafe extern "C" fn seal_text(env: napi_env, info: napi_callback_info) -> napi_value {
    let [text] = value::arguments(env, info);
    // Zeroed by the allocator, which for fresh pages costs nothing.
    let mut bytes = vec![0; value::string_bound(env, text)];
    let length = value::write_string(env, text, &mut bytes);
    let bytes = &bytes[..length];
    match sealed::copy(bytes) {
        Err(errno) => value::failure(env, errno),
        Ok(file) => {
            let file = value::integer(env, file.into_raw_fd());
            let length = value::number(env, bytes.len() as f64);
            value::array(env, [file, length].into_iter())
        }
    }
}

/// The text of the `length` bytes of a peer's sealed file, whose descriptor is closed; a negative
/// errno when it is not what it must be.
unsafe extern "C" fn open_sealed_text(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd, length] = value::arguments(env, info);
    match open_file(env, fd, length) {
        Ok(Opened::Mapped(mapping)) => text(env, mapping.bytes()),
        Ok(Opened::Copied(_, bytes)) => text(env, bytes),
        Err(errno) => value::failure(env, errno),
    }
}

fn text(env: napi_env, bytes: &[u8]) -> napi_value {
    value::string(env, bytes, bytes.is_ascii())
}

/// A peer's sealed file.
enum Opened<'a> {
    Mapped(Mapping),
    /// An ArrayBuffer with what it has, and that.
    Copied(napi_value, &'a [u8]),
}

fn open_file<'a>(env: napi_env, fd: napi_value, length: napi_value) -> Result<Opened<'a>, Errno> {
    let file = descriptor::take(value::get_i32(env, fd))?;
    let len = value::get_f64(env, length) as usize;
    match sealed::map(&file, len) {
        Ok(mapping) => Ok(Opened::Mapped(mapping)),
        // All is as it must be, but there is no room for it. V8 collects its garbage to make some.
        Err(Errno::ENOMEM | Errno::EAGAIN) => {
            let (buffer, bytes) = new_buffer(env, len)?;
            sealed::read(&file, bytes)?;
            Ok(Opened::Copied(buffer, bytes))
        }
        Err(errno) => Err(errno),
    }
}

/// An ArrayBuffer of the `length` bytes of a peer's sealed file, whose descriptor is closed; a
/// negative errno when it is not what it must be.
unsafe extern "C" fn open_sealed(env: napi_env, info: napi_callback_info) -> napi_value {
    let [fd, length] = value::arguments(env, info);
    match open_file(env, fd, length) {
        Err(errno) => value::failure(env, errno),
        Ok(Opened::Copied(buffer, _)) => buffer,
        Ok(Opened::Mapped(mapping)) => {
            let (start, len) = (mapping.start().as_ptr(), mapping.size());
            counted(env, start, len, mapping)
                .unwrap_or_else(|mapping| new_copy(env, mapping.bytes()))
        }
    }
}

/// What was copied from a peer's area, as `lib/` gets it: an ArrayBuffer or a string.
pub fn copied(env: napi_env, memory: Copied, content: Content) -> napi_value {
    if content != Content::Bytes {
        // Copied once more, for V8 collects a string that lies elsewhere late: in the meantime each
        // message would need a block of its own.
        return value::string(env, memory.bytes(), content == Content::Latin1);
    }
    let (start, len) = (memory.start().as_ptr().cast(), memory.size());
    counted(env, start, len, memory).unwrap_or_else(|memory| new_copy(env, memory.bytes()))
}

/// An ArrayBuffer of memory that is counted; its owner, where there may be none.
fn counted<T>(env: napi_env, start: *mut c_void, len: usize, owner: T) -> Result<napi_value, T> {
    match Counted::new(len) {
        None => Err(owner),
        Some(count) => external(env, start, len, Box::new((owner, count))).map_err(|owner| owner.0),
    }
}

/// `[ArrayBuffer, number]` of new memory, `undefined` where that is not possible, or a negative
/// errno.
unsafe extern "C" fn shared_memory(env: napi_env, info: napi_callback_info) -> napi_value {
    let [length] = value::arguments(env, info);
    let Some(environment) = Environment::of(env) else {
        return value::undefined(env);
    };
    let (file, mapping) = match sealed::writable(value::get_f64(env, length) as usize) {
        Ok(memory) => memory,
        Err(errno) => return value::failure(env, errno),
    };
    let (start, len) = (mapping.start().as_ptr(), mapping.size());
    let region = Rc::new(Region {
        mapping,
        file: RefCell::new(Some(file)),
    });
    let Regions { last, open } = environment.regions();
    let number = last.get().wrapping_add(1);
    let Ok(buffer) = external(env, start, len, Box::new(region.clone())) else {
        return value::undefined(env);
    };
    last.set(number);
    let mut open = open.borrow_mut();
    open.retain(|_, region| region.strong_count() > 0);
    open.insert(number, Rc::downgrade(&region));
    value::array(
        env,
        [buffer, value::number(env, f64::from(number))].into_iter(),
    )
}

/// Takes the memory away from the ArrayBuffer, which is detached, and returns the descriptor of its
/// sealed file, or a negative errno.
unsafe extern "C" fn hand_over(env: napi_env, info: napi_callback_info) -> napi_value {
    let [buffer, number] = value::arguments(env, info);
    let number = value::get_f64(env, number) as u32;
    let region = Environment::of(env)
        .and_then(|environment| environment.regions().open.borrow_mut().remove(&number))
        .and_then(|region| region.upgrade());
    let Some(region) = region else {
        return value::failure(env, Errno::ENOENT);
    };
    // Whatever else has taken the memory over since goes on using it.
    if value::buffer_start(env, buffer) != region.mapping.start().as_ptr() {
        return value::failure(env, Errno::ENOENT);
    }
    // SAFETY: the value is live in the current scope.
    let status = unsafe { sys::napi_detach_arraybuffer(env, buffer) };
    let file = region.file.take();
    let (sys::Status::napi_ok, Some(file)) = (status, file) else {
        return value::failure(env, Errno::EBUSY);
    };
    let sealed = region.mapping.vacate().and_then(|()| sealed::seal(&file));
    descriptor_or_errno(env, sealed.map(|()| file))
}

/// Takes an ArrayBuffer's memory away from it, which goes back to where it came from when the event
/// loop comes to it; whether that could be done.
unsafe extern "C" fn detach(env: napi_env, info: napi_callback_info) -> napi_value {
    let [buffer] = value::arguments(env, info);
    // SAFETY: the value is live in the current scope.
    let status = unsafe { sys::napi_detach_arraybuffer(env, buffer) };
    value::boolean(env, status == sys::Status::napi_ok)
}

fn descriptor_or_errno(env: napi_env, file: Result<OwnedFd, Errno>) -> napi_value {
    value::outcome(env, file.map(IntoRawFd::into_raw_fd))
}

/// An ArrayBuffer of memory that `owner` keeps until it is collected; the owner when the
/// environment allows none.
pub fn external<T>(
    env: napi_env,
    start: *mut c_void,
    len: usize,
    owner: Box<T>,
) -> Result<napi_value, Box<T>> {
    unsafe extern "C" fn finalize<T>(_env: napi_env, _data: *mut c_void, hint: *mut c_void) {
        // SAFETY: the box given to napi_create_external_arraybuffer, taken back once.
        drop(unsafe { Box::from_raw(hint.cast::<T>()) });
    }
    let (mut result, hint) = (ptr::null_mut(), Box::into_raw(owner));
    // SAFETY: the memory is valid until the finalizer drops its owner.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            env,
            start,
            len,
            Some(finalize::<T>),
            hint.cast(),
            &mut result,
        )
    };
    if status == sys::Status::napi_ok {
        return Ok(result);
    }
    debug_assert!(status == NO_EXTERNAL_BUFFERS || result.is_null());
    // SAFETY: nothing was created, so the finalizer will not run.
    Err(unsafe { Box::from_raw(hint) })
}

fn new_copy(env: napi_env, bytes: &[u8]) -> napi_value {
    match new_buffer(env, bytes.len()) {
        Err(errno) => value::failure(env, errno),
        Ok((buffer, room)) => {
            room.copy_from_slice(bytes);
            buffer
        }
    }
}

/// A new ArrayBuffer in V8's own memory, and its bytes, which are the caller's until JavaScript runs.
fn new_buffer<'a>(env: napi_env, len: usize) -> Result<(napi_value, &'a mut [u8]), Errno> {
    let (mut data, mut buffer) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: plain out-parameters.
    let status = unsafe { sys::napi_create_arraybuffer(env, len, &mut data, &mut buffer) };
    if status != sys::Status::napi_ok {
        return Err(Errno::ENOMEM);
    }
    if len == 0 {
        return Ok((buffer, &mut []));
    }
    // SAFETY: as many zeroed bytes, which live as long as the handle that keeps them.
    let bytes = unsafe { slice::from_raw_parts_mut(data.cast(), len) };
    Ok((buffer, bytes))
}

/// Has V8 collect all garbage now. What ArrayBuffers of it lie in comes back in a later turn of the
/// event loop.
pub fn collect_garbage(env: napi_env) {
    // More than V8 bears to be told of without doing something about it.
    const PLENTY: i64 = 1 << 40;
    for change in [PLENTY, -PLENTY] {
        let mut total = 0;
        // SAFETY: plain numbers; nothing of JavaScript's runs.
        unsafe { sys::napi_adjust_external_memory(env, change, &mut total) };
    }
}
