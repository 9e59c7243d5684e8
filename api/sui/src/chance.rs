//! Chance for the pauses of many nodes, so that they don't all come back at once. No secret.

use std::hash::{BuildHasher as _, RandomState};

/// Any number.
pub(crate) fn draw() -> u64 {
    // Each state has keys of its own.
    RandomState::new().hash_one(0_u8)
}
