//! How connections come to a cluster's workers. Plain Rust without `unsafe`; the system calls are
//! in `sys`, the policy (events, options, what a worker does with a connection) in `binding` and
//! `lib/cluster`.

mod connection;
mod gather;
mod lane_link;
mod listening;
mod outcome;
mod stock;
mod stock_link;
mod watch;
mod worker;

pub mod dispatcher;
pub mod lane;
pub mod receiver;
pub mod relay;
pub mod scheduler;
pub mod scoreboard;
pub mod thread;

pub use worker::WorkerStats;

#[cfg(test)]
mod lane_tests;
#[cfg(test)]
mod permit_tests;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod stock_tests;
