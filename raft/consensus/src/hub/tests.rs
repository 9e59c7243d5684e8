//! Groups against a reference: whatever readers do, every watch gets exactly its events.

mod bench;
mod random;
mod scenes;
mod world;
