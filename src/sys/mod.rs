//! The system's interface where the standard library and nix do not reach: the only `unsafe`
//! beside libuv's and Node-API's.

pub mod descriptor;
pub mod exit;
pub mod socket;
