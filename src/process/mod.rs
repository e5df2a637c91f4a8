//! Child processes in plain Rust: a command becomes a running child, its end is noticed by
//! descriptor, a whole run can be waited for, a tree can be killed. Event loops and JavaScript
//! values belong to `binding`, system calls to `sys`.

mod candidates;
mod child;
mod command;
mod launcher;
mod limits;
mod orphans;
mod spawn;
pub mod sync;
pub mod tree;

#[cfg(test)]
mod tests;

pub use crate::sys::pidfd::{Ended, Status};
pub use child::Child;
pub use command::{Command, Environment, Stdio};
pub use limits::Limits;
pub use orphans::count as orphan_count;
pub use spawn::{CHANNEL_ROOM, Failed, Spawned, spawn, spawn_in_background};
