//! The face over a quorum of one in memory, asked by the generated clients.

mod elections;
mod http;
mod keys;
mod leases;
mod limits;
mod transactions;
mod watches;
mod world;
