//! Numbers that nobody outside the process can guess.

use std::hash::{BuildHasher, RandomState};

/// 128 bits: the standard library keys its hashers from the system's source.
pub fn secret() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}
