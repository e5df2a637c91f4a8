//! brood's native half. Layers point one way: `binding` (the only code that knows Node-API) uses
//! `process`, `ipc` and `cluster` (plain Rust), which use `uv` and `sys` (the only FFI).

pub mod cluster;
pub mod ipc;
pub mod process;
pub mod sys;
pub mod uv;

// Only Node can load it: unit tests do without.
#[cfg(not(test))]
mod binding;
