//! The only libuv FFI: a table of the functions we use, taken from the host binary at run time,
//! and its handles as owned values. Which descriptors are watched, and what is done when one is
//! ready, is decided above.

mod handle;
mod phase;
mod poll;
mod prepare;
mod symbols;
mod timer;

pub use handle::Loop;
pub use phase::Phase;
pub use poll::{Poll, Readiness};
pub use prepare::{Prepare, Seen};
pub use symbols::{Symbols, symbols};
pub use timer::Timer;
