//! The face over real sockets and a one-node quorum in memory: one promise a test.

#![allow(
    clippy::unwrap_used,
    reason = "a test's world either stands or the test fails"
)]

mod access;
mod accounts;
mod admission;
mod aggregation;
mod answers;
mod apply;
mod audit;
mod certificates;
mod connects;
mod control;
mod conversion;
mod definitions;
mod devices;
mod discovery;
mod fairness;
mod forms;
mod joining;
mod kinds;
mod lifetimes;
mod lists;
mod namespaces;
mod network;
mod oidc;
mod owners;
mod policies;
mod receipts;
mod removal;
mod rights;
mod safety;
mod services;
mod watches;
mod webhooks;
mod world;
mod writes;
