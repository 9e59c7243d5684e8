//! Quorums of real nodes in one process, over real sockets and files.

#![allow(clippy::unwrap_used)] // a test that can't unwrap has failed

mod failover;
mod ports;
mod restart;
mod snapshots;
mod soak;
mod world;

/// As the node allocates, so that what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
