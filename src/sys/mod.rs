//! Below everything else: the system calls neither the standard library nor nix offers in the form
//! we need, behind safe functions. It decides nothing: what to launch, watch or signal, and what
//! to do about a failure, is said above.

pub mod area;
pub mod block;
pub mod descriptor;
pub mod environ;
pub mod exit;
pub mod features;
pub mod launch;
pub mod listener;
pub mod null;
pub mod pidfd;
pub mod scheduling;
pub mod sealed;
pub mod shared_memory;
pub mod socket;
pub mod spare;
pub mod strings;
pub mod tcp;

mod child;
mod low;
mod stack;
