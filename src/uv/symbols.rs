//! libuv's functions, looked up in the running binary: Node exports them, and linking to a libuv
//! of our own would mean a second, foreign event loop. All are there, or the table is `None`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

/// `uv_handle_type` of a poll handle (libuv's uv.h, unchanged since 1.0).
pub(super) const UV_POLL: c_int = 8;
/// That of a check handle.
pub(super) const UV_CHECK: c_int = 2;
/// That of a prepare handle.
pub(super) const UV_PREPARE: c_int = 9;

pub(super) type PollCallback = unsafe extern "C" fn(*mut c_void, c_int, c_int);
pub(super) type PhaseCallback = unsafe extern "C" fn(*mut c_void);
pub(super) type CloseCallback = unsafe extern "C" fn(*mut c_void);

/// Those of a handle that is called in one phase of each turn of the loop.
#[derive(Clone, Copy)]
pub(super) struct PhaseFunctions {
    pub(super) init: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
    pub(super) start: unsafe extern "C" fn(*mut c_void, PhaseCallback) -> c_int,
    pub(super) stop: unsafe extern "C" fn(*mut c_void) -> c_int,
}

/// The libuv functions brood calls. Handles and loops are opaque blocks of memory here: their
/// layout belongs to the libuv inside the running binary.
pub struct Symbols {
    pub(super) handle_size: unsafe extern "C" fn(c_int) -> usize,
    pub(super) handle_get_data: unsafe extern "C" fn(*const c_void) -> *mut c_void,
    pub(super) handle_set_data: unsafe extern "C" fn(*mut c_void, *mut c_void),
    pub(super) poll_init: unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> c_int,
    pub(super) poll_start: unsafe extern "C" fn(*mut c_void, c_int, PollCallback) -> c_int,
    pub(super) poll_stop: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(super) prepare: PhaseFunctions,
    pub(super) check: PhaseFunctions,
    pub(super) backend_fd: unsafe extern "C" fn(*const c_void) -> c_int,
    pub(super) backend_timeout: unsafe extern "C" fn(*const c_void) -> c_int,
    pub(super) close: unsafe extern "C" fn(*mut c_void, CloseCallback),
    pub(super) reference: unsafe extern "C" fn(*mut c_void),
    pub(super) unreference: unsafe extern "C" fn(*mut c_void),
    version_string: unsafe extern "C" fn() -> *const c_char,
}

impl Symbols {
    /// The version of the libuv inside the running binary, such as `1.51.0`.
    pub fn version(&self) -> String {
        // SAFETY: uv_version_string returns a static NUL-terminated string.
        let version = unsafe { CStr::from_ptr((self.version_string)()) };
        version.to_string_lossy().into_owned()
    }
}

/// The table, or `None` where the running binary does not export all of it.
pub fn symbols() -> Option<&'static Symbols> {
    static TABLE: OnceLock<Option<Symbols>> = OnceLock::new();
    TABLE.get_or_init(load).as_ref()
}

// The annotation clippy asks for would repeat each field's type.
#[allow(clippy::missing_transmute_annotations)]
fn load() -> Option<Symbols> {
    macro_rules! symbol {
        ($name:literal) => {{
            let address = lookup($name)?;
            // SAFETY: the symbol has the C signature of the field it is stored in (uv.h).
            unsafe { std::mem::transmute(address) }
        }};
    }
    Some(Symbols {
        handle_size: symbol!(c"uv_handle_size"),
        handle_get_data: symbol!(c"uv_handle_get_data"),
        handle_set_data: symbol!(c"uv_handle_set_data"),
        poll_init: symbol!(c"uv_poll_init"),
        poll_start: symbol!(c"uv_poll_start"),
        poll_stop: symbol!(c"uv_poll_stop"),
        prepare: PhaseFunctions {
            init: symbol!(c"uv_prepare_init"),
            start: symbol!(c"uv_prepare_start"),
            stop: symbol!(c"uv_prepare_stop"),
        },
        check: PhaseFunctions {
            init: symbol!(c"uv_check_init"),
            start: symbol!(c"uv_check_start"),
            stop: symbol!(c"uv_check_stop"),
        },
        backend_fd: symbol!(c"uv_backend_fd"),
        backend_timeout: symbol!(c"uv_backend_timeout"),
        close: symbol!(c"uv_close"),
        reference: symbol!(c"uv_ref"),
        unreference: symbol!(c"uv_unref"),
        version_string: symbol!(c"uv_version_string"),
    })
}

fn lookup(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is NUL-terminated and RTLD_DEFAULT needs no handle.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
