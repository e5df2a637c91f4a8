//! sys

pub mod socket;
