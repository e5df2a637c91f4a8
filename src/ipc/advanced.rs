//! advanced
