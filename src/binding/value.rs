//! Small helpers around raw Node-API values for the functions on the hot path. What JavaScript
//! passes here comes from `lib/`, which has validated it: a wrong type reads as a default.

use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

use napi::sys::{self, napi_callback_info, napi_env, napi_value};
use napi::{Result, check_status};
use nix::errno::Errno;

/// Adds a raw function to the module's exports.
pub fn export(
    env: napi_env,
    exports: napi_value,
    name: &str,
    function: sys::napi_callback,
) -> Result<()> {
    let mut value = ptr::null_mut();
    let length = name.len() as isize;
    // SAFETY: env and exports are live for the length of module registration.
    check_status!(unsafe {
        sys::napi_create_function(
            env,
            name.as_ptr().cast(),
            length,
            function,
            ptr::null_mut(),
            &mut value,
        )
    })?;
    set_property(env, exports, name, value)
}

/// Adds a string to the module's exports.
pub fn export_string(env: napi_env, exports: napi_value, name: &str, text: &str) -> Result<()> {
    set_property(env, exports, name, string(env, text.as_bytes(), true))
}

/// Sets a property of an object.
pub fn set_property(
    env: napi_env,
    object: napi_value,
    name: &str,
    value: napi_value,
) -> Result<()> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the values are live in the current scope; the name is NUL-terminated.
    check_status!(unsafe { sys::napi_set_named_property(env, object, name.as_ptr(), value) })
}

/// The arguments of a call; missing ones are `undefined`.
pub fn arguments<const N: usize>(env: napi_env, info: napi_callback_info) -> [napi_value; N] {
    let mut values = [ptr::null_mut(); N];
    let mut count = N;
    // SAFETY: `values` has room for `count` values; Node-API fills missing ones with undefined.
    unsafe {
        sys::napi_get_cb_info(
            env,
            info,
            &mut count,
            values.as_mut_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
        );
    }
    values
}

/// A number as `i32`, 0 when it is none.
pub fn get_i32(env: napi_env, value: napi_value) -> i32 {
    let mut result = 0;
    // SAFETY: a value of another type leaves `result` alone.
    unsafe { sys::napi_get_value_int32(env, value, &mut result) };
    result
}

/// A number as `f64`, 0 when it is none.
pub fn get_f64(env: napi_env, value: napi_value) -> f64 {
    let mut result = 0.0;
    // SAFETY: a value of another type leaves `result` alone.
    unsafe { sys::napi_get_value_double(env, value, &mut result) };
    result
}

/// A boolean, `false` when it is none.
pub fn get_bool(env: napi_env, value: napi_value) -> bool {
    let mut result = false;
    // SAFETY: a value of another type leaves `result` alone.
    unsafe { sys::napi_get_value_bool(env, value, &mut result) };
    result
}

/// The type of a value.
pub fn type_of(env: napi_env, value: napi_value) -> sys::napi_valuetype {
    let mut result = sys::ValueType::napi_undefined;
    // SAFETY: the value is live in the current scope.
    unsafe { sys::napi_typeof(env, value, &mut result) };
    result
}

/// Strings of more units than this are measured: room for the worst case would cost more.
const MEASURED: usize = 64 * 1024;

/// An upper bound for the UTF-8 length of a string, with the NUL that [`write_string`] appends:
/// three bytes for each UTF-16 unit, whose number V8 has at hand; the exact length of a long one.
pub fn string_bound(env: napi_env, value: napi_value) -> usize {
    let mut units = 0;
    // SAFETY: a null buffer asks for the length only.
    unsafe { sys::napi_get_value_string_utf16(env, value, ptr::null_mut(), 0, &mut units) };
    if units <= MEASURED {
        return units * 3 + 1;
    }
    let mut bytes = 0;
    // SAFETY: as above.
    unsafe { sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut bytes) };
    bytes + 1
}

/// How many UTF-16 units a string has, and how many bytes as UTF-8. Where the two are the same it is
/// ASCII.
pub fn string_sizes(env: napi_env, value: napi_value) -> (usize, usize) {
    let (mut units, mut bytes) = (0, 0);
    // SAFETY: a null buffer asks for the length only.
    unsafe {
        sys::napi_get_value_string_utf16(env, value, ptr::null_mut(), 0, &mut units);
        sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut bytes);
    }
    (units, bytes)
}

/// Writes a string that is ASCII and a NUL into `room`, several times as fast as
/// [`write_string`]; returns its length without the NUL.
pub fn write_ascii(env: napi_env, value: napi_value, room: &mut [u8]) -> usize {
    let mut written = 0;
    // SAFETY: the pointer and length describe `room`.
    unsafe {
        let data = room.as_mut_ptr().cast();
        sys::napi_get_value_string_latin1(env, value, data, room.len(), &mut written);
    }
    written
}

/// Writes a string's UTF-8 and a NUL into `room`, which has [`string_bound`] bytes, and returns
/// its length without the NUL.
pub fn write_string(env: napi_env, value: napi_value, room: &mut [u8]) -> usize {
    let mut written = 0;
    // SAFETY: the pointer and length describe `room`.
    unsafe {
        let data = room.as_mut_ptr().cast();
        sys::napi_get_value_string_utf8(env, value, data, room.len(), &mut written);
    }
    written
}

/// Appends a string's UTF-8 to `bytes` and returns how many bytes it added.
pub fn append_string(env: napi_env, value: napi_value, bytes: &mut Vec<u8>) -> usize {
    let start = bytes.len();
    bytes.resize(start + string_bound(env, value), 0);
    let written = write_string(env, value, &mut bytes[start..]);
    bytes.truncate(start + written);
    written
}

/// Where the bytes of an ArrayBuffer begin; null for anything else.
pub fn buffer_start(env: napi_env, value: napi_value) -> *mut c_void {
    let (mut data, mut length) = (ptr::null_mut(), 0);
    // SAFETY: a value of another type leaves `data` alone.
    unsafe { sys::napi_get_arraybuffer_info(env, value, &mut data, &mut length) };
    data
}

/// The bytes behind an `ArrayBufferView`, or `None` for anything else.
///
/// # Safety
/// No JavaScript may run while the slice lives: it could detach or resize the buffer.
pub unsafe fn view_bytes<'a>(env: napi_env, value: napi_value) -> Option<&'a mut [u8]> {
    let mut is_view = false;
    let mut data: *mut c_void = ptr::null_mut();
    let mut length = 0;
    // SAFETY: each call checks the type of the value it is given.
    unsafe {
        sys::napi_is_typedarray(env, value, &mut is_view);
        if is_view {
            let mut kind = 0;
            let (no_buffer, no_offset) = (ptr::null_mut(), ptr::null_mut());
            sys::napi_get_typedarray_info(
                env,
                value,
                &mut kind,
                &mut length,
                &mut data,
                no_buffer,
                no_offset,
            );
            length *= element_size(kind);
        } else {
            sys::napi_is_dataview(env, value, &mut is_view);
            if !is_view {
                return None;
            }
            let (no_buffer, no_offset) = (ptr::null_mut(), ptr::null_mut());
            sys::napi_get_dataview_info(env, value, &mut length, &mut data, no_buffer, no_offset);
        }
    }
    if length == 0 || data.is_null() {
        return Some(&mut []);
    }
    // SAFETY: Node-API reported this region; the caller keeps JavaScript from running.
    Some(unsafe { std::slice::from_raw_parts_mut(data.cast(), length) })
}

fn element_size(kind: sys::napi_typedarray_type) -> usize {
    match kind {
        sys::TypedarrayType::int16_array | sys::TypedarrayType::uint16_array => 2,
        sys::TypedarrayType::int32_array
        | sys::TypedarrayType::uint32_array
        | sys::TypedarrayType::float32_array => 4,
        sys::TypedarrayType::float64_array
        | sys::TypedarrayType::bigint64_array
        | sys::TypedarrayType::biguint64_array => 8,
        _ => 1,
    }
}

/// A JavaScript number.
pub fn number(env: napi_env, value: f64) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: creates a value in the current scope.
    unsafe { sys::napi_create_double(env, value, &mut result) };
    result
}

/// A JavaScript integer.
pub fn integer(env: napi_env, value: i32) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: creates a value in the current scope.
    unsafe { sys::napi_create_int32(env, value, &mut result) };
    result
}

/// A JavaScript boolean.
pub fn boolean(env: napi_env, value: bool) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: looks up a singleton.
    unsafe { sys::napi_get_boolean(env, value, &mut result) };
    result
}

/// `undefined`.
pub fn undefined(env: napi_env) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: looks up a singleton.
    unsafe { sys::napi_get_undefined(env, &mut result) };
    result
}

/// A string from UTF-8; bytes that are not UTF-8 become U+FFFD, as Node's decoder has it. Text
/// known to be ASCII takes V8's one-byte path.
pub fn string(env: napi_env, bytes: &[u8], ascii: bool) -> napi_value {
    let mut result = ptr::null_mut();
    let (data, length) = (bytes.as_ptr().cast(), bytes.len() as isize);
    // SAFETY: data and length describe a live slice.
    unsafe {
        if ascii {
            sys::napi_create_string_latin1(env, data, length, &mut result);
        } else {
            sys::napi_create_string_utf8(env, data, length, &mut result);
        }
    }
    result
}

/// A negative errno, the way every binding function reports a failure.
pub fn failure(env: napi_env, error: Errno) -> napi_value {
    integer(env, -(error as i32))
}

/// What a call has come to: a number, or a negative errno.
pub fn outcome(env: napi_env, result: std::result::Result<i32, Errno>) -> napi_value {
    match result {
        Ok(number) => integer(env, number),
        Err(errno) => failure(env, errno),
    }
}

/// An array of the given values.
pub fn array(env: napi_env, items: impl Iterator<Item = napi_value>) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: creates a value in the current scope, then fills it with live ones.
    unsafe {
        sys::napi_create_array(env, &mut result);
        for (index, item) in items.enumerate() {
            sys::napi_set_element(env, result, index as u32, item);
        }
    }
    result
}

/// A Buffer with a copy of `bytes`.
pub fn buffer_copy(env: napi_env, bytes: &[u8]) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: the pointer and length describe a live slice, which is copied.
    unsafe {
        let data = bytes.as_ptr().cast();
        sys::napi_create_buffer_copy(env, bytes.len(), data, ptr::null_mut(), &mut result);
    }
    result
}

/// A property of an object, unless it is undefined or null.
pub fn get_property(env: napi_env, object: napi_value, name: &CStr) -> Option<napi_value> {
    let mut result = ptr::null_mut();
    // SAFETY: the object is live in the current scope; the name is NUL-terminated.
    let status = unsafe { sys::napi_get_named_property(env, object, name.as_ptr(), &mut result) };
    let is_there = status == sys::Status::napi_ok
        && !matches!(
            type_of(env, result),
            sys::ValueType::napi_undefined | sys::ValueType::napi_null
        );
    is_there.then_some(result)
}

/// The elements of an array; none of anything else.
pub fn elements(env: napi_env, array: napi_value) -> Vec<napi_value> {
    let mut length = 0;
    // SAFETY: anything but an array leaves the length at 0; the array is live in this scope.
    unsafe {
        sys::napi_get_array_length(env, array, &mut length);
        (0..length)
            .map(|index| {
                let mut element = ptr::null_mut();
                sys::napi_get_element(env, array, index, &mut element);
                element
            })
            .collect()
    }
}

/// `null`.
pub fn null(env: napi_env) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: looks up a singleton.
    unsafe { sys::napi_get_null(env, &mut result) };
    result
}

/// A new object with these properties.
pub fn object<const N: usize>(env: napi_env, properties: [(&CStr, napi_value); N]) -> napi_value {
    let mut result = ptr::null_mut();
    // SAFETY: creates a value in the current scope, then fills it with live ones.
    unsafe {
        sys::napi_create_object(env, &mut result);
        for (name, value) in properties {
            sys::napi_set_named_property(env, result, name.as_ptr(), value);
        }
    }
    result
}

/// A JavaScript value that is kept; empty at first. Used on its environment's thread only.
#[derive(Default)]
pub struct Reference(Cell<Option<(napi_env, NonNull<sys::napi_ref__>)>>);

impl Reference {
    /// Keeps `value` from now on.
    pub fn set(&self, env: napi_env, value: napi_value) {
        self.clear();
        let mut reference = ptr::null_mut();
        // SAFETY: the value is live in the current scope.
        unsafe { sys::napi_create_reference(env, value, 1, &mut reference) };
        self.0
            .set(NonNull::new(reference).map(|reference| (env, reference)));
    }

    /// The value; null (which is no JavaScript value) when there is none.
    pub fn get(&self, env: napi_env) -> napi_value {
        let mut result = ptr::null_mut();
        if let Some((_, reference)) = self.0.get() {
            // SAFETY: the reference is live until `clear`.
            unsafe { sys::napi_get_reference_value(env, reference.as_ptr(), &mut result) };
        }
        result
    }

    /// Keeps nothing any more.
    pub fn clear(&self) {
        if let Some((env, reference)) = self.0.take() {
            // SAFETY: created by `set`, deleted once, on the environment's thread.
            unsafe { sys::napi_delete_reference(env, reference.as_ptr()) };
        }
    }
}
