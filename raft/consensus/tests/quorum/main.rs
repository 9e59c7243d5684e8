//! Quorums of real nodes in one process, over real sockets and files.

mod failover;
mod ports;
mod snapshots;
mod soak;
mod world;
