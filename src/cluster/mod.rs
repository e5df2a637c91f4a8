//! Handing connections to workers: the decisions, without Node and without system calls.

pub mod scheduler;
