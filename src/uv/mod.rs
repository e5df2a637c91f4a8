//! The only libuv FFI: a table of the functions we use, taken from the host binary at run time,
//! and [`Poll`], a `uv_poll_t` as an owned value. Which descriptors are watched, and what is done
//! when one is ready, is decided above.

mod poll;
mod symbols;

pub use poll::{Loop, Poll, Readiness};
pub use symbols::{Symbols, symbols};
