//! How connections come to a cluster's workers. Plain Rust without `unsafe`; the system calls are
//! in `sys`, the policy (events, options, what a worker does with a connection) in `binding` and
//! `lib/cluster`.

pub mod lane;
pub mod receiver;
pub mod scheduler;
pub mod scoreboard;
